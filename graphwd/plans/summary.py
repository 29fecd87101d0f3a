"""Summaries of plans: repeated layers as one line, and sums by role, rule and penalty."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graphwd.plans.edits import Edit, together
from graphwd.plans.tables import Cell, Table, make_table
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy

_SUFFIX = re.compile(r"_\d+\Z")
_DIGITS = re.compile(r"(\d+)")
_LARGEST = 3


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the slots that have something in common."""

    label: str  # what they have in common
    slots: int  # how many they are
    parameters: int | None  # the number of scalars in their weights; `None` where it isn't known
    share: float | None  # `parameters` as a part of the model's
    penalised: int  # how many have a regularizer afterwards
    edits: int  # how many get another, or lose one, by the plan
    dormant: int  # of the penalised, how many are on frozen weights, which Keras skips
    carried: int  # of the penalised, how many graphwd carries, since no config expresses them
    unreached: int  # how many are weights that no config reaches and that stay without a penalty
    penalty: float | None  # what their penalties add to the loss now; `None` where it isn't known
    planned_penalty: float | None  # what they add as planned
    dormant_penalty: float | None  # what the dormant ones would add, as planned, once unfrozen
    largest: tuple[tuple[str, float], ...]  # paths and values of the largest penalties as planned

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain data, for JSON."""
        largest = [{"path": path, "penalty": value} for path, value in self.largest]
        return {**asdict(self), "largest": largest}


def count_parameters(edits: Iterable[Edit]) -> int | None:
    """The number of scalars that slots govern; `None` where it isn't known of each of them."""
    total = None
    for edit in edits:
        if edit.role == "activity":  # it governs none
            continue
        if (parameters := edit.slot.parameters) is None:
            return None
        total = parameters + (total or 0)
    return total


class Summary:
    """Sums over the slots of a plan that was measured or can't be: by role, rule and penalty."""

    def __init__(
        self, policy: Policy | None, edits: Sequence[Edit], hidden: int, *, measurable: bool
    ) -> None:
        self._policy, self._edits, self._measurable = policy, edits, measurable
        known = count_parameters(edits)
        self.total = 0 if known is None else known + hidden
        """The number of parameters that can have a penalty; 0 when it is not known."""
        self.valued = any(edit.penalty is not None for edit in edits)
        """Whether the value of any penalty is known."""

    def tally(self, label: str, edits: Sequence[Edit]) -> Tally:
        """Sums over some of the slots."""
        parameters = count_parameters(edits)
        known = self._measurable and not any(e.penalised and e.penalty is None for e in edits)
        awake = [edit for edit in edits if not edit.slot.frozen]
        ranked = sorted(awake, key=lambda edit: -(edit.planned_penalty or 0.0))[:_LARGEST]
        return Tally(
            label=label,
            slots=len(edits),
            parameters=parameters,
            share=self._share_of(parameters),
            penalised=sum(edit.after is not None for edit in edits),
            edits=sum(edit.changes for edit in edits),
            dormant=sum(edit.dormant for edit in edits),
            carried=sum(edit.carried for edit in edits),
            unreached=sum(edit.unreached for edit in edits),
            penalty=sum(e.penalty or 0.0 for e in awake) if known else None,
            planned_penalty=sum(e.planned_penalty or 0.0 for e in awake) if known else None,
            dormant_penalty=sum(e.planned_penalty or 0.0 for e in edits if e.slot.frozen)
            if known
            else None,
            largest=tuple((e.path, e.planned_penalty) for e in ranked if e.planned_penalty),
        )

    def _share_of(self, parameters: int | None) -> float | None:
        return parameters / self.total if parameters is not None and self.total else None

    def whole(self) -> Tally:
        """A `Tally` of everything."""
        return self.tally("", self._edits)

    def by_role(self) -> list[Tally]:
        """A `Tally` for every role, in the order in which the model has them."""
        return [self.tally(role, edits) for role, edits in self._grouped(lambda e: e.role).items()]

    def by_rule(self) -> list[Tally]:
        """A `Tally` for every rule, with the slots that it decides on, then one for the others."""
        if self._policy is None:
            return []
        decided = self._grouped(lambda edit: edit.rule)
        tallies = [
            self.tally(rule.describe(), decided.get(index, ()))
            for index, rule in enumerate(self._policy)
        ]
        if None in decided:
            tallies.append(self.tally("no rule: as it is", decided[None]))
        return tallies

    def by_penalty(self) -> list[Tally]:
        """A `Tally` for every regularizer that slots have afterwards, and for those without."""
        groups = self._grouped(lambda edit: regularizers.normalize(edit.after))
        return [
            self.tally(regularizers.describe(edits[0].after), edits) for edits in groups.values()
        ]

    def _grouped(self, key: Callable[[Edit], Any]) -> dict[Any, list[Edit]]:
        groups: dict[Any, list[Edit]] = {}
        for edit in self._edits:
            groups.setdefault(key(edit), []).append(edit)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain data, for JSON."""
        sums = {"roles": self.by_role(), "rules": self.by_rule(), "penalties": self.by_penalty()}
        return {
            **{what: [tally.to_dict() for tally in tallies] for what, tallies in sums.items()},
            "whole": self.whole().to_dict(),
        }

    def tables(self) -> list[Table]:
        """With a policy edits, then sums by rule; without one what slots hold, then by penalty."""
        tables = self._state_tables() if self._policy is None else self._plan_tables(self._policy)
        if found := self.by_role():
            labels = [one.label for one in found]
            tables.append(make_table("Roles", {"role": labels, **self._sums(found)}))
            tables += self._values_table("role", labels, found)
        return tables

    def _plan_tables(self, policy: Policy) -> list[Table]:
        tables = []
        if groups := group(edit for edit in self._edits if edit.changes):
            tables.append(self._groups_table("Edits", groups))
        rules = self.by_rule()
        numbers = [str(number) for number in range(1, len(policy) + 1)]
        numbers = [*numbers, "-"][: len(rules)]
        tables.append(
            make_table(
                "Rules, with the slots on which each decides (the last one that matches does)",
                {
                    "rule": numbers,
                    "selects": [one.label for one in rules],
                    "gives": [*(rule.gives for rule in policy), ""][: len(rules)],
                    **self._sums(rules),
                },
            )
        )
        return tables + self._values_table("rule", numbers, rules)

    def _state_tables(self) -> list[Table]:
        # A slot for an activity regularizer is worth a line only where it holds one.
        listed = [e for e in self._edits if e.after is not None or e.role != "activity"]
        tables = []
        if listed:
            tables.append(self._groups_table("Slots", group(listed)))
        penalties = [one for one in self.by_penalty() if one.penalised]
        if penalties:
            labels = [one.label for one in penalties]
            sums = self._sums(penalties)
            kept = ("slots", "parameters", "share", "dormant", "carried")
            columns = {"penalty": labels, **{header: sums[header] for header in kept}}
            tables.append(make_table("Penalties", columns))
            tables += self._values_table("penalty", labels, penalties)
        return tables

    def _groups_table(self, title: str, groups: Sequence[Group]) -> Table:
        firsts = [one.edits[0] for one in groups]
        sizes = [count_parameters(one.edits) for one in groups]
        columns: dict[str, Iterable[Cell]] = {
            "path": [one.pattern for one in groups],
            "layer": [first.layer for first in firsts],
            "slots": [len(one.edits) for one in groups],
            "parameters": sizes,
            "share": [_share(self._share_of(size)) for size in sizes],
            "now": [regularizers.describe(first.before) for first in firsts],
            "from start": [together(edit.distance for edit in one.edits) for one in groups],
        }
        if self._policy is not None:
            columns["planned"] = [regularizers.describe(first.after) for first in firsts]
            columns["rule"] = ["" if first.rule is None else first.rule + 1 for first in firsts]
        columns["note"] = [remark(first) for first in firsts]
        return make_table(title, columns)

    def _sums(self, tallies: Sequence[Tally]) -> dict[str, Iterable[Cell]]:
        return {
            "slots": [one.slots for one in tallies],
            "parameters": [one.parameters for one in tallies],
            "share": [_share(one.share) for one in tallies],
            "penalised": [one.penalised for one in tallies],
            "edits": ["" if self._policy is None else one.edits for one in tallies],
            "dormant": _counts([one.dormant for one in tallies]),
            "carried": _counts([one.carried for one in tallies]),
            "unreached": _counts([one.unreached for one in tallies]),
        }

    def _values_table(self, what: str, labels: list[str], tallies: list[Tally]) -> list[Table]:
        """A table of what penalties come to, if there are any whose value is known."""
        if not self.valued:
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
        now = "value" if self._policy is None else "now"
        columns[now] = [_value(one.penalty) for _, one in rows]
        if self._policy is not None:
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
    """Slots whose paths differ in numbers only, and that fare alike."""

    pattern: str
    """Their common path, with `*` for the numbers, as a pattern of a rule, which may match more."""
    edits: tuple[Edit, ...]


def group(edits: Iterable[Edit]) -> list[Group]:
    """Makes one group of repeated layers; groups are in the order of their first members."""
    found: dict[Hashable, list[tuple[tuple[str, ...], Edit]]] = {}
    for edit in edits:
        pieces = _pieces(edit.path)
        key = (
            tuple("" if index % 2 else piece for index, piece in enumerate(pieces)),
            edit.role,
            edit.layer,
            regularizers.normalize(edit.before),
            regularizers.normalize(edit.after),
            edit.rule,
            edit.slot.frozen,
            edit.portable,
        )
        found.setdefault(key, []).append((pieces, edit))
    return [
        Group(_pattern([pieces for pieces, _ in members]), tuple(edit for _, edit in members))
        for members in found.values()
    ]


def _pieces(path: str) -> tuple[str, ...]:
    """A path as fixed texts (at even places) and numbers (at odd ones) that may vary."""
    pieces: list[str] = [""]
    *names, role = path.split("/")
    for name in names:
        suffix = _SUFFIX.search(name)
        base = name[: suffix.start()] if suffix else name
        first, *rest = _DIGITS.split(base)
        pieces[-1] += first
        # The number that Keras appends to a repeated name (`dense`, `dense_1`) is a piece even
        # where it is absent, so that the first layer of a kind is one of its kind.
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


def remark(edit: Edit) -> str:
    """What is to know of an edit, in a few words."""
    words = {
        "dormant": edit.dormant,
        "frozen": edit.slot.frozen and not edit.dormant,
        "carried": edit.carried,
        "unreached": edit.unreached,
    }
    return ", ".join(word for word, holds in words.items() if holds)
