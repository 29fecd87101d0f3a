"""The proof that one model is another plus planned edits, for live models and for files."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphwd import graph, regularizers
from graphwd.plans import Plan, make_plan
from graphwd.slots import Slot, find_slots, set_regularizers, strip_carried

if TYPE_CHECKING:
    from graphwd.policy import Policy
    from graphwd.survey import Survey

_MOST_LINES = 200


@dataclass(frozen=True)
class Report:
    """What a verification found.

    Attributes:
        problems: One line for each difference: which layer, weight or slot, and what differs.
        compared: What was compared, and how many: `{"layer calls": 92, "variables": 137, ...}`.
    """

    problems: tuple[str, ...]
    compared: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {what}" for what, count in self.compared.items())
        if self.ok:
            return f"equal but for the planned edits; compared: {counts}"
        lines = [f"{len(self.problems)} differences; compared: {counts}"]
        lines += [f"- {problem}" for problem in self.problems[:_MOST_LINES]]
        if len(self.problems) > _MOST_LINES:
            lines.append(f"- and {len(self.problems) - _MOST_LINES} more")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON.

        Returns:
            A dict with the keys `ok`, `problems` and `compared`.
        """
        return {"ok": self.ok, "problems": list(self.problems), "compared": dict(self.compared)}

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(p)}</li>" for p in self.problems[:_MOST_LINES])
        return f"<p>{html.escape(str(self).splitlines()[0])}</p><ul>{items}</ul>"


def verify_clone(found: Survey, plan: Plan, copy: Any, *, outputs: bool = False) -> Report:
    """Proves that a model is the surveyed one plus a plan's edits.

    Args:
        found: The survey of the original.
        plan: The plan for it.
        copy: The rewritten model.
        outputs: Whether to compare outputs on generated inputs.

    Returns:
        A `Report`.
    """
    from graphwd import survey as surveys

    expected = set_regularizers(found.serialized, plan.config_edits())
    actual = surveys.serialize(copy)
    comparison = graph.compare(expected, actual, match="names")
    problems = list(comparison.problems)
    compared = {"layer calls": comparison.nodes, "tensors": comparison.edges}
    problems += _class_problems(found.model, copy)
    problems += _variable_problems(found.model, copy, compared)
    problems += _penalty_problems(found, plan, copy)
    problems += _compile_problems(found.model, copy)
    if outputs and not problems:
        problems += _output_problems(found.model, copy, compared)
    return Report(tuple(problems), compared)


def verify_models(
    original: Any, rewritten: Any, policy: Policy | None, *, outputs: bool = False
) -> Report:
    """Proves that a live model is another one plus a policy's edits.

    Args:
        original: A `keras.Model`.
        rewritten: Another one.
        policy: The policy, or `None` to accept the regularizers that the second model's config
            says, as long as its variables have them.
        outputs: Whether to compare outputs on generated inputs.

    Returns:
        A `Report`.
    """
    from graphwd import cloning, survey as surveys

    found = surveys.survey(original, cloning.probe)
    if policy is None:
        other = surveys.survey(rewritten, cloning.probe)
        plan = _adopted(found, other)
    else:
        plan = make_plan(found.slots, policy)
    expected = set_regularizers(found.serialized, plan.config_edits())
    actual = surveys.serialize(rewritten)
    comparison = graph.compare(expected, actual)
    problems = list(comparison.problems)
    compared = {"layer calls": comparison.nodes, "tensors": comparison.edges}
    if not problems:
        problems += _class_problems(original, rewritten)
        problems += _variable_problems(original, rewritten, compared, comparison.names)
        problems += _penalty_problems(found, plan, rewritten, comparison.names)
        if outputs and not problems:
            problems += _output_problems(original, rewritten, compared)
    return Report(tuple(problems), compared)
