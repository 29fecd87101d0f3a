"""Live models for the command line: loaded from files, built by keras.applications, and saved."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from typing import Any

from graphwd.errors import ArchiveError, GraphwdError, ModelError
from graphwd.parsing import suggest

APPLICATION = "app:"
"""What a source begins with that is the name of an architecture, not of a file."""

_SUFFIXES = (".keras", ".h5", ".hdf5")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what TensorFlow logs while it is loaded, which no setting of its own does.

    Python's own errors are raised and not logged, so none of them is lost. Whoever has set
    `TF_CPP_MIN_LOG_LEVEL` gets what that asks for.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
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
    """Imports Keras, quietly.

    Returns:
        The module `keras`.

    Raises:
        GraphwdError: when Keras or its backend is not installed.
    """
    try:
        with quiet():
            import keras
    except ImportError as error:
        raise GraphwdError(
            f"Keras can't be loaded ({error}); install a backend, such as "
            "pip install 'graphwd[tensorflow]', or choose one with KERAS_BACKEND."
        ) from error
    with contextlib.suppress(ImportError):  # absl comes with Keras; without it nothing is logged
        from absl import logging

        logging.set_verbosity(logging.ERROR)
    return keras


def is_application(source: str) -> bool:
    """Whether a source is the name of an architecture of `keras.applications`."""
    return source.startswith(APPLICATION)


def load(source: str, weights: str | None = None) -> Any:
    """Loads a live model.

    Args:
        source: The path of a saved model, or `app:NAME` for an architecture of
            `keras.applications`.
        weights: `"imagenet"` for the trained weights of an architecture, which Keras downloads,
            or `None` for random ones.

    Returns:
        A `keras.Model`.

    Raises:
        ArchiveError: when there is no such file.
        ModelError: when Keras can't load it; the message has Keras's reason.
    """
    if is_application(source):
        return _build(source.removeprefix(APPLICATION), weights)
    if not os.path.exists(source):
        raise ArchiveError(f"{source!r} can't be read: No such file or directory.")
    keras = import_keras()
    try:
        return keras.saving.load_model(source)
    except Exception as error:
        raise ModelError(
            f"Keras can't load {source!r} ({_reason(error)}); give modules of your own as --import "
            "MODULE, or leave out --live: the file itself is read without any of the model's code."
        ) from error


def _build(name: str, weights: str | None) -> Any:
    keras = import_keras()
    known = {
        key: value
        for key, value in vars(keras.applications).items()
        if inspect.isfunction(value) and key[:1].isupper()
    }
    if name not in known:
        nearest = suggest(name, known)
        hint = f"; did you mean '{nearest}'?" if nearest else f": it has {', '.join(known)}."
        raise ModelError(f"keras.applications has no {name!r}{hint}")
    try:
        return known[name](weights=weights)
    except Exception as error:
        raise ModelError(f"Keras can't build {name} ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    """An error of Keras's on one line, which may be many and end in the whole config."""
    text = str(error).rsplit("Exception encountered:", 1)[-1].split("Full object config:")[0]
    text = " ".join(text.split())
    return f"{type(error).__name__}: {text[:300]}{'...' if len(text) > 300 else ''}".rstrip(" .")


def check_target(path: str, *, overwrite: bool) -> None:
    """Refuses early what a model can't be saved to, before any long work.

    Args:
        path: Where the model is to be saved.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ArchiveError: when it has another suffix, exists without `overwrite`, is not a regular
            file, or has no directory.
    """
    if not path.endswith(_SUFFIXES):
        raise ArchiveError(f"{path!r} can't be written: give it a name in .keras or .h5.")
    target = os.path.realpath(path)
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise ArchiveError(f"{path!r} can't be written: there is no directory {directory!r}.")
    if not os.path.exists(target):
        return
    if not stat.S_ISREG(os.stat(target).st_mode):
        raise ArchiveError(f"{path!r} can't be written: it is not a regular file.")
    if not overwrite:
        raise ArchiveError(_exists(path))


def save(model: Any, path: str, *, overwrite: bool = False) -> None:
    """Saves a model so that the file is whole: written beside the target, flushed, then renamed.

    Args:
        model: A `keras.Model`.
        path: Where to; `.keras` or `.h5` by its suffix.
        overwrite: Whether an existing file is replaced.

    Raises:
        ArchiveError: when the file can't be written. What was there is unchanged.
        ModelError: when Keras can't save the model.
    """
    check_target(path, overwrite=overwrite)
    target = os.path.realpath(path)
    directory, name = os.path.split(target)
    suffix = os.path.splitext(name)[1]
    temporary = os.path.join(directory, f".graphwd-{os.urandom(8).hex()}{suffix}")
    try:
        _save(model, temporary)
        with open(temporary, "r+b") as file:
            if overwrite and os.path.exists(target):
                shutil.copymode(target, temporary)
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, target)
        else:
            _name_once(temporary, target)
    except FileExistsError as error:
        raise ArchiveError(_exists(path)) from error
    except OSError as error:
        reason = error.strerror or error
        raise ArchiveError(
            f"{path!r} can't be written: {reason}; what was there is unchanged."
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):  # it has its final name
            os.unlink(temporary)


def _save(model: Any, path: str) -> None:
    try:
        model.save(path)
    except OSError:
        raise
    except Exception as error:
        raise ModelError(f"Keras can't save the model ({_reason(error)}).") from error


def _name_once(temporary: str, target: str) -> None:
    """Renames a file; fails where the target exists, in one step where the system has one."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.exists(target):
            raise FileExistsError(target) from None
        os.rename(temporary, target)


def _exists(path: str) -> str:
    return f"{path!r} exists; to replace it pass --force."
