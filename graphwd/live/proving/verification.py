"""The proof that a live model is another one plus planned edits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphwd.errors import EquivalenceError
from graphwd.graph import values
from graphwd.graph.equivalence import Report, compare
from graphwd.graph.slots import set_regularizers
from graphwd.live import starting, walk
from graphwd.live.carrying import serializing
from graphwd.live.proving import equality
from graphwd.live.survey import Survey, Unit, survey
from graphwd.plans.plan import Plan, make_plan
from graphwd.policy.policies import Policy


def prove_copy(
    found: Survey, plan: Plan, copy: Any, copies: equality.Copies, *, outputs: bool
) -> Report:
    """Raises `EquivalenceError` unless a model is the surveyed one plus a plan's edits."""
    report = verify_copy(found, plan, copy, outputs=outputs, copies=copies)
    if not report.ok:
        more = len(report.problems) - 1
        raise EquivalenceError(
            "The rewritten model is not the original plus the planned edits: "
            f"{report.problems[0]}" + (f" (and {more} more)" if more else ""),
            report,
        )
    return report


def prove_edits(found: Survey, edited: list[Unit], plan: Plan) -> Report:
    """Raises `EquivalenceError` unless layers that were edited in place say what the plan says.

    All layers that such an edit reached are compared: two wrappers may hold the same one. A layer
    that can't tell its config is edited all the same, but can't be saved.
    """
    reached = {id(inner) for unit in edited for _, _, inner in walk.layers_within(unit.layer)}
    units = [
        unit
        for unit in found.units
        if any(id(inner) in reached for _, _, inner in walk.layers_within(unit.layer))
    ]
    for unit in units:
        actual = serializing.serialize_layer(unit.layer)
        before: Any = found.serialized
        for key in unit.pointer:
            before = before[key]
        edits = {
            pointer: plan.slots[index].after
            for pointer, index in unit.slots.items()
            if plan.slots[index].changes
        }
        before = {key: value for key, value in before.items() if key != "compile_config"}
        planned = set_regularizers(before, edits)
        if not any(values.differences(planned, actual)):
            continue
        comparison = compare(planned, actual, match="names")
        if not comparison.ok:
            raise EquivalenceError(
                f"The config of layer {unit.layer.name!r} does not say what the plan says "
                f"({comparison.problems[0]}); rewrite without in_place=True instead.",
                comparison,
            )
    return Report((), {"edited layers": len(units)})


def verify_copy(
    found: Survey,
    plan: Plan | None,
    copy: Any,
    *,
    outputs: bool = False,
    unsaved: bool = True,
    copies: equality.Copies | None = None,
) -> Report:
    """Proves that a live model is the surveyed one plus a plan's edits.

    Without a plan it may have whatever regularizers its config says. With the `copies` that were
    just made, these are not looked for in the original.
    """
    theirs = survey(copy) if plan is None else None
    actual = theirs.serialized if theirs else serializing.serialize_layer(copy)
    edits = {} if plan is None else plan.config_edits()
    report = compare(
        set_regularizers(found.serialized, edits), actual, regularizers_too=plan is not None
    )
    if not report.ok:
        return report
    compared = dict(report.compared)
    pairs = equality.pair(found.model, copy, report.names)
    problems = equality.model_differences(pairs, compared, unsaved=unsaved, copies=copies)
    if theirs:
        itself = equality.pair(copy, copy, {})
        problems += equality.penalty_differences(theirs, make_plan(theirs.slots, None), itself)
    elif plan is not None and not problems:
        problems = equality.penalty_differences(found, plan, pairs)
    if outputs and not problems:
        problems = equality.output_differences(found.model, copy, compared)
    return replace(report, problems=tuple(problems), compared=compared)


def verify_models(
    original: Any,
    rewritten: Any,
    policy: Policy | None,
    *,
    outputs: bool = False,
    unsaved: bool = True,
) -> Report:
    """Proves that a live model is another one plus a policy's edits, with the starts of both."""
    found = survey(original)
    source = f"model {original.name!r}"
    plan = None if policy is None else make_plan(found.slots, policy, source=source)
    report = verify_copy(found, plan, rewritten, outputs=outputs, unsaved=unsaved)
    if not report.ok:
        return report
    return replace(report, problems=tuple(starting.start_differences(original, rewritten)))
