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
        found = _reached(gc.get_referents(value), first=False, inside=False)
    return [each for each in found if each is not value]


def everything(root: Any, *, weakly: bool = False) -> list[Any]:
    """All variables, layers, optimizers, tracked containers and the like that an object keeps.

    With `weakly` also those to which it has weak references, without what these lead to.
    """
    targets: list[Any] = []
    found = _reached([root], first=False, inside=True, targets=targets)
    return found + [each for each in targets if isinstance(each, _stateful_types())] * weakly


def kept(root: Any) -> dict[int, Any]:
    """All objects that an object keeps alive, which weak references do not, by their ids."""
    seen: dict[int, Any] = {}
    _reached([root], first=False, inside=True, targets=[], seen=seen)
    return seen


def target(reference: Any) -> Any:
    """What a weak reference, or a proxy, refers to; `None` if that is gone."""
    try:
        return reference() if isinstance(reference, weakref.ref) else reference.__repr__.__self__
    except ReferenceError:
        return None


def _reached(
    roots: Iterable[Any],
    *,
    first: bool,
    inside: bool,
    targets: list[Any] | None = None,
    seen: dict[int, Any] | None = None,
) -> list[Any]:
    """Goes from objects to what they refer to, all of a distance at a time, which is quick.

    What weak references refer to is put among `targets`, if these are asked for.
    """
    found: list[Any] = []
    seen = {} if seen is None else seen
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
            elif onward is _referred and targets is not None:
                targets += onward(value)
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
    _others[cls] = issubclass(cls, _stateful_types()), onward
    return False


def _stateful_types() -> tuple[type, ...]:
    return (*STATEFUL, *backends.state_types())


def _referred(reference: Any) -> tuple[Any, ...]:
    referred = target(reference)
    return (getattr(referred, "__self__", referred),)  # a method is made anew each time


_EMPTY = types.CellType()
_ONWARD: dict[Any, Callable[[Any], Iterable[Any]]] = {
    types.FunctionType: lambda function: (
        *(function.__closure__, function.__defaults__, function.__kwdefaults__),
        vars(function),
    ),
    weakref.ReferenceType: _referred,
    weakref.ProxyType: _referred,
    weakref.CallableProxyType: _referred,
    keras.Function: lambda graph: (*gc.get_referents(graph), *_keras.constants_of(graph)),
    _keras.Tracker: _keras.stores,
}
