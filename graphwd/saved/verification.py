"""The proof that a saved model is another one plus planned edits: without Keras, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphwd.errors import ArchiveError, EquivalenceError
from graphwd.graph.equivalence import Report, compare, instead
from graphwd.graph.slots import Pointer, Slot, find_slots, set_regularizers, strip_carried
from graphwd.plans.plan import Edit, make_plan
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy
from graphwd.saved.configs import serialize_config
from graphwd.saved.files import same_content, same_range
from graphwd.saved.folders import TASK, Folder, open_saved
from graphwd.saved.models import CONFIG, METADATA, Archive
from graphwd.saved.zipcopy import ContentCheck, Member, member_chunks


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
    with open_saved(original) as one, open_saved(rewritten) as other:
        problems: list[str] = []
        expected, actual = strip_carried(one.config), strip_carried(other.config)
        if policy is not None:
            slots = _slots_of_both(one.shaped_slots()[0], find_slots(other.config))
            # Loaded models may have weights that files don't tell of, so that counts may differ.
            plan = make_plan(slots, policy, source=os.fspath(original), expectations=False)
            edits = {
                pointer: edit.after
                for edit in plan
                if not edit.slot.carried
                for pointer in edit.slot.pointers
            }
            expected = set_regularizers(expected, edits)
            problems += _carried_problems(plan.slots, other.config)
        comparison = compare(expected, actual, regularizers_too=policy is not None, match="names")
        problems += [*comparison.problems, *compare_archives(one, other)]
        if one.config.get("compile_config") != other.config.get("compile_config"):
            problems.append("the models are compiled differently")
    compared = {"layer calls": comparison.nodes, "tensors": comparison.edges}
    left_out = ("when, by which Keras and with which backend the files were saved",)
    return Report(tuple(problems), compared, left_out, policy is not None)


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


def check_written(
    source: Archive, edits: Mapping[Pointer, regularizers.Serialized | None], written: Archive
) -> None:
    """Raises an EquivalenceError when a copy is not the source plus the planned edits."""
    problems = [
        f"{'/'.join(map(str, pointer))}: the regularizer is not the planned one"
        for pointer, after in edits.items()
        if not regularizers.equal(_at(written.config, pointer), after)
    ]
    masked = dict.fromkeys(edits)
    if serialize_config(set_regularizers(source.config, masked)) != serialize_config(
        set_regularizers(written.config, masked)
    ):
        problems.append("the configs differ beyond the planned edits")
    problems += compare_archives(source, written)
    if source.metadata != written.metadata:
        problems.append("the notes on how the file was made differ")
    if problems:
        raise EquivalenceError(
            f"The rewritten {source.path!r} is not the original plus the planned edits "
            f"({problems[0]}); nothing was written, please report this."
        )


def _at(config: Any, pointer: Pointer) -> Any:
    for key in pointer:
        config = config[key]
    return config


def compare_archives(one: Archive, other: Archive) -> list[str]:
    """Compares everything that two saved models store, but for their configs, bit for bit.

    Neither file is in memory whole. How a model was compiled is part of a `.keras` archive's
    config; here it is compared for `.h5` files only.

    Args:
        one: An open archive.
        other: Another one.

    Returns:
        A line for every difference: arrays, their dtypes, shapes and names, and other members.

    Raises:
        ArchiveError: when one of them is damaged.
    """
    if one.kind != other.kind:
        kinds = {"keras": "a .keras file", "h5": "a .h5 file", "folder": "a folder"}
        return [f"one file is {kinds[one.kind]} and the other {kinds[other.kind]}"]
    if isinstance(one, Folder) and isinstance(other, Folder):
        return _compare_folders(one, other)
    if one.index is None or other.index is None:
        problems = _compare_h5(one, other, "")
        if one.compile_config != other.compile_config:
            problems.append("training_config: the files differ")
        return problems
    problems = []
    ignored = (CONFIG, METADATA)
    mine = {name: m for name, m in one.index.members.items() if name not in ignored}
    theirs = {name: m for name, m in other.index.members.items() if name not in ignored}
    problems += [f"{name}: only the first file has this member" for name in mine.keys() - theirs]
    problems += [f"{name}: only the second file has this member" for name in theirs.keys() - mine]
    for name, member in mine.items():
        if name not in theirs or _same_bytes(one, member, other, theirs[name]):
            continue
        if name.endswith(".h5"):
            problems += _compare_h5(one, other, name)
        else:
            problems.append(f"{name}: the members differ")
    return problems


def _compare_folders(one: Folder, other: Folder) -> list[str]:
    ignored = {CONFIG, TASK, METADATA}
    mine, theirs = set(one.files), set(other.files)
    problems = [f"{name}: only the first folder has this file" for name in sorted(mine - theirs)]
    problems += [f"{name}: only the second folder has this file" for name in sorted(theirs - mine)]
    for name in sorted(mine & theirs - ignored):
        a, b = one.opened(name), other.opened(name)
        if a.size == b.size and same_range(a, 0, b, 0, a.size):
            continue
        differ = [f"{name}: the files differ"]
        problems += _compare_h5(one, other, name) if name.endswith(".h5") else differ
    if (one.backbone is None) == (other.backbone is None) and one.backbone and other.backbone:
        bare = [
            set_regularizers(
                backbone, dict.fromkeys(p for slot in find_slots(backbone) for p in slot.pointers)
            )
            for backbone in (strip_carried(one.backbone), strip_carried(other.backbone))
        ]
        if bare[0] != bare[1]:
            problems.append(f"{CONFIG}: the backbones differ beyond their regularizers")
    return problems + other.differences()


def _same_bytes(one: Archive, member: Member, other: Archive, counterpart: Member) -> bool:
    """Whether two members are the same; as they are stored, or else decompressed.

    Either way the content is held against its checksum, which Keras does when it loads the file.
    """
    a, b = member, counterpart
    if (a.method, a.compressed, a.size, a.crc) == (b.method, b.compressed, b.size, b.crc):
        check = ContentCheck(one.source, a)
        if same_range(one.source, a.data, other.source, b.data, a.compressed, check.add):
            check.finish()
            return True
    return same_content(member_chunks(one.source, a), member_chunks(other.source, b))


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
