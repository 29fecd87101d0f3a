"""Archives, saved models: inspected, planned, rewritten and proved without Keras."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graphwd.errors import ArchiveError, EquivalenceError, PolicyError
from graphwd.graph.entries import instead
from graphwd.graph.equivalence import Report, compare
from graphwd.graph.slots import Pointer, Slot, find_slots, set_regularizers, strip_carried
from graphwd.plans.decays import from_config
from graphwd.plans.plan import Edit, Plan, Value, make_plan
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy
from graphwd.saved.archive import METADATA, Archive
from graphwd.saved.configs import serialize_config, value_at
from graphwd.saved.folders import Folder, open_saved
from graphwd.writing import Path

if TYPE_CHECKING:  # at run time what needs h5py is imported for HDF5 only
    from graphwd.saved.reach import Unreached
    from graphwd.saved.weights import Array

_KINDS = {"keras": "a .keras file", "h5": "a .h5 file", "folder": "a folder"}
_UNTOLD = "the file doesn't tell which of its arrays it is on; --live loads the model"
_NO_FORMULA = "only Keras can compute {}; --live loads the model"


def inspect_file(path: Path) -> Plan:
    """Says what is penalised now in a saved model."""
    with open_saved(path) as archive:
        return plan_archive(archive, None)


def plan_file(path: Path, policy: Policy) -> Plan:
    """Plans what a policy does to a saved model."""
    with open_saved(path) as archive:
        return plan_archive(archive, policy)


def plan_archive(archive: Archive, policy: Policy | None) -> Plan:
    """Plans what a policy, or none, does to a saved model that is open."""
    slots, reach = archive.shaped_slots()
    return make_plan(
        slots,
        policy,
        source=archive.path,
        notes=_notes(reach.unreached),
        serialized=archive.config,
        sizes=reach.sizes,
        hidden=reach.hidden,
        measure=StoredMeasure(archive.path),
        decays=None if policy is not None else from_config(archive.compile_config, slots),
    )


def _notes(unreached: Sequence[Unreached]) -> tuple[str, ...]:
    if not unreached:
        return ()
    names = [str(layer) for layer in unreached[:3]]
    if len(unreached) > 3:
        names.append(f"and {len(unreached) - 3} layers more")
    return (
        "The file stores weights that no slot of its config reaches; rewrite the loaded model "
        f"(--live) to penalise them: {'; '.join(names)}.",
    )


def rewrite_file(
    source: Path, target: Path, policy: Policy, *, overwrite: bool = False, verify: bool = True
) -> Plan:
    """Rewrites a saved model with the regularizers that a policy asks for."""
    with open_saved(source) as archive:
        plan = plan_archive(archive, policy)
        carry_out(plan, archive, target, overwrite=overwrite, verify=verify)
    return plan


def carry_out(
    plan: Plan, archive: Archive, target: Path, *, overwrite: bool = False, verify: bool = True
) -> None:
    """Writes a saved model as a plan says; the target is what it was until that is proved."""
    for edit in plan:
        if regularizers.wants_start(edit.after):
            raise PolicyError(
                f"{regularizers.describe(edit.after)} on {edit.path} is measured from "
                "where the weights start, which no rewriting of a file can record; load "
                "the model, and give it to graphwd.rewrite (--live)."
            )
    edits = plan.config_edits()
    config = set_regularizers(archive.config, edits)
    with archive.written(target, config, overwrite=overwrite) as written:
        if verify:
            with written as copy:
                _prove(archive, edits, copy)


def _prove(
    source: Archive, edits: Mapping[Pointer, regularizers.Serialized | None], copy: Archive
) -> None:
    """Raises an EquivalenceError when a copy is not the source plus the planned edits."""
    problems = [
        f"{'/'.join(map(str, pointer))}: the regularizer is not the planned one"
        for pointer, after in edits.items()
        if not regularizers.equal(value_at(copy.config, pointer), after)
    ]
    # The texts of both configs tell more than an equality of graphs, and sooner.
    bare = [set_regularizers(one.config, dict.fromkeys(edits)) for one in (source, copy)]
    if serialize_config(bare[0]) != serialize_config(bare[1]):
        problems.append("the configs differ beyond the planned edits")
    problems += compare_archives(source, copy)
    if source.metadata != copy.metadata:
        problems.append("the notes on how the file was made differ")
    if problems:
        raise EquivalenceError(
            f"The rewritten {source.path!r} is not the original plus the planned edits "
            f"({problems[0]}); nothing was written, please report this."
        )


def verify_files(original: Path, rewritten: Path, policy: Policy | None) -> Report:
    """Proves that a saved model is another one plus a policy's edits, or any without a policy."""
    with open_saved(original) as one, open_saved(rewritten) as other:
        problems: list[str] = []
        expected, actual = strip_carried(one.config), strip_carried(other.config)
        if policy is not None:
            slots = _slots_of_both(one.shaped_slots()[0], find_slots(other.config))
            # Loaded models may have weights that files don't tell of, so that counts may differ.
            plan = make_plan(slots, policy, source=one.path, expectations=False)
            edits = {
                pointer: edit.after
                for edit in plan
                if not edit.slot.carried
                for pointer in edit.slot.pointers
            }
            expected = set_regularizers(expected, edits)
            problems += _carried_problems(plan.slots, other.config)
        report = compare(expected, actual, regularizers_too=policy is not None, match="names")
        problems += [*report.problems, *compare_archives(one, other)]
        if one.config.get("compile_config") != other.config.get("compile_config"):
            problems.append("the models are compiled differently")
    left_out = ("when, by which Keras and with which backend the files were saved",)
    return replace(report, problems=tuple(problems), not_compared=left_out)


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


def _carried_problems(edits: Sequence[Edit], rewritten: Mapping[str, Any]) -> list[str]:
    """Where what a file carries for weights that no config reaches is not what a policy says."""
    after = {slot.path: slot.regularizer for slot in find_slots(rewritten) if slot.carried}
    return [
        instead(edit.path, after.get(edit.path), edit.after)
        for edit in edits
        if edit.slot.carried and not regularizers.equal(after.get(edit.path), edit.after)
    ]


def compare_archives(one: Archive, other: Archive) -> list[str]:
    """Compares all that two saved models store but their configs, bit for bit in bounded memory."""
    if one.kind != other.kind:
        return [f"one file is {_KINDS[one.kind]} and the other {_KINDS[other.kind]}"]
    if one.kind == "h5":
        problems = _compare_h5(one, other, "")
        if one.compile_config != other.compile_config:
            problems.append("training_config: the files differ")
        return problems
    whole, part = ("folder", "file") if one.kind == "folder" else ("file", "member")
    mine, theirs = set(one.names) - {METADATA}, set(other.names) - {METADATA}
    problems = [f"{name}: only the first {whole} has this {part}" for name in mine - theirs]
    problems += [f"{name}: only the second {whole} has this {part}" for name in theirs - mine]
    for name in sorted(mine & theirs - {*one.configs}):
        if not one.same_bytes(name, other):
            differ = [f"{name}: the {part}s differ"]
            problems += _compare_h5(one, other, name) if name.endswith(".h5") else differ
    if isinstance(one, Folder) and isinstance(other, Folder):
        problems += one.backbone_problems(other)
    return problems


def _compare_h5(one: Archive, other: Archive, name: str) -> list[str]:
    from graphwd.saved.weights import Unsupported, compare_trees

    try:
        with one.store(name).checked(), other.store(name).checked():
            problems = compare_trees(one.tree(name), other.tree(name))
    except Unsupported as error:
        raise ArchiveError(
            f"{one.path!r} holds what graphwd doesn't support: {error}; load the model and save it "
            "again."
        ) from error
    return [f"{name}: {problem}" for problem in problems] if name else problems


@dataclass(frozen=True)
class StoredMeasure:
    """The weights of a saved model, to compute the values of penalties on them when asked for."""

    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.path.abspath(self.path))

    def __call__(self, edits: Sequence[Edit]) -> list[Value]:
        """Reads the arrays that have a penalty, in pieces of bounded size, and adds them up."""
        values: list[Value] = [None] * len(edits)
        with open_saved(self.path) as archive:
            slots = archive.slots()
            if [slot.path for slot in slots] != [edit.path for edit in edits]:
                raise ArchiveError(f"{self.path!r} holds another model than before.")
            with archive.reach(slots) as reach:
                for place, edit in enumerate(edits):
                    if edit.penalised:
                        both = (edit.before, edit.after)
                        factors = [_factors(regularizer) for regularizer in both]
                        arrays = reach.arrays[place]
                        values[place] = _unknown(both, factors, arrays) or _values(factors, arrays)
        return values


def _factors(serialized: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """The factors of the sum of the values' sizes and of their squares."""
    if serialized is None:
        return 0.0, 0.0
    kind, *factors = regularizers.normalize(serialized)
    if kind != "l1l2" or not all(isinstance(factor, (int, float)) for factor in factors):
        return None
    return float(factors[0]), float(factors[1])


def _unknown(both: Any, factors: Any, arrays: tuple[Array, ...]) -> str:
    """Why the penalties on arrays can't be computed; empty when they can."""
    if not arrays:
        return _UNTOLD
    for serialized, known in zip(both, factors, strict=True):
        if known is None:
            return _NO_FORMULA.format(regularizers.describe(serialized))
    for array in arrays:
        if array.unreadable():
            return array.unreadable()
        if array.dtype != "bfloat16" and array.stored.kind != "f":
            return f"it is on numbers of type {array.dtype}"
    return ""


def _values(factors: list[Any], arrays: tuple[Array, ...]) -> tuple[float, float]:
    import numpy as np

    size, square = [], []
    for array in arrays:
        for piece in array.content():
            if array.dtype == "bfloat16":  # the upper half of a float32
                halves = np.frombuffer(piece, "<u2").astype("<u4") << 16
                numbers = halves.view("<f4").astype("float64")
            else:
                numbers = np.frombuffer(piece, array.stored).astype("float64")
            square.append(float(numbers @ numbers))
            if any(l1 for l1, _ in factors):
                size.append(float(np.abs(numbers).sum()))
    sums = math.fsum(size), math.fsum(square)
    now, planned = (l1 * sums[0] + l2 * sums[1] for l1, l2 in factors)
    return now, planned
