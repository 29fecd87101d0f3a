"""The one writer: what is written takes its target's place when it is complete, and not before.

All that graphwd writes for users goes through here: archives, folders of a model, policies, pages.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeAlias

from graphwd.errors import ArchiveError, name_of, reason

Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_NO_ANONYMOUS_FILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")

_drafts: set[_Draft] = set()


class _Fits(Protocol):
    def __call__(self, status: os.stat_result, /) -> str: ...


@contextmanager
def replacing(
    path: Path, *, overwrite: bool, like: os.stat_result | None = None
) -> Iterator[io.FileIO]:
    """Opens a new unbuffered file that takes the target's place when the block ends well."""
    # Until the block ends well the target is what it was, also upon a signal. On Linux the file has
    # no name before it is complete, so that not even `kill -9` leaves anything behind; elsewhere it
    # is written beside the target, and removed upon any error.
    with _drafted(path, overwrite, _is_file) as draft, draft.open(like) as file:
        yield file
        draft.settle(file)
        os.fsync(file.fileno())
        with _undisturbed():
            draft.take_place(file)


@contextmanager
def replacing_by_name(
    path: Path, *, overwrite: bool, like: os.stat_result | None = None
) -> Iterator[str]:
    """As `replacing`, for writers that take the name of a file that isn't there, as Keras does."""
    with _drafted(path, overwrite, _is_file) as draft:
        inner = draft.make_folder() + "/model" + os.path.splitext(draft.target)[1]
        yield inner
        with open(inner, "r+b", buffering=0) as file:
            if like is not None and draft.existing is None:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                os.chmod(inner, mode & stat.S_IMODE(like.st_mode))
            draft.settle(file)
            os.fsync(file.fileno())
        with _undisturbed():
            draft.give_place(inner)


@contextmanager
def replacing_folder(path: Path, *, overwrite: bool) -> Iterator[str]:
    """Makes an empty folder that takes the target's place when the block ends well."""
    with _drafted(path, overwrite, _is_folder) as draft:
        inner = draft.make_folder() + "/model"
        os.mkdir(inner)
        yield inner
        if draft.existing is not None:
            os.chmod(inner, stat.S_IMODE(draft.existing.st_mode))
            _set_owner(inner, draft.existing)
        for folder, _, names in os.walk(inner):
            for name in names:
                _sync(os.path.join(folder, name))
            _sync(folder)
        # No system exchanges two folders in one step that Python knows of: one that is replaced is
        # put aside, and put back when anything goes wrong. Only `kill -9` or a power cut between
        # the two steps leaves it under a hidden name beside the target.
        with _undisturbed():
            draft.give_place_to_folder(inner)


def write_whole(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Writes a small file at once or not at all."""
    with replacing(path, overwrite=overwrite) as file:
        write_all(file, data)


def write_all(file: io.FileIO, data: bytes | bytearray | memoryview) -> None:
    """Writes all of `data` to a file: an unbuffered one may take less in one call."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def check_target(path: Path, *, overwrite: bool, folder: bool = False) -> None:
    """Refuses early what can't be written, before any long work."""
    name = name_of(path)
    with _said(name):
        _Draft(name, overwrite, _is_folder if folder else _is_file)


def abandon() -> None:
    """Removes what is half written: for a handler of signals that end the process."""
    for draft in list(_drafts):
        draft.clear()


class _Draft:
    """Something new that is written beside its target, or has no name yet."""

    def __init__(self, name: str, overwrite: bool, fits: _Fits) -> None:
        self.name, self.overwrite, self._fits = name, overwrite, fits
        self.target = os.path.realpath(name)  # a symbolic link stays one
        self.existing = self._look()
        self.directory = os.path.dirname(self.target)
        if not os.path.isdir(self.directory):
            raise ArchiveError(
                f"{name!r} can't be written: there is no directory {self.directory!r}."
            )
        self.temporary = os.path.join(self.directory, f".graphwd-{os.urandom(8).hex()}.tmp")
        self._aside = self.temporary + ".old"

    def _look(self) -> os.stat_result | None:
        try:
            status = os.stat(self.target)
        except FileNotFoundError:
            return None
        problem = self._fits(status)
        if problem:
            raise ArchiveError(f"{self.name!r} can't be written: it is {problem}.")
        if not self.overwrite:
            raise exists(self.name)
        return status

    def open(self, like: os.stat_result | None) -> io.FileIO:
        """Opens a new file: without a name where the system can give it one later."""
        # A new file gets the mode of `like`, the status of the file that it is a copy of. The
        # system itself takes the umask, or the folder's own list, from the mode that is given.
        mode = 0o666 if like is None else stat.S_IMODE(like.st_mode) & 0o777
        mode = 0o600 if self.existing is not None else mode
        self._named = True
        if hasattr(os, "O_TMPFILE"):
            try:
                flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
                descriptor = os.open(self.directory, flags, mode)
            except OSError as error:
                if error.errno not in _NO_ANONYMOUS_FILE:
                    raise
            else:
                if os.path.exists(_own_descriptor(descriptor)):
                    self._named = False
                    return os.fdopen(descriptor, "r+b", buffering=0)
                os.close(descriptor)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(self.temporary, flags | getattr(os, "O_BINARY", 0), mode)
        return os.fdopen(descriptor, "r+b", buffering=0)

    def make_folder(self) -> str:
        """Makes a folder of its own for whoever writes by name."""
        os.mkdir(self.temporary, 0o700)
        return self.temporary

    def settle(self, file: io.FileIO) -> None:
        """Gives the new file what it keeps of the one that it replaces."""
        if self.existing is None:
            return
        _set_owner(file.fileno(), self.existing)
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), stat.S_IMODE(self.existing.st_mode) & 0o777)
        if hasattr(os, "listxattr"):  # the access control list is one of them
            with suppress(OSError):
                for key in os.listxattr(self.target):
                    with suppress(OSError):  # what the system doesn't let this user set
                        os.setxattr(file.fileno(), key, os.getxattr(self.target, key))

    def take_place(self, file: io.FileIO) -> None:
        """Gives a complete file its target's name."""
        if self._named:
            self.give_place(self.temporary)
            return
        if not self.overwrite:
            _name_anonymous(file, self.target)
            return
        _name_anonymous(file, self.temporary)
        self.give_place(self.temporary)

    def give_place(self, complete: str) -> None:
        """Renames a complete file to its target."""
        self._look()  # it may have become a device meanwhile
        if self.overwrite:
            os.replace(complete, self.target)
            return
        try:
            os.link(complete, self.target)  # fails where there is one, in one step
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            os.replace(complete, self.target)

    def give_place_to_folder(self, complete: str) -> None:
        """Renames a complete folder to its target, putting aside what is there."""
        if self._look() is None:
            os.rename(complete, self.target)
            return
        os.rename(self.target, self._aside)
        try:
            os.rename(complete, self.target)
        except BaseException:
            os.rename(self._aside, self.target)
            raise

    def clear(self) -> None:
        """Removes all names but the target's."""
        with suppress(OSError):
            os.unlink(self.temporary)
        shutil.rmtree(self.temporary, ignore_errors=True)
        if not os.path.lexists(self.target):
            with suppress(OSError):
                os.rename(self._aside, self.target)
        shutil.rmtree(self._aside, ignore_errors=True)


@contextmanager
def _drafted(path: Path, overwrite: bool, fits: _Fits) -> Iterator[_Draft]:
    name = name_of(path)
    with _said(name):
        draft = _Draft(name, overwrite, fits)
    _drafts.add(draft)
    try:
        with _said(name, "; what was there is unchanged"):
            yield draft
        _sync(draft.directory)
    finally:
        draft.clear()
        _drafts.discard(draft)


@contextmanager
def _said(name: str, unchanged: str = "") -> Iterator[None]:
    """Says in a sentence what the system refuses."""
    try:
        yield
    except FileExistsError as error:
        raise exists(name) from error
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) and unchanged:
            raise  # of whoever writes, not of the path
        raise ArchiveError(f"{name!r} can't be written: {reason(error)}{unchanged}.") from error


def exists(name: str) -> ArchiveError:
    """The error for a target that is there."""
    return ArchiveError(f"{name!r} exists; to replace it pass overwrite=True.")


def _is_file(status: os.stat_result) -> str:
    """What is wrong with what a file is to replace; empty when nothing is."""
    if stat.S_ISREG(status.st_mode):
        return ""
    return "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"


def _is_folder(status: os.stat_result) -> str:
    """What is wrong with what a folder is to replace; empty when nothing is."""
    return "" if stat.S_ISDIR(status.st_mode) else "not a folder, as the source is"


def _set_owner(file: int | str, status: os.stat_result) -> None:
    if hasattr(os, "chown"):
        for owner, group in ((-1, status.st_gid), (status.st_uid, -1)):
            with suppress(PermissionError):  # only root may give files away
                os.chown(file, owner, group)


def _own_descriptor(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _name_anonymous(file: io.FileIO, path: str) -> None:
    """Gives a file without a name its first one; fails where there is a file of that name."""
    # O_PATH asks for no permission to read, which a folder for dropping files doesn't give.
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        # With a directory's descriptor, since os.link follows its source only then.
        own = _own_descriptor(file.fileno())
        os.link(own, os.path.basename(path), dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def _sync(path: str) -> None:
    """Brings a folder or a closed file to the disk, where the system and its rights allow that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):  # some network file systems can't; the file itself is complete
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Lets signals that end the process wait while a file gets its name, which is two steps."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    ending = {number for name in _ENDING if (number := getattr(signal, name, None)) is not None}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
