"""Windows: a part of a file, opened as a file for HDF5, which damaged files make crash or hang."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from graphwd.saved.files import CHUNK, read_into

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

READ_LIMIT = 64 << 20
"""The largest number of bytes that HDF5 may ask for at once: a hostile file asks for all memory."""

_HEAP = b"GCOL"


class Window(io.RawIOBase):
    """A range of an open file as a file of its own, for HDF5 to read.

    HDF5 1.14 allocates whatever size a file claims, and walks for ever through a heap of texts
    with an empty gap; so what it reads is checked here, where it reads.

    Args:
        file: The file; its position is used.
        start: The first byte of the range.
        size: The number of bytes, or `None` for a range that may grow, up to the file's end.
    """

    def __init__(self, file: io.FileIO, start: int = 0, size: int | None = None) -> None:
        super().__init__()
        self.error: OSError | None = None  # what stopped a write; HDF5 can't close upon a raise
        self._file, self._start, self._size = file, start, size
        self._position = 0

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

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fills a buffer from the present position, as far as the range goes, and checks it."""
        view = memoryview(buffer).cast("B")
        if len(view) > READ_LIMIT:
            raise OSError(f"it asks for {len(view)} bytes at once")
        data = self._peek(self._position, len(view))
        view[: len(data)] = data
        if data[:4] == _HEAP:
            self._check_heap(self._position)
        self._position += len(data)
        return len(data)

    def _peek(self, start: int, size: int) -> bytes:
        """The bytes from `start` on, fewer at the end of the range."""
        if self._size is not None:
            size = max(0, min(size, self._size - start))
        self._file.seek(self._start + start)
        data = self._file.read(size) or b""
        while len(data) < size:
            more = self._file.read(size - len(data))
            if not more:
                break
            data += more
        return data

    def _check_heap(self, start: int) -> None:
        """Raises an error for a heap of texts that HDF5 can't read in bounded time and memory."""
        head = self._peek(start + 8, 8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if size > READ_LIMIT:
            raise OSError(f"a heap of texts claims {size} bytes")
        heap = self._peek(start, size)
        place = 16
        while place + 16 <= len(heap):
            index, length = struct.unpack_from("<H6xQ", heap, place)
            if not index and not length:
                raise OSError("a heap of texts has an empty gap")
            place += 16 + (length + 7) // 8 * 8 if index else length

    def chunks(self, start: int, size: int) -> Iterator[bytes]:
        """Yields a part of the range in pieces of bounded size.

        Args:
            start: Where the part begins.
            size: The number of bytes.

        Yields:
            Bytes, never more than `CHUNK` at once.
        """
        while size > 0:
            chunk = self._peek(start, min(CHUNK, size))
            if not chunk:
                raise OSError("it is cut off")
            yield chunk
            start, size = start + len(chunk), size - len(chunk)

    def fill(self, offset: int, buffer: memoryview) -> None:
        """Reads from `offset` on until a buffer is full, without a check of what it reads."""
        inside = self._size is None or offset + len(buffer) <= self._size
        if not inside or not read_into(self._file, self._start + offset, buffer):
            raise OSError("it is cut off")

    def write(self, data: ReadableBuffer) -> int:
        """Writes at the present position, or notes in `error` why it couldn't."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            self._file.seek(self._start + self._position)
            while done < len(view):
                done += self._file.write(view[done:])
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
