"""Stored weights: HDF5 opened inside a file, and two files' arrays compared in bounded memory."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphwd.errors import ArchiveError
from graphwd.files import CHUNK, same_content

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_READ_LIMIT = 64 << 20  # what HDF5 may ask for at once; a hostile file asks for all memory
_BOMB_FLOOR, _BOMB_RATIO = 4 << 30, 1000  # Keras refuses the same arrays when it loads a file
_OBJECTS_LIMIT = 1_000_000
_ORDER_ATTRIBUTES = ("layer_names", "weight_names")  # Keras loads legacy files by these orders


class Window(io.RawIOBase):
    """A range of an open file as a file of its own, with a limit on what is read at once.

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
        """Fills a buffer from the present position, as far as the range goes."""
        view = memoryview(buffer).cast("B")
        if len(view) > _READ_LIMIT:
            raise OSError(f"it asks for {len(view)} bytes at once")
        if self._size is not None:
            view = view[: max(0, self._size - self._position)]
        self._file.seek(self._start + self._position)
        done = 0
        while done < len(view):
            count = self._file.readinto(view[done:])
            if not count:
                break
            done += count
        self._position += done
        return done

    def chunks(self, start: int, size: int) -> Iterator[bytes]:
        """Yields a part of the range in pieces of bounded size.

        Args:
            start: Where the part begins.
            size: The number of bytes.

        Yields:
            Bytes, never more than `CHUNK` at once.
        """
        while size > 0:
            self.seek(start)
            chunk = self.read(min(CHUNK, size))
            if not chunk:
                raise OSError("it is cut off")
            yield chunk
            start, size = start + len(chunk), size - len(chunk)

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


@dataclass(frozen=True, slots=True)
class Store:
    """An HDF5 file that is open inside another file.

    Attributes:
        path: The outer file's path, for messages.
        window: Where the HDF5 file is in it.
        file: The `h5py.File`.
    """

    path: str
    window: Window
    file: Any


@contextmanager
def open_store(path: str, window: Window, mode: str = "r") -> Iterator[Store]:
    """Opens an HDF5 file inside another file.

    Args:
        path: The outer file's path, for messages.
        window: Where the HDF5 file is.
        mode: `"r"`, or `"r+"` to edit it.

    Yields:
        A `Store`.

    Raises:
        ArchiveError: when there is no HDF5 file, or it turns out to be damaged.
        OSError: when it couldn't be written; whatever is in it then is of no use.
    """
    import h5py

    try:
        with h5py.File(window, mode) as file:
            yield Store(path, window, file)
    except (KeyError, OSError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        # What h5py raises for damaged files: HDF5's own errors have no common class.
        if window.error is not None:
            raise window.error from error
        raise ArchiveError(f"{path!r} holds damaged HDF5 data ({_first_line(error)}).") from error
    if window.error is not None:
        raise window.error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")


@dataclass(frozen=True, slots=True)
class Array:
    """A stored array.

    Attributes:
        path: Its path in the HDF5 file.
        shape: Its shape.
        dtype: Its dtype, as Keras names it where it stores another one (`bfloat16`).
        owners: The names of the saved objects around it, outermost first, as far as the file
            tells them; where it doesn't, the groups' names.
        dataset: The `h5py.Dataset`.
        window: The HDF5 file that it is stored in.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    owners: tuple[str, ...]
    dataset: Any
    window: Window

    @property
    def parameters(self) -> int:
        """The number of scalars in the array."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether the array holds floating-point numbers: all that a regularizer can act on."""
        return "float" in self.dtype

    @property
    def size(self) -> int:
        """The number of bytes that its values take."""
        return math.prod(self.shape) * int(self.dataset.dtype.itemsize)

    def unreadable(self) -> str:
        """Why the array can't be read in bounded memory and time; empty when it can."""
        if self.dataset.external or self.dataset.is_virtual:
            return "it is kept in another file"
        if self.dataset.dtype.hasobject:
            return f"values of variable length ({self.dtype}) can't be compared"
        stored = self.dataset.id.get_storage_size()
        if self.size > _BOMB_FLOOR and self.size > _BOMB_RATIO * stored:
            return f"it claims {self.size} bytes and stores {stored}"
        pieces = self.dataset.chunks
        if pieces and math.prod(pieces) * self.dataset.dtype.itemsize > _READ_LIMIT:
            return f"it is stored in pieces of more than {_READ_LIMIT >> 20} MiB"
        return ""

    def content(self) -> Iterator[bytes]:
        """Yields the values' bytes in pieces of bounded size."""
        offset = self.dataset.id.get_offset()
        in_one_piece = offset is not None and self.dataset.id.get_storage_size() == self.size
        if in_one_piece and not self.dataset.file.userblock_size:
            yield from self.window.chunks(offset, self.size)
        elif self.dataset.shape is not None:
            limit = max(1, CHUNK // max(1, self.dataset.dtype.itemsize))
            for block in _blocks(self.shape, limit):
                yield self.dataset[block].tobytes()


@dataclass(frozen=True, slots=True)
class Tree:
    """What an HDF5 file of weights holds.

    Attributes:
        arrays: Its arrays, by path.
        orders: The lists by which Keras loads a legacy file, by the attributes' paths: which
            layers and weights, in which order.
    """

    arrays: dict[str, Array]
    orders: dict[str, list[str]]


def read_tree(store: Store, skip: Collection[str] = ()) -> Tree:
    """Lists what an HDF5 file of weights holds, without reading the arrays.

    h5py's low-level objects do that five times as fast as its groups and datasets.

    Args:
        store: The open file.
        skip: Names of outermost groups to leave out.

    Returns:
        A `Tree`.

    Raises:
        ArchiveError: when the file holds links to elsewhere, which Keras refuses, too, or cycles.
    """
    from h5py import Dataset, Group, h5a, h5d, h5g, h5o

    tree = Tree({}, {})
    seen: set[int] = set()
    stack: list[tuple[str, tuple[str, ...], Any]] = [("", (), h5g.open(store.file.id, b"/"))]
    while stack:
        prefix, owners, group = stack.pop()
        address = h5o.get_info(group).addr
        if address in seen:
            raise ArchiveError(f"{store.path!r} holds the HDF5 group {prefix!r} twice.")
        seen.add(address)
        for number in range(h5a.get_num_attrs(group)):
            name = h5a.open(group, index=number).name.decode(errors="backslashreplace")
            if name.rstrip("0123456789") in _ORDER_ATTRIBUTES:
                values = Group(group).attrs[name]
                tree.orders[f"{prefix}@{name}"] = [str(value) for value in values]
        inner = []
        for name in _children(store, prefix, group):
            where = prefix + name
            if where in skip:
                continue
            child = h5o.open(group, name.encode())
            if isinstance(child, h5g.GroupID):
                inner.append((where + "/", (*owners, _owner(name, child)), child))
            elif isinstance(child, h5d.DatasetID):
                data = Dataset(child)
                noted = h5a.exists(child, b"dtype")
                dtype = str(data.attrs["dtype"] if noted else child.dtype)
                shape = child.shape or ()
                tree.arrays[where] = Array(where, shape, dtype, owners, data, store.window)
        if len(seen) + len(inner) + len(tree.arrays) > _OBJECTS_LIMIT:
            raise ArchiveError(f"{store.path!r} holds more than {_OBJECTS_LIMIT} arrays.")
        stack += reversed(inner)
    return tree


def _children(store: Store, prefix: str, group: Any) -> list[str]:
    """The names in a group, refusing links to elsewhere."""
    from h5py import h5l

    names: list[str] = []
    foreign: list[str] = []

    def note(name: bytes, link: Any) -> None:
        (names if link.type == h5l.TYPE_HARD else foreign).append(name.decode())

    group.links.iterate(note, info=True)
    if foreign:
        raise ArchiveError(f"{store.path!r} holds a link to elsewhere ({prefix + foreign[0]!r}).")
    return names


def _owner(key: str, group: Any) -> str:
    """The name that Keras notes for a saved object with the variables that it owns."""
    from h5py import AttributeManager, Group, h5a, h5g, h5l, h5o

    if not group.links.exists(b"vars") or group.links.get_info(b"vars").type != h5l.TYPE_HARD:
        return key
    variables = h5o.open(group, b"vars")
    if not isinstance(variables, h5g.GroupID) or not h5a.exists(variables, b"name"):
        return key
    name = AttributeManager(Group(variables))["name"]
    return name if isinstance(name, str) else key


def compare_trees(one: Tree, other: Tree) -> list[str]:
    """Compares two files' arrays bit for bit, a few megabytes at a time.

    Args:
        one: What the first file holds.
        other: What the second file holds.

    Returns:
        A line for every difference.
    """
    mine, theirs = one.arrays, other.arrays
    problems = [f"{path}: only the first file has it" for path in mine if path not in theirs]
    problems += [f"{path}: only the second file has it" for path in theirs if path not in mine]
    for path in mine:
        difference = path in theirs and _difference(mine[path], theirs[path])
        if difference:
            problems.append(f"{path}: {difference}")
    if one.orders != other.orders:
        problems.append("the files list their layers or weights in different orders")
    return problems


def _difference(one: Array, other: Array) -> str:
    if one.dtype != other.dtype or one.dataset.dtype != other.dataset.dtype:
        return f"the dtype is {one.dtype} in one file and {other.dtype} in the other"
    if one.shape != other.shape:
        return f"the shape is {one.shape} in one file and {other.shape} in the other"
    reason = one.unreadable() or other.unreadable()
    if reason:
        return reason
    return "" if same_content(one.content(), other.content()) else "the values differ"


def _blocks(shape: tuple[int, ...], limit: int) -> Iterator[tuple[Any, ...]]:
    """Index expressions that together cover an array, each of at most `limit` elements."""
    axis, inner = len(shape), 1
    while axis and inner * shape[axis - 1] <= limit:
        axis -= 1
        inner *= shape[axis]
    if axis == 0:
        yield (...,)
        return
    step = max(1, limit // max(1, inner))
    for outer in itertools.product(*(range(size) for size in shape[: axis - 1])):
        for begin in range(0, shape[axis - 1], step):
            yield (*outer, slice(begin, begin + step))
