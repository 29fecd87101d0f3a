"""What can be reached from an object: which variables, layers and optimizers hang on it.

References are followed as Python's garbage collector sees them, independently of how a model is
copied. Not followed are modules, classes, the globals of functions, and tensors, which can't
change; nor the calls of a layer, which lead to other models that call it, too.
"""

from __future__ import annotations

import gc
import inspect
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import keras

from graphwd.live import _keras, backends

_ENDS = (
    *(type(None), bool, int, float, str, bytes, complex, type, types.ModuleType, types.CodeType),
    *(types.FrameType, types.BuiltinFunctionType, inspect.Signature),
)
STATEFUL: Any = (
    *(keras.Variable, keras.Operation, keras.optimizers.Optimizer, keras.Metric),
    *(keras.random.SeedGenerator, *_keras.TRACKED),
)
"""What a model and its copy must not share."""

_ends: set[type] = set()
_others: dict[type, tuple[bool, Callable[[Any], Iterable[Any]] | None]] = {}
"""Of each class whether it is stateful, and what leads on from it, where that is less than all."""


def holds(value: Any) -> bool:
    """Whether a variable, a layer or the like can be reached from an object."""
    if isinstance(value, types.FunctionType):  # most hold a method of the layer itself
        for cell in value.__closure__ or ():
            if cell != _EMPTY and isinstance(
                getattr(cell.cell_contents, "__self__", None), keras.Operation
            ):
                return True
    return bool(_reached([value], first=True, inside=False))


def held(value: Any) -> list[Any]:
    """The variables, layers and the like that an object leads to, without those inside of them."""
    found = _reached([value], first=False, inside=False)
    if found and found[0] is value:  # which is a module of PyTorch's with a __deepcopy__, say
        return _reached(gc.get_referents(value), first=False, inside=False)
    return found


def everything(*roots: Any) -> list[Any]:
    """All variables, layers, optimizers, tracked containers and the like that objects lead to."""
    return _reached(roots, first=False, inside=True)


def _reached(roots: Iterable[Any], *, first: bool, inside: bool) -> list[Any]:
    """Goes from objects to what they refer to, all of a distance at a time, which is quick."""
    found: list[Any] = []
    seen: dict[int, Any] = {}
    reached: list[Any] = list(roots)
    while reached:
        # What the collector does not track can't lead on: most numbers, and empty containers.
        tracked = filter(gc.is_tracked, reached)
        new = {id(value): value for value in tracked if type(value) not in _ends}
        open_ends: list[Any] = []
        reached = []
        for place in new.keys() - seen.keys():
            value = new[place]
            known = _others.get(type(value))
            if known is None:
                if _is_end(type(value)):
                    continue
                known = _others[type(value)]
            stateful, onward = known
            seen[place] = value
            if stateful:
                found.append(value)
                if first:
                    return found
                if not inside:
                    continue
            if onward is None:
                open_ends.append(value)
            else:
                reached += onward(value)
        reached += gc.get_referents(*open_ends)
    return found


def _is_end(cls: type) -> bool:
    """Sorts a class in: objects of it are not looked into, or are stateful, or are neither."""
    if issubclass(cls, (*_ENDS, _keras.Node, *backends.unchanging_types())):
        _ends.add(cls)
        return True
    onward = next((way for base, way in _ONWARD.items() if issubclass(cls, base)), None)
    _others[cls] = issubclass(cls, (*STATEFUL, *backends.state_types())), onward
    return False


_EMPTY = types.CellType()
_ONWARD: dict[Any, Callable[[Any], Iterable[Any]]] = {
    types.FunctionType: lambda function: (
        *(function.__closure__, function.__defaults__, function.__kwdefaults__),
        vars(function),
    ),
    weakref.ReferenceType: lambda reference: (reference(),),
    keras.Function: lambda graph: (*gc.get_referents(graph), *_keras.constants_of(graph)),
    _keras.Tracker: _keras.stores,
}
