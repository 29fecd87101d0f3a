"""A saved model that is a folder: a preset of keras-hub's, or what `save(zipped=False)` writes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from graphwd.errors import ArchiveError, name_of
from graphwd.graph.slots import Pointer, Slot, find_slots, set_regularizers, strip_carried
from graphwd.policy import regularizers
from graphwd.saved.archive import CONFIG, Archive
from graphwd.saved.configs import CONFIG_LIMIT, check_loadable, parse_config, parse_object
from graphwd.saved.files import Source, copy_range, pieces, same_content
from graphwd.writing import Path, replacing_folder, write_all

if TYPE_CHECKING:  # at run time h5py and what needs it are imported for HDF5 only
    from graphwd.saved.reach import Reach
    from graphwd.saved.weights import HDF5Window

_TASK, _TASK_WEIGHTS = "task.json", "task.weights.h5"
_BACKBONE: Pointer = ("config", "backbone")
_MOST_FILES = 10_000


def open_saved(path: Path) -> Archive:
    """Opens a saved model, whatever it is: a `.keras` or a whole-model `.h5` file, or a folder."""
    return Folder(path) if os.path.isdir(name_of(path)) else Archive(path)


class Folder(Archive):
    """A saved model that is a folder."""

    configs = (CONFIG, _TASK)

    def _read(self, descriptor: int | None) -> None:
        self.kind = "folder"
        self._sources: dict[str, Source] = {}
        self.names = self._list()
        self._main = _TASK if _TASK in self.names else CONFIG
        self.source = self.opened(self._main)
        self._text, self.config = self._read_config(self._main)
        # A preset of a task has the backbone's config twice, within the task's and by itself. Both
        # are edited.
        self.backbone: dict[str, Any] | None = None
        if self._main == _TASK and CONFIG in self.names and self._of_task() is not None:
            self._backbone_text, self.backbone = self._read_config(CONFIG)

    def _list(self) -> list[str]:
        found: list[str] = []
        for folder, _, names in os.walk(self.path):
            found += [os.path.relpath(os.path.join(folder, name), self.path) for name in names]
            if len(found) > _MOST_FILES:
                raise ArchiveError(f"{self.path!r} holds more files than a model has.")
        if "saved_model.pb" in found:
            raise ArchiveError(
                f"{self.path!r} is a SavedModel of TensorFlow's, which has no config to edit: load "
                "it with tf_keras and save it as a .h5 file."
            )
        if CONFIG not in found and _TASK not in found:
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

    @contextmanager
    def reach(self, slots: Sequence[Slot]) -> Iterator[Reach]:
        """Finds out which stored weights slots govern: a task's are those of its backbone."""
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

    def _weights(self) -> list[str]:
        return [name for name in super()._weights() if name != _TASK_WEIGHTS]

    def _window(self, name: str) -> HDF5Window:
        from graphwd.saved.weights import HDF5Window

        return HDF5Window(self.opened(name).file, 0, self.opened(name).size)

    def same_bytes(self, name: str, other: Archive) -> bool:
        """Whether two folders hold the same in a file."""
        assert isinstance(other, Folder)
        one, two = self.opened(name), other.opened(name)
        return one.size == two.size and same_content(
            pieces(one, 0, one.size), pieces(two, 0, two.size)
        )

    @contextmanager
    def written(
        self, target: Path, config: Mapping[str, Any], *, overwrite: bool = False
    ) -> Iterator[AbstractContextManager[Archive]]:
        """Writes a copy with another config, as `Archive` does for a file."""
        if name_of(target).endswith((".keras", ".h5", ".hdf5")):
            raise ArchiveError(
                f"{self.path!r} is a folder, and so is what is written: {name_of(target)!r} has a "
                "file's suffix; leave it out, or load the model and save it as a file."
            )
        edited = {self._main: _as_written(config, self.config, self._text)}
        if self.backbone is not None:
            values = {
                pointer: _held(config, (*_BACKBONE, *pointer), self.path)
                for slot in find_slots(self.backbone)
                for pointer in slot.pointers
            }
            backbone = set_regularizers(self.backbone, values)
            edited[CONFIG] = _as_written(backbone, self.backbone, self._backbone_text)
        with replacing_folder(target, overwrite=overwrite) as folder:
            for name in self.names:
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
            yield _reopened(folder)

    def backbone_problems(self, other: Folder) -> list[str]:
        """Where the backbone by itself differs, or has other penalties than within the task."""
        problems = []
        both = [strip_carried(b) for b in (self.backbone, other.backbone) if b is not None]
        bare = [
            set_regularizers(b, dict.fromkeys(p for slot in find_slots(b) for p in slot.pointers))
            for b in both
        ]
        if len(bare) == 2 and bare[0] != bare[1]:
            problems.append(f"{CONFIG}: the backbones differ beyond their regularizers")
        return problems + [
            f"{slot.path}: {CONFIG} and {_TASK} hold different regularizers"
            for slot in (find_slots(other.backbone) if other.backbone is not None else ())
            for pointer in slot.pointers
            if not regularizers.equal(
                slot.regularizer, _held(other.config, (*_BACKBONE, *pointer), other.path)
            )
        ]


@contextmanager
def _reopened(path: str) -> Iterator[Archive]:
    with Folder(path) as copy:
        yield copy


def _held(config: Any, pointer: Pointer, path: str) -> Any:
    try:
        for key in pointer:
            config = config[key]
    except (KeyError, IndexError, TypeError) as error:
        raise ArchiveError(
            f"{path!r} is damaged: {_TASK} and {CONFIG} hold different backbones."
        ) from error
    return config


def _as_written(config: Mapping[str, Any], before: Mapping[str, Any], text: bytes) -> bytes:
    """The JSON of a config, in the form that its file had."""
    if config == before:
        return text
    return json.dumps(config, indent=4 if b"\n" in text else None).encode()
