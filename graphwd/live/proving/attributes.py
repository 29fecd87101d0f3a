"""Compares two objects by their public attributes: what a layer is, beyond what its config says.

Plain values must be equal, arrays have the same bits, functions be the same or of the same code;
layers and variables are paired elsewhere, and here only must be of the same class.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import keras
import numpy as np

from graphwd.graph.slots import SUFFIX
from graphwd.live import _keras, backends
from graphwd.live.carrying import carrier

_PAIRED: Any = (
    *(keras.Operation, keras.Variable, keras.Metric),
    *(keras.random.SeedGenerator, keras.KerasTensor),
)
_CONFIGURED: Any = (keras.initializers.Initializer, keras.constraints.Constraint)
_REGULARIZERS: Any = (keras.regularizers.Regularizer, type(None))
_RUNNING = ("history", "train_function", "test_function", "predict_function", "stop_training")
_NAMES = ("name", "input_names", "output_names")  # which the graph's comparison translates
_WRAPPED = ("build", "quantize")  # of which Keras gives each layer its own
_ATOMS = (str, int, float, complex, bytes, type(None))


class ObjectComparison:
    """A comparison of two models' objects.

    Attributes:
        variables: Pairs of the variables that an optimizer may decay.
        partners: Maps the ids of one model's layers and variables to those of the other's.
    """

    def __init__(
        self, variables: Sequence[tuple[Any, Any]] = (), partners: Mapping[int, int] | None = None
    ) -> None:
        self.variables = variables
        self.partners = partners or {}
        self._seen: set[tuple[int, int]] = set()

    def differences(self, ours: Any, theirs: Any) -> Iterator[str]:
        """Yields the names of the public attributes in which two objects differ."""
        held, kept = _public(ours), _public(theirs)
        for name in {**held, **kept}:
            if name in held and name in kept:
                same = self.same(held[name], kept[name])
            else:  # loading sets flags that are not there before
                same = held.get(name, kept.get(name)) in (None, False)
            if not same:
                yield name
        for name, (mine, its) in _keras.modes(ours, theirs).items():
            if not self.same(mine, its):
                yield name

    def same(self, one: Any, other: Any) -> bool:
        """Whether two values mean the same."""
        if one is other or (id(one), id(other)) in self._seen:
            return True
        if isinstance(one, _REGULARIZERS) and isinstance(other, _REGULARIZERS):
            return True  # compared with the plan, wherever they are kept
        if not same_class(type(one), type(other)):
            return False
        if isinstance(one, _ATOMS):
            return bool(one == other or one != one)  # or neither is a number
        self._seen.add((id(one), id(other)))
        if isinstance(one, keras.Variable) and id(one) not in self.partners:
            return backends.same_bits(one, other)  # of no layer: in a plain object, say
        if isinstance(one, _PAIRED):
            return True
        state = backends.module_state(one)
        if state is not None and not self.same(state, backends.module_state(other)):
            return False
        if isinstance(one, _CONFIGURED):  # an initializer without a seed draws one for itself
            return self._same_objects(one, other) or bool(one.get_config() == other.get_config())
        if isinstance(one, keras.optimizers.Optimizer):
            return not any(self.optimizer_differences(one, other))
        if isinstance(one, np.ndarray) and one.dtype.hasobject:
            return one.shape == other.shape and self.same(one.tolist(), other.tolist())
        if keras.ops.is_tensor(one) or isinstance(one, np.ndarray):
            return _same_values(one, other)
        if isinstance(one, Mapping):
            keys = {key: self._partner(key) for key in one}
            return len(one) == len(other) and all(
                self.same(one[key], other[its]) if its in other else _is_stateful(key)
                for key, its in keys.items()
            )
        if isinstance(one, (list, tuple)):
            return len(one) == len(other) and all(map(self.same, one, other))
        if isinstance(one, Set):
            return len(one) == len(other) and all(
                self._partner(item) in other or _is_stateful(item) for item in one
            )
        parts = _parts(one)
        if parts is not None:
            return self.same(parts, _parts(other))
        return self._same_objects(one, other)

    def optimizer_differences(self, ours: Any, theirs: Any) -> Iterator[str]:
        """Yields in what two optimizers differ: settings, state, and which weights they decay."""
        if not same_class(type(ours), type(theirs)):
            yield "is of another class"
            return
        for name in _public(ours):
            if not self.same(_public(ours)[name], _public(theirs).get(name)):
                yield f"has another {name}"
        if len(ours.variables) != len(theirs.variables):
            yield "has other variables"
            return
        for source, target in zip(ours.variables, theirs.variables, strict=True):
            if not backends.same_bits(source, target):
                yield f"has other values in {source.name}"
        if getattr(ours, "weight_decay", None) is not None:
            for source, target in self.variables:
                if _keras.is_decayed(ours, source) != _keras.is_decayed(theirs, target):
                    verb = "decays" if _keras.is_decayed(theirs, target) else "does not decay"
                    yield f"{verb} {source.path}"

    def _partner(self, key: Any) -> Any:
        """The key in the other model: that of an object's id is the id of its counterpart."""
        if type(key) is tuple:
            return tuple(map(self._partner, key))
        return self.partners.get(key, key) if type(key) is int else key

    def _same_objects(self, one: Any, other: Any) -> bool:
        if not hasattr(one, "__dict__"):
            return True
        mine, its = _public(one), _public(other)
        return mine.keys() == its.keys() and all(self.same(mine[key], its[key]) for key in mine)


def same_class(one: type, other: type) -> bool:
    """Whether two classes are the same, or one that a notebook's cell has defined twice."""
    one, other = carrier.base_class(one), carrier.base_class(other)
    return one is other or (one.__module__, one.__qualname__) == (
        other.__module__,
        other.__qualname__,
    )


def _public(value: Any) -> dict[str, Any]:
    return {
        name: held
        for name, held in vars(value).items()
        if name[0] != "_"
        and not name.endswith(SUFFIX)
        and name not in (*_RUNNING, *_NAMES)
        and name not in _WRAPPED
    }


def _parts(value: Any) -> Any:
    """What a function is made of; `None` for other objects."""
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
        code = value.__code__
        constants = [each for each in code.co_consts if not isinstance(each, types.CodeType)]
        return [code.co_code, code.co_names, constants, value.__defaults__, cells]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return None


def _same_values(one: Any, other: Any) -> bool:
    if not backends.has_values(one) or not backends.has_values(other):
        return tuple(one.shape) == tuple(other.shape) and one.dtype == other.dtype
    a, b = (np.asarray(keras.ops.convert_to_numpy(value)) for value in (one, other))
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(a.tobytes() == b.tobytes())


def _is_stateful(key: Any) -> bool:
    """Whether a key of a dict is a layer or the like, or has one, whose copy is another key."""
    if isinstance(key, tuple):
        return any(map(_is_stateful, key))
    return isinstance(key, (*_PAIRED, *backends.state_types()))
