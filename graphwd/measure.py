"""Measures: the value of the penalty on each slot of a live model, now and as planned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from graphwd import cloning
from graphwd.decisions import Decision
from graphwd.survey import survey


def penalties(model: Any, decisions: Iterable[Decision]) -> dict[str, tuple[float, float]]:
    """Computes what each slot's penalty adds, or once unfrozen would add, to the loss.

    Args:
        model: A live model.
        decisions: Decisions on its slots.

    Returns:
        The value of the penalty that each slot has now and of the one that it gets, on the
        weights of the moment, by the slot's path. Regularizers of activations, and those whose
        class Keras doesn't find, are left out.
    """
    found = survey(model, cloning.probe)
    variables: dict[str, list[Any]] = {}
    for unit in found.units:
        for index, slot in unit.governs.items():
            variables.setdefault(found.slots[slot].path, []).append(unit.weights[index].variable)
    values = {}
    for decision in decisions:
        weights = variables.get(decision.slot.path)
        if not weights:
            continue
        now = _value(decision.slot.regularizer, weights)
        values[decision.slot.path] = (
            now,
            _value(decision.after, weights) if decision.changes else now,
        )
    return values


def _value(serialized: Mapping[str, Any] | None, variables: list[Any]) -> float:
    if serialized is None:
        return 0.0
    try:
        regularizer = keras.regularizers.get(dict(serialized))
    except (ValueError, TypeError):  # a class of the user's own that is not registered
        return 0.0

    terms = [keras.ops.sum(regularizer(keras.ops.cast(v, "float32"))) for v in variables]
    return sum(float(keras.ops.convert_to_numpy(term)) for term in terms)
