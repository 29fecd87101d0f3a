"""The proof that a live model is another one plus planned edits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphwd.errors import EquivalenceError
from graphwd.graph.equivalence import Report, compare
from graphwd.graph.slots import set_regularizers
from graphwd.live import starting
from graphwd.live.carrying import serializing
from graphwd.live.proving import equality
from graphwd.live.survey import Survey, survey
from graphwd.plans.plan import Plan, make_plan
from graphwd.policy.policies import Policy


def prove(found: Survey, plan: Plan, copy: Any, *, outputs: bool) -> None:
    """Raises `EquivalenceError` unless a model is the surveyed one plus a plan's edits."""
    report = verify_clone(found, plan, copy, outputs=outputs)
    if not report.ok:
        more = len(report.problems) - 1
        raise EquivalenceError(
            "The rewritten model is not the original plus the planned edits: "
            f"{report.problems[0]}" + (f" (and {more} more)" if more else ""),
            report,
        )


def verify_clone(
    found: Survey, plan: Plan, copy: Any, *, outputs: bool = False, unsaved: bool = True
) -> Report:
    """Proves that a live model is the surveyed one plus a plan's edits."""
    expected = set_regularizers(found.serialized, plan.config_edits())
    comparison = compare(expected, serializing.serialize(copy))
    compared = {"layer calls": comparison.nodes, "tensors": comparison.edges}
    problems = list(comparison.problems)
    if not problems:
        pairs = equality.pair(found.model, copy, comparison.names)
        problems = equality.differences(pairs, compared, unsaved=unsaved)
        if not problems:
            problems = equality.penalty_differences(found, plan, pairs)
    if outputs and not problems:
        problems = equality.output_differences(found.model, copy, compared)
    return Report(tuple(problems), compared)


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
    if policy is not None:
        plan = make_plan(found.slots, policy, source=f"model {original.name!r}")
        report = verify_clone(found, plan, rewritten, outputs=outputs, unsaved=unsaved)
    else:
        report = _verify_any(found, rewritten, outputs=outputs, unsaved=unsaved)
    if not report.ok:
        return report
    return replace(report, problems=tuple(starting.differences(original, rewritten)))


def _verify_any(found: Survey, rewritten: Any, *, outputs: bool, unsaved: bool) -> Report:
    """Proves that a live model is the surveyed one with whatever regularizers its config says."""
    original, other = found.model, survey(rewritten)
    comparison = compare(found.serialized, other.serialized, regularizers_too=False)
    compared = {"layer calls": comparison.nodes, "tensors": comparison.edges}
    problems = list(comparison.problems)
    if not problems:
        pairs = equality.pair(original, rewritten, comparison.names)
        problems = equality.differences(pairs, compared, unsaved=unsaved)
        itself = equality.pair(rewritten, rewritten, {})
        problems += equality.penalty_differences(other, make_plan(other.slots, None), itself)
    if outputs and not problems:
        problems = equality.output_differences(original, rewritten, compared)
    return Report(tuple(problems), compared, planned=False)
