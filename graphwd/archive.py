"""Archives: saved models as files, read, planned, rewritten and compared without Keras.

The config of a saved model is data here: classes that it names are never imported, and weights
never decoded but to compare them. Limits on sizes and depths make a hostile file an ArchiveError.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from graphwd import regularizers
from graphwd.errors import ArchiveError, EquivalenceError
from graphwd.files import Path, Source, copy_range, replacing, same_content, same_range, write_all
from graphwd.plans import Decision, Plan, make_plan
from graphwd.policy import Policy
from graphwd.slots import Pointer, Slot, find_slots, set_regularizers
from graphwd.zipcopy import STORED, Index, Member, copy_with, member_chunks, read_index, read_member

if TYPE_CHECKING:  # at run time h5py and what needs it are imported for HDF5 only
    from graphwd.reach import Unreached
    from graphwd.weights import Array, Store

CONFIG_LIMIT = 64 << 20
"""The largest config that is read, in bytes."""

DEPTH_LIMIT = 500
"""The deepest nesting of a config that is read: some hundred models within models."""

_CONTAINERS_LIMIT = 2_000_000
_SPOOL_LIMIT, _SPOOL_RATIO = 1 << 28, 100
_CONFIG, _METADATA = "config.json", "metadata.json"
_ATTRIBUTE = "model_config"
_H5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_SUFFIXES = {"keras": (".keras",), "h5": (".h5", ".hdf5")}


class Archive:
    """A saved model that is open for reading: a `.keras` archive or a whole-model `.h5` file.

    Which of them it is depends on its content, not its name.

    Args:
        path: The file's path.
        descriptor: An open file descriptor to read instead of opening `path`.

    Attributes:
        path: The file's path.
        kind: `"keras"` or `"h5"`.
        config: The serialized model: what slots are found in. In a `.h5` file it may be in the
            legacy dialect.

    Raises:
        ArchiveError: when the file is no saved model, is damaged, or is hostile.

    Example:
    ```python
    with Archive("resnet.keras") as archive:
        print(archive.config["class_name"], len(archive.slots()))
    ```
    """

    path: str
    kind: Literal["keras", "h5"]
    config: dict[str, Any]

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self._source = Source(path, descriptor)
        self.path = self._source.path
        self._index: Index | None = None
        self._attributes: dict[str, str] = {}
        try:
            if self._source.read(0, min(8, self._source.size)) == _H5_SIGNATURE:
                self.kind = "h5"
                self._text = self._read_attributes()
            else:
                self.kind = "keras"
                self._index = read_index(self._source)
                self._text = self._read_json(_CONFIG)
            self.config = parse_config(self._text, self.path)
        except BaseException:
            self._source.close()
            raise

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file notes about its making: at least `keras_version`, where it is known."""
        if self._index is None:
            return {k: v for k, v in self._attributes.items() if k in ("keras_version", "backend")}
        if _METADATA not in self._index.members:
            return {}
        return _parse(self._read_json(_METADATA), f"{_METADATA!r} of {self.path!r}")

    @property
    def compile_config(self) -> Any:
        """How the model was compiled, as the file has it, or `None`."""
        if self.kind == "keras":
            return self.config.get("compile_config")
        text = self._attributes.get("training_config")
        return text and _parse(text.encode(), f"training_config of {self.path!r}")

    def slots(self) -> list[Slot]:
        """The slots of the model.

        Returns:
            A list of `Slot`, without shapes.

        Raises:
            ArchiveError: when the config isn't one of a model.
        """
        try:
            return find_slots(self.config)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArchiveError(
                f"{self.path!r} holds a config that is not one of a model ({error!r})."
            ) from error

    def unreached(self) -> list[Unreached]:
        """The layers with stored weights that no slot reaches.

        Returns:
            A list of `graphwd.reach.Unreached`, each of which prints as a line.

        Raises:
            ArchiveError: when the stored weights can't be read.
        """
        return self._reach()[0]

    def _reach(self) -> tuple[list[Unreached], dict[str, int]]:
        """The layers that no slot reaches, and the number of parameters of every layer."""
        from graphwd.reach import STATE, find_unreached, sizes_of_layers
        from graphwd.weights import read_tree

        arrays: list[Array] = []
        with ExitStack() as stack:
            for name in self._h5_members():
                store = stack.enter_context(self._open_store(name))
                arrays += read_tree(store, skip=STATE).arrays.values()
            legacy = self.kind == "h5"
            return (
                find_unreached(self.config, self.slots(), arrays, legacy),
                sizes_of_layers(self.config, arrays, legacy),
            )

    def plan(self, policy: Policy) -> Plan:
        """Plans what a policy does to the model.

        Args:
            policy: A `Policy`.

        Returns:
            A `Plan`; its notes name the weights that the file doesn't tell of.

        Raises:
            ArchiveError: when the file is not a saved model's.
        """
        unreached, sizes = self._reach()
        return make_plan(
            self.slots(),
            policy,
            source=self.path,
            notes=_notes(unreached),
            serialized=self.config,
            sizes=sizes,
        )

    def write(
        self,
        target: Path,
        config: Mapping[str, Any],
        *,
        overwrite: bool = False,
        check: Callable[[Archive], None] | None = None,
    ) -> None:
        """Writes a copy of the file with another config; nothing else in it changes.

        Args:
            target: Where to write. It is what it was until the copy is complete and on disk. A
                symbolic link stays; the file that it points to is replaced.
            config: The serialized model that the copy holds.
            overwrite: Whether an existing target is replaced; needed, too, for the source itself.
            check: Called with the complete copy before it gets the target's name; what it raises
                leaves the target as it was.

        Raises:
            ArchiveError: when the target can't be written, or the source can't be read.
        """
        self._check_suffix(target)
        text = serialize_config(config)
        with replacing(target, self._source, overwrite=overwrite) as file:
            if text == self._text:
                copy_range(self._source, 0, self._source.size, file)
            elif self._index is not None:
                copy_with(self._source, self._index, _CONFIG, text, file)
            else:
                self._write_h5(text, file)
            self._source.check_unchanged()
            if check is not None:
                with Archive(target, file.fileno()) as written:
                    check(written)

    def _write_h5(self, text: bytes, file: Any) -> None:
        from graphwd.weights import open_store
        from graphwd.window import Window

        copy_range(self._source, 0, self._source.size, file)
        with open_store(self.path, Window(file), "r+") as store:
            attributes = store.file.attrs
            if attributes.get_id(_ATTRIBUTE).get_type().is_variable_str():
                attributes.modify(_ATTRIBUTE, text)
            else:
                attributes[_ATTRIBUTE] = text

    def _check_suffix(self, target: Path) -> None:
        """Keras goes by the suffix, so that a file with the other kind's would not load."""
        for kind, suffixes in _SUFFIXES.items():
            if kind != self.kind and os.fspath(target).endswith(suffixes):
                raise ArchiveError(
                    f"{self.path!r} is a {_SUFFIXES[self.kind][0]} file, which Keras loads only "
                    f"under a name that ends in it; {os.fspath(target)!r} does not."
                )

    def _read_json(self, name: str) -> bytes:
        assert self._index is not None
        member = self._index.members.get(name)
        if member is None:
            raise ArchiveError(
                f"{self.path!r} is a zip file without {name!r}: not a model that Keras saved."
            )
        return read_member(self._source, member, CONFIG_LIMIT)

    def _read_attributes(self) -> bytes:
        with self._open_store("") as store:
            for name in (_ATTRIBUTE, "training_config", "keras_version", "backend"):
                self._read_attribute(store, name)
        text = self._attributes.get(_ATTRIBUTE)
        if text is None:
            raise ArchiveError(
                f"{self.path!r} holds weights without a model: save the whole model with "
                "model.save, not save_weights."
            )
        return text.encode()

    def _read_attribute(self, store: Store, name: str) -> None:
        from graphwd.weights import read_text

        if name in store.file.attrs:
            text = read_text(store.file.id, name)
            if not isinstance(text, str) or len(text) > CONFIG_LIMIT:
                raise ArchiveError(f"{self.path!r} holds a {name!r} that is too long, or no text.")
            try:
                text.encode()
            except UnicodeError as error:
                raise ArchiveError(f"{self.path!r} holds a {name!r} that is not UTF-8.") from error
            self._attributes[name] = text

    def _h5_members(self) -> list[str]:
        """The names of the members that hold weights: usually one, several when sharded."""
        if self._index is None:
            return [""]
        return [name for name in self._index.members if name.endswith(".weights.h5")]

    @contextmanager
    def _open_store(self, name: str) -> Iterator[Store]:
        """Opens the file itself (no name) or one of its members as HDF5."""
        from graphwd.weights import open_store
        from graphwd.window import Window

        with ExitStack() as stack:
            if self._index is None:
                window = Window(self._source.file, 0, self._source.size)
            else:
                member = self._index.members[name]
                if member.method == STORED:
                    window = Window(self._source.file, member.data, member.compressed)
                else:
                    spool = stack.enter_context(self._spool(member))
                    window = Window(spool, 0, member.size)
            yield stack.enter_context(open_store(self.path, window))

    @contextmanager
    def _spool(self, member: Member) -> Iterator[Any]:
        """A compressed member, decompressed to a temporary file, for HDF5 seeks back and forth."""
        if member.size > _SPOOL_LIMIT and member.size > _SPOOL_RATIO * member.compressed:
            raise ArchiveError(
                f"{self.path!r} holds a {member.name!r} that claims {member.size} bytes and "
                f"stores {member.compressed}; Keras refuses it, too."
            )
        try:
            with tempfile.TemporaryFile(buffering=0) as spool:
                for chunk in member_chunks(self._source, member):
                    write_all(cast(Any, spool), chunk)
                yield spool
        except OSError as error:
            raise ArchiveError(
                f"{member.name!r} of {self.path!r} can't be decompressed: {error.strerror}."
            ) from error

    def close(self) -> None:
        """Closes the file."""
        self._source.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def parse_config(text: bytes, path: str) -> dict[str, Any]:
    """Parses the config of a saved model.

    Args:
        text: JSON.
        path: The file that it is from, for messages.

    Returns:
        The serialized model.

    Raises:
        ArchiveError: when it isn't JSON, isn't a serialized model, or is nested too deeply.
    """
    config = _parse(text, f"the config of {path!r}")
    if not isinstance(config.get("class_name"), str) or not isinstance(
        config.get("config"), (dict, list)
    ):
        raise ArchiveError(f"The config of {path!r} is not a model's: it names no class.")
    return config


def serialize_config(config: Mapping[str, Any]) -> bytes:
    """The JSON text of a serialized model, as Keras writes it."""
    return json.dumps(config).encode()


def _parse(text: bytes, what: str) -> dict[str, Any]:
    what = what[0].upper() + what[1:]
    brackets = _STRING.sub(b"", text).translate(None, _NOT_BRACKETS)
    depth = deepest = 0
    if len(brackets) <= 2 * _CONTAINERS_LIMIT:
        for bracket in brackets:
            depth += 1 if bracket in b"[{" else -1
            if depth > deepest:
                deepest = depth
                if deepest > DEPTH_LIMIT:
                    break
    if deepest > DEPTH_LIMIT or len(brackets) > 2 * _CONTAINERS_LIMIT:
        raise ArchiveError(
            f"{what} is nested more than {DEPTH_LIMIT} deep, or holds more than "
            f"{_CONTAINERS_LIMIT:,} lists and objects: no model's is."
        )
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{what} is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise ArchiveError(f"{what} is not a JSON object.")
    return value


def _notes(unreached: list[Unreached]) -> list[str]:
    if not unreached:
        return []
    names = [str(layer) for layer in unreached[:3]]
    if len(unreached) > 3:
        names.append(f"and {len(unreached) - 3} layers more")
    return [
        "The file stores weights that no slot of its config reaches; rewrite the loaded model "
        f"(--live) to penalize them: {'; '.join(names)}."
    ]


def slots_of_file(path: Path) -> list[Slot]:
    """Finds the slots of a saved model.

    Args:
        path: A `.keras` or a whole-model `.h5` file.

    Returns:
        A list of `Slot`, without shapes.

    Raises:
        ArchiveError: when the file is no saved model.
    """
    with Archive(path) as archive:
        return archive.slots()


def inspect_file(path: Path) -> Plan:
    """Says what is penalised now in a saved model.

    Args:
        path: A `.keras` or a whole-model `.h5` file.

    Returns:
        A `Plan` without edits; its notes name the weights that the file doesn't tell of.

    Raises:
        ArchiveError: when the file is no saved model.
    """
    with Archive(path) as archive:
        decisions = tuple(Decision(slot, None, slot.regularizer) for slot in archive.slots())
        unreached, sizes = archive._reach()
        notes = tuple(_notes(unreached))
        return Plan(None, decisions, archive.path, notes, archive.config, sizes)


def plan_file(path: Path, policy: Policy) -> Plan:
    """Plans what a policy does to a saved model.

    Args:
        path: A `.keras` or a whole-model `.h5` file.
        policy: A `Policy`.

    Returns:
        A `Plan`.

    Raises:
        ArchiveError: when the file is no saved model.
    """
    with Archive(path) as archive:
        return archive.plan(policy)


def unreached(path: Path) -> list[Unreached]:
    """Lists the layers of a saved model with weights that no slot of its config reaches.

    Args:
        path: A `.keras` or a whole-model `.h5` file.

    Returns:
        A list of `graphwd.reach.Unreached`, each of which prints as a line.

    Raises:
        ArchiveError: when the file is no saved model.
    """
    with Archive(path) as archive:
        return archive.unreached()


def rewrite_file(
    source: Path, target: Path, policy: Policy, *, overwrite: bool = False, verify: bool = True
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
    with Archive(source) as archive:
        plan = archive.plan(policy)
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
    if problems:
        raise EquivalenceError(
            f"The rewritten {source.path!r} is not the original plus the planned edits "
            f"({problems[0]}); nothing was written, please report this."
        )


def _at(config: Any, pointer: Pointer) -> Any:
    for key in pointer:
        config = config[key]
    return config


def compare_weights(one: Path, other: Path) -> list[str]:
    """Compares everything that two saved models store, but for their configs, bit for bit.

    Neither file is in memory whole. How a model was compiled is part of a `.keras` archive's
    config; here it is compared for `.h5` files only.

    Args:
        one: A `.keras` or a whole-model `.h5` file.
        other: A file of the same kind.

    Returns:
        A line for every difference: arrays, their dtypes, shapes and names, and other members.

    Raises:
        ArchiveError: when one of them is no saved model, or is damaged.
    """
    with Archive(one) as first, Archive(other) as second:
        return compare_archives(first, second)


def compare_archives(one: Archive, other: Archive) -> list[str]:
    """Does what `compare_weights` does, for open archives."""
    if one.kind != other.kind:
        return [f"one file is a .{one.kind} file and the other a .{other.kind} file"]
    if one._index is None or other._index is None:
        problems = _compare_h5(one, other, "")
        if one.compile_config != other.compile_config:
            problems.append("training_config: the files differ")
        return problems
    problems = []
    ignored = (_CONFIG, _METADATA)
    mine = {name: m for name, m in one._index.members.items() if name not in ignored}
    theirs = {name: m for name, m in other._index.members.items() if name not in ignored}
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


def _same_bytes(one: Archive, member: Member, other: Archive, counterpart: Member) -> bool:
    """Whether two members are the same; as they are stored, or else decompressed."""
    a, b = member, counterpart
    if (a.method, a.compressed, a.size) == (b.method, b.compressed, b.size) and same_range(
        one._source, a.data, other._source, b.data, a.compressed
    ):
        return True
    if (a.size, a.crc) != (b.size, b.crc) or a.method == b.method == STORED:
        return False
    return same_content(member_chunks(one._source, a), member_chunks(other._source, b))


def _compare_h5(one: Archive, other: Archive, name: str) -> list[str]:
    from graphwd.weights import compare_trees, read_tree

    with one._open_store(name) as first, other._open_store(name) as second:
        problems = compare_trees(read_tree(first), read_tree(second))
    return [f"{name}: {problem}" for problem in problems] if name else problems
