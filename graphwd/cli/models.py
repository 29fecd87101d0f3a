"""Live models for the command line: loaded from files, built by keras.applications, and saved."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphwd import writing
from graphwd.cli.program import unknown
from graphwd.errors import ArchiveError, GraphwdError, ModelError
from graphwd.graph.slots import strip_carried

APPLICATION = "app:"
"""What a source begins with that is the name of an architecture, not of a file."""

_SUFFIXES = (".keras", ".h5", ".hdf5")
_TASK = "task.json"
_PRESET_FILES = (_TASK, "tokenizer.json", "preprocessor.json")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what TensorFlow logs while it is loaded, which no setting of its own does.

    Python's own errors are raised and not logged, so none of them is lost.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # for what it logs later
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # not a file: nothing of TensorFlow's is seen
        yield
        return
    sys.stderr.flush()
    kept = os.dup(descriptor)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def import_keras() -> Any:
    """Imports Keras, quietly."""
    try:
        with quiet():
            import keras
    except Exception as error:
        raise GraphwdError(
            f"Keras can't be loaded ({_reason(error)}); install a backend, such as "
            "pip install 'graphwd[tensorflow]', or choose one with KERAS_BACKEND."
        ) from error
    with contextlib.suppress(ImportError):  # absl comes with Keras; without it nothing is logged
        from absl import logging

        logging.set_verbosity(logging.ERROR)
    return keras


def is_application(source: str) -> bool:
    """Whether a source is the name of an architecture of `keras.applications`."""
    return source.startswith(APPLICATION)


def is_preset(path: str) -> bool:
    """Whether a folder is one that keras-hub's `save_to_preset` wrote."""
    if any(os.path.exists(os.path.join(path, name)) for name in _PRESET_FILES):
        return True
    try:
        with open(os.path.join(path, "metadata.json"), "rb") as file:
            return b'"keras_hub_version"' in file.read(1 << 20)
    except OSError:
        return False


def architectures() -> list[str]:
    """The names of keras.applications, without loading it; none where that can't be told."""
    package = importlib.util.find_spec("keras")
    for folder in (package and package.submodule_search_locations) or ():
        with contextlib.suppress(OSError):
            with open(os.path.join(folder, "applications", "__init__.py"), "rb") as file:
                text = file.read().decode("utf-8", "replace")
            return re.findall(r"\b([A-Z]\w*) as \1\b", text)
    return []


def check_application(source: str) -> None:
    """Refuses the name of no architecture at once: Keras takes seconds to load."""
    name, known = source.removeprefix(APPLICATION), architectures()
    if known and name not in known:
        raise ModelError(unknown("keras.applications has no", name, known, "it has"))


def import_modules(names: Sequence[str]) -> None:
    """Imports modules of the user's, from the current folder or wherever Python finds them."""
    for name in names:
        if os.sep not in name and name.isidentifier() and not _is_there(name):
            raise GraphwdError(
                f"There is no module {name!r}; --import takes a module's name, as in 'import "
                "my_layers', of the current folder or installed."
            )
    if names:
        import_keras()  # first, so that what it says at its start is silenced
        sys.path[:0] = [] if os.getcwd() in sys.path else [os.getcwd()]
    for name in names:
        try:
            importlib.import_module(name.removesuffix(".py") if os.sep not in name else name)
        except Exception as error:
            reason = " ".join(str(error).split()) or "no reason given"
            raise GraphwdError(
                f"The module {name!r} can't be imported ({type(error).__name__}: {reason}); "
                "--import takes a module's name, as in 'import my_layers', of the current folder "
                "or installed."
            ) from error


def _is_there(name: str) -> bool:
    """Whether a module can be found, which takes no time, while importing Keras does."""
    return (
        os.path.exists(name) or os.path.exists(f"{name}.py") or bool(importlib.util.find_spec(name))
    )


def load(source: str, weights: str | None = None) -> Any:
    """Loads a live model."""
    if is_application(source):
        return _build(source.removeprefix(APPLICATION), weights)
    if not os.path.exists(source):
        raise ArchiveError(f"{source!r} can't be read: No such file or directory.")
    keras = import_keras()
    try:
        if is_preset(source):
            return _load_preset(source)
        return keras.saving.load_model(source)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"Keras can't load {source!r} ({_reason(error)}); give modules of your own as --import "
            "MODULE, or leave out --live: the file itself is read without any of the model's code."
        ) from error


def _load_preset(folder: str) -> Any:
    try:
        with quiet():
            import keras_hub
    except ImportError as error:
        raise ModelError(
            f"{folder!r} is a preset of keras-hub's, which is not installed ({error}); "
            "pip install keras-hub."
        ) from error
    task = os.path.join(folder, _TASK)
    name = task if os.path.exists(task) else os.path.join(folder, "config.json")
    with open(name, "rb") as file:
        config = strip_carried(json.load(file))
    kind = getattr(keras_hub.models, config["class_name"], None)
    if kind is None:  # of the user's own
        registered = config.get("registered_name") or config["class_name"]
        kind = import_keras().saving.get_registered_object(registered)
    if kind is None:
        raise ValueError(f"the class {config['class_name']!r} is not known")
    return kind.from_preset(folder)


def _build(name: str, weights: str | None) -> Any:
    keras = import_keras()
    build = getattr(keras.applications, name, None)
    if not inspect.isfunction(build):
        raise ModelError(f"keras.applications has no {name!r}.")
    try:
        return build(weights=weights)
    except Exception as error:
        raise ModelError(f"Keras can't build {name} ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    """An error of Keras's on one line, which may be many and end in the whole config."""
    text = str(error).rsplit("Exception encountered:", 1)[-1].split("Full object config:")[0]
    text = " ".join(text.split())
    return f"{type(error).__name__}: {text[:300]}{'...' if len(text) > 300 else ''}".rstrip(" .")


def check_model_target(path: str, *, overwrite: bool, source: str = "") -> None:
    """Refuses early what a model can't be saved to, before any long work."""
    named, folder = path.endswith(_SUFFIXES), os.path.isdir(source)
    writing.check_target(path, overwrite=overwrite, folder=folder and not named)
    if not (named or folder):
        raise ArchiveError(f"{path!r} can't be written: give it a name in .keras or .h5.")


def save(model: Any, path: str, *, overwrite: bool = False, source: str = "") -> None:
    """Saves a model so that the file is whole: complete and on disk before it gets its name."""
    check_model_target(path, overwrite=overwrite, source=source)
    if not path.endswith(_SUFFIXES):
        with writing.replacing_folder(path, overwrite=overwrite) as inner:
            if is_preset(source):
                _saved(model.save_to_preset, inner)
            else:
                _saved(model.save, inner, zipped=False)
        return
    like = os.stat(source) if os.path.isfile(source) else None
    with writing.replacing_by_name(path, overwrite=overwrite, like=like) as inner:
        _saved(model.save, inner)


def _saved(save: Callable[..., object], *arguments: str, **options: object) -> None:
    try:
        save(*arguments, **options)
    except Exception as error:
        cause = _disk_error(error)
        if cause is not None:
            raise cause from error
        raise ModelError(f"Keras can't save the model ({_reason(error)}).") from error


def _disk_error(error: BaseException | None) -> OSError | None:
    """What the system refused, though h5py and Keras wrap it or raise another error over it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno:
            return OSError(error.errno, os.strerror(error.errno))
        found = re.search(r"errno = (\d+)", str(error))
        if found:
            return OSError(int(found[1]), os.strerror(int(found[1])))
        error = error.__cause__ or error.__context__
    return None
