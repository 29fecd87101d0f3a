"""Gives the penalties of a rewritten model that are measured from a start their starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphwd.live import _keras, backends, survey, walk
from graphwd.live.carrying import carrier, starts
from graphwd.plans.plan import Plan
from graphwd.policy import regularizers


def before(found: survey.Survey) -> dict[int, dict[int, Any]]:
    """The starts of a model's weights, by the number of the unit and the weight's place in it."""
    return {number: starts.found(unit.layer) for number, unit in enumerate(found.units)}


def keep(found: survey.Survey, plan: Plan, known: Mapping[int, dict[int, Any]], model: Any) -> None:
    """Lets layers keep starts: a penalty that stays has its own, others start where weights are."""
    if not any(starts.wanted(v.regularizer) for v in model.variables) and not any(known.values()):
        return
    layers: list[Any] = []
    for place in survey.places(model):
        if not _keras.is_graph(place.layer) and not any(place.layer is other for other in layers):
            layers.append(place.layer)
    with backends.build_scope(model):
        for number, (unit, layer) in enumerate(zip(found.units, layers, strict=True)):
            kept = {
                index: start
                for index, start in known[number].items()
                if not plan.slots[unit.governs[index]].changes
            }
            carrier.keep_starts(layer, kept)


def start_differences(original: Any, rewritten: Any) -> list[str]:
    """Says which starts are neither those of the original nor its weights."""
    found = []
    for ours, theirs in walk.pair_variables(walk.pair_layers(original, rewritten)):
        start = starts.start_of(theirs)
        if start is None:
            continue
        former = starts.start_of(ours)
        same = former is not None and regularizers.equal(
            regularizers.held(ours.regularizer), regularizers.held(theirs.regularizer)
        )
        if not backends.same_bits(former if same else ours, start):
            what = "start" if same else "weights"
            found.append(f"{theirs.path}: its start is not the original's {what}")
    return found
