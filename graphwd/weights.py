"""Stored weights: HDF5 opened inside a file, and two files' arrays compared in bounded memory."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from graphwd.errors import ArchiveError
from graphwd.files import CHUNK, same_content
from graphwd.window import READ_LIMIT, Window

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_BOMB_FLOOR, _BOMB_RATIO = 4 << 30, 1000  # Keras refuses the same arrays when it loads a file
_OBJECTS_LIMIT = 1_000_000
_ORDERS = re.compile(r"(layer|weight)_names(\d*)")  # Keras loads legacy files by these lists


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

    start = window.read(16) or b""
    # Lengths and addresses of 64 bits, which all machines that run Keras write.
    sizes = start[13:15] if start[8:9] in (b"\0", b"\1") else start[9:11]
    if start[:8] != SIGNATURE or sizes != b"\x08\x08":
        raise ArchiveError(f"{path!r} holds damaged HDF5 data (it has no valid beginning).")
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
        named: Whether the file tells the name of the object that owns it.
        dataset: The `h5py.Dataset`.
        window: The HDF5 file that it is stored in.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    owners: tuple[str, ...]
    named: bool
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
        if pieces and math.prod(pieces) * self.dataset.dtype.itemsize > READ_LIMIT:
            return f"it is stored in pieces of more than {READ_LIMIT >> 20} MiB"
        return ""

    def content(self) -> Iterator[bytes]:
        """Yields the values' bytes in pieces of bounded size."""
        offset = self.dataset.id.get_offset()
        if offset is not None and self.dataset.id.get_storage_size() == self.size:
            yield from self.window.chunks(offset, self.size)
        elif self.dataset.shape is not None:
            limit = max(1, CHUNK // max(1, self.dataset.dtype.itemsize))
            for block in _blocks(self.shape, limit):
                yield self.dataset[block].tobytes()


@dataclass(frozen=True, slots=True)
class Tree:
    """What an HDF5 file of weights holds.

    Attributes:
        arrays: Its arrays, by path; those of a legacy file by their layer and their place in its
            list of weights, since Keras loads them by that and not by their names.
        orders: A legacy file's lists of layers, by the path of the group that they are in.
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
    from h5py import Dataset, h5d, h5g, h5o

    tree = Tree({}, {})
    places: dict[str, str] = {}
    seen: set[int] = set()
    stack: list[tuple[str, tuple[str, ...], Any]] = [("", (), h5g.open(store.file.id, b"/"))]
    while stack:
        prefix, owners, group = stack.pop()
        address = h5o.get_info(group).addr
        if address in seen:
            raise ArchiveError(f"{store.path!r} holds the HDF5 group {prefix!r} twice.")
        seen.add(address)
        lists = _lists(group)
        if "layer" in lists:
            tree.orders[prefix] = lists["layer"]
        if "weight" in lists:
            places.update(
                {prefix + name: prefix + str(k) for k, name in enumerate(lists["weight"])}
            )
        inner = []
        named = isinstance(read_text(group, "name"), str)
        for raw in _children(store, prefix, group):
            name = _text(raw)
            where = prefix + name
            if where in skip:
                continue
            child = h5o.open(group, raw)
            if isinstance(child, h5g.GroupID):
                inner.append((where + "/", (*owners, _owner(name, child)), child))
            elif isinstance(child, h5d.DatasetID):
                data = Dataset(child)
                dtype = str(read_text(child, "dtype") or child.dtype)
                shape = child.shape or ()
                place = places.get(where, where)
                tree.arrays[place] = Array(where, shape, dtype, owners, named, data, store.window)
        if len(seen) + len(inner) + len(tree.arrays) > _OBJECTS_LIMIT:
            raise ArchiveError(f"{store.path!r} holds more than {_OBJECTS_LIMIT} arrays.")
        stack += reversed(inner)
    return tree


def _lists(group: Any) -> dict[str, list[str]]:
    """The lists of names in a group's attributes, which Keras splits where they are long."""
    from h5py import h5a

    found: dict[str, dict[int, list[str]]] = {}
    for number in range(h5a.get_num_attrs(group)):
        name = _text(h5a.open(group, index=number).name)
        match = _ORDERS.fullmatch(name)
        if match:
            texts = read_text(group, name)
            part = texts if isinstance(texts, list) else []  # an empty list is stored as numbers
            found.setdefault(match[1], {})[int(match[2] or 0)] = part
    return {
        kind: [name for number in sorted(parts) for name in parts[number]]
        for kind, parts in found.items()
    }


def read_text(owner: Any, name: str) -> str | list[str] | None:
    """Reads an attribute that holds a text or texts.

    Args:
        owner: The low-level object that has the attribute.
        name: The attribute's name.

    Returns:
        The text, a list of texts, or `None` when there is no attribute or it holds no text.

    Raises:
        OSError: when it is too long.
    """
    from h5py import AttributeManager, h5a, h5t

    if not h5a.exists(owner, name.encode()):
        return None
    stored = h5a.open(owner, name.encode())
    if not isinstance(stored.get_type(), h5t.TypeStringID):  # HDF5 crashes on types that are none
        return None
    if stored.get_storage_size() > READ_LIMIT:
        raise OSError(f"the attribute {name!r} is too long")
    value = AttributeManager(SimpleNamespace(id=owner))[name]
    if isinstance(value, (str, bytes)):
        return _text(value)
    return [_text(item) for item in value.ravel()] if hasattr(value, "ravel") else None


def _children(store: Store, prefix: str, group: Any) -> list[bytes]:
    """The names in a group, refusing links to elsewhere."""
    from h5py import h5l

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


def _owner(key: str, group: Any) -> str:
    """The name that Keras notes for a saved object with the variables that it owns."""
    from h5py import h5g, h5l, h5o

    if not group.links.exists(b"vars") or group.links.get_info(b"vars").type != h5l.TYPE_HARD:
        return key
    variables = h5o.open(group, b"vars")
    name = read_text(variables, "name") if isinstance(variables, h5g.GroupID) else None
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
