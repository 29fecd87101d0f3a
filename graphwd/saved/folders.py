"""A saved model that is a folder: a preset of keras-hub's, or what `save(zipped=False)` writes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from graphwd.errors import ArchiveError, name_of
from graphwd.graph.slots import Pointer, Slot, find_slots, set_regularizers
from graphwd.policy import regularizers
from graphwd.saved.configs import CONFIG_LIMIT, parse_config, parse_object
from graphwd.saved.files import Path, Source, copy_range, write_all
from graphwd.saved.loadable import check_loadable
from graphwd.saved.models import CONFIG, METADATA, Archive
from graphwd.writing import replacing_folder

if TYPE_CHECKING:  # at run time h5py and what needs it are imported for HDF5 only
    from graphwd.saved.reach import Reach
    from graphwd.saved.weights import Store

TASK, _TASK_WEIGHTS = "task.json", "task.weights.h5"
_BACKBONE: Pointer = ("config", "backbone")
_MOST_FILES = 10_000


def open_saved(path: Path) -> Archive:
    """Opens a saved model, whatever it is.

    Args:
        path: A `.keras` or a whole-model `.h5` file, a preset's folder, or an unzipped model's.

    Returns:
        An `Archive`.

    Raises:
        ArchiveError: when it is none of them; the message says what it is.
    """
    return Folder(path) if os.path.isdir(name_of(path)) else Archive(path)


class Folder(Archive):
    """A saved model that is a folder.

    A preset of a task has its config twice, within the task's and by itself; both are edited.

    Args:
        path: The folder's path.

    Attributes:
        files: The files in it, by their paths within the folder.
        backbone: The second config, of a task's backbone; `None` where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = name_of(path)
        self.kind: Literal["keras", "h5", "folder"] = "folder"
        self.index = None
        self._attributes = {}
        self._stores, self._trees = {}, {}
        self._open = ExitStack()
        self._sources: dict[str, Source] = {}
        try:
            self.files = self._list()
            self._main = TASK if TASK in self.files else CONFIG
            self.source = self.opened(self._main)
            self._text, self.config = self._read_config(self._main)
            self.backbone: dict[str, Any] | None = None
            if self._main == TASK and CONFIG in self.files and self._of_task() is not None:
                self._backbone_text, self.backbone = self._read_config(CONFIG)
        except BaseException:
            self._open.close()
            raise

    def _list(self) -> list[str]:
        found = []
        for folder, _, names in os.walk(self.path):
            found += [os.path.relpath(os.path.join(folder, name), self.path) for name in names]
            if len(found) > _MOST_FILES:
                raise ArchiveError(f"{self.path!r} holds more files than a model has.")
        if "saved_model.pb" in found:
            raise ArchiveError(
                f"{self.path!r} is a SavedModel of TensorFlow's, which has no config to edit: load "
                "it with tf_keras and save it as a .h5 file."
            )
        if CONFIG not in found and TASK not in found:
            raise ArchiveError(
                f"{self.path!r} is a directory without a model's {CONFIG!r}: give a .keras or .h5 "
                "file, or a folder that save_to_preset or save(zipped=False) wrote."
            )
        return sorted(found)

    def _of_task(self) -> Mapping[str, Any] | None:
        """The backbone's config within the task's."""
        inner = self.config["config"]
        backbone = inner.get("backbone") if isinstance(inner, Mapping) else None
        return backbone if isinstance(backbone, Mapping) and "config" in backbone else None

    def _read_config(self, name: str) -> tuple[bytes, dict[str, Any]]:
        where = os.path.join(self.path, name)
        text = self._read_json(name)
        value = parse_object(text, f"the config of {where!r}")
        if "class_name" not in value and ("architectures" in value or "model_type" in value):
            raise ArchiveError(
                f"{self.path!r} is a model of Hugging Face's transformers; load it with "
                "keras-hub's from_preset and give the folder that save_to_preset writes."
            )
        config = parse_config(text, where)
        check_loadable(config, where)
        return text, config

    def opened(self, name: str) -> Source:
        """Opens one of the files, once."""
        if name not in self._sources:
            source = Source(os.path.join(self.path, name))
            self._sources[name] = self._open.enter_context(source)
        return self._sources[name]

    def _read_json(self, name: str) -> bytes:
        source = self.opened(name)
        if source.size > CONFIG_LIMIT:
            raise ArchiveError(
                f"{self.path!r} holds a {name!r} of more than {CONFIG_LIMIT >> 20} MiB."
            )
        return source.read(0, source.size)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the folder notes about its making."""
        if METADATA not in self.files:
            return {}
        return parse_object(self._read_json(METADATA), f"{METADATA!r} of {self.path!r}")

    @property
    def compile_config(self) -> Any:
        """How the model was compiled, as the folder has it, or `None`."""
        return self.config.get("compile_config")

    @contextmanager
    def reach(self, slots: Sequence[Slot]) -> Iterator[Reach]:
        """Opens the stored weights, and finds out which of them slots govern, as `Archive` does."""
        if self.backbone is None:
            with super().reach(slots) as found:
                yield found
            return
        from graphwd.saved.reach import Reach

        whole, self.config = self.config, self.backbone
        try:
            inner = find_slots(self.backbone)
            with super().reach(inner) as found:
                places = {(*_BACKBONE, *slot.pointers[0]): n for n, slot in enumerate(inner)}
                arrays = tuple(
                    found.arrays[places[slot.pointers[0]]] if slot.pointers[0] in places else ()
                    for slot in slots
                )
                self.config = whole
                yield Reach(arrays, found.unreached, found.hidden, found.sizes)
        finally:
            self.config = whole

    def _h5_members(self) -> list[str]:
        return [n for n in self.files if n.endswith(".weights.h5") and n != _TASK_WEIGHTS]

    def store(self, name: str) -> Store:
        """Opens one of the files as HDF5, as `Archive` does."""
        from graphwd.saved.weights import open_store
        from graphwd.saved.window import Window

        if name not in self._stores:
            source = self.opened(name)
            self._stores[name] = open_store(self.path, Window(source.file, 0, source.size))
            self._open.enter_context(self._stores[name].file)
        return self._stores[name]

    def write(
        self,
        target: Path,
        config: Mapping[str, Any],
        *,
        overwrite: bool = False,
        check: Callable[[Archive], None] | None = None,
    ) -> None:
        """Writes a copy of the folder with another config, as `Archive` does for a file."""
        if name_of(target).endswith((".keras", ".h5", ".hdf5")):
            raise ArchiveError(
                f"{self.path!r} is a folder, and so is what is written: {name_of(target)!r} has a "
                "file's suffix; leave it out, or load the model and save it as a file."
            )
        edited = {self._main: _as_written(config, self.config, self._text)}
        if self.backbone is not None:
            backbone = self._edited_backbone(config)
            edited[CONFIG] = _as_written(backbone, self.backbone, self._backbone_text)
        with replacing_folder(target, overwrite=overwrite) as folder:
            for name in self.files:
                place = os.path.join(folder, name)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                source = self.opened(name)
                with io.FileIO(place, "xb") as file:
                    if name in edited:
                        write_all(file, edited[name])
                    else:
                        copy_range(source, 0, source.size, file)
                os.chmod(place, source.stat.st_mode & os.stat(place).st_mode & 0o777)
                source.check_unchanged()
            if check is not None:
                with Folder(folder) as written:
                    check(written)

    def _edited_backbone(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The config of the backbone by itself, with what its config within the task has."""
        assert self.backbone is not None
        values = {}
        for slot in find_slots(self.backbone):
            for pointer in slot.pointers:
                values[pointer] = _held(task, (*_BACKBONE, *pointer), self.path)
        return set_regularizers(self.backbone, values)

    def differences(self) -> list[str]:
        """Where a task's backbone has other penalties within the task than by itself."""
        if self.backbone is None:
            return []
        return [
            f"{slot.path}: {CONFIG} and {TASK} hold different regularizers"
            for slot in find_slots(self.backbone)
            for pointer in slot.pointers
            if not regularizers.equal(
                slot.regularizer, _held(self.config, (*_BACKBONE, *pointer), self.path)
            )
        ]

    def close(self) -> None:
        """Closes the files."""
        self._open.close()


def _held(config: Any, pointer: Pointer, path: str) -> Any:
    try:
        for key in pointer:
            config = config[key]
    except (KeyError, IndexError, TypeError) as error:
        raise ArchiveError(
            f"{path!r} is damaged: {TASK} and {CONFIG} hold different backbones."
        ) from error
    return config


def _as_written(config: Mapping[str, Any], before: Mapping[str, Any], text: bytes) -> bytes:
    """The JSON of a config, in the form that its file had."""
    if config == before:
        return text
    return json.dumps(config, indent=4 if b"\n" in text else None).encode()
