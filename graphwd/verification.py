"""The proof that one model is another plus planned edits, for live models and for files."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from graphwd import graph, regularizers
from graphwd.errors import EquivalenceError
from graphwd.plans import Decision, Plan, make_plan
from graphwd.slots import Pointer, Slot, find_slots, set_regularizers, strip_carried

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
    """Proves that a live model is the surveyed one plus a plan's edits.

    Args:
        found: The survey of the original.
        plan: The plan for it.
        copy: The rewritten model.
        outputs: Whether to compare outputs on generated inputs.
        unsaved: Whether to compare what Keras doesn't save: the state of seed generators, and on
            which devices a value lies.

    Returns:
        A `Report`.
    """
    from graphwd import equality, serializing

    expected = set_regularizers(found.serialized, plan.config_edits())
    known = [pointer for slot in found.slots for pointer in slot.pointers]
    comparison = compare(expected, serializing.serialize(copy), known=known)
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
    """Proves that a live model is another one plus a policy's edits.

    Args:
        original: A `keras.Model`.
        rewritten: Another one.
        policy: The policy, or `None` to accept the regularizers that the second model's config
            says, as long as its variables have them.
        outputs: Whether to compare outputs on generated inputs.
        unsaved: Whether to compare what Keras doesn't save: the state of seed generators, and on
            which devices a value lies.

    Returns:
        A `Report`.
    """
    from graphwd import equality
    from graphwd.survey import survey

    found = survey(original)
    if policy is not None:
        plan = make_plan(found.slots, policy, source=f"model {original.name!r}")
        return verify_clone(found, plan, rewritten, outputs=outputs, unsaved=unsaved)
    other = survey(rewritten)
    comparison = compare(found.serialized, other.serialized, regularizers_too=False)
    compared = {"layer calls": comparison.nodes, "tensors": comparison.edges}
    problems = list(comparison.problems)
    if not problems:
        pairs = equality.pair(original, rewritten, comparison.names)
        problems = equality.differences(pairs, compared, unsaved=unsaved)
        held = tuple(Decision(slot, None, slot.regularizer) for slot in other.slots)
        itself = equality.pair(rewritten, rewritten, {})
        problems += equality.penalty_differences(other, Plan(None, held), itself)
    if outputs and not problems:
        problems = equality.output_differences(original, rewritten, compared)
    return Report(tuple(problems), compared, planned=False)


def verify_files(
    original: str | os.PathLike[str],
    rewritten: str | os.PathLike[str],
    policy: Policy | None,
) -> Report:
    """Proves that a saved model is another one plus a policy's edits, without Keras.

    Args:
        original: A `.keras` or a whole-model `.h5` file.
        rewritten: A file of the same kind.
        policy: The policy, or `None` to accept any regularizers in the second file.

    Returns:
        A `Report`.

    Raises:
        ArchiveError: when one of the files is no saved model, or is damaged.
    """
    from graphwd import archive

    with archive.open_saved(original) as one, archive.open_saved(rewritten) as other:
        problems: list[str] = []
        expected, actual = strip_carried(one.config), strip_carried(other.config)
        if policy is not None:
            slots = _slots_of_both(archive.shaped_slots(one)[0], find_slots(other.config))
            # Loaded models may have weights that files don't tell of, so that counts may differ.
            plan = make_plan(slots, policy, source=os.fspath(original), expectations=False)
            edits = {
                pointer: decision.after
                for decision in plan.decisions
                if decision.changes and not decision.slot.carried
                for pointer in decision.slot.pointers
            }
            expected = set_regularizers(expected, edits)
            problems += _carried_problems(plan.decisions, other.config)
        comparison = compare(expected, actual, regularizers_too=policy is not None, match="names")
        problems += [*comparison.problems, *archive.compare_archives(one, other)]
        if one.config.get("compile_config") != other.config.get("compile_config"):
            problems.append("the models are compiled differently")
    compared = {"layer calls": comparison.nodes, "tensors": comparison.edges}
    left_out = ("when, by which Keras and with which backend the files were saved",)
    return Report(tuple(problems), compared, left_out, policy is not None)


def compare(
    expected: Mapping[str, Any],
    actual: Mapping[str, Any],
    *,
    regularizers_too: bool = True,
    match: graph.Match = "auto",
    known: Sequence[Pointer] | None = None,
) -> graph.Comparison:
    """Compares two serialized models: the graphs as they stand, the regularizers by meaning.

    Keras writes the same regularizer in several ways: a factor rounded to float32 or not, a key
    with null or no key.

    Args:
        expected: A serialized model.
        actual: Another one.
        regularizers_too: Whether regularizers must be equal.
        match: As for `graph.compare`.
        known: The pointers of all slots of the first model, when they are known. Slots are not
            looked for then, as long as the second model has the same layers in the same places.

    Returns:
        The comparison of the graphs, with the differences of regularizers among its problems.
    """
    if known is not None and regularizers_too and _same_places(expected, actual):
        comparison = graph.compare(expected, actual, ignore=known, match=match)
        if comparison.ok and all(
            regularizers.equal(_held(expected, p), _held(actual, p)) for p in known
        ):
            return comparison
    slots = {side: find_slots(config) for side, config in (("", expected), ("other", actual))}
    ignored = [p for found in slots.values() for slot in found for p in slot.pointers]
    comparison = graph.compare(expected, actual, ignore=ignored, match=match)
    if not regularizers_too:
        return comparison
    held: dict[str, list[Any]] = {}
    for slot in slots["other"]:
        held.setdefault(slot.path, []).append(slot.regularizer)
    problems = list(comparison.problems)
    for slot in slots[""]:
        there = held.get(_translated(slot.path, comparison.names), [])
        value = there.pop(0) if there else None
        if not regularizers.equal(slot.regularizer, value):
            problems.append(_instead(slot.path, value, slot.regularizer))
    problems += [
        _instead(path, value, None) for path, left in held.items() for value in left if value
    ]
    return replace(comparison, problems=tuple(problems))


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


def _instead(path: str, actual: Any, expected: Any) -> str:
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


def _slots_of_both(original: Sequence[Slot], rewritten: Sequence[Slot]) -> list[Slot]:
    """A file's slots and, without a penalty, those that only its rewritten copy carries."""
    known = {slot.path for slot in original}
    added = [
        replace(slot, regularizer=None)
        for slot in rewritten
        if slot.carried and slot.path not in known
    ]
    places = {slot.path: place for place, slot in enumerate(rewritten)}
    return sorted([*original, *added], key=lambda slot: places.get(slot.path, len(places)))


def _carried_problems(decisions: Sequence[Decision], rewritten: Mapping[str, Any]) -> list[str]:
    """Where what a file carries for weights that no config reaches is not what a policy says."""
    after = {slot.path: slot.regularizer for slot in find_slots(rewritten) if slot.carried}
    return [
        _instead(decision.slot.path, after.get(decision.slot.path), decision.after)
        for decision in decisions
        if decision.slot.carried
        and not regularizers.equal(after.get(decision.slot.path), decision.after)
    ]
