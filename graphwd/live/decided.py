"""Decisions by variable: what a policy decides on each weight of a live model."""

from __future__ import annotations

from typing import Any

from graphwd.live import walk
from graphwd.live.survey import survey
from graphwd.plans.plan import Decision, Plan, make_plan
from graphwd.policy.policies import Policy


def decided(model: Any, policy: Any) -> tuple[Plan, list[tuple[walk.Weight, Decision]]]:
    """Says what a policy decides on each weight of a model.

    Args:
        model: A live, built `keras.Model`.
        policy: As for `graphwd.rewrite`.

    Returns:
        The plan, and pairs of a `walk.Weight` and the `Decision` on the slot that governs it, in
        the order of the model's layers. A weight of a layer that several composite layers hold
        comes with the decision on each of its slots.
    """
    found = survey(model)
    plan = make_plan(
        found.slots, Policy.coerce(policy), source=f"model {model.name!r}", notes=found.notes
    )
    pairs = [
        (unit.weights[index], plan.decisions[slot])
        for unit in found.units
        for index, slot in unit.governs.items()
    ]
    return plan, pairs
