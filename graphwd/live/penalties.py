"""The penalties on a live model: which each weight gets, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from graphwd.live import checks, walk
from graphwd.live.carrying import starts
from graphwd.live.survey import Survey, survey
from graphwd.plans.decays import Decays
from graphwd.plans.plan import Edit, Plan, Value, make_plan
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy


def planned(found: Survey, policy: Policy | None, decays: Decays | None = None) -> Plan:
    """The plan of a policy for a surveyed model; without one, of what it holds."""
    penalises = policy is not None or any(slot.regularizer for slot in found.slots)
    unused = checks.unused_penalties(found.model) if penalises else ""
    measure = LiveMeasure(found)
    return make_plan(
        found.slots,
        policy,
        source=f"model {found.model.name!r}",
        notes=[*found.notes, *filter(None, [unused])],
        serialized=found.serialized,
        measure=measure,
        decays=decays,
    )


def planned_by_weight(model: Any, policy: Any) -> tuple[Plan, list[tuple[walk.Weight, Edit]]]:
    """The plan of a policy for a model, and what it decides on each weight."""
    found = survey(model)
    plan = make_plan(
        found.slots, Policy.coerce(policy), source=f"model {model.name!r}", notes=found.notes
    )
    pairs = [
        (unit.weights[index], plan.slots[slot])
        for unit in found.units
        for index, slot in unit.governs.items()
    ]
    return plan, pairs


class LiveMeasure:
    """The weights of a live model, to compute the values of penalties on them when asked for.

    It keeps the model alive, and reads the weights as they are at the time of the call.

    Args:
        found: The survey of the model, whose slots the edits are of.
    """

    def __init__(self, found: Survey) -> None:
        self._found = found

    def __call__(self, edits: Sequence[Edit]) -> list[Value]:
        """What each slot's penalty adds, or once unfrozen would add, to the loss, or why not."""
        variables: dict[int, list[Any]] = {}
        for unit in self._found.units:
            for index, slot in unit.governs.items():
                variables.setdefault(slot, []).append(unit.weights[index].variable)
        values: list[Value] = [None] * len(edits)
        planned_by: dict[Any, Any] = {}
        added: set[tuple[int, bool]] = set()  # a weight of two composite layers is penalised once
        for place, edit in enumerate(edits):
            if not edit.penalised:
                continue
            now = planned = 0.0
            try:
                key = regularizers.normalize(edit.after)
                for variable in variables.get(place, ()):
                    term = _value(variable.regularizer, variable, added, False)
                    now += term
                    if not edit.changes and variable.regularizer is not None:
                        planned += term
                    else:
                        if key not in planned_by:
                            planned_by[key] = _object(edit.after)
                        planned += _value(planned_by[key], variable, added, True)
            except Exception as error:  # noqa: BLE001 # a user's regularizer raises anything; it becomes a note
                reason = " ".join(str(error).split()) or type(error).__name__
                values[place] = reason[:200].rstrip(".")
            else:
                values[place] = (now, planned)
        return values


def _object(serialized: Mapping[str, Any] | None) -> Any:
    return None if serialized is None else keras.regularizers.get(dict(serialized))


def _value(regularizer: Any, variable: Any, added: set[tuple[int, bool]], planned: bool) -> float:
    if regularizer is None or (id(variable), planned) in added:
        return 0.0
    added.add((id(variable), planned))
    if planned and starts.wanted(regularizer):  # it will start where the weight is
        return 0.0
    term = keras.ops.sum(regularizer(keras.ops.cast(variable, "float32")))
    return float(keras.ops.convert_to_numpy(term))
