"""Edits a live model itself: config attributes and variables, all or nothing."""

from __future__ import annotations

import copy
from typing import Any

import keras

from graphwd import carrier, regularizers, serializing, survey, verification, walk
from graphwd._keras import making
from graphwd.errors import EquivalenceError, ModelError
from graphwd.plans import Plan
from graphwd.slots import SUFFIX, Pointer, set_regularizers


def edit(found: survey.Survey, plan: Plan, *, verify: bool = True) -> Any:
    """Gives a model the regularizers of a plan without building another model.

    Args:
        found: The survey of the model.
        plan: A plan for its slots.
        verify: Whether to prove that the config says what the plan says, and nothing else.

    Returns:
        The model.

    Raises:
        ModelError: when a layer keeps its regularizer where it can't be set from outside.
        EquivalenceError: when the proof fails. Either way the model is as it was before.
    """
    restore = carrier.snapshot(found.model)
    try:
        with making.quickened():
            _edit(found, plan, verify=verify)
    except BaseException:
        restore()
        raise
    return found.model


def _edit(found: survey.Survey, plan: Plan, *, verify: bool) -> None:
    edited = [unit for unit in found.units if _edit_unit(found, unit, plan)]
    if not verify:
        return
    reached = {id(inner) for unit in edited for _, _, inner in walk.layers_within(unit.layer)}
    for unit in found.units:  # two wrappers may hold the same layer
        if any(id(inner) in reached for _, _, inner in walk.layers_within(unit.layer)):
            _prove(found, unit, plan)


def _prove(found: survey.Survey, unit: survey.Unit, plan: Plan) -> None:
    """Compares the config of a layer that an edit reached with the planned one.

    A layer that can't tell its config is edited all the same, but can't be saved.
    """
    try:
        actual = serializing.serialize(unit.layer)
    except ModelError:
        return
    before: Any = found.serialized
    for key in unit.pointer:
        before = before[key]
    values = {
        pointer: plan.decisions[index].after
        for pointer, index in unit.slots.items()
        if plan.decisions[index].changes
    }
    comparison = verification.compare(
        set_regularizers(before, values), actual, match="names", known=list(unit.slots)
    )
    if not comparison.ok:
        raise EquivalenceError(
            f"The config of layer {unit.layer.name!r} does not say what the plan says "
            f"({comparison.problems[0]}); rewrite without in_place=True instead.",
            comparison,
        )


def _edit_unit(found: survey.Survey, unit: survey.Unit, plan: Plan) -> bool:
    """Edits a layer if the plan wants it otherwise than it is, and says whether it did."""
    edited = False
    for pointer, index in unit.slots.items():
        if plan.decisions[index].changes:
            _set_in_config(found, unit, pointer, index, plan.decisions[index].after)
            edited = True
    in_config = set(unit.slots.values())
    carried = []
    for index, slot in unit.governs.items():
        decision = plan.decisions[slot]
        variable = unit.weights[index].variable
        if slot not in in_config and decision.after is not None:
            role = walk.role_of(unit.weights[index])
            carried.append(carrier.penalty(index, unit.weights[index], role, dict(decision.after)))
        if not regularizers.equal(regularizers.serialize(variable.regularizer), decision.after):
            variable.regularizer = _deserialized(decision.after)
            edited = True
    if carried != carrier.carried_penalties(unit.layer):
        carrier.attach(unit.layer, carried, carrier.fingerprint(unit.weights))
        edited = True
    if edited:
        carrier.hand_down(unit.layer)
    return edited


def _set_in_config(
    found: survey.Survey,
    unit: survey.Unit,
    pointer: Pointer,
    index: int,
    after: regularizers.Serialized | None,
) -> None:
    """Sets the attribute from which a layer's get_config reads a slot.

    The attribute is on the unit or on a layer inside it: on the one whose own config has the slot,
    and on those that were made from its arguments (the cell of an LSTM, the projections of
    MultiHeadAttention), which Keras asks for the config or not as it likes.
    """
    role = found.slots[index].role
    holders = _holders(unit, pointer, role)
    if not holders:
        raise ModelError(
            f"Layer {unit.layer.name!r} has no attribute {role}{SUFFIX} that holds the slot "
            f"{found.slots[index].path}; rewrite without in_place=True instead."
        )
    for holder, attribute in holders:
        setattr(holder, attribute, _deserialized(after))


def _holders(unit: survey.Unit, pointer: Pointer, role: str) -> list[tuple[Any, str]]:
    """The attributes that hold a slot: on the layer it stands in and on what that was made of."""
    name = str(pointer[-1])
    top = unit.layer
    if len(pointer) > 2:
        top = _layer_at(unit.layer, pointer)
    found = []
    for _, _, layer in walk.layers_within(top):
        for attribute in (name, f"_{name}"):
            if attribute in vars(layer):
                found.append((layer, attribute))
    return found


def _layer_at(layer: Any, pointer: Pointer) -> Any:
    """The layer inside a unit whose config a pointer leads to, known by its name."""
    value: Any = serializing.serialize(layer)
    name = None
    for key in pointer[:-1]:
        value = value[key]
        if isinstance(value, dict) and isinstance(value.get("class_name"), str):
            config = value.get("config")
            if isinstance(config, dict) and isinstance(config.get("name"), str):
                name = config["name"]
    for _, _, inner in walk.layers_within(layer):
        if inner.name == name:
            return inner
    return layer


def _deserialized(serialized: regularizers.Serialized | None) -> Any:
    if serialized is None:
        return None
    return keras.regularizers.deserialize(copy.deepcopy(dict(serialized)))
