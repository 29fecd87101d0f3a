"""Zip files: their index read strictly, one member replaced, every other byte left as it is."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from graphwd.errors import ArchiveError
from graphwd.saved.files import CHUNK, Source, copy_range, write_all

STORED, DEFLATED = 0, 8

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64 = 1  # the id of the extra field that holds what 32 bits can't
_ENCRYPTED, _DESCRIPTOR, _PATCHED, _STRONG, _UTF8, _MASKED = 1, 8, 0x20, 0x40, 0x800, 0x2000

_MEMBERS_LIMIT = 100_000
_INDEX_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a zip file.

    Attributes:
        name: Its name, with `/` between folders.
        method: How it is compressed: `STORED`, `DEFLATED` or a number that graphwd can't read.
        crc: The CRC-32 of its content.
        compressed: The number of bytes that it takes in the file.
        size: The number of bytes of its content.
        header: Where its header begins in the file.
        data: Where its bytes begin in the file.
        record: Its record in the zip file's index, as it stands there.
    """

    name: str
    method: int
    crc: int
    compressed: int
    size: int
    header: int
    data: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Index:
    """What a zip file holds.

    Attributes:
        members: Maps names to members, in the order of the index.
        start: Where the index begins in the file.
        shift: The bytes before the zip file proper, which its offsets don't count.
        end: The record that ends the file, with the file's comment.
        end64: The same for what 32 bits can't hold; empty when there is none.
    """

    members: dict[str, Member]
    start: int
    shift: int
    end: bytes
    end64: bytes


def read_index(source: Source) -> Index:
    """Reads a zip file's index and checks it against every member's own header.

    Args:
        source: An open file.

    Returns:
        An `Index`.

    Raises:
        ArchiveError: when it is no zip file or a truncated one, or holds what no Keras archive
            holds: a member twice, members that overlap, an encrypted one, or a name that leads
            out of the archive.
    """
    position, end = _find_end(source)
    _, disk, start_disk, _, count, size, offset, _ = _END.unpack_from(end)
    end64 = b""
    locator = source.read(position - 20, 20) if position >= 20 else b""
    if locator.startswith(b"PK\x06\x07"):
        position -= 20 + _END64.size
        end64 = source.read(position, _END64.size)
        signature, length, _, _, disk, start_disk, _, count, size, offset = _END64.unpack(end64)
        if signature != b"PK\x06\x06" or length != _END64.size - 12:
            raise _damaged(source, "its zip64 record is not where it should be")
    if disk or start_disk:
        raise _damaged(source, "it is one part of a zip file in several parts")
    if size > _INDEX_LIMIT or count > _MEMBERS_LIMIT:
        raise ArchiveError(f"{source.path!r} holds {count} members, too many for a Keras archive.")
    start = position - size
    shift = start - offset
    if start < 0 or shift < 0:
        raise _damaged(source, "its index is not where it should be")
    records = source.read(start, size)
    members: dict[str, Member] = {}
    read = 0
    while read < size:
        member, read = _read_record(source, records, read, shift)
        if member.name in members:
            raise ArchiveError(
                f"{source.path!r} holds {member.name!r} twice, so it isn't clear which one counts."
            )
        members[member.name] = member
    if len(members) != count:
        raise _damaged(source, f"it announces {count} members and lists {len(members)}")
    _refuse_overlaps(source, members, start)
    return Index(members, start, shift, end, end64)


def _damaged(source: Source, detail: str) -> ArchiveError:
    return ArchiveError(f"{source.path!r} is a damaged zip file: {detail}.")


def _find_end(source: Source) -> tuple[int, bytes]:
    """The record at the end, searched backwards over the comment that may follow it."""
    tail_start = max(0, source.size - _END.size - _FULL16)
    tail = source.read(tail_start, source.size - tail_start)
    position = len(tail)
    while (position := tail.rfind(b"PK\x05\x06", 0, position)) >= 0:
        end = tail[position:]
        if len(end) >= _END.size and len(end) == _END.size + _END.unpack_from(end)[-1]:
            return tail_start + position, end
    raise ArchiveError(f"{source.path!r} is not a .keras archive, or is cut off: it has no index.")


def _read_record(source: Source, records: bytes, begin: int, shift: int) -> tuple[Member, int]:
    try:
        fields = _CENTRAL.unpack_from(records, begin)
    except struct.error as error:
        raise _damaged(source, "its index is cut off") from error
    name_start = begin + _CENTRAL.size
    extra_start = name_start + fields[10]
    stop = extra_start + fields[11] + fields[12]
    if fields[0] != b"PK\x01\x02" or stop > len(records):
        raise _damaged(source, "its index is not one")
    raw_name = records[name_start:extra_start]
    name = _name(source, raw_name, fields[3])
    wide = _Wide(fields[9], fields[8], fields[16])
    try:
        size, compressed, offset = wide.resolve(records[extra_start : extra_start + fields[11]])
    except struct.error as error:
        raise _damaged(source, f"the sizes of {name!r} are missing") from error
    if fields[13]:
        raise _damaged(source, "it is one part of a zip file in several parts")
    header = offset + shift
    local = source.read(header, _LOCAL.size)
    signature, _, flags, _, _, _, _, _, _, name_size, extra_size = _LOCAL.unpack(local)
    if signature != b"PK\x03\x04" or source.read(header + _LOCAL.size, name_size) != raw_name:
        raise _damaged(source, f"{name!r} is not where the index says")
    if (fields[3] | flags) & (_ENCRYPTED | _STRONG | _PATCHED | _MASKED):
        raise ArchiveError(f"{source.path!r} is encrypted ({name!r}); decrypt it first.")
    data = header + _LOCAL.size + name_size + extra_size
    member = Member(
        name=name,
        method=fields[4],
        crc=fields[7],
        compressed=compressed,
        size=size,
        header=header,
        data=data,
        record=records[begin:stop],
    )
    return member, stop


def _name(source: Source, raw: bytes, flags: int) -> str:
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise _damaged(source, f"the name {raw!r} is not text") from error
    parts = name.split("/")
    if (
        not name
        or "\\" in name
        or "\0" in name
        or ".." in parts
        or name[0] == "/"
        or name[1:2] == ":"
    ):
        raise ArchiveError(
            f"{source.path!r} holds a member named {name!r}, which leads out of the archive."
        )
    return name


def _refuse_overlaps(source: Source, members: dict[str, Member], start: int) -> None:
    ordered = sorted(members.values(), key=lambda member: member.header)
    limits = [*(member.header for member in ordered), start][1:]
    for member, limit in zip(ordered, limits, strict=True):
        if member.data + member.compressed > limit:
            raise _damaged(source, f"{member.name!r} overlaps what follows it")


@dataclass(frozen=True, slots=True)
class _Wide:
    """The three numbers of a record that move to an extra field when 32 bits can't hold them."""

    size: int
    compressed: int
    offset: int

    def resolve(self, extra: bytes) -> tuple[int, int, int]:
        content = next((data for kind, data in _split_extra(extra)[0] if kind == _ZIP64), b"")
        values = []
        for value in (self.size, self.compressed, self.offset):
            if value == _FULL32:
                (value,), content = struct.unpack("<Q", content[:8]), content[8:]
            values.append(value)
        return values[0], values[1], values[2]


def _split_extra(extra: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The fields of a record's extra data, and what is left over when the last one is cut off."""
    fields = []
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if length > len(extra) - 4:
            break
        fields.append((kind, extra[4 : 4 + length]))
        extra = extra[4 + length :]
    return fields, extra


def _join_extra(fields: list[tuple[int, bytes]], rest: bytes) -> bytes:
    return b"".join(struct.pack("<2H", kind, len(data)) + data for kind, data in fields) + rest


def member_chunks(source: Source, member: Member) -> Iterator[bytes]:
    """Yields a member's content in pieces of bounded size, and checks it at the end.

    Args:
        source: The open file.
        member: One of its members.

    Yields:
        Bytes, never more than `CHUNK` at once.

    Raises:
        ArchiveError: when the content is damaged or compressed in an unknown way.
    """
    crc, total = 0, 0
    for chunk in _raw_chunks(source, member):
        crc = zlib.crc32(chunk, crc)
        total += len(chunk)
        if total > member.size:
            break
        yield chunk
    if total != member.size or crc != member.crc:
        raise wrong_content(source, member)


def _raw_chunks(source: Source, member: Member) -> Iterator[bytes]:
    if member.method not in (STORED, DEFLATED):
        raise ArchiveError(
            f"{source.path!r} holds {member.name!r} compressed by method {member.method}, which "
            "Keras never writes; save the model again."
        )
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
    position, stop = member.data, member.data + member.compressed
    while position < stop:
        chunk = source.read(position, min(CHUNK, stop - position))
        position += len(chunk)
        if inflater is None:
            yield chunk
            continue
        while chunk and not inflater.eof:
            try:
                inflated = inflater.decompress(chunk, CHUNK)
            except zlib.error as error:
                raise _damaged(source, f"{member.name!r} can't be decompressed") from error
            chunk = inflater.unconsumed_tail
            yield inflated
    while inflater is not None and not inflater.eof:
        inflated = inflater.decompress(b"", CHUNK)
        if not inflated:
            break
        yield inflated


class ContentCheck:
    """Holds a member's content against its checksum, as its stored bytes come by.

    Args:
        source: The open file.
        member: One of its members. One that is compressed in an unknown way is not looked at.
    """

    def __init__(self, source: Source, member: Member) -> None:
        self._source, self._member = source, member
        self._crc = self._size = 0
        deflated = member.method == DEFLATED
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if deflated else None
        self._known = member.method in (STORED, DEFLATED)

    def add(self, stored: memoryview) -> None:
        """Takes the next bytes."""
        if self._inflater is None:
            self._count(stored)
            return
        rest: bytes | memoryview = stored
        while rest and not self._inflater.eof and self._size <= self._member.size:
            try:
                self._count(self._inflater.decompress(rest, CHUNK))
            except zlib.error as error:
                name = self._member.name
                raise _damaged(self._source, f"{name!r} can't be decompressed") from error
            rest = self._inflater.unconsumed_tail

    def finish(self) -> None:
        """Raises an ArchiveError when the content is not what the checksum says."""
        while self._inflater is not None and not self._inflater.eof:
            more = self._inflater.decompress(b"", CHUNK)
            if not more or self._size > self._member.size:
                break
            self._count(more)
        if self._known and (self._size, self._crc) != (self._member.size, self._member.crc):
            raise wrong_content(self._source, self._member)

    def _count(self, content: bytes | memoryview) -> None:
        self._crc = zlib.crc32(content, self._crc)
        self._size += len(content)


def wrong_content(source: Source, member: Member) -> ArchiveError:
    """The error for content that is not what its checksum says."""
    name = member.name
    return _damaged(source, f"the content of {name!r} is not what its checksum says")


def read_member(source: Source, member: Member, limit: int) -> bytes:
    """Reads a whole member that must not be large.

    Args:
        source: The open file.
        member: One of its members.
        limit: The largest size, in bytes, that is read.

    Returns:
        The member's content.

    Raises:
        ArchiveError: when the member is larger, whatever it claims to be, or damaged.
    """
    too_large = f"{source.path!r} holds a {member.name!r} of more than {limit >> 20} MiB."
    if member.size > limit:
        raise ArchiveError(too_large)
    return b"".join(member_chunks(source, member))


def copy_with(source: Source, index: Index, name: str, content: bytes, target: io.FileIO) -> None:
    """Writes a copy of a zip file in which one member has another content.

    Every other byte is copied as it is, in the same order: nothing is decompressed, and names,
    times, attributes, comments and extra fields stay.

    Args:
        source: The open file.
        index: Its index.
        name: The member to replace.
        content: What it holds in the copy.
        target: An empty file.

    Raises:
        ArchiveError: when the source can't be read.
        OSError: when the target can't take it.
    """
    old = index.members[name]
    header, data = _replacement(source, old, content)
    stop = _end_of(source, old)
    copy_range(source, 0, old.header, target)
    write_all(target, header + data)
    copy_range(source, stop, index.start, target)
    growth = target.tell() - index.start
    records = []
    for member in index.members.values():
        offset = member.header - index.shift
        if member is old:
            sizes = zlib.crc32(content), len(data), len(content)
            records.append(_record(member, *sizes, offset, flags=~_DESCRIPTOR))
        else:
            offset += growth if member.header > old.header else 0
            records.append(_record(member, member.crc, member.compressed, member.size, offset))
    start = target.tell() - index.shift
    write_all(target, b"".join(records))
    write_all(target, _end_records(index, start, sum(map(len, records))))


def _replacement(source: Source, old: Member, content: bytes) -> tuple[bytes, bytes]:
    """The header and the stored bytes of a member's new content."""
    data = content
    if old.method == DEFLATED:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflater.compress(content) + deflater.flush()
    local = source.read(old.header, old.data - old.header)
    signature, version, flags, method, time, date, *_, name_size, _ = _LOCAL.unpack_from(local)
    name = local[_LOCAL.size : _LOCAL.size + name_size]
    fields, rest = _split_extra(local[_LOCAL.size + name_size :])
    extra = _join_extra([field for field in fields if field[0] != _ZIP64], rest)
    header = _LOCAL.pack(
        signature,
        version,
        flags & ~_DESCRIPTOR,
        method,
        time,
        date,
        zlib.crc32(content),
        len(data),
        len(content),
        len(name),
        len(extra),
    )
    return header + name + extra, data


def _end_of(source: Source, member: Member) -> int:
    """Where a member ends: after its data, or after the sizes that some writers put behind it."""
    stop = member.data + member.compressed
    flags = _LOCAL.unpack(source.read(member.header, _LOCAL.size))[2]
    if flags & _DESCRIPTOR:
        behind = source.read(stop, min(24, source.size - stop))
        for sizes in (
            struct.pack("<3L", member.crc, member.compressed & _FULL32, member.size & _FULL32),
            struct.pack("<L2Q", member.crc, member.compressed, member.size),
        ):
            for descriptor in (b"PK\x07\x08" + sizes, sizes):
                if behind.startswith(descriptor):
                    return stop + len(descriptor)
    return stop


def _record(
    member: Member, crc: int, compressed: int, size: int, offset: int, flags: int = -1
) -> bytes:
    """A member's record in the index with other numbers; nothing else in it changes."""
    fields = list(_CENTRAL.unpack_from(member.record))
    name_stop = _CENTRAL.size + fields[10]
    extra_stop = name_stop + fields[11]
    extra, rest = _split_extra(member.record[name_stop:extra_stop])
    wide = b""
    for place, value in ((9, size), (8, compressed), (16, offset)):
        was_wide = fields[place] == _FULL32 and flags == -1
        if was_wide or value >= _FULL32:
            fields[place] = _FULL32
            wide += struct.pack("<Q", value)
        else:
            fields[place] = value
    where = next((i for i, (kind, _) in enumerate(extra) if kind == _ZIP64), 0)
    extra = [field for field in extra if field[0] != _ZIP64]
    if wide:
        extra.insert(where, (_ZIP64, wide))
        fields[2] = max(fields[2], 45)
    joined = _join_extra(extra, rest)
    if len(joined) > _FULL16:
        raise ArchiveError(f"{member.name!r} has no room for its new place in the archive.")
    fields[3] &= flags
    fields[7], fields[11] = crc, len(joined)
    name = member.record[_CENTRAL.size : name_stop]
    return _CENTRAL.pack(*fields) + name + joined + member.record[extra_stop:]


def _end_records(index: Index, start: int, size: int) -> bytes:
    fields = list(_END.unpack_from(index.end))
    count = len(index.members)
    wide = bool(index.end64) or start >= _FULL32 or size >= _FULL32
    for place, value, full in (
        (3, count, _FULL16),
        (4, count, _FULL16),
        (5, size, _FULL32),
        (6, start, _FULL32),
    ):
        if fields[place] != full or not index.end64:
            fields[place] = min(value, full)
    end = _END.pack(*fields) + index.end[_END.size :]
    if not wide:
        return end
    old = _END64.unpack(index.end64) if index.end64 else (b"PK\x06\x06", 44, 45, 45)
    end64 = _END64.pack(*old[:4], 0, 0, count, count, size, start)
    locator = _LOCATOR.pack(b"PK\x06\x07", 0, start + size, 1)
    return end64 + locator + end
