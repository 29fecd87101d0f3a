"""Equivalence: two serialized models, compared with regularizers by meaning, and the report."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphwd.graph import comparison
from graphwd.graph.slots import Pointer, find_slots
from graphwd.policy import regularizers

_MOST_LINES = 200


@dataclass(frozen=True)
class Report:
    """What a verification found.

    Attributes:
        problems: One line for each difference: which layer, weight or slot, and what differs.
        compared: What was compared, and how many: `{"layer calls": 92, "variables": 137, ...}`.
        not_compared: What was left out on purpose.
        planned: Whether there was a policy, so that regularizers were held against it.
    """

    problems: tuple[str, ...]
    compared: Mapping[str, int] = field(default_factory=dict)
    not_compared: tuple[str, ...] = ()
    planned: bool = True

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {what}" for what, count in self.compared.items())
        if self.not_compared:
            counts += f"; not compared: {', '.join(self.not_compared)}"
        if self.ok:
            aside = "but for the planned edits" if self.planned else "apart from regularizers"
            return f"equal {aside}; compared: {counts}"
        lines = [f"{len(self.problems)} differences; compared: {counts}"]
        lines += [f"- {problem}" for problem in self.problems[:_MOST_LINES]]
        if len(self.problems) > _MOST_LINES:
            lines.append(f"- and {len(self.problems) - _MOST_LINES} more")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON.

        Returns:
            A dict with the keys `ok`, `problems`, `compared` and `not_compared`.
        """
        return {
            "ok": self.ok,
            "problems": list(self.problems),
            "compared": dict(self.compared),
            "not_compared": list(self.not_compared),
        }

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(p)}</li>" for p in self.problems[:_MOST_LINES])
        return f"<p>{html.escape(str(self).splitlines()[0])}</p><ul>{items}</ul>"


def compare(
    expected: Mapping[str, Any],
    actual: Mapping[str, Any],
    *,
    regularizers_too: bool = True,
    match: comparison.Match = "auto",
    known: Sequence[Pointer] | None = None,
) -> comparison.Comparison:
    """Compares two serialized models: the graphs as they stand, the regularizers by meaning.

    Keras writes the same regularizer in several ways: a factor rounded to float32 or not, a key
    with null or no key.

    Args:
        expected: A serialized model.
        actual: Another one.
        regularizers_too: Whether regularizers must be equal.
        match: As for `comparison.compare`.
        known: The pointers of all slots of the first model, when they are known. Slots are not
            looked for then, as long as the second model has the same layers in the same places.

    Returns:
        The comparison of the graphs, with the differences of regularizers among its problems.
    """
    if known is not None and regularizers_too and _same_places(expected, actual):
        found = comparison.compare(expected, actual, ignore=known, match=match)
        if found.ok and all(
            regularizers.equal(_held(expected, p), _held(actual, p)) for p in known
        ):
            return found
    slots = {side: find_slots(config) for side, config in (("", expected), ("other", actual))}
    ignored = [p for side in slots.values() for slot in side for p in slot.pointers]
    found = comparison.compare(expected, actual, ignore=ignored, match=match)
    if not regularizers_too:
        return found
    held: dict[str, list[Any]] = {}
    for slot in slots["other"]:
        held.setdefault(slot.path, []).append(slot.regularizer)
    problems = list(found.problems)
    for slot in slots[""]:
        there = held.get(_translated(slot.path, found.names), [])
        value = there.pop(0) if there else None
        if not regularizers.equal(slot.regularizer, value):
            problems.append(instead(slot.path, value, slot.regularizer))
    problems += [
        instead(path, value, None) for path, left in held.items() for value in left if value
    ]
    return replace(found, problems=tuple(problems))


def _same_places(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> bool:
    """Whether two serialized models have layers of the same names in the same order."""
    stack = [(expected, actual)]
    while stack:
        one, other = ((entry.get("config") or {}).get("layers") for entry in stack.pop())
        if one is None and other is None:
            continue
        if not isinstance(one, list) or not isinstance(other, list) or len(one) != len(other):
            return False
        if [entry["config"].get("name") for entry in one] != [
            entry["config"].get("name") for entry in other
        ]:
            return False
        stack.extend(zip(one, other, strict=True))
    return True


def _held(serialized: Any, pointer: Pointer) -> Any:
    """What a slot holds; what is not there is no regularizer."""
    for key in pointer:
        try:
            serialized = serialized[key]
        except (KeyError, IndexError):
            return None
    if isinstance(serialized, str):  # a custom layer's identifier
        return {"class_name": serialized, "config": {}}
    return serialized


def instead(path: str, actual: Any, expected: Any) -> str:
    """The problem of a slot that holds something else than planned."""
    return (
        f"{path}: the config has {regularizers.describe(actual)} instead of the planned "
        f"{regularizers.describe(expected)}"
    )


def _translated(path: str, names: Mapping[str, str]) -> str:
    """A slot's path in a model whose layers have other names."""
    parts = path.split("/")
    for length in range(len(parts) - 1, 0, -1):
        layer = "/".join(parts[:length])
        if layer in names:
            return "/".join((names[layer], *parts[length:]))
    return path
