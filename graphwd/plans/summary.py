"""Summaries of outcomes: repeated layers as one line, and sums by role, rule and penalty."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graphwd.plans.decisions import Decision
from graphwd.plans.outcome import Outcome, Penalties
from graphwd.plans.tables import Cell, Table, make_table
from graphwd.policy import regularizers

_SUFFIX = re.compile(r"_\d+\Z")
_DIGITS = re.compile(r"(\d+)")


_LARGEST = 3


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the slots that have something in common.

    Attributes:
        label: What they have in common.
        slots: How many slots they are.
        parameters: The number of scalars in their weights; `None` where a file doesn't tell.
        share: `parameters` as a part of the model's; `None` where a file doesn't tell.
        penalised: How many have a regularizer afterwards, and of these
        edits: how many get it, or lose one, by the plan,
        dormant: how many are on frozen weights, which Keras skips,
        carried: how many are carried by graphwd, since no config expresses them.
        unreached: How many are weights that no config reaches and that stay without a penalty.
        penalty: What their penalties add to the loss now; `None` where that is not known.
        planned_penalty: What they add as planned.
        dormant_penalty: What the dormant ones would add, as planned, once they are unfrozen.
        largest: The paths of the slots with the largest penalties as planned, and their values.
    """

    label: str
    slots: int
    parameters: int | None
    share: float | None
    penalised: int
    edits: int
    dormant: int
    carried: int
    unreached: int
    penalty: float | None
    planned_penalty: float | None
    dormant_penalty: float | None
    largest: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain data, for JSON."""
        largest = [{"path": path, "penalty": value} for path, value in self.largest]
        return {**asdict(self), "largest": largest}


def count_parameters(decisions: Iterable[Decision]) -> int | None:
    """The number of scalars that slots govern; `None` where it isn't known of each of them.

    A regularizer of activations governs none, and doesn't count.
    """
    total = None
    for decision in decisions:
        if decision.slot.role == "activity":
            continue
        if (parameters := decision.slot.parameters) is None:
            return None
        total = parameters + (total or 0)
    return total


class Summary:
    """Sums over an outcome, on the weights of the moment.

    Args:
        outcome: An `Outcome`.
        penalties: What its penalties come to. Defaults to computing it.

    Attributes:
        penalties: What its penalties come to.
        total: The number of parameters that can have a penalty; 0 when it is not known.
    """

    def __init__(self, outcome: Outcome, penalties: Penalties | None = None) -> None:
        self._outcome = outcome
        self._planned = outcome.policy is not None
        self.penalties = outcome.penalties() if penalties is None else penalties
        known = count_parameters(outcome.decisions)
        self.total = 0 if known is None else known + outcome.hidden

    def tally(self, label: str, places: Iterable[int]) -> Tally:
        """Sums over some decisions.

        Args:
            label: What they have in common.
            places: Their places in the outcome.

        Returns:
            A `Tally`.
        """
        places = list(places)
        chosen = [self._outcome.decisions[place] for place in places]
        parameters = count_parameters(chosen)
        values = self.penalties.values
        known = (bool(values) or self._outcome.measure is not None) and not (
            self.penalties.unknown & set(places)
        )
        pairs = [
            (decision, *values[place])
            for place, decision in zip(places, chosen, strict=True)
            if place in values
        ]
        awake = [(decision, planned) for decision, _, planned in pairs if not decision.slot.dormant]
        ranked = sorted(awake, key=lambda pair: -pair[1])[:_LARGEST]
        return Tally(
            label=label,
            slots=len(chosen),
            parameters=parameters,
            share=self._share_of(parameters),
            penalised=sum(decision.after is not None for decision in chosen),
            edits=sum(decision.changes for decision in chosen),
            dormant=sum(decision.dormant for decision in chosen),
            carried=sum(decision.carried for decision in chosen),
            unreached=sum(decision.unreached for decision in chosen),
            penalty=sum(now for d, now, _ in pairs if not d.slot.dormant) if known else None,
            planned_penalty=sum(planned for _, planned in awake) if known else None,
            dormant_penalty=sum(p for d, _, p in pairs if d.slot.dormant) if known else None,
            largest=tuple((decision.slot.path, value) for decision, value in ranked if value),
        )

    def _share_of(self, parameters: int | None) -> float | None:
        return parameters / self.total if parameters is not None and self.total else None

    def whole(self) -> Tally:
        """A `Tally` of everything."""
        return self.tally("", range(len(self._outcome.decisions)))

    def by_role(self) -> list[Tally]:
        """A `Tally` for every role, in the order in which the model has them."""
        return self._tallies(lambda decision: decision.slot.role, str)

    def by_rule(self) -> list[Tally]:
        """A `Tally` for every rule, with the slots that it decides on, then one for the others.

        A slot counts for the last rule that matches it, so that a rule which later ones overrule
        everywhere has none.
        """
        if self._outcome.policy is None:
            return []
        decided: dict[int | None, list[int]] = {}
        for place, decision in enumerate(self._outcome.decisions):
            decided.setdefault(decision.rule, []).append(place)
        tallies = [
            self.tally(rule.describe(), decided.get(index, ()))
            for index, rule in enumerate(self._outcome.policy)
        ]
        if None in decided:
            tallies.append(self.tally("no rule: as it is", decided[None]))
        return tallies

    def by_penalty(self) -> list[Tally]:
        """A `Tally` for every regularizer that slots have afterwards, and for those without."""
        labels: dict[Hashable, str] = {}

        def key(decision: Decision) -> Hashable:
            normal: Hashable = regularizers.normalize(decision.after)
            labels.setdefault(normal, regularizers.describe(decision.after))
            return normal

        return self._tallies(key, labels.__getitem__)

    def _tallies(
        self, key: Callable[[Decision], Hashable], label: Callable[[Any], str]
    ) -> list[Tally]:
        groups: dict[Hashable, list[int]] = {}
        for place, decision in enumerate(self._outcome.decisions):
            groups.setdefault(key(decision), []).append(place)
        return [self.tally(label(value), places) for value, places in groups.items()]

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain data, for JSON."""
        sums = {"roles": self.by_role(), "rules": self.by_rule(), "penalties": self.by_penalty()}
        return {
            **{what: [tally.to_dict() for tally in tallies] for what, tallies in sums.items()},
            "whole": self.whole().to_dict(),
        }

    def tables(self) -> list[Table]:
        """The outcome as tables.

        Returns:
            A list of `Table`. With a policy its edits, then sums by rule and by role; without one
            what the slots hold, then sums by penalty and by role. Slots for an activity
            regularizer are then listed only where they hold one.
        """
        return self._plan_tables() if self._planned else self._state_tables()

    def _plan_tables(self) -> list[Table]:
        assert self._outcome.policy is not None
        tables = []
        groups = group(decision for decision in self._outcome.decisions if decision.changes)
        if groups:
            tables.append(self._groups_table("Edits", groups))
        rules = self.by_rule()
        numbers = [str(number) for number in range(1, len(self._outcome.policy) + 1)]
        numbers = [*numbers, "-"][: len(rules)]
        gives = [regularizers.describe(rule.regularizer) for rule in self._outcome.policy]
        tables.append(
            make_table(
                "Rules, with the slots on which each decides (the last one that matches does)",
                {
                    "rule": numbers,
                    "selects": [one.label for one in rules],
                    "gives": [*gives, ""][: len(rules)],
                    **self._sums(rules),
                },
            )
        )
        tables += self._values_table("rule", numbers, rules)
        return [*tables, *self._roles_tables()]

    def _state_tables(self) -> list[Table]:
        decisions = self._outcome.decisions
        listed = [d for d in decisions if d.after is not None or d.slot.role != "activity"]
        tables = []
        if listed:
            tables.append(self._groups_table("Slots", group(listed)))
        penalties = [one for one in self.by_penalty() if one.penalised]
        if penalties:
            tables.append(
                make_table(
                    "Penalties",
                    {
                        "penalty": [one.label for one in penalties],
                        "slots": [one.slots for one in penalties],
                        "parameters": [one.parameters for one in penalties],
                        "share": [_share(one.share) for one in penalties],
                        "dormant": _counts([one.dormant for one in penalties]),
                        "carried": _counts([one.carried for one in penalties]),
                    },
                )
            )
            tables += self._values_table("penalty", [one.label for one in penalties], penalties)
        return [*tables, *self._roles_tables()]

    def _roles_tables(self) -> list[Table]:
        found = self.by_role()
        if not found:
            return []
        labels = [one.label for one in found]
        return [
            make_table("Roles", {"role": labels, **self._sums(found)}),
            *self._values_table("role", labels, found),
        ]

    def _groups_table(self, title: str, groups: Sequence[Group]) -> Table:
        firsts = [one.decisions[0] for one in groups]
        sizes = [count_parameters(one.decisions) for one in groups]
        columns: dict[str, Iterable[Cell]] = {
            "path": [one.pattern for one in groups],
            "layer": [first.slot.layer for first in firsts],
            "slots": [len(one.decisions) for one in groups],
            "parameters": sizes,
            "share": [_share(self._share_of(size)) for size in sizes],
            "now": [regularizers.describe(first.slot.regularizer) for first in firsts],
        }
        if self._planned:
            columns["planned"] = [regularizers.describe(first.after) for first in firsts]
            columns["rule"] = ["" if first.rule is None else first.rule + 1 for first in firsts]
        columns["note"] = [_note(first) for first in firsts]
        return make_table(title, columns)

    def _sums(self, tallies: Sequence[Tally]) -> dict[str, Iterable[Cell]]:
        return {
            "slots": [one.slots for one in tallies],
            "parameters": [one.parameters for one in tallies],
            "share": [_share(one.share) for one in tallies],
            "penalised": [one.penalised for one in tallies],
            "edits": [one.edits if self._planned else "" for one in tallies],
            "dormant": _counts([one.dormant for one in tallies]),
            "carried": _counts([one.carried for one in tallies]),
            "unreached": _counts([one.unreached for one in tallies]),
        }

    def _values_table(self, what: str, labels: list[str], tallies: list[Tally]) -> list[Table]:
        """A table of what penalties come to, if there are any whose value is known."""
        if not self.penalties:
            return []
        rows = [
            (label, one)
            for label, one in zip(labels, tallies, strict=True)
            if one.penalty is None
            or any((one.penalty, one.planned_penalty, one.dormant_penalty, one.penalised))
        ]
        if not rows:
            return []
        whole = self.whole().planned_penalty
        columns: dict[str, Iterable[Cell]] = {what: [label for label, _ in rows]}
        columns["now" if self._planned else "value"] = [_value(one.penalty) for _, one in rows]
        if self._planned:
            columns["as planned"] = [_value(one.planned_penalty) for _, one in rows]
        columns["share"] = [
            _share(one.planned_penalty / whole) if whole and one.planned_penalty is not None else ""
            for _, one in rows
        ]
        asleep = [one.dormant_penalty for _, one in rows]
        columns["dormant"] = [_value(value) if any(asleep) else "" for value in asleep]
        columns["largest"] = [_largest(one, whole) for _, one in rows]
        return [make_table(f"Penalty by {what}, on the weights as they are", columns)]


@dataclass(frozen=True, slots=True)
class Group:
    """Slots whose paths differ in numbers only, and that fare alike.

    Attributes:
        pattern: Their common path, with `*` for the numbers that differ; a pattern for a rule's
            `paths`, though it may match other slots, too.
        decisions: Their `Decision`s.
    """

    pattern: str
    decisions: tuple[Decision, ...]


def group(decisions: Iterable[Decision]) -> list[Group]:
    """Makes one group of repeated layers.

    Args:
        decisions: `Decision`s.

    Returns:
        A list of `Group`, in the order of their first members.
    """
    found: dict[Hashable, list[tuple[tuple[str, ...], Decision]]] = {}
    for decision in decisions:
        slot = decision.slot
        pieces = _pieces(slot.path)
        key = (
            tuple("" if index % 2 else piece for index, piece in enumerate(pieces)),
            slot.role,
            slot.layer,
            regularizers.normalize(slot.regularizer),
            regularizers.normalize(decision.after),
            decision.rule,
            slot.dormant,
            decision.portable,
        )
        found.setdefault(key, []).append((pieces, decision))
    return [
        Group(_pattern([pieces for pieces, _ in members]), tuple(d for _, d in members))
        for members in found.values()
    ]


def _pieces(path: str) -> tuple[str, ...]:
    """A path as fixed texts (at even places) and numbers (at odd ones) that may vary.

    The number that Keras appends to a repeated name (`dense`, `dense_1`) is a piece even where it
    is absent, so that the first layer of a kind is one of its kind.
    """
    pieces: list[str] = [""]
    *names, role = path.split("/")
    for name in names:
        suffix = _SUFFIX.search(name)
        base = name[: suffix.start()] if suffix else name
        first, *rest = _DIGITS.split(base)
        pieces[-1] += first
        pieces += [*rest, suffix.group() if suffix else "", "/"]
    pieces[-1] += role
    return tuple(pieces)


def _pattern(members: Sequence[tuple[str, ...]]) -> str:
    texts = []
    for piece in zip(*members, strict=True):
        if len(set(piece)) == 1:
            texts.append(piece[0])
        else:
            texts.append("_*" if all(text.startswith("_") for text in piece) else "*")
    return "".join(texts)


def _largest(one: Tally, whole: float | None) -> tuple[str, ...]:
    return tuple(
        f"{_share(value / whole) if whole else _value(value)} {path}" for path, value in one.largest
    )


def _value(value: float | None) -> Cell:
    return "?" if value is None else float(value)


def _counts(numbers: Sequence[int]) -> Sequence[Cell]:
    """Counts, or nothing when they are all 0, so that the column is left out."""
    return numbers if any(numbers) else [""] * len(numbers)


def _share(share: float | None) -> str:
    if share is None:
        return ""
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def _note(decision: Decision) -> str:
    notes = {
        "dormant": decision.dormant,
        "carried": decision.carried,
        "unreached": decision.unreached,
        "frozen": decision.slot.dormant and not decision.dormant,
    }
    return ", ".join(word for word, holds in notes.items() if holds)
