"""What Keras's registry has for carrying layers: names, and what loads a layer from a config."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import keras

from graphwd.live.carrying.ownclass import CarrierType, loader_of

_PACKAGE = "graphwd"
_NAME = "Carrier"


class Loader:
    """What Keras finds under the name that a carrying layer was saved with; it makes the layer."""

    # No class, though it passes for one where it has to (`issubclass`, `==`): Keras's registry
    # keeps for ever what it holds, and keras-hub takes every class in it that fits.
    __name__ = _NAME

    def __init__(self, load: Callable[[Any, dict[str, Any]], Any], base: Any = None) -> None:
        self.load = load  # makes a layer of the class `base`, or of any for `None`, from a config
        self.base = base

    @property
    def __bases__(self) -> tuple[Any, ...]:
        if self.base is not None:
            return (self.base,)
        # those models of keras-hub's kind that a user has written have no loader of their own
        presets = _preset_classes()
        known = keras.saving.get_custom_objects().values() if presets else ()
        return tuple(
            cls
            for cls in known
            if isinstance(cls, type) and issubclass(cls, presets) and loader_for(cls) is self
        ) or (keras.Layer,)

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, type):
            return self is other
        if isinstance(other, CarrierType):
            return loader_of(other) is self
        return any(base is other for base in self.__bases__)

    def __hash__(self) -> int:
        return id(self)

    def from_config(self, config: dict[str, Any]) -> Any:
        """Makes a layer of its own class, which then carries what its config has."""
        return self.load(self.base, config)


def register(load: Callable[[Any, dict[str, Any]], Any]) -> None:
    """Lets Keras find what loads carrying layers, by the name that they are saved under."""
    if not isinstance(_registered(_NAME), Loader):
        keras.saving.register_keras_serializable(_PACKAGE, _NAME)(Loader(load))


def register_presets() -> None:
    """Gives each model class of keras-hub a name of its own to be carried under."""
    # A preset is loaded by the class that its name stands for: `BertBackbone.from_preset` takes
    # none that isn't a BertBackbone.
    stack: list[Any] = list(_preset_classes())
    while stack:
        base = stack.pop()
        stack.extend(cls for cls in type.__subclasses__(base) if not isinstance(cls, CarrierType))
        common = loader_for(base)
        if base.__module__.startswith("keras_hub.") and common.base is None:
            name = keras.saving.get_registered_name(base)
            keras.saving.register_keras_serializable(_PACKAGE, name)(Loader(common.load, base))


def loader_for(base: type) -> Loader:
    """What is registered to load carriers of a class."""
    own = _registered(keras.saving.get_registered_name(base))
    common: Loader = _registered(_NAME)
    return own if isinstance(own, Loader) and own.base is base else common


def _registered(name: str) -> Any:
    return keras.saving.get_registered_object(f"{_PACKAGE}>{name}")


def _preset_classes() -> tuple[Any, ...]:
    hub = sys.modules.get("keras_hub")
    return () if hub is None else (hub.models.Backbone, hub.models.Task)
