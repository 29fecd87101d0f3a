"""Deciding: what the rules of a policy give to each slot of a model, and what can't be decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphwd.errors import PolicyError
from graphwd.graph.slots import Slot
from graphwd.plans.decisions import Decision
from graphwd.policy import regularizers
from graphwd.policy.parsing import suggest
from graphwd.policy.policies import Policy
from graphwd.policy.rules import Rule

_HINTS, _LONGEST_TEXT = 4, 200  # a pattern of a megabyte is told in a line, too


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy decides on the slots of one model.

    Attributes:
        decisions: A `Decision` for every slot.
        unmatched: A sentence for each rule without any effect, since it selects nothing.
        undecided: A sentence for each kind of slot that stays as it is, since its shape doesn't
            tell whether a rule selects it.
    """

    decisions: tuple[Decision, ...]
    unmatched: tuple[str, ...]
    undecided: tuple[str, ...]


def decide(
    policy: Policy, slots: Sequence[Slot], source: str = "", *, expectations: bool = True
) -> Verdict:
    """Goes through the rules of a policy in their order.

    Args:
        policy: A `Policy`.
        slots: The slots of one model, in the order of its layers.
        source: What the slots are from, for messages.
        expectations: Whether a rule must select the number of weights that it expects.

    Raises:
        PolicyError: when a rule selects another number of weights than it expects, or multiplies
            a regularizer that can't be multiplied.
    """
    fold = _Fold(slots)
    where = f" of {source}" if source else ""
    unmatched = []
    for index, rule in enumerate(policy.rules):
        selected = [rule.selects(slot) for slot in slots]
        if expectations and rule.expect is not None:
            _check_expected(index, rule, selected, slots, where)
        if not fold.apply(index, rule, selected):
            unmatched.append(_unmatched(index, rule, selected, slots, where))
    decisions = tuple(map(fold.decision, range(len(slots))))
    return Verdict(decisions, tuple(unmatched), tuple(_undecided(slots, fold.undecided)))


class _Fold:
    """What the rules so far give to each slot."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._winners: list[int | None] = [None] * len(slots)
        self._given: list[regularizers.Serialized | None] = [None] * len(slots)
        self._multiplied: dict[tuple[Any, float], regularizers.Serialized | None] = {}
        self.undecided: dict[int, int] = {}
        """Maps the places of slots to the rule that can't tell whether it selects them."""

    def apply(self, index: int, rule: Rule, selected: Sequence[bool | None]) -> bool:
        """Applies a rule; whether it decides on anything, or can't tell."""
        factors: Sequence[float] = ()
        if rule.times is not None:
            selected = [
                answer if self._given[place] is not None or place in self.undecided else False
                for place, answer in enumerate(selected)
            ]
            paths = [slot.path for slot in self._slots]
            if not rule.times.finds_blocks(paths):
                return False
            factors = rule.times.factors(paths, [answer is not False for answer in selected])
        regularizer = rule.regularizer
        for place, answer in enumerate(selected):
            if answer is None:
                if rule.times is not None or not self._holds(place, regularizer):
                    self.undecided[place] = index
            elif answer and rule.times is not None:
                self._winners[place] = index
                self._given[place] = self._times(self._given[place], factors[place])
            elif answer:
                self._winners[place] = index
                self._given[place] = regularizer
                self.undecided.pop(place, None)
        return any(answer is not False for answer in selected)

    def _holds(self, place: int, regularizer: regularizers.Serialized | None) -> bool:
        """Whether a slot gets a regularizer in any case, so far."""
        decided = self._winners[place] is not None
        held = self._given[place] if decided else self._slots[place].regularizer
        return place not in self.undecided and regularizers.equal(held, regularizer)

    def _times(
        self, given: regularizers.Serialized | None, factor: float
    ) -> regularizers.Serialized | None:
        """A multiple, which is one object for all slots that were given one object."""
        key = (regularizers.normalize(given), factor)
        if key not in self._multiplied:
            self._multiplied[key] = regularizers.multiplied(given, factor)
        return self._multiplied[key]

    def decision(self, place: int) -> Decision:
        slot = self._slots[place]
        winner = None if place in self.undecided else self._winners[place]
        after = slot.regularizer if winner is None else self._given[place]
        if winner is not None and regularizers.equal(slot.regularizer, after):
            after = slot.regularizer
        return Decision(slot, winner, after)


def _check_expected(
    index: int, rule: Rule, selected: Sequence[bool | None], slots: Sequence[Slot], where: str
) -> None:
    chosen = [slot for slot, answer in zip(slots, selected, strict=True) if answer is not False]
    weights = [slot for slot in chosen if slot.role != "activity"]
    unknown = [slot.path for slot in weights if not slot.shapes]
    count = sum(len(slot.shapes) for slot in weights)
    if unknown:
        raise PolicyError(
            f"{_named(index, rule)} expects {rule.expect:,} weights{where}, but how many "
            f"{_some(unknown)} stands for is not known; {_TO_KNOW}, or leave `expect` out."
        )
    if count != rule.expect:
        raise PolicyError(
            f"{_named(index, rule)} expects {rule.expect:,} weights{where} but selects {count:,}"
            + (f" ({_some([slot.path for slot in weights])})" if weights else "")
            + "; change the rule, or what it expects."
        )


_TO_KNOW = "build the model first, or load the file (--live)"


def _undecided(slots: Sequence[Slot], undecided: Mapping[int, int]) -> list[str]:
    """Why slots stay as they are: their shapes are not known, or are of both kinds."""
    unknown: dict[int, list[str]] = {}
    mixed: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for place, rule in undecided.items():
        slot = slots[place]
        if slot.ndims:
            mixed.setdefault((rule, tuple(sorted({*slot.ndims}))), []).append(slot.path)
        else:
            unknown.setdefault(rule, []).append(slot.path)
    sentences = [
        f"Rule {rule + 1} selects by ndim, but the number of dimensions of {_some(paths)} is not "
        f"known, so it stays as it is; {_TO_KNOW}, or select it by role or path."
        for rule, paths in unknown.items()
    ]
    sentences += [
        f"Rule {rule + 1} selects by ndim, but {_some(paths)} is one argument for weights of "
        f"{' and '.join(map(str, ranks))} dimensions, so it stays as it is; select it by role or "
        "path, too."
        for (rule, ranks), paths in mixed.items()
    ]
    return sentences


def _some(paths: Sequence[str]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")


def _named(index: int, rule: Rule) -> str:
    text = rule.describe()
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]}..."
    return f"Rule {index + 1} ({text})"


def _unmatched(
    index: int,
    rule: Rule,
    selected: Sequence[bool | None],
    slots: Sequence[Slot],
    where: str,
) -> str:
    """The warning for a rule without effect, with the nearest words that would match."""
    if rule.times is not None and True in selected:
        paths = [slot.path for slot in slots]
        if rule.times.finds_blocks(paths):
            return (
                f"{_named(index, rule)} multiplies nothing{where}: no rule before it gives what it "
                "selects a penalty."
            )
        blocks = "|".join(rule.times.blocks or ())
        return (
            f"{_named(index, rule)} finds the number of no block{where}: no path matches {blocks}."
        )
    known: Mapping[str, set[str]] = {
        "roles": {slot.role for slot in slots},
        "layers": {name for slot in slots for name in slot.layers},
        "paths": {slot.path for slot in slots},
    }
    hints = []
    for selector, words in known.items():
        for pattern in (getattr(rule, selector) or ())[:_HINTS]:
            nearest = suggest(pattern, words)
            if nearest and pattern not in words:
                hints.append(f"{pattern[:_LONGEST_TEXT]!r}: did you mean {nearest!r}?")
    hint = f" ({' '.join(hints)})" if hints else ""
    return f"{_named(index, rule)} matches nothing{where}{hint}."
