"""Edits a live model itself: config attributes and variables, all or nothing."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from graphwd.errors import ModelError
from graphwd.graph.slots import SUFFIX, Slot
from graphwd.live import survey, walk
from graphwd.live.carrying import carrier
from graphwd.plans.plan import Plan
from graphwd.policy import regularizers


@contextmanager
def edited(found: survey.Survey, plan: Plan) -> Iterator[list[survey.Unit]]:
    """Gives a model a plan's regularizers, and yields what changed; an error takes them away."""
    restores: list[Callable[[], None]] = []
    made: dict[int, Any] = {id(None): None}
    serialize_once = regularizers.once()
    try:
        yield [
            unit
            for unit in found.units
            if _edit_unit(found, unit, plan, serialize_once, made, restores)
        ]
    except BaseException:  # also one of the block, which proves what was edited
        for restore in reversed(restores):
            restore()
        raise


def _edit_unit(
    found: survey.Survey,
    unit: survey.Unit,
    plan: Plan,
    serialize_once: Callable[[Any], regularizers.Serialized | None],
    made: dict[int, Any],
    restores: list[Callable[[], None]],
) -> bool:
    """Edits a layer if the plan wants it otherwise than it is, and says whether it did."""
    kept = carrier.carried_penalties(unit.layer)
    in_config = {
        pointer: index for pointer, index in unit.slots.items() if plan.slots[index].changes
    }
    on_variables = []
    carried = []
    configurable = set(unit.slots.values())
    for index, slot in unit.governs.items():
        weight, after = unit.weights[index], plan.slots[slot].after
        if slot not in configurable and after is not None and regularizers.can_be_made(after):
            carried.append(carrier.penalty(index, weight, walk.role_of(weight), dict(after)))
        if not regularizers.equal(serialize_once(weight.variable.regularizer), after):
            on_variables.append((weight.variable, after))
    if not in_config and not on_variables and carried == kept:
        return False
    restores.append(carrier.snapshot(unit.layer))
    for pointer, index in in_config.items():
        regularizer = _made(plan.slots[index].after, made)
        place = found.slots[index]
        held = survey.holders(unit, pointer, place.role, index)
        if not held:
            _set_in_containers(unit, index, place, regularizer, restores)
        for holder, attribute in held:
            _set(holder, attribute, regularizer)
    for variable, after in on_variables:
        variable.regularizer = _made(after, made)
    if carried != kept:
        carrier.attach(unit.layer, carried, carrier.fingerprint(unit.weights))
    carrier.hand_down(unit.layer)
    return True


def _set(holder: Any, attribute: str, regularizer: Any) -> None:
    try:
        setattr(holder, attribute, regularizer)
    except Exception as error:  # a __setattr__ may raise anything
        raise ModelError(
            f"Layer {holder.name!r} ({type(holder).__name__}) does not let its {attribute} be set "
            f"({error}); let it, or leave its weights out of the policy."
        ) from error


def _made(serialized: regularizers.Serialized | None, made: dict[int, Any]) -> Any:
    if id(serialized) not in made:
        made[id(serialized)] = keras.regularizers.deserialize(copy.deepcopy(dict(serialized or {})))
    return made[id(serialized)]


def _set_in_containers(
    unit: survey.Unit, index: int, slot: Slot, regularizer: Any, restores: list[Callable[[], None]]
) -> None:
    """Sets a slot that a layer keeps in a dict or a list, where it is found by what it holds."""
    weights = [unit.weights[place] for place, other in unit.governs.items() if other == index]
    held = weights[0].variable.regularizer if weights else None
    places = [] if held is None else _containers_of(unit.layer, held)
    if not places:
        raise ModelError(
            f"Layer {unit.layer.name!r} has no attribute {slot.role}{SUFFIX} that holds what its "
            f"config tells of {slot.path}, so it can't be set; give it that attribute."
        )
    for container, key in places:
        restores.append(functools.partial(container.__setitem__, key, held))
        container[key] = regularizer


def _containers_of(layer: Any, regularizer: Any) -> list[tuple[Any, Any]]:
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
