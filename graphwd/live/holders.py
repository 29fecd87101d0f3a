"""The attributes that hold a slot of a live layer: what to set so that its config tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphwd.graph.slots import Pointer
from graphwd.live import serializing, walk

if TYPE_CHECKING:
    from graphwd.live.survey import Unit


def of_slot(unit: Unit, pointer: Pointer, role: str, index: int) -> list[tuple[Any, str]]:
    """The layers and attributes from which a layer's get_config reads a slot.

    They are on the unit or on a layer inside it: on the one whose own config has the slot, and on
    those that were made from its arguments (the cell of an LSTM, the projections of
    MultiHeadAttention), which Keras asks for the config or not as it likes. Not on layers with a
    weight of the role that another slot sets; and an activity regularizer is the layer's own.

    Args:
        unit: The unit.
        pointer: The slot's place in the serialized unit.
        role: The slot's role.
        index: Its index in the survey.
    """
    name = str(pointer[-1])
    top = unit.layer if len(pointer) <= 2 else layer_at(unit.layer, pointer)
    others = {
        id(weight.owner)
        for place, weight in enumerate(unit.weights)
        if unit.governs and unit.governs.get(place) != index and walk.role_of(weight) == role
    }
    inner = [layer for _, _, layer in walk.layers_within(top)][1:] if role != "activity" else []
    return [
        (layer, attribute)
        for layer in (top, *(layer for layer in inner if id(layer) not in others))
        for attribute in (name, f"_{name}")
        if attribute in vars(layer)
    ]


def of_value(layer: Any, regularizer: Any) -> list[tuple[Any, Any]]:
    """The containers in a layer's attributes that hold a regularizer itself, each with the key."""
    found = []
    stack = [value for _, _, inner in walk.layers_within(layer) for value in vars(inner).values()]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            items = list(value.items())
        elif isinstance(value, list):
            items = list(enumerate(value))
        else:
            continue
        found += [(value, key) for key, item in items if item is regularizer]
        stack += [item for _, item in items if isinstance(item, (dict, list))]
    return found


def layer_at(layer: Any, pointer: Pointer) -> Any:
    """The layer inside a unit whose config a pointer leads to, known by the names on the way."""
    value: Any = serializing.serialize(layer)
    for key in pointer[:-1]:
        value = value[key]
        if isinstance(value, dict) and isinstance(value.get("class_name"), str):
            config = value.get("config")
            name = config.get("name") if isinstance(config, dict) else None
            within = [inner for _, _, inner in walk.layers_within(layer)][1:]
            layer = next((inner for inner in within if inner.name == name), layer)
    return layer
