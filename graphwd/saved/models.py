"""A saved model as a file that is open: its config, its weights, and a copy with another config.

The config of a saved model is data here: classes that it names are never imported, and weights
never decoded but to compare or to measure them. Limits on sizes and depths make a hostile file an
ArchiveError.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

from graphwd.errors import ArchiveError, name_of
from graphwd.graph.slots import Slot, find_slots
from graphwd.saved.configs import CONFIG_LIMIT, parse_config, parse_object, serialize_config
from graphwd.saved.files import Path, Source, copy_range, flushed_meanwhile, write_all
from graphwd.saved.loadable import check_loadable
from graphwd.saved.zipcopy import (
    STORED,
    Index,
    Member,
    copy_with,
    member_chunks,
    read_index,
    read_member,
)
from graphwd.writing import replacing

if TYPE_CHECKING:  # at run time h5py and what needs it are imported for HDF5 only
    from graphwd.saved.reach import Reach
    from graphwd.saved.weights import Array, Store, Tree

CONFIG = "config.json"
"""The member of a `.keras` archive that holds its config."""

METADATA = "metadata.json"
"""The member of a `.keras` archive that tells how it was made."""

_SPOOL_LIMIT, _SPOOL_RATIO = 1 << 28, 100
_ATTRIBUTE = "model_config"
_H5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUFFIXES = {"keras": (".keras",), "h5": (".h5", ".hdf5")}  # what Keras goes by


class Archive:
    """A saved model that is open for reading: a `.keras` archive or a whole-model `.h5` file.

    Which of them it is depends on its content, not its name.

    Args:
        path: The file's path.
        descriptor: An open file descriptor to read instead of opening `path`.

    Attributes:
        path: The file's path.
        kind: `"keras"` or `"h5"`.
        source: The open file.
        index: What a `.keras` archive holds; `None` for a `.h5` file.
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
    kind: Literal["keras", "h5", "folder"]
    config: dict[str, Any]
    source: Source
    index: Index | None

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.source = Source(path, descriptor)
        self.path = self.source.path
        self.index = None
        self._attributes: dict[str, str] = {}
        self._stores: dict[str, Store] = {}
        self._trees: dict[tuple[str, bool], Tree] = {}
        self._open = ExitStack()
        try:
            start = self.source.read(0, min(8, self.source.size))
            if start == _H5_SIGNATURE:
                self.kind = "h5"
                self._text = self._read_attributes()
            else:
                self.kind = "keras"
                self._refuse_others(start)
                self.index = read_index(self.source)
                self._text = self._read_json(CONFIG)
            self.config = parse_config(self._text, self.path)
            check_loadable(self.config, self.path)
        except BaseException:
            self.close()
            raise

    def _refuse_others(self, start: bytes) -> None:
        """Says what a file is that is part of a model that is a folder, and what to give."""
        folder, name = os.path.split(self.path)
        if start.lstrip()[:1] == b"{":
            raise ArchiveError(
                f"{self.path!r} is JSON, as in a folder of a model's files: give the folder, "
                f"{folder or '.'!r}, or a .keras or .h5 file."
            )
        if name == "saved_model.pb":
            raise ArchiveError(
                f"{self.path!r} is part of a SavedModel of TensorFlow's, which has no config to "
                "edit: load it with tf_keras and save it as a .h5 file."
            )

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file notes about its making: at least `keras_version`, where it is known."""
        if self.index is None:
            return {k: v for k, v in self._attributes.items() if k in ("keras_version", "backend")}
        if METADATA not in self.index.members:
            return {}
        return parse_object(self._read_json(METADATA), f"{METADATA!r} of {self.path!r}")

    @property
    def compile_config(self) -> Any:
        """How the model was compiled, as the file has it, or `None`."""
        if self.kind == "keras":
            return self.config.get("compile_config")
        text = self._attributes.get("training_config")
        return text and parse_object(text.encode(), f"training_config of {self.path!r}")

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

    @contextmanager
    def reach(self, slots: Sequence[Slot]) -> Iterator[Reach]:
        """Opens the stored weights, and finds out which of them slots govern.

        Args:
            slots: What `slots` gives.

        Yields:
            A `graphwd.reach.Reach`, whose arrays can be read within the block.

        Raises:
            ArchiveError: when the stored weights can't be read.
        """
        from graphwd.saved.reach import find_reach

        arrays: list[Array] = []
        with ExitStack() as stack:
            for name in self._h5_members():
                stack.enter_context(self.store(name).checked())
                arrays += self.tree(name, state=False).arrays.values()
            yield find_reach(self.config, slots, arrays, self.kind == "h5")

    def shaped_slots(self) -> tuple[list[Slot], Reach]:
        """The slots with the shapes of their arrays, and the reach, whose arrays are closed."""
        slots = self.slots()
        with self.reach(slots) as reach:
            shaped = [
                replace(slot, shapes=tuple(array.shape for array in arrays)) if arrays else slot
                for slot, arrays in zip(slots, reach.arrays, strict=True)
            ]
        return shaped, reach

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
        with replacing(target, overwrite=overwrite, like=self.source.stat) as file:
            if text == self._text:
                copy_range(self.source, 0, self.source.size, file)
            elif self.index is not None:
                copy_with(self.source, self.index, CONFIG, text, file)
            else:
                self._write_h5(text, file)
            self.source.check_unchanged()
            if check is not None:
                with flushed_meanwhile(file), Archive(target, file.fileno()) as written:
                    check(written)

    def _write_h5(self, text: bytes, file: Any) -> None:
        from graphwd.saved.weights import open_store
        from graphwd.saved.window import Window

        copy_range(self.source, 0, self.source.size, file)
        store = open_store(self.path, Window(file), "r+")
        with store.checked(), store.file:
            attributes = store.file.attrs
            if attributes.get_id(_ATTRIBUTE).get_type().is_variable_str():
                attributes.modify(_ATTRIBUTE, text)
            else:
                attributes[_ATTRIBUTE] = text

    def _check_suffix(self, target: Path) -> None:
        """Keras goes by the suffix, so that a file with the other kind's would not load."""
        for kind, suffixes in _SUFFIXES.items():
            if kind != self.kind and name_of(target).endswith(suffixes):
                raise ArchiveError(
                    f"{self.path!r} is a {_SUFFIXES[self.kind][0]} file, which Keras loads only "
                    f"under a name that ends in it; {name_of(target)!r} does not."
                )

    def _read_json(self, name: str) -> bytes:
        assert self.index is not None
        member = self.index.members.get(name)
        if member is None:
            raise ArchiveError(
                f"{self.path!r} is a zip file without {name!r}: not a model that Keras saved."
            )
        return read_member(self.source, member, CONFIG_LIMIT)

    def _read_attributes(self) -> bytes:
        store = self.store("")
        with store.checked():
            for name in (_ATTRIBUTE, "training_config", "keras_version", "backend"):
                self._read_attribute(store, name)
        text = self._attributes.get(_ATTRIBUTE)
        if text is None:
            shard = re.search(r"_\d{5}\.weights\.h5\Z", self.path)
            what = "is one shard of a model's weights" if shard else "holds weights without a model"
            raise ArchiveError(
                f"{self.path!r} {what}: save the whole model with model.save, not save_weights, "
                "or give the folder of the preset that it is part of."
            )
        return text.encode()

    def _read_attribute(self, store: Store, name: str) -> None:
        from graphwd.saved.weights import read_text

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
        if self.index is None:
            return [""]
        return [name for name in self.index.members if name.endswith(".weights.h5")]

    def store(self, name: str) -> Store:
        """Opens the file itself (no name) or one of its members as HDF5.

        Args:
            name: A member's name; empty for the file itself.

        Returns:
            A `graphwd.weights.Store`, the same one each time, open as long as the archive is.

        Raises:
            ArchiveError: when it is damaged.
        """
        from graphwd.saved.weights import open_store
        from graphwd.saved.window import Window

        if name not in self._stores:
            if self.index is None:
                window = Window(self.source.file, 0, self.source.size)
            else:
                member = self.index.members[name]
                if member.method == STORED:
                    window = Window(self.source.file, member.data, member.compressed)
                else:
                    window = Window(self._spool(member), 0, member.size)
            self._stores[name] = open_store(self.path, window)
            self._open.enter_context(self._stores[name].file)
        return self._stores[name]

    def tree(self, name: str, *, state: bool = True) -> Tree:
        """Lists what the file itself (no name) or one of its members holds as HDF5.

        Args:
            name: A member's name; empty for the file itself.
            state: Whether to list the state of the optimizer, too.

        Returns:
            A `graphwd.weights.Tree`. Each part of it is listed once as long as the archive is open.

        Raises:
            ArchiveError: when it is damaged.
        """
        from graphwd.saved.weights import Tree, read_tree

        store = self.store(name)
        tree = Tree({}, {})
        for part in (False, True)[: 1 + state]:
            if (name, part) not in self._trees:
                with store.checked():
                    self._trees[name, part] = read_tree(store, state=part)
            tree.arrays.update(self._trees[name, part].arrays)
            tree.orders.update(self._trees[name, part].orders)
        return tree

    def _spool(self, member: Member) -> Any:
        """A compressed member, decompressed to a temporary file, for HDF5 seeks back and forth."""
        if member.size > _SPOOL_LIMIT and member.size > _SPOOL_RATIO * member.compressed:
            raise ArchiveError(
                f"{self.path!r} holds a {member.name!r} that claims {member.size} bytes and "
                f"stores {member.compressed}; Keras refuses it, too."
            )
        try:
            spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 # closed with the archive
            self._open.enter_context(spool)
            for chunk in member_chunks(self.source, member):
                write_all(cast(Any, spool), chunk)
        except OSError as error:
            raise ArchiveError(
                f"{member.name!r} of {self.path!r} can't be decompressed: {error.strerror}."
            ) from error
        return spool

    def close(self) -> None:
        """Closes the file, and what was opened in it."""
        try:
            self._open.close()
        finally:
            self.source.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
