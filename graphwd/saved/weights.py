"""Stored weights: HDF5 opened inside a file, its arrays listed and compared in bounded memory."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5t

from graphwd.errors import ArchiveError
from graphwd.saved.files import READ_LIMIT, Piece, Window, pieces, same_content

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SIGNATURE, _HEAP = b"\x89HDF\r\n\x1a\n", b"GCOL"

_BOMB_FLOOR, _BOMB_RATIO = 4 << 30, 1000  # Keras refuses the same arrays when it loads a file
_DECODED = 4 << 20  # bytes at a time of what HDF5 decodes, and decodes again for the next ones
_OBJECTS_LIMIT = 1_000_000
_STATE = ("optimizer", "optimizer_weights")  # the outermost groups of a .keras and a .h5 file


class Unsupported(Exception):
    """An array is stored in a way that can't be read in bounded memory and time."""


class HDF5Window(Window):
    """A range of a file for HDF5, which walks for ever through a heap of texts with a gap."""

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fills a buffer from the present position, as far as the range goes, and checks it."""
        start = self.tell()
        count = super().readinto(buffer)
        if memoryview(buffer).cast("B")[:4] == _HEAP:
            self._check_heap(start)
            self.seek(start + count)
        return count

    def _check_heap(self, start: int) -> None:
        """Raises an error for a heap of texts that HDF5 can't read in bounded time and memory."""
        head = bytearray(8)
        self.seek(start + 8)
        size = struct.unpack("<Q", head)[0] if super().readinto(head) == 8 else 0
        if size > READ_LIMIT:
            raise OSError(f"a heap of texts claims {size} bytes")
        heap = bytearray(size)
        self.seek(start)
        size = super().readinto(heap)
        place = 16
        while place + 16 <= size:
            index, length = struct.unpack_from("<H6xQ", heap, place)
            if not index and not length:
                raise OSError("a heap of texts has an empty gap")
            place += 16 + (length + 7) // 8 * 8 if index else length


class Store:
    """An HDF5 file that is open inside another file, whose path is for messages."""

    def __init__(self, path: str, window: HDF5Window, mode: str = "r") -> None:
        self.path, self.window = path, window
        start = window.read(16)
        # Lengths and addresses of 64 bits, which all machines that run Keras write.
        sizes = start[13:15] if start[8:9] in (b"\0", b"\1") else start[9:11]
        if start[:8] != _SIGNATURE or sizes != b"\x08\x08":
            raise ArchiveError(f"{path!r} holds damaged HDF5 data (it has no valid beginning).")
        with self.checked():
            self.file = h5py.File(window, mode)

    @contextmanager
    def checked(self) -> Iterator[None]:
        """A block in which the file may turn out damaged; an error of a write passes as it is."""
        try:
            yield
        except (KeyError, OSError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            # What h5py raises for damaged files: HDF5's own errors have no common class.
            if self.window.error is not None:
                raise self.window.error from error
            raise ArchiveError(
                f"{self.path!r} holds damaged HDF5 data ({_first_line(error)})."
            ) from error
        if self.window.error is not None:
            raise self.window.error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")


@dataclass(frozen=True, slots=True)
class Array:
    """A stored array."""

    path: str
    shape: tuple[int, ...]
    dtype: str  # as Keras names it where it stores another one, `stored` (`bfloat16`)
    # The names of the saved objects around it, outermost first; where the file doesn't tell them,
    # the groups' names.
    owners: tuple[str, ...]
    named: bool  # whether the file tells the name of the object that owns it
    stored: np.dtype[Any]
    id: h5d.DatasetID
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
        return self.parameters * self.stored.itemsize

    def unreadable(self) -> str:
        """Why the array can't be read in bounded memory and time; empty when it can."""
        settings = self.id.get_create_plist()
        layout = settings.get_layout()
        if settings.get_external_count() or layout == h5d.VIRTUAL:
            return "it is kept in another file"
        if self.stored.hasobject:
            return f"values of variable length ({self.dtype}) can't be compared"
        taken = self.id.get_storage_size()
        if self.size > _BOMB_FLOOR and self.size > _BOMB_RATIO * taken:
            return f"it claims {self.size} bytes and stores {taken}"
        chunk = settings.get_chunk() if layout == h5d.CHUNKED else ()
        if math.prod(chunk) * self.stored.itemsize > READ_LIMIT:
            return f"it is stored in pieces of more than {READ_LIMIT >> 20} MiB"
        return ""

    def content(self) -> Iterator[Piece]:
        """Yields the values' bytes in pieces of bounded size, as `pieces` does."""
        offset = self.id.get_offset()
        if offset is not None and self.id.get_storage_size() == self.size:  # they stand as they are
            yield from pieces(self.window, offset, self.size)
        elif self.id.shape is not None:
            values = h5py.Dataset(self.id)
            for block in _blocks(self.shape, max(1, _DECODED // max(1, self.stored.itemsize))):
                yield values[block].tobytes()


@dataclass(frozen=True, slots=True)
class Tree:
    """What an HDF5 file of weights holds: its arrays by path."""

    # A legacy file is loaded by the order of its lists: so its arrays are here by their layer and
    # their place in its list of weights, and `orders` has its lists of layers by their group.
    arrays: dict[str, Array]
    orders: dict[str, list[str]]


def read_tree(store: Store, *, state: bool) -> Tree:
    """Lists the state of the optimizer in a file of weights, or else all but that."""
    # h5py's low-level objects are five times as fast as its groups and datasets.
    tree = Tree({}, {})
    places: dict[str, str] = {}
    seen: set[int] = set()
    stack = [_Group("", (), "", None, h5g.open(store.file.id, b"/"))]
    while stack:
        here = stack.pop()
        address = h5o.get_info(here.id).addr
        if address in seen:
            raise ArchiveError(f"{store.path!r} holds the HDF5 group {here.path!r} twice.")
        seen.add(address)
        prefix = f"{here.path}/" if here.path else ""
        layers = _list(here.id, "layer_names")
        if layers is not None:
            tree.orders[prefix] = layers
        for number, name in enumerate(_list(here.id, "weight_names") or ()):
            places[prefix + name] = prefix + str(number)
        groups, datasets = {}, {}
        for raw in _children(store, prefix, here.id):
            name = _text(raw)
            if not here.path and (name in _STATE) is not state:
                continue
            child = h5o.open(here.id, raw)
            if isinstance(child, h5g.GroupID):
                groups[name] = child, read_text(child, "name")
            elif isinstance(child, h5d.DatasetID):
                datasets[name] = child
        owners = here.owners
        if here.path:  # Keras notes the name of a saved object with the variables that it owns
            _, own = groups.get("vars", (None, None))
            owners = (*owners, own if isinstance(own, str) else here.key)
        for name, child in datasets.items():
            where, stored = prefix + name, child.dtype
            tree.arrays[places.get(where, where)] = Array(
                where,
                child.shape or (),
                str(read_text(child, "dtype") or stored),
                owners,
                isinstance(here.name, str),
                stored,
                child,
                store.window,
            )
        if len(seen) + len(groups) + len(tree.arrays) > _OBJECTS_LIMIT:
            raise ArchiveError(f"{store.path!r} holds more than {_OBJECTS_LIMIT} arrays.")
        stack += reversed(
            [_Group(prefix + key, owners, key, name, id) for key, (id, name) in groups.items()]
        )
    return tree


@dataclass(frozen=True, slots=True)
class _Group:
    """An HDF5 group that is still to be listed: its name as a group, and what it is noted as."""

    path: str
    owners: tuple[str, ...]
    key: str
    name: str | list[str] | None
    id: Any


def _list(group: Any, name: str) -> list[str] | None:
    """A list of names in a group's attributes, which Keras splits where it is long."""
    if h5a.exists(group, name.encode()):
        texts = read_text(group, name)
        return texts if isinstance(texts, list) else []  # an empty list is stored as numbers
    parts: list[list[str]] = []
    while h5a.exists(group, f"{name}{len(parts)}".encode()):
        texts = read_text(group, f"{name}{len(parts)}")
        parts.append(texts if isinstance(texts, list) else [])
    return [*itertools.chain(*parts)] if parts else None


def read_text(owner: Any, name: str) -> str | list[str] | None:
    """Reads an attribute that holds a text or texts; `None` where there is none."""
    if not h5a.exists(owner, name.encode()):
        return None
    stored = h5a.open(owner, name.encode())
    if not isinstance(stored.get_type(), h5t.TypeStringID):  # HDF5 crashes on types that are none
        return None
    if stored.get_storage_size() > READ_LIMIT:
        raise OSError(f"the attribute {name!r} is too long")
    if stored.shape is None:
        return None
    value = np.zeros(stored.shape, stored.dtype)
    stored.read(value)
    # As h5py does: texts of any length keep what is not UTF-8, for others to refuse it.
    errors = "surrogateescape" if value.dtype.hasobject else "backslashreplace"
    texts = [bytes(item).decode(errors=errors) for item in value.flat]
    return texts if value.ndim else texts[0]


def _children(store: Store, prefix: str, group: Any) -> list[bytes]:
    """The names in a group, refusing links to elsewhere."""
    names: list[bytes] = []
    foreign: list[bytes] = []

    def note(name: bytes, link: Any) -> None:  # must not raise, for h5py can't pass that on
        (names if link.type == h5l.TYPE_HARD else foreign).append(name)

    group.links.iterate(note, info=True)
    if foreign:
        where = prefix + _text(foreign[0])
        raise ArchiveError(f"{store.path!r} holds a link to elsewhere ({where!r}).")
    return names


def _text(value: str | bytes) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def compare_trees(one: Tree, other: Tree) -> list[str]:
    """Compares two files' arrays bit for bit, and says every difference in a line."""
    mine, theirs = one.arrays, other.arrays
    problems = [f"{mine[p].path}: only the first file has it" for p in mine if p not in theirs]
    problems += [f"{theirs[p].path}: only the second file has it" for p in theirs if p not in mine]
    for place, array in mine.items():
        difference = place in theirs and _difference(array, theirs[place])
        if difference:
            problems.append(f"{array.path}: {difference}")
    if one.orders != other.orders:
        problems.append("the files list their layers in different orders")
    return problems


def _difference(one: Array, other: Array) -> str:
    if one.dtype != other.dtype or one.stored != other.stored:
        return f"the dtype is {one.dtype} in one file and {other.dtype} in the other"
    if one.shape != other.shape:
        return f"the shape is {one.shape} in one file and {other.shape} in the other"
    reason = one.unreadable() or other.unreadable()
    if reason:
        raise Unsupported(f"{one.path} can't be compared: {reason}")
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
