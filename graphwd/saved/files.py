"""Files on disk: opened without trusting them, read in bounded pieces, compared and copied."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from graphwd.errors import ArchiveError, name_of, reason
from graphwd.writing import Path, write_all

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

Piece: TypeAlias = bytes | bytearray

CHUNK = 512 << 10
"""The number of bytes that are held in memory at once when a file's content passes through.

Two of them fit into a processor's cache while they are compared: with pieces of 4 MiB comparing
two files takes twice as long.
"""

READ_LIMIT = 64 << 20
"""The largest number of bytes that a library may ask for at once: hostile files ask for all."""

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
    """A regular file that is open for reading; devices and pipes are never opened."""

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
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ArchiveError(f"{self.path!r} is {what}; give a .keras or .h5 file.")

    def fill(self, offset: int, buffer: memoryview) -> None:
        """Reads from `offset` on until a buffer is full."""
        self._check_range(offset, len(buffer))
        try:
            full = _read_into(self.file, offset, buffer) == len(buffer)
        except OSError as error:
            raise ArchiveError(f"{self.path!r} can't be read: {reason(error)}.") from error
        if not full:
            raise ArchiveError(f"{self.path!r} became shorter while it was read.")

    def read(self, offset: int, size: int) -> bytes:
        """Reads exactly `size` bytes, which the caller bounds, from `offset` on."""
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

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


class Window(io.RawIOBase):
    """A range of an open file as a file of its own, for libraries that read or write files.

    Attributes:
        error: What stopped a write; a library may not be able to close a file upon a raise.
    """

    def __init__(
        self, file: io.FileIO, start: int = 0, size: int | None = None, limit: int = READ_LIMIT
    ) -> None:
        super().__init__()
        self.error: OSError | None = None
        self._file, self._start, self._size = file, start, size  # without a size it may grow
        self._limit, self._position = limit, 0

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def writable(self) -> bool:
        """Whether it can be written: where its size isn't fixed."""
        return self._size is None

    def seekable(self) -> bool:
        """Whether its position can be set: always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets the position within the range."""
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            size = self._size
            offset += self._file.seek(0, io.SEEK_END) - self._start if size is None else size
        self._position = offset
        return offset

    def tell(self) -> int:
        """The position within the range."""
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Reads from the present position, as far as the range goes."""
        self._refuse_more(size)  # before room is made for it
        return super().read(size) or b""

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fills a buffer from the present position, as far as the range goes."""
        view = memoryview(buffer).cast("B")
        self._refuse_more(len(view))
        if self._size is not None:
            view = view[: max(0, self._size - self._position)]
        count = _read_into(self._file, self._start + self._position, view)
        self._position += count
        return count

    def _refuse_more(self, size: int) -> None:
        if size > self._limit:
            raise OSError(f"it asks for {size} bytes at once")

    def fill(self, offset: int, buffer: memoryview) -> None:
        """Reads from `offset` on until a buffer is full; the position stays."""
        inside = self._size is None or offset + len(buffer) <= self._size
        if not inside or _read_into(self._file, self._start + offset, buffer) < len(buffer):
            raise OSError("it is cut off")

    def write(self, data: ReadableBuffer) -> int:
        """Writes at the present position, or notes in `error` why it couldn't."""
        view = memoryview(data).cast("B")
        try:
            self._file.seek(self._start + self._position)
            write_all(self._file, view)
        except OSError as error:
            self.error = self.error or error
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Sets the file's size, or notes in `error` why it couldn't."""
        size = self._position if size is None else size
        try:
            self._file.truncate(self._start + size)
        except OSError as error:
            self.error = self.error or error
        return size


def _read_into(file: io.FileIO, offset: int, buffer: memoryview) -> int:
    """Fills a buffer as far as the file goes, and says how far that was."""
    file.seek(offset)
    done = 0
    while done < len(buffer) and (count := file.readinto(buffer[done:])):
        done += count
    return done


def pieces(file: Source | Window, start: int, size: int) -> Iterator[bytearray]:
    """Yields a range in pieces of bounded size: each is gone when the next one is asked for."""
    # Always the same piece of memory: where each is fresh the system makes it anew, which takes
    # longer than to read.
    piece = bytearray(min(CHUNK, size))
    while size > 0:
        if size < len(piece):
            piece = bytearray(size)
        file.fill(start, memoryview(piece))
        yield piece
        start, size = start + len(piece), size - len(piece)


def same_content(one: Iterable[Piece], other: Iterable[Piece]) -> bool:
    """Whether two streams give the same bytes, in whatever pieces."""
    ones: Iterator[Piece] = filter(None, one)
    others: Iterator[Piece] = filter(None, other)
    mine: Piece = next(ones, b"")
    theirs: Piece = next(others, b"")
    while mine and theirs:
        if not (mine.startswith(theirs) or theirs.startswith(mine)):
            return False
        size = min(len(mine), len(theirs))
        mine, theirs = mine[size:] or next(ones, b""), theirs[size:] or next(others, b"")
    return not mine and not theirs


def copy_range(source: Source, start: int, stop: int, target: io.FileIO) -> None:
    """Appends a range of one file to another, by the kernel where the system can do that."""
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


@contextmanager
def flushed_meanwhile(file: io.FileIO) -> Iterator[None]:
    """Brings what was written to a file to the disk while the block runs; raises after it."""
    refused: list[OSError] = []

    def flush() -> None:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            refused.append(error)

    thread = threading.Thread(target=flush)
    try:
        thread.start()
    except RuntimeError:  # none is to be had, as while the interpreter shuts down
        yield
        flush()
    else:
        try:
            yield
        finally:
            thread.join()
    if refused:
        raise refused[0]
