"""A saved model that is open: its config, its weights, and a copy with another config.

The config of a saved model is data here: classes that it names are never imported, and weights
never decoded but to compare or to measure them. Limits on sizes and depths make a hostile file an
ArchiveError.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from graphwd.errors import ArchiveError, name_of
from graphwd.graph.slots import Slot, find_slots
from graphwd.saved.configs import (
    CONFIG_LIMIT,
    check_loadable,
    parse_config,
    parse_object,
    serialize_config,
)
from graphwd.saved.files import Source, copy_range, flushed_meanwhile
from graphwd.saved.zips import STORED, Zip
from graphwd.writing import Path, replacing, write_all

if TYPE_CHECKING:  # at run time h5py and what needs it are imported for HDF5 only
    from graphwd.saved.reach import Reach
    from graphwd.saved.weights import Array, HDF5Window, Store, Tree

CONFIG, METADATA = "config.json", "metadata.json"
"""The files within a saved model that hold its config, and how it was made."""

_SPOOL_LIMIT, _SPOOL_RATIO = 1 << 28, 100
_ATTRIBUTE = "model_config"
_H5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUFFIXES = {"keras": (".keras",), "h5": (".h5", ".hdf5")}  # what Keras goes by


class Archive:
    """A saved model that is open for reading; what it is depends on its content, not its name."""

    kind: Literal["keras", "h5", "folder"]
    source: Source  # the file that holds the config
    names: Collection[str]  # members or files; one without a name in a whole-model `.h5` file
    configs: Collection[str] = (CONFIG,)  # the files that hold a config, and are edited
    config: dict[str, Any]  # what slots are found in; of a `.h5` file perhaps in the legacy dialect
    zip: Zip | None = None

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = name_of(path)
        self._attributes: dict[str, str] = {}
        self._stores: dict[str, Store] = {}
        self._trees: dict[tuple[str, bool], Tree] = {}
        self._open = ExitStack()
        try:
            self._read(descriptor)
        except BaseException:
            self.close()
            raise

    def _read(self, descriptor: int | None) -> None:
        self.source = self._open.enter_context(Source(self.path, descriptor))
        start = self.source.read(0, min(8, self.source.size))
        if start == _H5_SIGNATURE:
            self.kind, self.names = "h5", ("",)
            self._text = self._read_attributes()
        else:
            self._refuse_others(start)
            self.kind, self.zip = "keras", Zip(self.source)
            self.names = self.zip.members
            if CONFIG not in self.names:
                raise ArchiveError(
                    f"{self.path!r} is a zip file without {CONFIG!r}: not a model that Keras saved."
                )
            self._text = self.zip.read(CONFIG, CONFIG_LIMIT)
        self.config = parse_config(self._text, self.path)
        check_loadable(self.config, self.path)

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

    def _read_json(self, name: str) -> bytes:
        assert self.zip is not None
        return self.zip.read(name, CONFIG_LIMIT)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the model notes about its making: at least `keras_version`, where it is known."""
        if self.kind == "h5":
            return {k: v for k, v in self._attributes.items() if k in ("keras_version", "backend")}
        if METADATA not in self.names:
            return {}
        return parse_object(self._read_json(METADATA), f"{METADATA!r} of {self.path!r}")

    @property
    def compile_config(self) -> Any:
        """How the model was compiled, or `None`."""
        if self.kind != "h5":
            return self.config.get("compile_config")
        text = self._attributes.get("training_config")
        return text and parse_object(text.encode(), f"training_config of {self.path!r}")

    def slots(self) -> list[Slot]:
        """The slots of the model, without shapes."""
        try:
            return find_slots(self.config)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArchiveError(
                f"{self.path!r} holds a config that is not one of a model ({error!r})."
            ) from error

    @contextmanager
    def reach(self, slots: Sequence[Slot]) -> Iterator[Reach]:
        """Finds out which stored weights the slots govern, to be read within the block."""
        from graphwd.saved.reach import find_reach

        arrays: list[Array] = []
        with ExitStack() as stack:
            for name in self._weights():
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

    def _weights(self) -> list[str]:
        """What holds weights among `names`: usually one, several when sharded."""
        return [name for name in self.names if not name or name.endswith(".weights.h5")]

    def store(self, name: str) -> Store:
        """One of `names` as HDF5: opened once, and open as long as the archive is."""
        from graphwd.saved.weights import Store

        if name not in self._stores:
            self._stores[name] = Store(self.path, self._window(name))
            self._open.enter_context(self._stores[name].file)
        return self._stores[name]

    def _window(self, name: str) -> HDF5Window:
        from graphwd.saved.weights import HDF5Window

        if self.zip is None:
            return HDF5Window(self.source.file, 0, self.source.size)
        member = self.zip.members[name]
        if member.compress_type == STORED:
            return HDF5Window(self.source.file, self.zip.data[name], member.compress_size)
        if member.file_size > max(_SPOOL_LIMIT, _SPOOL_RATIO * member.compress_size):
            raise ArchiveError(
                f"{self.path!r} holds a {name!r} that claims {member.file_size} bytes and stores "
                f"{member.compress_size}; Keras refuses it, too."
            )
        try:  # HDF5 seeks back and forth
            spool: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 # closed with the archive
            self._open.enter_context(spool)
            for chunk in self.zip.chunks(member):
                write_all(spool, chunk)
        except OSError as error:
            raise ArchiveError(
                f"{name!r} of {self.path!r} can't be decompressed: {error.strerror}."
            ) from error
        return HDF5Window(spool, 0, member.file_size)

    def tree(self, name: str, *, state: bool = True) -> Tree:
        """What one of `names` holds as HDF5, with the state of the optimizer or without."""
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

    def same_bytes(self, name: str, other: Archive) -> bool:
        """Whether two archives of a kind hold the same under one of their names."""
        if self.zip is None or other.zip is None:
            return False  # HDF5 files are compared array by array
        return self.zip.same_member(name, other.zip)

    @contextmanager
    def written(
        self, target: Path, config: Mapping[str, Any], *, overwrite: bool = False
    ) -> Iterator[AbstractContextManager[Archive]]:
        """Writes a copy with another config, which takes the target's place after the block."""
        self._check_suffix(target)
        text = serialize_config(config)
        with replacing(target, overwrite=overwrite, like=self.source.stat) as file:
            if text == self._text:
                copy_range(self.source, 0, self.source.size, file)
            elif self.zip is not None:
                self.zip.copy_with(CONFIG, text, file)
            else:
                self._write_h5(text, file)
            self.source.check_unchanged()
            # Within the block the copy is complete, and opened by entering what is given here.
            yield _reopened(target, file)

    def _check_suffix(self, target: Path) -> None:
        """Keras goes by the suffix, so that a file with the other kind's would not load."""
        for kind, suffixes in _SUFFIXES.items():
            if kind != self.kind and name_of(target).endswith(suffixes):
                raise ArchiveError(
                    f"{self.path!r} is a {_SUFFIXES[self.kind][0]} file, which Keras loads only "
                    f"under a name that ends in it; {name_of(target)!r} does not."
                )

    def _write_h5(self, text: bytes, file: io.FileIO) -> None:
        from graphwd.saved.weights import HDF5Window, Store

        copy_range(self.source, 0, self.source.size, file)
        store = Store(self.path, HDF5Window(file), "r+")
        with store.checked(), store.file:
            attributes = store.file.attrs
            if attributes.get_id(_ATTRIBUTE).get_type().is_variable_str():
                attributes.modify(_ATTRIBUTE, text)
            else:
                attributes[_ATTRIBUTE] = text

    def close(self) -> None:
        """Closes the file, and what was opened in it."""
        self._open.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def _reopened(path: Path, file: io.FileIO) -> Iterator[Archive]:
    with flushed_meanwhile(file), Archive(path, file.fileno()) as copy:
        yield copy
