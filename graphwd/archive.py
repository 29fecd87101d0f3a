"""Archives: saved models planned, inspected, rewritten and compared, without Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphwd import regularizers
from graphwd.configs import serialize_config
from graphwd.decays import from_config
from graphwd.errors import ArchiveError, EquivalenceError, PolicyError
from graphwd.files import Path, same_content, same_range
from graphwd.folders import TASK, Folder
from graphwd.folders import open_saved as open_saved  # part of this module's interface
from graphwd.plans import Decision, Plan, make_plan
from graphwd.policy import Policy
from graphwd.saved import CONFIG, METADATA
from graphwd.saved import Archive as Archive  # part of this module's interface
from graphwd.slots import Pointer, Slot, find_slots, set_regularizers, strip_carried
from graphwd.stored import StoredWeights
from graphwd.zipcopy import ContentCheck, Member, member_chunks

if TYPE_CHECKING:  # at run time what needs h5py is imported for HDF5 only
    from graphwd.reach import Reach, Unreached


def inspect_file(path: Path) -> Plan:
    """Says what is penalised now in a saved model.

    Args:
        path: A `.keras` or a whole-model `.h5` file.

    Returns:
        A `Plan` without edits; its notes name the weights that the file doesn't tell of.

    Raises:
        ArchiveError: when the file is no saved model.
    """
    with open_saved(path) as archive:
        return _planned(archive, None)


def plan_file(path: Path, policy: Policy) -> Plan:
    """Plans what a policy does to a saved model.

    Args:
        path: A `.keras` or a whole-model `.h5` file.
        policy: A `Policy`.

    Returns:
        A `Plan`; its notes name the weights that the file doesn't tell of.

    Raises:
        ArchiveError: when the file is no saved model.
    """
    with open_saved(path) as archive:
        return _planned(archive, policy)


def shaped_slots(archive: Archive) -> tuple[list[Slot], Reach]:
    """The slots of a file with the shapes of their arrays, as far as it tells, and what it tells.

    Args:
        archive: The open file.

    Returns:
        A list of `Slot`, and the `Reach`, whose arrays can't be read any more.
    """
    slots = archive.slots()
    with archive.reach(slots) as reach:
        shaped = [
            replace(slot, shapes=tuple(array.shape for array in arrays)) if arrays else slot
            for slot, arrays in zip(slots, reach.arrays, strict=True)
        ]
    return shaped, reach


def _planned(archive: Archive, policy: Policy | None) -> Plan:
    slots, reach = shaped_slots(archive)
    more: dict[str, Any] = {
        "source": archive.path,
        "notes": _notes(reach.unreached),
        "serialized": archive.config,
        "sizes": reach.sizes,
        "hidden": reach.hidden,
        "measure": StoredWeights(archive.path),
    }
    if policy is not None:
        return make_plan(slots, policy, **more)
    decays = from_config(archive.compile_config, slots)
    more["notes"] = (*more["notes"], *(decays.notes() if decays else ()))
    decisions = tuple(Decision(slot, None, slot.regularizer) for slot in slots)
    return Plan(None, decisions, decays=decays, **more)


def _notes(unreached: Sequence[Unreached]) -> tuple[str, ...]:
    if not unreached:
        return ()
    names = [str(layer) for layer in unreached[:3]]
    if len(unreached) > 3:
        names.append(f"and {len(unreached) - 3} layers more")
    return (
        "The file stores weights that no slot of its config reaches; rewrite the loaded model "
        f"(--live) to penalize them: {'; '.join(names)}.",
    )


def rewrite_file(
    source: Path,
    target: Path,
    policy: Policy,
    *,
    overwrite: bool = False,
    verify: bool = True,
    accept: Callable[[Plan], None] | None = None,
) -> Plan:
    """Rewrites a saved model with the regularizers that a policy asks for.

    Neither Keras nor its backend is imported, no code from the file runs, and the weights are
    copied as they are, at the speed of a copy.

    Args:
        source: A `.keras` or a whole-model `.h5` file.
        target: Where to write; a file of the same kind. It is what it was until the result is
            complete and on disk. A symbolic link stays; the file that it points to is replaced.
        policy: A `Policy`.
        overwrite: Whether an existing target is replaced; needed, too, to rewrite the source in
            place.
        verify: Whether the result is read back and compared with the source, config and every
            stored byte, before it gets the target's name.
        accept: Called with the plan before anything is written, to refuse it with an error.

    Returns:
        The `Plan` that was carried out.

    Raises:
        ArchiveError: when the source is no saved model, or the target can't be written.
        EquivalenceError: when the result is not the source plus the planned edits.

    Example:
    ```python
    rewrite_file("resnet.keras", "resnet_decay.keras", Policy.load("decay.toml"))
    ```
    """
    with open_saved(source) as archive:
        plan = _planned(archive, policy)
        for decision in plan.decisions:
            if decision.changes and regularizers.wants_start(decision.after):
                raise PolicyError(
                    f"{regularizers.describe(decision.after)} on {decision.slot.path} is measured "
                    "from where the weights start, which no rewriting of a file can record; load "
                    "the model, and give it to graphwd.rewrite (--live)."
                )
        if accept is not None:
            accept(plan)
        edits = plan.config_edits()
        config = set_regularizers(archive.config, edits)
        check = functools.partial(_prove, archive, edits) if verify else None
        archive.write(target, config, overwrite=overwrite, check=check)
    return plan


def _prove(
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
    from graphwd.weights import Unsupported, compare_trees

    try:
        with one.store(name).checked(), other.store(name).checked():
            problems = compare_trees(one.tree(name), other.tree(name))
    except Unsupported as error:
        raise ArchiveError(
            f"{one.path!r} holds what graphwd doesn't support: {error}; load the model and save it "
            "again."
        ) from error
    return [f"{name}: {problem}" for problem in problems] if name else problems
