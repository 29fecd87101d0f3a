"""Summaries of decisions: repeated layers as one line, and sums by role, rule and penalty."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graphwd import regularizers
from graphwd.decisions import Decision
from graphwd.policy import Policy
from graphwd.tables import Table, make_table

_SUFFIX = re.compile(r"_\d+\Z")
_DIGITS = re.compile(r"(\d+)")


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

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain data, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def tally(label: str, decisions: Iterable[Decision], total: int) -> Tally:
    """Sums over decisions.

    Args:
        label: What they have in common.
        decisions: `Decision`s.
        total: The number of parameters that is all of the model's; 0 when it is not known.

    Returns:
        A `Tally`.
    """
    chosen = list(decisions)
    parameters = count_parameters(chosen)
    return Tally(
        label=label,
        slots=len(chosen),
        parameters=parameters,
        share=parameters / total if parameters is not None and total else None,
        penalised=sum(decision.after is not None for decision in chosen),
        edits=sum(decision.changes for decision in chosen),
        dormant=sum(decision.dormant for decision in chosen),
        carried=sum(decision.carried for decision in chosen),
        unreached=sum(decision.unreached for decision in chosen),
    )


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


def by_role(decisions: Sequence[Decision]) -> list[Tally]:
    """A `Tally` for every role, in the order in which the model has them."""
    return _tallies(decisions, lambda decision: decision.slot.role, str)


def by_rule(decisions: Sequence[Decision], policy: Policy) -> list[Tally]:
    """A `Tally` for every rule, with the slots that it decides on, then one for the others.

    A slot counts for the last rule that matches it, so that a rule which later ones overrule
    everywhere has none.
    """
    total = count_parameters(decisions) or 0
    decided: dict[int | None, list[Decision]] = {}
    for decision in decisions:
        decided.setdefault(decision.rule, []).append(decision)
    tallies = [
        tally(rule.describe(), decided.get(index, ()), total) for index, rule in enumerate(policy)
    ]
    if None in decided:
        tallies.append(tally("no rule: as it is", decided[None], total))
    return tallies


def by_penalty(decisions: Sequence[Decision]) -> list[Tally]:
    """A `Tally` for every regularizer that slots have afterwards."""
    labels: dict[Hashable, str] = {}

    def key(decision: Decision) -> Hashable:
        normal: Hashable = regularizers.normalize(decision.after)
        labels.setdefault(normal, regularizers.describe(decision.after))
        return normal

    return _tallies(decisions, key, labels.__getitem__)


def _tallies(
    decisions: Sequence[Decision],
    key: Callable[[Decision], Hashable],
    label: Callable[[Any], str],
) -> list[Tally]:
    total = count_parameters(decisions) or 0
    groups: dict[Hashable, list[Decision]] = {}
    for decision in decisions:
        groups.setdefault(key(decision), []).append(decision)
    return [tally(label(value), members, total) for value, members in groups.items()]


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


def plan_tables(decisions: Sequence[Decision], policy: Policy) -> list[Table]:
    """The tables of a plan: its edits, then sums by rule and by role.

    Args:
        decisions: The plan's `Decision`s.
        policy: Its `Policy`.

    Returns:
        A list of `Table`.
    """
    tables = []
    groups = group(decision for decision in decisions if decision.changes)
    if groups:
        tables.append(_groups_table("Edits", groups, decisions, planned=True))
    rules = by_rule(decisions, policy)
    numbers = [str(number) for number in range(1, len(policy) + 1)]
    gives = [regularizers.describe(rule.regularizer) for rule in policy]
    tables.append(
        make_table(
            "Rules, with the slots on which each decides (the last one that matches does)",
            {
                "rule": [*numbers, "-"][: len(rules)],
                "selects": [one.label for one in rules],
                "gives": [*gives, ""][: len(rules)],
                **_sums(rules, planned=True),
            },
        )
    )
    tables.append(_roles_table(decisions, planned=True))
    return tables


def state_tables(decisions: Sequence[Decision]) -> list[Table]:
    """The tables of a model as it is: what its slots hold, then sums by penalty and by role.

    Args:
        decisions: A `Decision` for every slot, none of which changes anything.

    Returns:
        A list of `Table`. Slots for an activity regularizer are listed only where they hold one.
    """
    listed = [d for d in decisions if d.after is not None or d.slot.role != "activity"]
    tables = []
    if listed:
        tables.append(_groups_table("Slots", group(listed), decisions, planned=False))
    penalties = by_penalty([d for d in decisions if d.after is not None])
    if penalties:
        total = count_parameters(decisions) or 0
        tables.append(
            make_table(
                "Penalties",
                {
                    "penalty": [one.label for one in penalties],
                    "slots": [one.slots for one in penalties],
                    "parameters": [_count(one.parameters) for one in penalties],
                    "share": [_share(one.parameters, total) for one in penalties],
                    "dormant": _counts([one.dormant for one in penalties]),
                    "carried": _counts([one.carried for one in penalties]),
                },
            )
        )
    tables.append(_roles_table(decisions, planned=False))
    return tables


def _groups_table(
    title: str, groups: Sequence[Group], decisions: Sequence[Decision], *, planned: bool
) -> Table:
    total = count_parameters(decisions) or 0
    firsts = [one.decisions[0] for one in groups]
    sizes = [count_parameters(one.decisions) for one in groups]
    columns: dict[str, Iterable[str | int]] = {
        "path": [one.pattern for one in groups],
        "layer": [first.slot.layer for first in firsts],
        "slots": [len(one.decisions) for one in groups],
        "parameters": [_count(size) for size in sizes],
        "share": [_share(size, total) for size in sizes],
        "now": [regularizers.describe(first.slot.regularizer) for first in firsts],
    }
    if planned:
        columns["planned"] = [regularizers.describe(first.after) for first in firsts]
        columns["rule"] = ["" if first.rule is None else first.rule + 1 for first in firsts]
    columns["note"] = [_note(first) for first in firsts]
    return make_table(title, columns)


def _roles_table(decisions: Sequence[Decision], *, planned: bool) -> Table:
    roles = by_role(decisions)
    return make_table(
        "Roles", {"role": [one.label for one in roles], **_sums(roles, planned=planned)}
    )


def _sums(tallies: Sequence[Tally], *, planned: bool) -> dict[str, Iterable[str | int]]:
    return {
        "slots": [one.slots for one in tallies],
        "parameters": [_count(one.parameters) for one in tallies],
        "share": ["" if one.share is None else _percent(one.share) for one in tallies],
        "penalised": [one.penalised for one in tallies],
        "edits": [one.edits if planned else "" for one in tallies],
        "dormant": _counts([one.dormant for one in tallies]),
        "carried": _counts([one.carried for one in tallies]),
        "unreached": _counts([one.unreached for one in tallies]),
    }


def _counts(numbers: Sequence[int]) -> Sequence[str | int]:
    """Counts, or nothing when they are all 0, so that the column is left out."""
    return numbers if any(numbers) else [""] * len(numbers)


def _count(number: int | None) -> str | int:
    return "" if number is None else number


def _share(parameters: int | None, total: int) -> str:
    return "" if parameters is None or not total else _percent(parameters / total)


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def _note(decision: Decision) -> str:
    notes = {
        "dormant": decision.dormant,
        "carried": decision.carried,
        "unreached": decision.unreached,
        "frozen": decision.slot.dormant and not decision.dormant,
    }
    return ", ".join(word for word, holds in notes.items() if holds)
