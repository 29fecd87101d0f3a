"""Zip files: read by `zipfile` within limits, one member replaced, all others left as they are."""

from __future__ import annotations

import copy
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

from graphwd.errors import ArchiveError, reason
from graphwd.saved.files import CHUNK, Piece, Source, Window, copy_range, pieces, same_content

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED

_INDEX_LIMIT = 8 << 20  # some hundred thousand members, which take twelve times as much memory
_LOCAL = struct.Struct("<4s2xH18x2H")
_END = struct.Struct("<4s4H")
_END_SIZE = 22
_ENCRYPTED = 1 | 0x20 | 0x40 | 0x2000  # or patched, strongly encrypted, with a masked index
_UTF8 = 0x800


class Zip:
    """What a zip file holds, read strictly: what no Keras archive holds is refused."""

    def __init__(self, source: Source) -> None:
        self.source = source
        try:
            self._zip = zipfile.ZipFile(Window(source.file, 0, source.size, _INDEX_LIMIT))
        except (ArithmeticError, NotImplementedError, OSError, ValueError) as error:
            raise self._unreadable(reason(error)) from error
        except (struct.error, zipfile.BadZipFile) as error:
            raise self._unreadable(str(error)) from error
        self.members: dict[str, zipfile.ZipInfo] = {}  # in the order of the index
        self.data: dict[str, int] = {}  # where each member's bytes begin in the file
        self._check_end()
        for member in self._zip.infolist():
            if member.filename in self.members:
                raise ArchiveError(
                    f"{source.path!r} holds {member.filename!r} twice, so it isn't clear which one "
                    "counts."
                )
            self.members[member.filename] = member
            self.data[member.filename] = self._find(member)
        self._refuse_overlaps()

    def _unreadable(self, detail: str) -> ArchiveError:
        return ArchiveError(
            f"{self.source.path!r} is not a .keras archive, or is damaged or cut off ({detail})."
        )

    def _damaged(self, detail: str) -> ArchiveError:
        return ArchiveError(f"{self.source.path!r} is a damaged zip file: {detail}.")

    def _check_end(self) -> None:
        """Refuses what `zipfile` doesn't look at: bytes behind the end, and what the end says."""
        listed = len(self._zip.infolist())
        position = self.source.size - len(self._zip.comment) - _END_SIZE
        signature, *disks, _, announced = _END.unpack(self.source.read(position, _END.size))
        if signature != b"PK\x05\x06":
            raise self._unreadable("there are other bytes behind its end")
        if any(disks) or any(member.volume for member in self._zip.infolist()):
            raise self._damaged("it is one part of a zip file in several parts")
        if announced not in (listed, 0xFFFF):
            raise self._damaged(f"it announces {announced} members and lists {listed}")

    def _find(self, member: zipfile.ZipInfo) -> int:
        """Where the bytes of a member begin, whose own header must be like its record."""
        name: str = member.orig_filename
        place: int = member.header_offset
        if (
            not name
            or "\\" in name
            or "\0" in name
            or ".." in name.split("/")
            or name[0] == "/"
            or name[1:2] == ":"
        ):
            raise ArchiveError(
                f"{self.source.path!r} holds a member named {name!r}, which leads out of the "
                "archive."
            )
        header = self.source.read(place, _LOCAL.size)
        signature, flags, name_size, extra_size = _LOCAL.unpack(header)
        raw_name = name.encode("utf-8" if member.flag_bits & _UTF8 else "cp437")
        like = signature == b"PK\x03\x04" and name_size == len(raw_name)
        if not like or self.source.read(place + _LOCAL.size, name_size) != raw_name:
            raise self._damaged(f"{name!r} is not where the index says")
        if (member.flag_bits | flags) & _ENCRYPTED:
            raise ArchiveError(f"{self.source.path!r} is encrypted ({name!r}); decrypt it first.")
        begin: int = place + _LOCAL.size + name_size + extra_size
        return begin

    def _refuse_overlaps(self) -> None:
        ordered = sorted(self.members.values(), key=lambda member: member.header_offset)
        limits = [*(member.header_offset for member in ordered[1:]), self._zip.start_dir]
        for member, limit in zip(ordered, limits, strict=False):
            if self.data[member.filename] + member.compress_size > limit:
                raise self._damaged(f"{member.filename!r} overlaps what follows it")

    def read(self, name: str, limit: int) -> bytes:
        """Reads a whole member that must not be large, whatever size it claims."""
        member = self.members[name]
        if max(member.file_size, member.compress_size) > limit:
            raise ArchiveError(
                f"{self.source.path!r} holds a {name!r} of more than {limit >> 20} MiB."
            )
        return b"".join(map(bytes, self.chunks(member)))

    def chunks(self, member: zipfile.ZipInfo) -> Iterator[Piece]:
        """Yields a member's content as `pieces` does; its checksum is held against it."""
        name = member.filename
        if member.compress_type not in (STORED, DEFLATED):  # which may give any size at once
            raise ArchiveError(
                f"{self.source.path!r} holds {name!r} compressed by method "
                f"{member.compress_type}, which Keras never writes; save the model again."
            )
        wrong = self._damaged(f"the content of {name!r} is not what its checksum says")
        if member.compress_type == STORED:
            checksum = 0
            for piece in pieces(self.source, self.data[name], member.compress_size):
                checksum = zlib.crc32(piece, checksum)
                yield piece
            if (member.compress_size, checksum) != (member.file_size, member.CRC):
                raise wrong
            return
        try:
            with self._zip.open(member) as content:
                while chunk := content.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise ArchiveError(f"{self.source.path!r} can't be read: {reason(error)}.") from error
        except (EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise wrong from error

    def same_member(self, name: str, other: Zip) -> bool:
        """Whether two zip files hold the same in a member, which is held against its checksum."""
        mine, theirs = self.members[name], other.members[name]
        alike = _form(mine) == _form(theirs)
        raw = pieces(other.source, other.data[name], theirs.compress_size)
        if alike and mine.compress_type == STORED:  # what is looked at on one side holds for both
            return same_content(self.chunks(mine), raw)
        if alike and same_content(pieces(self.source, self.data[name], mine.compress_size), raw):
            for _ in self.chunks(mine) if mine.compress_type == DEFLATED else ():
                pass
            return True
        return same_content(self.chunks(mine), other.chunks(theirs))

    def copy_with(self, name: str, content: bytes, target: io.FileIO) -> None:
        """Writes a copy in which one member has another content; the others are copied raw."""
        old = self.members[name]
        for member in self.members.values():
            if not member.flag_bits & _UTF8 and not member.filename.isascii():
                raise ArchiveError(
                    f"{self.source.path!r} holds a member named {member.filename!r} in an encoding "
                    "of old; make the zip file again, with names in UTF-8."
                )
        behind = [m.header_offset for m in self.members.values()] + [self._zip.start_dir]
        stop = min(place for place in behind if place > old.header_offset)
        copy_range(self.source, 0, old.header_offset, target)
        window = Window(target)
        window.seek(old.header_offset)
        with zipfile.ZipFile(window, "w") as made:
            made.comment = self._zip.comment
            new = _copied(old)
            made.writestr(new, content)
            target.seek(made.start_dir)
            copy_range(self.source, stop, self._zip.start_dir, target)
            growth = made.start_dir - stop
            made.start_dir = target.tell()
            made.filelist = [
                new if member is old else _copied(member, growth * (member.header_offset >= stop))
                for member in self.members.values()
            ]
        if window.error is not None:
            raise window.error


def _form(member: zipfile.ZipInfo) -> tuple[int, ...]:
    return member.compress_type, member.compress_size, member.file_size, member.CRC


def _copied(member: zipfile.ZipInfo, shift: int = 0) -> zipfile.ZipInfo:
    """A member's record at another place, without what `zipfile` adds where 32 bits are too few."""
    record = copy.copy(member)
    record.header_offset += shift
    record.extra, rest = b"", member.extra
    while len(rest) >= 4:
        kind, size = struct.unpack_from("<2H", rest)
        record.extra += rest[: 4 + size] if kind != 1 else b""
        rest = rest[4 + size :]
    record.extra += rest
    return record
