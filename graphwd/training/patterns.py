"""Patterns of variables' paths that still hold when a file is loaded."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from graphwd.errors import GraphwdError

Group = TypeVar("Group", bound=Hashable)

_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True)
class VariablePath:
    """A variable to be found again, by its path."""

    path: str
    unsaved: frozenset[str] = frozenset()
    """The names in the path that no config has: of layers in a layer, numbered anew on loading."""

    @property
    def names(self) -> list[str]:
        """The path in parts."""
        return self.path.split("/")

    def pattern(self, length: int, *, numbered: bool) -> str:
        """A regular expression for the last parts of the path."""
        return "/".join(
            re.escape(_NUMBER.sub("", name)) + r"(?:_\d+)?"
            if not numbered and name in self.unsaved
            else re.escape(name)
            for name in self.names[-length:]
        )


def regular_expressions(groups: Mapping[Group, Sequence[VariablePath]]) -> dict[Group, str]:
    """One regular expression for each group of variables, which no other group's path matches."""
    # Where a file is loaded, the front of a path may differ, and numbers in names of no config. So
    # each variable is told by as little of its path's end as tells its group, the name of a layer
    # at least, and without such numbers if that is enough.
    exact, plain = _owners(groups, numbered=True), _owners(groups, numbered=False)
    found: dict[Group, str] = {}
    for group, places in groups.items():
        ends: dict[str, None] = {}
        whole: dict[str, None] = {}
        for place in places:
            end = _shortest(place, group, exact, plain)
            if end is None:
                _refuse_twins(place, group, groups)
                whole[re.escape(place.path)] = None
            else:
                ends[end] = None
        parts = [f"(?:.*/)?(?:{'|'.join(ends)})"] if ends else []
        found[group] = "|".join([*parts, *whole])
    return found


def _owners(
    groups: Mapping[Group, Iterable[VariablePath]], *, numbered: bool
) -> dict[tuple[str, ...], set[Group]]:
    """Maps every end of every path to the groups that have it."""
    owners: dict[tuple[str, ...], set[Group]] = {}
    for group, places in groups.items():
        for place in places:
            names = [name if numbered else _NUMBER.sub("", name) for name in place.names]
            for length in range(1, len(names) + 1):
                owners.setdefault(tuple(names[-length:]), set()).add(group)
    return owners


def _shortest(
    place: VariablePath,
    group: Group,
    exact: Mapping[tuple[str, ...], set[Group]],
    plain: Mapping[tuple[str, ...], set[Group]],
) -> str | None:
    names = place.names
    bare = [_NUMBER.sub("", name) for name in names]
    for length in range(min(2, len(names)), len(names) + 1):
        if plain[tuple(bare[-length:])] == {group}:
            return place.pattern(length, numbered=False)
        if exact[tuple(names[-length:])] == {group} and not place.unsaved & set(names[-length:]):
            return place.pattern(length, numbered=True)
    for length in range(min(2, len(names)), len(names) + 1):
        if exact[tuple(names[-length:])] == {group}:
            return place.pattern(length, numbered=True)
    return None


def _refuse_twins(
    place: VariablePath, group: Group, groups: Mapping[Group, Iterable[VariablePath]]
) -> None:
    for other, places in groups.items():
        if other != group and any(each.path == place.path for each in places):
            raise GraphwdError(
                f"Two weights have the path {place.path!r} but are to decay differently, and an "
                "optimizer knows its weights by their paths; give the layers different names."
            )
