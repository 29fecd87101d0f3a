"""Replaces methods of Keras while layers are made: variables wait for values, less is asked twice.

| name | why | when it is missing |
| --- | --- | --- |
| `Variable._initialize_with_initializer`, `._deferred_initialize`, `._direct_assign`, `._initialize`, `._value` | no random numbers for weights that are about to be copied | they are drawn and overwritten |
| `Layer.__setattr__`, `inspect` in the modules that ask it, `serialization_lib.serialize_keras_object`, `record_object_after_serialization` | much that Keras does again for each layer is left out | it takes its time |
"""  # noqa: E501 # a table row can't be broken

from __future__ import annotations

import contextlib
import inspect
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import keras.src.layers.layer
import keras.src.ops.operation
from keras.src.saving import serialization_lib

VARIABLE: Any = keras.Variable
DEFERS = all(
    hasattr(VARIABLE, name)
    for name in ("_initialize_with_initializer", "_deferred_initialize", "_direct_assign")
)


def is_initialized(variable: Any) -> bool:
    """Whether a variable has a value yet, which inside `deferred` it may not."""
    return getattr(variable, "_value", True) is not None


def initialize(variable: Any, tensor: Any) -> None:
    """Gives a variable its first value, without drawing one at random."""
    before = _deferral.initializing
    _deferral.initializing = True
    try:
        variable._initialize(tensor)
    finally:
        _deferral.initializing = before
    variable._initializer = None


class _Deferral(threading.local):
    """What is deferred in this thread: other threads make models as ever meanwhile."""

    def __init__(self) -> None:
        self.waiting: list[list[Any]] = []
        self.placeholder: Callable[[Any], Any] | None = None
        self.initializing = False


_deferral = _Deferral()
_installing = threading.Lock()
_installed = 0
_originals: dict[tuple[Any, str], Any] = {}


@contextlib.contextmanager
def deferred(placeholder: Callable[[Any], Any] | None = None) -> Iterator[list[Any]]:
    """Leaves new variables without a value, so that none is drawn only to be overwritten.

    Args:
        placeholder: Gives a backend's stand-in for the value of a variable, for backends that
            need one; `None` leaves it out.

    Yields:
        A list that takes up the variables, in the order of their creation.
    """
    waiting: list[Any] = []
    if not DEFERS:
        yield waiting
        return
    before = _deferral.placeholder
    with quickened():
        _deferral.waiting.append(waiting)
        _deferral.placeholder = placeholder
        try:
            yield waiting
        finally:
            _deferral.waiting.pop()
            _deferral.placeholder = before


@contextlib.contextmanager
def quickened() -> Iterator[None]:
    """Leaves out what Keras does again and again for each layer, to the same effect.

    That is the search for something to track in plain attributes, the signatures of the same
    methods, and the question as what an initializer, a function or the like is serialized. Keras's
    methods are replaced once for all threads that ask for it at a time.
    """
    global _installed
    with _installing:
        _installed += 1
        if _installed == 1:
            for owner, name, replacement in _replacements():
                _originals[owner, name] = getattr(owner, name)
                setattr(owner, name, replacement)
    try:
        yield
    finally:
        with _installing:
            _installed -= 1
            if _installed == 0:
                for (owner, name), original in _originals.items():
                    setattr(owner, name, original)


def _replacements() -> list[tuple[Any, str, Any]]:
    signatures = _Signatures()
    replacements: list[tuple[Any, str, Any]] = []
    follows = getattr(keras.config, "is_nnx_enabled", bool)()  # every attribute then, plain or not
    if keras.backend.backend() in ("tensorflow", "jax") and not follows:
        replacements.append((keras.Layer, "__setattr__", _set_attribute))
    if hasattr(serialization_lib, "record_object_after_serialization"):
        replacements.append((serialization_lib, "serialize_keras_object", _Serializer()))
    for module in (keras.src.layers.layer, keras.src.ops.operation):
        if hasattr(module, "inspect"):
            replacements.append((module, "inspect", signatures))
    if DEFERS:
        replacements += [
            (VARIABLE, "_initialize_with_initializer", _wait),
            (VARIABLE, "_deferred_initialize", _wait_again),
            (VARIABLE, "_direct_assign", _assign_first),
        ]
    return replacements


def _wait(variable: Any, initializer: Any) -> None:
    if not _deferral.waiting:
        _originals[VARIABLE, "_initialize_with_initializer"](variable, initializer)
        return
    variable._initializer = initializer
    placeholder = _deferral.placeholder
    variable._value = None if placeholder is None else placeholder(variable)
    _deferral.waiting[-1].append(variable)


def _wait_again(variable: Any) -> None:
    if _deferral.waiting:
        _wait(variable, variable._initializer)
    else:
        _originals[VARIABLE, "_deferred_initialize"](variable)


def _assign_first(variable: Any, value: Any) -> None:
    """A layer's `build` may assign to its variables; the first value ends the wait."""
    # On JAX the first value itself is assigned.
    if _deferral.waiting and not _deferral.initializing and variable._value is None:
        initialize(variable, value)
    else:
        _originals[VARIABLE, "_direct_assign"](variable, value)


_KNOWN = ("builtins", "keras", "tensorflow")
_ATOMS = frozenset((type(None), bool, int, float, str))
_SERIALIZED = {"module", "class_name", "config", "registered_name"}
_PLAIN: Any = (
    types.FunctionType,
    keras.initializers.Initializer,
    keras.constraints.Constraint,
    keras.regularizers.Regularizer,
    keras.DTypePolicy,
)
_TRACKED: Any = (
    *(keras.Variable, keras.Layer, keras.Metric, keras.random.SeedGenerator),
    *(tuple, list, dict, set),
)
_plain_classes: dict[type, bool] = {}
_plain_names: dict[type, dict[str, bool]] = {}


class _Serializer:
    """Stands for `serialize_keras_object`: asks once what all of a kind are serialized as.

    Keras asks of every initializer whether it is any of a dozen other things, and for the public
    name of its class. What is remembered is remembered no longer than Keras's methods are replaced.
    """

    def __init__(self) -> None:
        self._known: dict[Any, dict[str, Any] | None] = {}

    def __call__(self, value: Any) -> Any:
        """As `keras.saving.serialize_keras_object`."""
        if type(value) in _ATOMS:
            return value
        if isinstance(value, dict):
            return {
                key: item if type(item) in _ATOMS else self(item) for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            items = [item if type(item) in _ATOMS else self(item) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        is_function = isinstance(value, types.FunctionType)
        kind = value if is_function else type(value)
        known = self._known.get(kind)
        config = None if known is None or is_function else value.get_config()
        if known is None or (config and any(type(item) not in _ATOMS for item in config.values())):
            return self._ask(value, kind)
        serialized = dict(known)
        if config is not None:
            serialized["config"] = dict(config)
        serialization_lib.record_object_after_serialization(value, serialized)
        return serialized

    def _ask(self, value: Any, kind: Any) -> Any:
        """Asks Keras; remembers the answer if others of the kind differ in their config alone."""
        serialized = _originals[serialization_lib, "serialize_keras_object"](value)
        plain = isinstance(value, _PLAIN) and str(kind.__module__).startswith("keras.")
        if plain and serialized.keys() == _SERIALIZED:
            self._known[kind] = dict(serialized)
        return serialized


def serialized(value: Any) -> Any:
    """What Keras serializes a value as; quick while Keras is `quickened`."""
    return serialization_lib.serialize_keras_object(value)


class _Signatures:
    """Stands for `inspect` in Keras, which asks for the same signatures for every layer it makes.

    A signature is remembered no longer than Keras's methods are replaced.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(inspect, name)

    def signature(self, function: Any) -> inspect.Signature:
        """As `inspect.signature`."""
        return self._remembered(inspect.signature, function)  # type: ignore[no-any-return] # by kind

    def getfullargspec(self, function: Any) -> inspect.FullArgSpec:
        """As `inspect.getfullargspec`."""
        return self._remembered(inspect.getfullargspec, function)  # type: ignore[no-any-return] # by kind

    def _remembered(self, ask: Callable[[Any], Any], function: Any) -> Any:
        key: tuple[Any, ...] = (ask, None, function)
        if inspect.ismethod(function):
            key = (ask, function.__func__, None)
        elif not inspect.isfunction(function):
            return ask(function)
        if key not in self._known:
            self._known[key] = ask(function)
        return self._known[key]


def _set_attribute(layer: Any, name: str, value: Any) -> None:
    """Sets an attribute that Keras and the backend would look into, find plain, and set."""
    attributes = layer.__dict__
    plain = _is_plain(type(value))
    if plain and name in attributes:
        plain = _is_plain(type(attributes[name]))
    if plain and "_tracker" in attributes:
        names = _plain_names.setdefault(type(layer), {})
        if name not in names:
            names[name] = _sets_plainly(type(layer), name)
        if names[name]:
            attributes[name] = value
            return
    _originals[keras.Layer, "__setattr__"](layer, name, value)


def _is_plain(cls: type) -> bool:
    """Whether an object of a class holds nothing that a layer tracks."""
    plain = _plain_classes.get(cls)
    if plain is None:
        plain = _plain_classes[cls] = not issubclass(cls, _TRACKED) and not any(
            base.__module__.startswith("tensorflow.") for base in cls.__mro__
        )
    return plain


def _sets_plainly(cls: type, name: str) -> bool:
    """Whether an attribute of a class is no property, and nobody but the backend intercepts it."""
    below = cls.__mro__[cls.__mro__.index(keras.Layer) + 1 :]
    return not hasattr(inspect.getattr_static(cls, name, None), "__set__") and all(
        "__setattr__" not in vars(base) or base.__module__.split(".")[0] in _KNOWN for base in below
    )


def draw(variable: Any) -> None:
    """Gives a variable that `deferred` left without a value the one of its own initializer."""
    initializer = variable._initializer
    if initializer is not None:
        variable._initialize_with_initializer(initializer)
        variable._initializer = None
