"""Files on disk: one opened without trusting it, and one written so that its target stays whole."""

from __future__ import annotations

import errno
import functools
import heapq
import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeAlias

from graphwd.errors import ArchiveError

Path: TypeAlias = str | os.PathLike[str]

CHUNK = 512 << 10
"""The number of bytes that are held in memory at once when a file's content passes through.

Two of them fit into a processor's cache while they are compared: with pieces of 4 MiB comparing
two files takes twice as long.
"""

_KERNEL_SLICE = 64 << 20  # so that Ctrl-C is heard between two calls
_NO_KERNEL_COPY = {
    errno.EXDEV,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.EBADF,
    errno.EPERM,
    errno.ETXTBSY,
}
_NO_ANONYMOUS_FILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class Source:
    """A regular file that is open for reading.

    Args:
        path: The file's path, for messages and, without `descriptor`, to open it.
        descriptor: An open file descriptor to read instead; it is duplicated.

    Raises:
        ArchiveError: when there is no such file, it may not be read, or is a directory, a device
            or anything else that isn't a regular file. Devices and pipes are never opened.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = os.fspath(path)
        try:
            if descriptor is None:
                self._refuse_special(os.stat(self.path))
                flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
                opened = os.open(self.path, flags | getattr(os, "O_BINARY", 0))
            else:
                opened = os.dup(descriptor)
            self.file = os.fdopen(opened, "rb", buffering=0)
            self.stat = os.fstat(opened)
        except (OSError, ValueError) as error:
            raise ArchiveError(f"{self.path!r} can't be read: {reason(error)}.") from error
        try:
            self._refuse_special(self.stat)
        except ArchiveError:
            self.file.close()
            raise
        self.size = self.stat.st_size

    def _refuse_special(self, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            return
        if stat.S_ISDIR(status.st_mode):
            if os.path.exists(os.path.join(self.path, "config.json")):
                raise ArchiveError(
                    f"{self.path!r} is an unzipped Keras model, which can't be replaced in one "
                    "step; save it as one .keras file with model.save(path)."
                )
            raise ArchiveError(f"{self.path!r} is a directory; give a .keras or .h5 file.")
        raise ArchiveError(f"{self.path!r} is not a regular file; give a .keras or .h5 file.")

    def fill(self, offset: int, buffer: memoryview) -> None:
        """Reads from `offset` on until a buffer is full.

        Args:
            offset: Where to begin.
            buffer: Takes up the bytes; its size is the caller's to bound.

        Raises:
            ArchiveError: when the file ends before, or can't be read.
        """
        self._check_range(offset, len(buffer))
        try:
            full = read_into(self.file, offset, buffer)
        except OSError as error:
            raise ArchiveError(f"{self.path!r} can't be read: {reason(error)}.") from error
        if not full:
            raise ArchiveError(f"{self.path!r} became shorter while it was read.")

    def read(self, offset: int, size: int) -> bytes:
        """Reads exactly `size` bytes from `offset` on.

        Args:
            offset: Where to begin.
            size: How many bytes; the caller bounds it.

        Returns:
            The bytes.

        Raises:
            ArchiveError: when the file ends before, or can't be read.
        """
        self._check_range(offset, size)  # before room is made for what isn't there
        data = bytearray(size)
        self.fill(offset, memoryview(data))
        return bytes(data)

    def _check_range(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ArchiveError(f"{self.path!r} is damaged: it ends before what it announces.")

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yields the parts of a range that hold data, as `extents` does."""
        return extents(self.file, start, stop)

    def check_unchanged(self) -> None:
        """Raises an ArchiveError when somebody wrote to the file since it was opened."""
        now = os.fstat(self.file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.stat.st_size, self.stat.st_mtime_ns):
            raise ArchiveError(f"{self.path!r} was changed while it was read; try again.")

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def reason(error: Exception) -> str:
    """What went wrong, without Python's or the system's error number."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def read_into(file: io.FileIO, offset: int, buffer: memoryview) -> bool:
    """Reads from an offset on until a buffer is full, and says whether the file went so far."""
    file.seek(offset)
    while buffer:
        count = file.readinto(buffer)
        if not count:
            return False
        buffer = buffer[count:]
    return True


class Readable(Protocol):
    """What a range of bytes can be read from: a file, or a part of one."""

    def fill(self, offset: int, buffer: memoryview) -> None:
        """Reads from `offset` on until a buffer is full."""

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yields the parts of a range that hold data, as `extents` does."""


def extents(file: io.FileIO, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yields the parts of a range of a file that hold data: all but the holes of a sparse one.

    Args:
        file: An open file.
        start: The first byte of the range.
        stop: The byte after its last one.

    Yields:
        The first byte of a part, and the byte after its last one.
    """
    if not hasattr(os, "SEEK_DATA"):
        yield start, stop
        return
    descriptor, position = file.fileno(), start
    while position < stop:
        try:
            begin = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # a hole up to the end of the file
            begin, end = position, stop  # this file system doesn't know about holes
        if begin >= stop:
            return
        yield begin, min(end, stop)
        position = end


def same_range(one: Readable, start: int, other: Readable, other_start: int, size: int) -> bool:
    """Whether two ranges of the same size hold the same bytes."""
    # Always the same two pieces of memory: where each piece is fresh the system makes it anew,
    # which takes longer than to read.
    mine, theirs = bytearray(min(CHUNK, size)), bytearray(min(CHUNK, size))
    views = memoryview(mine), memoryview(theirs)
    if size:  # behind the end of a file there is neither data nor a hole
        one.fill(start + size - 1, views[0][:1])
        other.fill(other_start + size - 1, views[1][:1])
        if mine != theirs:
            return False
    data, other_data = _relative(one, start, size), _relative(other, other_start, size)
    done = 0
    for begin, end in heapq.merge(data, other_data):  # where neither has data, both are zeros
        done = max(done, begin)
        while done < end:
            step = min(CHUNK, end - done)
            one.fill(start + done, views[0][:step])
            other.fill(other_start + done, views[1][:step])
            if mine != theirs:  # what a short piece leaves of earlier ones was equal
                return False
            done += step
    return True


def _relative(file: Readable, start: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that hold data, counted from its beginning."""
    for begin, end in file.extents(start, start + size):
        yield begin - start, end - start


def same_content(one: Iterator[bytes], other: Iterator[bytes]) -> bool:
    """Whether two streams give the same bytes, in whatever pieces."""
    mine = theirs = b""
    while True:
        mine, theirs = mine or next(one, b""), theirs or next(other, b"")
        size = min(len(mine), len(theirs))
        if mine[:size] != theirs[:size]:
            return False
        if not size:
            return not mine and not theirs
        mine, theirs = mine[size:], theirs[size:]


def copy_range(source: Source, start: int, stop: int, target: io.FileIO) -> None:
    """Appends a range of one file to another, by the kernel where it can.

    Holes stay holes. Nothing of the content comes into this process where the system has
    `copy_file_range`; a file system that shares extents copies nothing at all.

    Args:
        source: Where to read.
        start: The first byte.
        stop: The byte after the last one.
        target: Where to write, from its present position on.

    Raises:
        ArchiveError: when the source is shorter than that.
        OSError: when the target can't take it.
    """
    base = target.tell() - start
    for begin, end in source.extents(start, stop):
        target.seek(base + begin)
        _copy_data(source, begin, end, target)
    if target.seek(0, io.SEEK_END) < base + stop:
        target.truncate(base + stop)
    target.seek(base + stop)


def _copy_data(source: Source, begin: int, end: int, target: io.FileIO) -> None:
    in_kernel = hasattr(os, "copy_file_range")
    while begin < end:
        if in_kernel:
            try:
                count = os.copy_file_range(
                    source.file.fileno(),
                    target.fileno(),
                    min(end - begin, _KERNEL_SLICE),
                    offset_src=begin,
                )
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                count = 0
            in_kernel = count > 0
            begin += count
            continue
        data = source.read(begin, min(end - begin, CHUNK))
        write_all(target, data)
        begin += len(data)


def write_all(target: io.FileIO, data: bytes) -> None:
    """Writes all of `data`: an unbuffered file may take less in one call."""
    rest = memoryview(data)
    while rest:
        rest = rest[target.write(rest) :]


def write_whole(path: Path, data: bytes) -> None:
    """Writes a small file at once or not at all; one that is there is replaced.

    Args:
        path: Its path. A symbolic link stays one; permissions stay, too.
        data: What is to be in it.

    Raises:
        OSError: when it can't be written. What was there is unchanged.
    """
    target = os.path.realpath(path)
    temporary = f"{target}.{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextmanager
def flushed_meanwhile(file: io.FileIO) -> Iterator[None]:
    """Brings what was written to a file to the disk while the block runs.

    Args:
        file: The file. What the block itself writes to it is not waited for.

    Raises:
        OSError: when the disk doesn't take it; after the block, if that ends without an error.
    """
    from concurrent.futures import ThreadPoolExecutor  # which takes as long as all else here

    with ThreadPoolExecutor(1) as thread:
        try:
            flushed = thread.submit(os.fsync, file.fileno()).result
        except RuntimeError:  # no thread is to be had, as while the interpreter shuts down
            flushed = functools.partial(os.fsync, file.fileno())
        yield
        flushed()


@contextmanager
def replacing(path: Path, source: Source, *, overwrite: bool) -> Iterator[io.FileIO]:
    """Opens a new file that takes the target's place when the block ends without an error.

    Until then the target is what it was; whatever ends the block, an error, a signal or the end
    of the process, leaves no half-written file under the target's name. On Linux the new file has
    no name before it is complete, so that not even `kill -9` leaves anything behind; elsewhere it
    is written beside the target, and removed upon any error.

    A target that is a symbolic link stays one: the file that it points to is replaced. The new
    file has the permissions of the one that it replaces, or else those of the source.

    Args:
        path: The target.
        source: The file that is rewritten: its permissions are taken over.
        overwrite: Whether the target may exist.

    Yields:
        An unbuffered binary file, open for reading and writing.

    Raises:
        ArchiveError: when the target exists without `overwrite`, is not a regular file, or can't
            be written (a full disk, a missing directory, no permission).
    """
    name = os.fspath(path)
    try:
        target = os.path.realpath(name)
        existing = _existing(name, target, overwrite)
        directory = os.path.dirname(target)
        if not os.path.isdir(directory):
            raise ArchiveError(f"{name!r} can't be written: there is no directory {directory!r}.")
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{name!r} can't be written: {reason(error)}.") from error
    temporary = os.path.join(directory, f".graphwd-{os.urandom(8).hex()}.tmp")
    try:
        file, anonymous = _open_new(directory, temporary)
        with file:
            yield file
            _set_permissions(file, source.stat, existing)
            os.fsync(file.fileno())
            if anonymous:
                _name_anonymous(file, temporary if overwrite else target)
            elif not overwrite:
                _name_once(temporary, target)
            if overwrite:
                os.replace(temporary, target)
        _sync_directory(directory)
    except FileExistsError as error:
        raise ArchiveError(_exists(name)) from error
    except OSError as error:
        raise ArchiveError(
            f"{name!r} can't be written: {reason(error)}; what was there is unchanged."
        ) from error
    finally:
        with suppress(FileNotFoundError):  # it never had a name, or it has its final one
            os.unlink(temporary)


def _exists(name: str) -> str:
    return f"{name!r} exists; to replace it pass overwrite=True (--force)."


def _existing(name: str, target: str, overwrite: bool) -> os.stat_result | None:
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ArchiveError(f"{name!r} can't be written: it is {kind}.")
    if not overwrite:
        raise ArchiveError(_exists(name))
    return status


def _open_new(directory: str, temporary: str) -> tuple[io.FileIO, bool]:
    """Opens a new file: without a name where the system can give it one later, else with one."""
    if hasattr(os, "O_TMPFILE"):
        try:
            descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _NO_ANONYMOUS_FILE:
                raise
        else:
            if os.path.exists(_own_descriptor(descriptor)):
                return os.fdopen(descriptor, "r+b", buffering=0), True
            os.close(descriptor)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(temporary, flags | getattr(os, "O_BINARY", 0), 0o600)
    return os.fdopen(descriptor, "r+b", buffering=0), False


def _own_descriptor(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _set_permissions(
    file: io.FileIO, source: os.stat_result, existing: os.stat_result | None
) -> None:
    if existing is not None and hasattr(os, "fchown"):
        with suppress(PermissionError):  # only root may give files away; others keep their own
            os.fchown(file.fileno(), existing.st_uid, existing.st_gid)
    if hasattr(os, "fchmod"):
        os.fchmod(file.fileno(), stat.S_IMODE((existing or source).st_mode) & 0o777)


def _name_anonymous(file: io.FileIO, path: str) -> None:
    """Gives a file without a name its first one; fails where there is a file of that name."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        # With a directory's descriptor, since os.link follows its source only then.
        own = _own_descriptor(file.fileno())
        os.link(own, os.path.basename(path), dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def _name_once(temporary: str, target: str) -> None:
    """Renames a file; fails where the target exists, if the file system can tell in one step."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.replace(temporary, target)


def _sync_directory(directory: str) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems can't; the file itself is complete
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
