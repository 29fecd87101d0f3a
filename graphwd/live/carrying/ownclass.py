"""A layer's own class and that of its carrier: how the latter is made, and when which one counts.

A carrier's class is a subclass of the layer's own. No metaclass and no base is told of it, nothing
keeps it, and while the layer's own code runs, the layer is of its own class.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

RECORD = "_graphwd_carried"
"""The attribute with what a layer carries."""
_BASE = "_graphwd_base"
_LOADER = "_graphwd_loader"
changing = threading.RLock()
"""Held while a layer tells its own config: another thread that saves it waits."""


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
    """The names of the methods that a class has from others than Keras."""
    return {
        name
        for cls in base.__mro__
        if not cls.__module__.startswith(("keras.", "builtins"))
        for name, value in vars(cls).items()
        if isinstance(value, types.FunctionType) and not name.startswith("_")
    }


def _own_method(method: Callable[..., Any]) -> Any:
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
    """While its own code runs, a layer is of its own class, for which that code may ask."""
    if not is_carrier(layer):
        yield
        return
    cls = type(layer)
    base = base_class(cls)

    def get_config() -> dict[str, Any]:
        with changing:
            vars(layer).pop("get_config", None)
            change(layer, cls)
        return dict(layer.get_config())

    if guarded:
        # Keras makes a config by itself only where get_config is marked as the default one
        vars(get_config).update(vars(base.get_config))
        vars(layer)["get_config"] = get_config
    change(layer, base)
    try:
        yield
    finally:
        vars(layer).pop("get_config", None)
        if RECORD in vars(layer):
            change(layer, cls)
