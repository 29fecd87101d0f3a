"""A layer's own class and that of its carrier: how the latter is made, and when which one counts.

A carrier's class is a subclass of the layer's own. No metaclass and no base is told of it, nothing
keeps it, and while the layer's own code runs, the layer is of its own class.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import keras

from graphwd.errors import ModelError
from graphwd.live import _keras, walk

RECORD = "_graphwd_carried"
"""The attribute with what a layer carries."""
_BASE = "_graphwd_base"
_LOADER = "_graphwd_loader"
changing = threading.RLock()
"""Held while a layer tells its own config: another thread that saves it waits."""
_telling = ContextVar("_telling", default=False)


class CarrierType(type):
    """The class of all carriers' classes, which Keras's registry is to find but not to hold."""

    def __eq__(cls, other: object) -> bool:
        return cls is other or (other is not None and loader_of(cls) is other)

    def __hash__(cls) -> int:
        return hash(loader_of(cls))


def loader_of(cls: Any) -> Any:
    """What is registered with Keras in the place of a carrier's class; `None` for other classes."""
    return vars(cls).get(_LOADER)


def is_carrier(layer: Any) -> bool:
    """Whether a layer carries penalties."""
    return isinstance(type(layer), CarrierType)


def base_class(cls: type) -> Any:
    """The class of a layer as its author wrote it, without the carrier."""
    return getattr(cls, _BASE) if isinstance(cls, CarrierType) else cls


def change(layer: Any, cls: type) -> None:
    """Changes a layer's class; Keras's own setter would look for something to track."""
    object.__setattr__(layer, "__class__", cls)


def carrier_class(
    base: Any, mixin: type, loader: Any, methods: dict[str, Callable[..., Any]]
) -> type:
    """The class of those layers of a class that carry something, made when there is none."""
    known: list[type] = type.__subclasses__(base)
    for cls in known:
        if isinstance(cls, CarrierType):
            return cls
    meta: type = CarrierType
    if type(base) is not type:
        meta = type.__new__(type, "CarrierType", (CarrierType, type(base)), {})
    namespace = {
        **{name: _own_method(getattr(base, name)) for name in _names(base) - vars(mixin).keys()},
        **methods,
        "__doc__": base.__doc__,
        "__module__": mixin.__module__,
        "__qualname__": base.__qualname__,
        _BASE: base,
        _LOADER: loader,
    }
    # Not by calling the metaclass, which may do anything with a new class.
    return type.__new__(meta, base.__name__, (mixin, base), namespace)


def _names(base: Any) -> set[str]:
    """The names of the methods and properties that a class has from others than Keras."""
    return {
        name
        for cls in base.__mro__
        # PyTorch's module is a base of Keras's layers, and has a `compile`, too, of which Keras
        # would take another one for the author's.
        if cls not in keras.Model.__mro__ and not cls.__module__.startswith("keras.")
        for name, value in vars(cls).items()
        if isinstance(value, (types.FunctionType, property, classmethod))
        and not name.startswith("_")
    }


def _own_method(method: Any) -> Any:
    """A method, or a property, that runs while its layer is of its own class."""
    if isinstance(method, types.MethodType):  # of the class, which it is bound to
        return method
    if isinstance(method, property):
        get, put, delete = (
            way and _own_method(way) for way in (method.fget, method.fset, method.fdel)
        )
        return property(get, put, delete, method.__doc__)

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with as_itself(self):
            return method(self, *args, **kwargs)

    return call


class OwnMethod:
    """A method that each layer has as an attribute of its own, run while it is of its own class."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, cls: Any = None) -> Any:
        if layer is None:
            return getattr(base_class(cls), self.name)
        method = vars(layer)[self.name]

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with as_itself(layer):
                return method(*args, **kwargs)

        return call

    def __set__(self, layer: Any, value: Any) -> None:
        vars(layer)[self.name] = value


@contextlib.contextmanager
def as_itself(layer: Any, *, guarded: bool = True) -> Iterator[None]:
    """While a layer's own code runs, it and all within are of the classes that the code knows."""
    if not is_carrier(layer):
        yield
        return
    carriers = [(each, type(each)) for *_, each in walk.layers_within(layer) if is_carrier(each)]
    for each, cls in carriers:
        if guarded:
            vars(each)["get_config"] = _guard(each, cls)
        change(each, base_class(cls))
    try:
        yield
    finally:
        for each, cls in carriers:
            vars(each).pop("get_config", None)
            if RECORD in vars(each):
                change(each, cls)


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """While a layer tells its own config, all within tell theirs without what they carry."""
    token = _telling.set(True)
    try:
        with changing:
            yield
    finally:
        _telling.reset(token)


def caller(distance: int = 1) -> str:
    """The module of the code that has called a function, or what is further up."""
    frame: Any = inspect.currentframe()
    for _ in range(distance + 1):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))


def refuse_hdf5(model: Any, path: Any = None) -> None:
    """Refuses to tell the config of a carrying model to what saves it as HDF5."""
    of_hdf5 = caller(2) == _keras.HDF5 if path is None else str(path).endswith((".h5", ".hdf5"))
    if of_hdf5:
        raise ModelError(
            f"Model {model.name!r} carries penalties, which Keras's HDF5 format has no place for "
            "in the outermost model; save it as a .keras file."
        )


def runs_own_code(layer: Any) -> bool:
    """Whether a layer that carries penalties is of its own class at the moment."""
    return RECORD in vars(layer) and not is_carrier(layer)


def _guard(layer: Any, cls: Any) -> Callable[[], dict[str, Any]]:
    """The `get_config` of a layer that is of its own class for now."""

    def get_config() -> dict[str, Any]:
        refuse_hdf5(layer)
        # Keras, which saves the layer, gets all; it asks for the class after that.
        if caller().startswith(_keras.SAVING):
            with changing:
                vars(layer).pop("get_config", None)
                change(layer, cls)
            return dict(layer.get_config())
        if not _telling.get():
            warnings.warn(
                f"Layer {layer.name!r} ({cls.__name__}) tells its config in code of its own or of "
                "a layer that holds it, without the penalties that graphwd lets it carry: what is "
                "made from it has none, unless graphwd.rewrite gives it some.",
                UserWarning,
                stacklevel=2,
            )
        return dict(base_class(cls).get_config(layer))

    # Keras makes a config by itself only where get_config is marked as the default one
    vars(get_config).update(vars(base_class(cls).get_config))
    return get_config
