"""Files on disk: opened without trusting them, their ranges compared and copied."""

from __future__ import annotations

import errno
import functools
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeAlias

from graphwd.errors import ArchiveError, name_of, reason

Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

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
        self.path = name_of(path)
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


def same_range(
    one: Readable,
    start: int,
    other: Readable,
    other_start: int,
    size: int,
    seen: Callable[[memoryview], object] | None = None,
) -> bool:
    """Whether two ranges of the same size hold the same bytes; shows each piece to `seen`."""
    # Always the same two pieces of memory: where each piece is fresh the system makes it anew,
    # which takes longer than to read.
    mine, theirs = bytearray(min(CHUNK, size)), bytearray(min(CHUNK, size))
    views = memoryview(mine), memoryview(theirs)
    done = 0
    while done < size:
        step = min(CHUNK, size - done)
        one.fill(start + done, views[0][:step])
        other.fill(other_start + done, views[1][:step])
        if mine != theirs:  # what a short piece leaves of earlier ones was equal
            return False
        if seen is not None:
            seen(views[0][:step])
        done += step
    return True


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

    Nothing of the content comes into this process where the system has `copy_file_range`; a file
    system that shares extents copies nothing at all.

    Args:
        source: Where to read.
        start: The first byte.
        stop: The byte after the last one.
        target: Where to write, from its present position on.

    Raises:
        ArchiveError: when the source is shorter than that.
        OSError: when the target can't take it.
    """
    in_kernel = hasattr(os, "copy_file_range")
    while start < stop:
        if in_kernel:
            try:
                count = os.copy_file_range(
                    source.file.fileno(),
                    target.fileno(),
                    min(stop - start, _KERNEL_SLICE),
                    offset_src=start,
                )
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                count = 0
            in_kernel = count > 0
            start += count
            continue
        data = source.read(start, min(stop - start, CHUNK))
        write_all(target, data)
        start += len(data)


def write_all(target: io.FileIO, data: bytes) -> None:
    """Writes all of `data`: an unbuffered file may take less in one call."""
    rest = memoryview(data)
    while rest:
        rest = rest[target.write(rest) :]


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
