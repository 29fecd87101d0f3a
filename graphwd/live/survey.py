"""A live model's slots: which weights each governs, and which weights none reaches.

A model is divided into units: the layers that stand in its config with one of their own. Those are
the layers of Functional and Sequential models to any depth; a model of any other class is one
unit. Which variables a slot governs is known by Keras's naming conventions for Keras's own
layers, and asked of all others by `probing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from graphwd.graph.slots import Pointer, Slot, find_slots
from graphwd.live import _keras, probing, walk
from graphwd.live.carrying.serializing import serialize_layer
from graphwd.policy import regularizers


@dataclass
class Unit:
    """A layer that stands in the model's config with one of its own."""

    layer: Any
    names: tuple[str, ...]  # layer names from the model inwards, with the unit's own
    layers: tuple[str, ...]  # class names likewise
    weights: list[walk.Weight]  # everything in it that was created trainable
    pointer: Pointer = ()  # where its serialized form stands first in the survey's
    # Maps pointers into the unit's serialized form to indices of the survey's slots.
    slots: dict[Pointer, int] = field(default_factory=dict)
    # Maps indices of `weights` to indices of the survey's slots.
    governs: dict[int, int] = field(default_factory=dict)


@dataclass
class Survey:
    """What `survey` found."""

    model: Any
    # The model as Keras serializes it, without what graphwd carries in it; for an edit in place
    # without the calls of its layers, which stay as they are.
    serialized: dict[str, Any]
    slots: list[Slot]  # every slot, and every weight that no slot reaches
    units: list[Unit]  # each once, though it may stand in several places
    notes: list[str]  # where variables and config differ, and what is not known: a sentence each


def survey(model: Any, *, calls: bool = True) -> Survey:
    """Finds every slot of a live model and the weights that it governs."""
    serialized = serialize_layer(model, calls=calls)
    units, pointers = _units(model)
    slots = _slots(serialized, units, pointers)
    for unit in units:
        _leave_to_the_carrier(unit, slots)
    memory: dict[str, dict[int, Pointer]] = {}
    for unit in units:
        for weight, pointer in _governed(unit, slots, memory).items():
            unit.governs[weight] = unit.slots[pointer]
    notes = []
    if not is_built(model):
        notes.append(
            "The model is not built, so its weights are not known yet: only what its config "
            "reaches is listed."
        )
    slots = _with_weights(slots, units, {id(variable) for variable in model.trainable_variables})
    differing = [
        f"{each}; the config decides what is saved." for each in _differences(units, slots)
    ]
    return Survey(model, serialized, slots, units, differing + notes)


def _with_weights(slots: list[Slot], units: list[Unit], trainable: set[int]) -> list[Slot]:
    """The slots that have weights, with their shapes, and the weights that no slot reaches."""
    weights: dict[int, list[Any]] = {}
    for unit in units:
        for index, slot in unit.governs.items():
            weights.setdefault(slot, []).append(unit.weights[index].variable)
    for slot, variables in weights.items():
        slots[slot] = replace(
            slots[slot],
            shapes=tuple(map(_keras.shape_of, variables)),
            frozen=all(id(variable) not in trainable for variable in variables),
        )
    # Slots of a layer that is not built yet stay.
    absent = {
        slot
        for unit in units
        if unit.weights or unit.layer.built
        for slot in unit.slots.values()
        if slot not in weights and slots[slot].role != "activity"
    }
    ordered: list[Slot] = []  # as the layers are
    moved: dict[int, int] = {}
    for unit in units:
        unit.slots = {pointer: slot for pointer, slot in unit.slots.items() if slot not in absent}
        for slot in unit.slots.values():
            if slot not in moved:
                moved[slot] = len(ordered)
                ordered.append(slots[slot])
        unit.slots = {pointer: moved[slot] for pointer, slot in unit.slots.items()}
        unit.governs = {weight: moved[slot] for weight, slot in unit.governs.items()}
        for index, weight in enumerate(unit.weights):
            if index not in unit.governs and penalisable(weight.variable):
                unit.governs[index] = len(ordered)
                ordered.append(_unreached(unit, weight, trainable))
    return ordered


def is_built(model: Any) -> bool:
    """Whether all weights are there: `built` may be set by hand, or only the parts be called."""
    return (model.built and _keras.was_called(model)) or all(
        inner.built for _, _, inner in walk.layers_within(model) if not _keras.sublayers(inner)
    )


def of_copy(found: Survey, copy: Any, copies: Mapping[int, Any]) -> Survey:
    """The survey of a model's copy, which has the same slots in the same places."""
    units = [
        replace(
            unit,
            layer=copies[id(unit.layer)],
            weights=[
                replace(w, owner=copies[id(w.owner)], variable=copies[id(w.variable)])
                for w in unit.weights
            ],
        )
        for unit in found.units
    ]
    return replace(found, model=copy, units=units)


def _unreached(unit: Unit, weight: walk.Weight, trainable: set[int]) -> Slot:
    role = walk.role_of(weight)
    before = weight.variable.regularizer
    return Slot(
        path="/".join((*unit.names, *walk.steady_names(unit.layer, weight), role)),
        role=role,
        layers=(*unit.layers, *weight.layers) or (walk.class_name(unit.layer),),
        regularizer=regularizers.held(before),
        pointers=(),
        frozen=id(weight.variable) not in trainable,
        shapes=(_keras.shape_of(weight.variable),),
    )


def penalisable(variable: Any) -> bool:
    """Whether a regularizer on a variable makes sense: floats that a gradient step updates."""
    return "float" in str(variable.dtype) and not getattr(
        variable, "overwrite_with_gradient", False
    )


def _differences(units: list[Unit], slots: list[Slot]) -> Iterator[str]:
    """Yields where a variable has another regularizer than the config says."""
    serialize_once = regularizers.once()
    for unit in units:
        for index, place in unit.governs.items():
            variable, slot = unit.weights[index].variable, slots[place]
            actual = serialize_once(variable.regularizer)
            if not regularizers.equal(actual, slot.regularizer):
                yield (
                    f"{slot.path}: the config says {regularizers.describe(slot.regularizer)} but "
                    f"the variable {variable.name} has {regularizers.describe(actual)}"
                )


@dataclass(frozen=True, slots=True)
class Place:
    """A layer where it stands in a model; a shared layer stands in several places."""

    layer: Any
    pointer: Pointer  # where its serialized form stands in the serialized model
    names: tuple[str, ...]  # layer names from the model inwards
    layers: tuple[str, ...]  # class names likewise


def places(model: Any) -> Iterator[Place]:
    """Yields a model and all layers of graph models within it, outer ones first."""
    stack = [Place(model, (), (), ())]
    while stack:
        place = stack.pop()
        yield place
        if _keras.is_graph(place.layer):
            stack.extend(
                Place(
                    member,
                    (*place.pointer, "config", "layers", index),
                    (*place.names, member.name),
                    (*place.layers, walk.class_name(member)),
                )
                for index, member in reversed(list(enumerate(_keras.members(place.layer))))
                if isinstance(member, keras.Layer)
            )


def _units(model: Any) -> tuple[list[Unit], dict[int, list[Pointer]]]:
    """Divides a model into units, and says where each stands in the serialized model."""
    units: list[Unit] = []
    pointers: dict[int, list[Pointer]] = {}
    for place in places(model):
        if _keras.is_graph(place.layer):
            continue
        if id(place.layer) not in pointers:
            weights = walk.weights(place.layer)
            units.append(Unit(place.layer, place.names, place.layers, weights, place.pointer))
        pointers.setdefault(id(place.layer), []).append(place.pointer)
    return units, pointers


def _slots(
    serialized: Mapping[str, Any], units: list[Unit], pointers: Mapping[int, list[Pointer]]
) -> list[Slot]:
    """The config's slots, each tied to its unit; a shared unit's places make one slot."""
    owners: dict[Pointer, Unit] = {
        pointer: unit for unit in units for pointer in pointers[id(unit.layer)]
    }
    slots: list[Slot] = []
    for slot in find_slots(serialized):
        local: list[tuple[Unit, Pointer]] = []
        for pointer in slot.pointers:
            for length in range(len(pointer), -1, -1):
                if pointer[:length] in owners:
                    local.append((owners[pointer[:length]], pointer[length:]))
                    break
        known = {unit.slots[p] for unit, p in local if p in unit.slots}
        if known:
            index = known.pop()
            first = slots[index]
            slots[index] = replace(first, pointers=(*first.pointers, *slot.pointers))
        else:
            index = len(slots)
            slots.append(slot)
        for unit, pointer in local:
            unit.slots[pointer] = index
    return slots


def _leave_to_the_carrier(unit: Unit, slots: list[Slot]) -> None:
    """Takes empty slots out that no attribute of the layer holds, so that they can't be set."""
    if walk.is_stock(unit.layer):
        return
    for pointer, index in list(unit.slots.items()):
        slot = slots[index]
        if slot.regularizer is None and not holders(unit, pointer, slot.role, index):
            del unit.slots[pointer]


def _governed(
    unit: Unit, slots: list[Slot], memory: dict[str, dict[int, Pointer]]
) -> dict[int, Pointer]:
    """Maps the unit's weights to the slots, by pointer, that set their regularizer."""
    candidates = {p: i for p, i in unit.slots.items() if slots[i].role != "activity"}
    if not candidates or not unit.weights:
        return {}
    if walk.is_stock(unit.layer) and all(len(pointer) == 2 for pointer in candidates):
        conventional = _by_convention(unit, slots, candidates)
        if len(conventional) == len(unit.weights):
            return conventional
    serialized = serialize_layer(unit.layer)
    key = _key(unit.layer, serialized)
    if key not in memory:
        found = probing.governed(unit.layer, serialized, list(candidates))
        memory[key] = _by_convention(unit, slots, candidates) if found is None else found
    return memory[key]


def _by_convention(
    unit: Unit, slots: list[Slot], candidates: Mapping[Pointer, int]
) -> dict[int, Pointer]:
    """Maps the weights to the slots by names: those of the variables, and of layers in a config."""
    found: dict[int, Pointer] = {}
    owners: dict[Pointer, dict[str, Pointer]] = {}
    for pointer, index in candidates.items():
        owners.setdefault(pointer[:-1], {})[slots[index].role] = pointer
    for place, by_role in owners.items():
        top = unit.layer if len(place) == 1 else _layer_at(unit.layer, (*place, ""))
        inside = {id(inner) for _, _, inner in walk.layers_within(top)}
        for index, weight in enumerate(unit.weights):
            role = walk.role_among(weight, by_role)
            if role is not None and id(weight.owner) in inside:
                found.setdefault(index, by_role[role])
    return found


def _key(layer: Any, serialized: Mapping[str, Any]) -> str:
    """Equal for two units that only differ in their names."""
    config = {k: v for k, v in serialized["config"].items() if k != "name"}
    text = json.dumps([config, serialized.get("build_config")], sort_keys=True, default=repr)
    return f"{type(layer).__module__}.{type(layer).__qualname__}:{id(type(layer))}:{text}"


def holders(unit: Unit, pointer: Pointer, role: str, index: int) -> list[tuple[Any, str]]:
    """The layers and attributes from which a layer's get_config reads a slot."""
    name = str(pointer[-1])
    top = unit.layer if len(pointer) <= 2 else _layer_at(unit.layer, pointer)
    # On the layer whose own config has the slot, and on those made from its arguments (the cell of
    # an LSTM, the projections of MultiHeadAttention), which Keras asks for the config or not as it
    # likes. An activity regularizer is the layer's own.
    inner = [layer for _, _, layer in walk.layers_within(top)][1:] if role != "activity" else []
    # Not on layers with a weight of the role that another slot sets.
    others = {
        id(weight.owner)
        for place, weight in enumerate(unit.weights if inner else ())
        if unit.governs and unit.governs.get(place) != index and walk.role_of(weight) == role
    }
    return [
        (layer, attribute)
        for layer in (top, *(layer for layer in inner if id(layer) not in others))
        for attribute in (name, f"_{name}")
        if attribute in vars(layer)
    ]


def _layer_at(layer: Any, pointer: Pointer) -> Any:
    """The layer inside a unit whose config a pointer leads to, known by names and attributes."""
    value: Any = serialize_layer(layer)
    for key in pointer[:-1]:
        value = value[key]
        if isinstance(value, dict) and isinstance(value.get("class_name"), str):
            config = value.get("config")
            name = config.get("name") if isinstance(config, dict) else None
            found = [
                inner
                for _, _, inner in [*walk.layers_within(layer)][1:]
                if inner.name == name and walk.class_name(inner) == value["class_name"]
            ]
            held = [inner for inner in found if inner is vars(layer).get(key)]
            layer = (held or found or [layer])[0]
    return layer
