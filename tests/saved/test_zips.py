"""Zip files: what a rewritten one keeps, and what is refused."""

import io
import json
import os
import struct
import tracemalloc
import zipfile

import pytest

from graphwd.errors import ArchiveError
from graphwd.policy.policies import Policy, Rule
from graphwd.policy.regularizers import l2
from graphwd.saved.archive import Archive
from graphwd.saved.rewriting import plan_file, rewrite_file
from tests.support.saved_models import (
    POLICY,
    compare_weights,
    kernel_of,
    model_config,
    refused,
    sparse_archive,
    weights_bytes,
    write_h5,
    write_keras,
)


def test_all_other_members_keep_their_bytes_order_times_and_extras(tmp_path):
    source, target = tmp_path / "a.keras", tmp_path / "b.keras"
    with zipfile.ZipFile(source, "w") as made:
        made.comment = b"a comment"
        for name, method, extra in [
            ("assets/é.txt", zipfile.ZIP_DEFLATED, b"\xfe\xca\x02\x00ab"),
            ("config.json", zipfile.ZIP_DEFLATED, b"\xfe\xca\x03\x00abc"),
            ("model.weights.h5", zipfile.ZIP_STORED, b""),
            ("assets/bz2", zipfile.ZIP_BZIP2, b""),
            ("assets/folder/", zipfile.ZIP_STORED, b""),
            ("metadata.json", zipfile.ZIP_STORED, b""),
        ]:
            info = zipfile.ZipInfo(name, (2001, 2, 3, 4, 5, 6))
            info.compress_type, info.extra, info.comment = method, extra, name.encode()
            info.external_attr = 0o640 << 16
            content = {"config.json": json.dumps(model_config()), "metadata.json": "{}"}
            made.writestr(info, content.get(name, b"" if name[-1] == "/" else weights_bytes()))
    rewrite_file(source, target, POLICY)
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target) as after:
        assert after.testzip() is None
        assert after.comment == before.comment
        assert after.namelist() == before.namelist()
        for one, two in zip(before.infolist(), after.infolist(), strict=True):
            keep = ["date_time", "compress_type", "extra", "comment", "external_attr", "flag_bits"]
            assert [getattr(one, k) for k in keep] == [getattr(two, k) for k in keep]
            if one.filename != "config.json":
                assert (one.CRC, one.compress_size) == (two.CRC, two.compress_size)
                assert before.read(one) == after.read(two)
    old, new = source.read_bytes(), target.read_bytes()
    with Archive(source) as one, Archive(target) as two:
        for name, member in one.zip.members.items():
            if name != "config.json":
                there = two.zip.members[name]
                assert (
                    old[member.header_offset : one.zip.data[name] + member.compress_size]
                    == new[there.header_offset : two.zip.data[name] + there.compress_size]
                )


class Unseekable(io.RawIOBase):
    """A stream like a socket: zipfile then writes sizes behind the data."""

    def __init__(self, file):
        self.file = file

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("zip64", [False, True])
def test_streamed_and_zip64_archives(tmp_path, method, zip64):
    source, target = tmp_path / "a.keras", tmp_path / "b.keras"
    with (
        open(source, "wb") as file,
        zipfile.ZipFile(Unseekable(file), "w", method) as made,
    ):
        for name, content in [
            ("metadata.json", b"{}"),
            ("config.json", json.dumps(model_config()).encode()),
            ("model.weights.h5", weights_bytes()),
        ]:
            with made.open(name, "w", force_zip64=zip64) as member:
                member.write(content)
    rewrite_file(source, target, POLICY)
    with zipfile.ZipFile(target) as made:
        assert made.testzip() is None
        assert made.read("model.weights.h5") == weights_bytes()
    assert kernel_of(target) == l2(1e-4)
    again = tmp_path / "c.keras"
    rewrite_file(target, again, POLICY)
    assert again.read_bytes() == target.read_bytes()


def test_an_archive_behind_other_bytes(tmp_path):
    source, target = write_keras(tmp_path / "a.keras"), tmp_path / "b.keras"
    source.write_bytes(b"#!/bin/sh\n" + source.read_bytes())
    rewrite_file(source, target, POLICY)
    assert target.read_bytes().startswith(b"#!/bin/sh\nPK")
    with zipfile.ZipFile(target) as made:
        assert made.testzip() is None


@pytest.mark.slow
@pytest.mark.parametrize("config_last", [False, True])
def test_more_than_4_gib_with_zip64(tmp_path, config_last):
    after = [("assets/last.txt", b"last")]
    source = sparse_archive(
        tmp_path / "a.keras", (4 << 30) + 5000, config_last=config_last, after=after
    )
    target = tmp_path / "b.keras"
    rewrite_file(source, target, POLICY, verify=False)
    for path in (source, target):
        with zipfile.ZipFile(path) as made:
            assert made.read("assets/last.txt") == b"last"
            assert made.getinfo("model.weights.h5").file_size == (4 << 30) + 5000
            with made.open("model.weights.h5") as member:
                assert member.read(100) == weights_bytes()[:100]
    assert kernel_of(target) == l2(1e-4)


@pytest.mark.slow
def test_an_offset_that_grows_beyond_4_gib_moves_to_zip64(tmp_path):
    # The last member's offset and the index's start need 64 bits only after the config grew.
    after = [("assets/last.txt", b"last")]
    text = len(json.dumps(model_config()))
    overhead = 3 * 30 + len("config.jsonmetadata.jsonmodel.weights.h5") + text + 2
    size = (1 << 32) - 150 - overhead
    source = sparse_archive(tmp_path / "a.keras", size, after=after)
    with Archive(source) as opened:
        assert opened.zip.members["assets/last.txt"].header_offset == (1 << 32) - 150
    with open(source, "rb") as file:
        file.seek(-200, os.SEEK_END)
        assert b"PK\6\6" not in file.read()
    target = tmp_path / "b.keras"
    rewrite_file(source, target, POLICY, verify=False)
    with zipfile.ZipFile(target) as made:
        assert made.read("assets/last.txt") == b"last"
        assert made.getinfo("assets/last.txt").header_offset > 1 << 32
    with open(target, "rb") as file:
        file.seek(-200, os.SEEK_END)
        assert b"PK\6\6" in file.read()
    back = tmp_path / "c.keras"
    rewrite_file(target, back, Policy([Rule(None)]), verify=False)
    assert kernel_of(back) is None
    with zipfile.ZipFile(back) as made:
        assert made.read("assets/last.txt") == b"last"


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a\\b", "C:/x", "a/../../b", "..", "assets/\0x", "\0"]
)
def test_names_that_lead_out_of_the_archive(tmp_path, name):
    path = write_keras(tmp_path / "a.keras", more=[("assets/Q" + "q" * len(name), b"1")])
    stand_in = ("assets/Q" + "q" * len(name)).encode()
    raw = name.encode().ljust(len(stand_in), b"/")
    path.write_bytes(path.read_bytes().replace(stand_in, raw))
    refused(path, "leads out of the archive")


def patched(path, edits):
    """Overwrites bytes of every record of config.json: central first, then local."""
    data = bytearray(path.read_bytes())
    with Archive(path) as opened:
        local = opened.zip.members["config.json"].header_offset
    central = data.rindex(b"config.json") - 46
    for place, value, form in edits:
        at = {"central": central, "local": local}[form[0]] + place
        struct.pack_into(form[1], data, at, value)
    path.write_bytes(data)


def test_damaged_indexes(tmp_path):
    path = tmp_path / "a.keras"
    for edits, words in [
        ([(8, 1, ("central", "<H"))], "encrypted"),
        ([(6, 1, ("local", "<H"))], "encrypted"),
        ([(10, 12, ("central", "<H"))], "method 12"),
        ([(16, 123, ("central", "<L"))], "checksum"),
        ([(20, 1 << 31, ("central", "<L"))], "overlaps"),
        ([(24, 1 << 31, ("central", "<L"))], "more than 64 MiB"),
        ([(24, 7, ("central", "<L"))], "checksum"),
        ([(24, 0xFFFFFFFF, ("central", "<L"))], "more than 64 MiB"),
        ([(34, 3, ("central", "<H"))], "several parts"),
        ([(42, 3, ("central", "<L"))], "not where the index says"),
        ([(42, 1 << 31, ("central", "<L"))], "ends before"),
        ([(26, 5, ("local", "<H"))], "not where the index says"),
        ([(28, 60_000, ("local", "<H"))], "overlaps"),
        ([(0, 0, ("central", "<L"))], "Bad magic number"),
        ([(32, 65_000, ("central", "<H"))], "announces 3 members and lists 2"),
    ]:
        write_keras(path)
        patched(path, edits)
        refused(path, words)


def test_the_end_of_a_zip_file_that_lies(tmp_path):
    whole = write_keras(tmp_path / "a.keras").read_bytes()
    path = tmp_path / "b.keras"
    for place, value, form, words in [
        (10, 77, "<H", "announces 77 members"),
        (12, 1 << 30, "<L", "Bad offset"),
        (12, 1 << 25, "<L", "Bad offset"),
        (16, 1 << 30, "<L", "ends before"),
        (4, 1, "<H", "several parts"),
    ]:
        data = bytearray(whole)
        struct.pack_into(form, data, len(whole) - 22 + place, value)
        path.write_bytes(data)
        refused(path, words, target=tmp_path / "c.keras")
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    path.write_bytes(whole[:-22] + locator + whole[-22:])
    refused(path, "Bad magic number", target=tmp_path / "c.keras")
    path.write_bytes(whole + b"more")
    refused(path, "bytes behind its end", target=tmp_path / "c.keras")


def test_members_twice_or_overlapping(tmp_path):
    path = tmp_path / "a.keras"
    with pytest.warns(UserWarning, match="Duplicate"):
        write_keras(path, more=[("config.json", b"{}")])
    refused(path, "twice")
    write_keras(path, more=[("assets/z", b"1")])
    data = bytearray(path.read_bytes())
    with Archive(path) as opened:
        weights = opened.zip.members["model.weights.h5"]
    name = data.rindex(b"model.weights.h5") - 46
    struct.pack_into("<L", data, name + 20, weights.compress_size + 5)
    path.write_bytes(data)
    refused(path, "overlaps")


def test_a_bomb_costs_nothing(tmp_path):
    path = tmp_path / "a.keras"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made,
        made.open("config.json", "w", force_zip64=True) as member,
    ):
        for _ in range(100):
            member.write(bytes(1 << 20))
    honest = path.read_bytes()
    tracemalloc.start()
    refused(path, "more than 64 MiB")
    data = bytearray(honest)  # now it claims to be small
    record = data.rindex(b"config.json") - 46
    struct.pack_into("<L", data, record + 24, 1000)
    path.write_bytes(data)
    refused(path, "checksum")
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_differences_of_other_members(tmp_path):
    one = write_keras(tmp_path / "a.keras", more=[("assets/x", b"1"), ("assets/y", b"1")])
    two = write_keras(tmp_path / "b.keras", more=[("assets/x", b"2"), ("assets/z", b"1")])
    assert sorted(compare_weights(one, two)) == [
        "assets/x: the members differ",
        "assets/y: only the first file has this member",
        "assets/z: only the second file has this member",
    ]
    assert compare_weights(one, write_h5(tmp_path / "c.h5")) == [
        "one file is a .keras file and the other a .h5 file"
    ]


def test_an_index_that_is_too_large_is_not_read(tmp_path):
    path, size = tmp_path / "a.keras", 9 << 20
    path.write_bytes(bytes(size) + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))
    tracemalloc.start()
    refused(path, "asks for 9437184 bytes at once")
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_names_in_an_encoding_of_old_are_not_written_anew(tmp_path):
    path = write_keras(tmp_path / "a.keras", more=[("assets/Q", b"1")])
    path.write_bytes(path.read_bytes().replace(b"assets/Q", b"assets/\x82"))
    assert len(plan_file(path, POLICY)) == 2
    with pytest.raises(ArchiveError, match=r"'assets/é' in an encoding of old; .* UTF-8\.$"):
        rewrite_file(path, tmp_path / "b.keras", POLICY)
    assert not (tmp_path / "b.keras").exists()


def test_a_stored_member_that_claims_another_size(tmp_path):
    path = write_keras(tmp_path / "a.keras")
    data = bytearray(path.read_bytes())
    for change in (-1, 1):
        record = data.rindex(b"model.weights.h5") - 46
        struct.pack_into("<L", data, record + 24, len(weights_bytes()) + change)
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match="checksum"):
            rewrite_file(path, tmp_path / "b.keras", POLICY)
