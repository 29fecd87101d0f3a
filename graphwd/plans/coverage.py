"""Coverage: the large matrices that no rule decides on while rules penalise their like."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from graphwd.plans.decisions import Decision
from graphwd.policy.selectors import matcher, ndim_selects

_NAMED = 3
_MATRICES = matcher(("!*bias*", "!*embed*", "!*token*", "!activity"))
"""By role: the weights that inputs are multiplied by, and no table that is looked up in."""


def passed_over(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """A sentence on the large matrices that a policy passes over, as one by names alone may do.

    A matrix is large when it has at least as many parameters as half of those that are penalised.

    Args:
        decisions: All decisions on one model.

    Returns:
        One sentence, or none.
    """
    matrices = [d for d in decisions if _is_matrix(d)]
    penalised = [d for d in matrices if d.rule is not None and d.after is not None]
    if not penalised:
        return ()
    typical = statistics.median(map(_size, penalised))
    over = [d for d in matrices if d.rule is None and d.after is None and _size(d) >= typical]
    if not over:
        return ()
    share = sum(map(_size, over)) / sum(map(_size, matrices))
    return (
        f"No rule decides on {len(over):,} large matrices, {share:.0%} of the parameters in all of "
        f"them, while others like them are penalised: {_some(d.slot.path for d in over)}; "
        'ndim=">=2" with roles="!*bias*" selects matrices by whatever name.',
    )


def _is_matrix(decision: Decision) -> bool:
    return _MATRICES((decision.slot.role,)) and bool(ndim_selects((">=2",), decision.slot.ndims))


def _size(decision: Decision) -> int:
    return decision.slot.parameters or 0


def _some(paths: Iterable[str]) -> str:
    paths = list(paths)
    more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
    return ", ".join(paths[:_NAMED]) + more
