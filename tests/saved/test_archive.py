"""Saved models rewritten without Keras: what is written, what is refused, and what stays whole."""

import importlib.util
import io
import json
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import graphwd
from graphwd import writing
from graphwd.errors import ArchiveError, EquivalenceError
from graphwd.policy.policies import Policy, Rule
from graphwd.policy.regularizers import l2
from graphwd.saved import archive
from graphwd.saved import models as saved_module
from graphwd.saved.archive import Archive, plan_file, rewrite_file
from tests.support.processes import ENVIRONMENT, run
from tests.support.saved_models import (
    POLICY,
    compare_weights,
    dense,
    model_config,
    regularized,
    slots_of_file,
    unreached,
    weights_bytes,
    write_h5,
    write_keras,
)


def kernel_of(path, number=0):
    with Archive(path) as opened:
        return opened.config["config"]["layers"][number]["config"]["kernel_regularizer"]


def refused(path, *words, target=None):
    """Asserts that a file is refused in one line by every function that reads it."""
    for act in (slots_of_file, lambda p: plan_file(p, POLICY)):
        with pytest.raises(ArchiveError) as error:
            act(path)
    target = path.parent / "target.keras" if target is None else target
    before = target.read_bytes() if target.exists() else None
    with pytest.raises(ArchiveError) as error:
        rewrite_file(path, target, POLICY, overwrite=True)
    assert (target.read_bytes() if target.exists() else None) == before
    assert not list(target.parent.glob(".graphwd*"))
    message = str(error.value)
    assert message.endswith(".")
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# What is written


@pytest.mark.parametrize("write", [write_keras, write_h5])
def test_only_the_config_changes(tmp_path, write):
    suffix = ".keras" if write is write_keras else ".h5"
    source = write(tmp_path / f"a{suffix}")
    target = tmp_path / f"b{suffix}"
    plan = rewrite_file(source, target, POLICY)
    assert [edit.path for edit in plan] == ["one/kernel", "two/kernel"]
    with Archive(source) as before, Archive(target) as after:
        expected = json.loads(json.dumps(before.config))
        for layer in expected["config"]["layers"]:
            layer["config"]["kernel_regularizer"] = l2(1e-4)
        assert after.config == expected
        assert after.compile_config == before.compile_config != None  # noqa: E711
        assert after.metadata == before.metadata
        assert after.kind == before.kind == suffix[1:]
    assert compare_weights(source, target) == []


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
        for name, member in one.index.members.items():
            if name != "config.json":
                there = two.index.members[name]
                assert (
                    old[member.header : member.data + member.compressed]
                    == new[there.header : there.data + there.compressed]
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


def sparse_archive(path, size, *, config_last=False, after=()):
    """A `.keras` archive whose weights are mostly a hole, with zip64 records, made by hand."""
    text = json.dumps(model_config()).encode()
    members = [("metadata.json", b"{}", 2), ("model.weights.h5", None, size)]
    members.insert(2 if config_last else 0, ("config.json", text, len(text)))
    members += [(name, data, len(data)) for name, data in after]
    index = b""
    with open(path, "wb") as file:
        for name, data, length in members:
            content = weights_bytes() if data is None else data
            checksum = zipfile.crc32(content)
            for done in range(len(content), min(length, 1 << 29), 1 << 20):
                checksum = zipfile.crc32(bytes(min(1 << 20, length - done)), checksum)
            raw, offset = name.encode(), file.tell()
            wide = struct.pack("<2H2Q", 1, 16, length, length) if length >= 1 << 32 else b""
            short = min(length, 0xFFFFFFFF)
            file.write(
                struct.pack(
                    "<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 33, checksum, short, short, len(raw),
                    len(wide),
                ) + raw + wide
            )  # fmt: skip
            if data is None:
                inner = weights_bytes()
                file.write(inner)
                file.seek(length - len(inner), os.SEEK_CUR)
            else:
                file.write(data)
            if offset >= 1 << 32:
                wide = struct.pack("<2H", 1, len(wide[4:]) + 8) + wide[4:]
                wide += struct.pack("<Q", offset)
            index += (
                struct.pack(
                    "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 33, checksum, short, short,
                    len(raw), len(wide), 0, 0, 0, 0, min(offset, 0xFFFFFFFF),
                ) + raw + wide
            )  # fmt: skip
        start, count = file.tell(), len(members)
        file.write(index)
        end = start + len(index)
        if start >= 1 << 32:
            file.write(
                struct.pack(
                    "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(index), start
                )
            )
            file.write(struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
        file.write(
            struct.pack(
                "<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(index), min(start, 0xFFFFFFFF), 0
            )
        )
    return path


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
        assert opened.index.members["assets/last.txt"].header == (1 << 32) - 150
        assert not opened.index.end64
    target = tmp_path / "b.keras"
    rewrite_file(source, target, POLICY, verify=False)
    with zipfile.ZipFile(target) as made:
        assert made.read("assets/last.txt") == b"last"
        assert made.getinfo("assets/last.txt").header_offset > 1 << 32
    with Archive(target) as opened:
        assert opened.index.end64
    back = tmp_path / "c.keras"
    rewrite_file(target, back, Policy([Rule(None)]), verify=False)
    assert kernel_of(back) is None
    with zipfile.ZipFile(back) as made:
        assert made.read("assets/last.txt") == b"last"


def test_a_large_config_in_h5(tmp_path):
    layers = [regularized(f"layer_{number}") for number in range(3000)]
    source = write_h5(tmp_path / "a.h5", model_config(*layers))
    target = tmp_path / "b.h5"
    plan = rewrite_file(source, target, POLICY)
    assert len(plan) == 3000
    with h5py.File(target) as file:
        assert len(file.attrs["model_config"]) > 500_000
    assert kernel_of(target, 2999) == l2(1e-4)
    assert compare_weights(source, target) == []


def test_a_config_of_fixed_length_in_h5(tmp_path):
    source = write_h5(tmp_path / "a.h5", text=np.bytes_(json.dumps(model_config())))
    rewrite_file(source, tmp_path / "b.h5", POLICY)
    assert kernel_of(tmp_path / "b.h5") == l2(1e-4)


def test_the_legacy_dialect_is_kept(tmp_path):
    config = json.loads(json.dumps(model_config()))
    for serialized in (config, *config["config"]["layers"]):
        del serialized["module"], serialized["registered_name"]
    source, target = write_h5(tmp_path / "a.h5", config), tmp_path / "b.h5"
    rewrite_file(source, target, POLICY)
    assert kernel_of(target) == {"class_name": "L2", "config": {"l2": 1e-4}}


def test_no_edits_means_the_same_bytes(tmp_path):
    source, target = write_keras(tmp_path / "a.keras"), tmp_path / "b.keras"
    assert len(rewrite_file(source, target, Policy([Rule(None)]))) == 0
    assert target.read_bytes() == source.read_bytes()


def test_the_target_has_the_suffix_that_keras_loads(tmp_path):
    with pytest.raises(ArchiveError, match="loads only"):
        rewrite_file(write_keras(tmp_path / "a.keras"), tmp_path / "b.h5", POLICY)
    with pytest.raises(ArchiveError, match="loads only"):
        rewrite_file(write_h5(tmp_path / "a.h5"), tmp_path / "b.keras", POLICY)


def test_the_content_decides_what_a_file_is(tmp_path):
    path = write_h5(tmp_path / "a.model")
    with Archive(path) as opened:
        assert opened.kind == "h5"


# The target is whole or what it was


def test_an_existing_target_needs_overwrite(tmp_path):
    source = write_keras(tmp_path / "a.keras")
    before = source.read_bytes()
    target = tmp_path / "b.keras"
    target.write_text("something else")
    link, hard = tmp_path / "link.keras", tmp_path / "hard.keras"
    link.symlink_to(source)
    hard.hardlink_to(source)
    for path in (target, source, link, hard):
        with pytest.raises(ArchiveError, match=r"exists.*overwrite=True\.$"):
            rewrite_file(source, path, POLICY)
    assert source.read_bytes() == before
    assert target.read_text() == "something else"
    rewrite_file(source, target, POLICY, overwrite=True)
    assert kernel_of(target) == l2(1e-4)


def test_a_target_that_appears_meanwhile_is_not_overwritten(tmp_path):
    source, target = write_keras(tmp_path / "a.keras"), tmp_path / "b.keras"
    with Archive(source) as opened, pytest.raises(ArchiveError, match="exists"):
        opened.write(target, model_config(), check=lambda _: target.write_text("theirs"))
    assert target.read_text() == "theirs"
    assert sorted(os.listdir(tmp_path)) == ["a.keras", "b.keras"]


@pytest.mark.parametrize("write", [write_keras, write_h5])
def test_in_place(tmp_path, write):
    path = write(tmp_path / f"a{'.keras' if write is write_keras else '.h5'}")
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    rewrite_file(path, path, POLICY, overwrite=True)
    assert kernel_of(path) == l2(1e-4)
    assert compare_weights(path, copy) == []


def test_a_symbolic_link_stays_one(tmp_path):
    source = write_keras(tmp_path / "a.keras")
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "b.keras", tmp_path / "b.keras"
    link.symlink_to(target)
    rewrite_file(source, link, POLICY)
    rewrite_file(source, link, POLICY, overwrite=True)
    assert link.is_symlink()
    assert kernel_of(target) == l2(1e-4)
    assert os.listdir(tmp_path / "far") == ["b.keras"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444, 0o640])
def test_the_mode_is_kept(tmp_path, mode):
    source, target = write_keras(tmp_path / "a.keras"), tmp_path / "b.keras"
    source.chmod(mode)
    rewrite_file(source, target, POLICY)
    assert stat.S_IMODE(target.stat().st_mode) == mode
    target.chmod(0o666)
    rewrite_file(source, target, POLICY, overwrite=True)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666


@pytest.mark.parametrize("missing", ["O_TMPFILE", "copy_file_range", "link", "all"])
def test_systems_without_this_or_that(tmp_path, monkeypatch, missing):
    def fail(*args, **kwargs):
        raise OSError(1, "Operation not permitted")

    if missing in ("O_TMPFILE", "link", "all"):
        monkeypatch.delattr(os, "O_TMPFILE")
    if missing in ("link", "all"):
        monkeypatch.setattr(os, "link", fail)
    if missing in ("copy_file_range", "all"):
        monkeypatch.setattr(os, "copy_file_range", fail)
    for write, suffix in [(write_keras, "keras"), (write_h5, "h5")]:
        source, target = write(tmp_path / f"a.{suffix}"), tmp_path / f"b.{suffix}"
        rewrite_file(source, target, POLICY)
        rewrite_file(source, target, POLICY, overwrite=True)
        with pytest.raises(ArchiveError, match="exists"):
            rewrite_file(source, target, POLICY)
        assert kernel_of(target) == l2(1e-4)
        assert compare_weights(source, target) == []
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "a.keras", "b.h5", "b.keras"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left"), MemoryError])
@pytest.mark.parametrize("named", [False, True])
def test_an_error_leaves_nothing_behind(tmp_path, monkeypatch, error, named):
    if named:
        monkeypatch.delattr(os, "O_TMPFILE")
    source = write_keras(tmp_path / "a.keras")
    target = tmp_path / "b.keras"
    target.write_text("before")

    def interrupt(*args):
        raise error

    monkeypatch.setattr(writing._Draft, "settle", interrupt)
    expected = ArchiveError if isinstance(error, OSError) else error
    with pytest.raises(expected):
        rewrite_file(source, target, POLICY, overwrite=True)
    assert target.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["a.keras", "b.keras"]


@pytest.mark.parametrize("verify", [True, False])
def test_a_disk_that_fails_while_the_file_is_proved_leaves_the_target(
    tmp_path, monkeypatch, verify
):
    source = write_keras(tmp_path / "a.keras")
    target = tmp_path / "b.keras"
    target.write_text("before")
    failures = iter([OSError(5, "Input/output error")])

    def told_once(descriptor):  # as Linux does: whoever asks again hears of nothing
        for failure in failures:
            raise failure

    monkeypatch.setattr(os, "fsync", told_once)
    with pytest.raises(ArchiveError, match="Input/output error; what was there is unchanged"):
        rewrite_file(source, target, POLICY, overwrite=True, verify=verify)
    assert target.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["a.keras", "b.keras"]


def test_a_wrong_result_is_never_written(tmp_path, monkeypatch):
    source = write_keras(tmp_path / "a.keras", more=[("assets/x", b"these bytes")])
    target = tmp_path / "b.keras"
    wrong = archive.set_regularizers
    calls = []

    def forgetful(config, edits):
        calls.append(edits)
        return wrong(config, dict(list(edits.items())[1:]) if len(calls) == 1 else edits)

    monkeypatch.setattr(archive, "set_regularizers", forgetful)
    with pytest.raises(EquivalenceError, match="not the planned one"):
        rewrite_file(source, target, POLICY)
    monkeypatch.undo()
    copy = saved_module.copy_with

    def flips_a_bit(source, index, name, content, target):
        copy(source, index, name, content, target)
        target.seek(0)
        place = target.read().index(b"these bytes")
        target.seek(place)
        target.write(b"those")

    monkeypatch.setattr(saved_module, "copy_with", flips_a_bit)
    with pytest.raises(EquivalenceError, match="assets/x: the members differ"):
        rewrite_file(source, target, POLICY)
    assert not target.exists()


def test_a_source_that_changes_meanwhile(tmp_path, monkeypatch):
    source, target = write_keras(tmp_path / "a.keras"), tmp_path / "b.keras"
    copy = saved_module.copy_with

    def and_somebody_writes(*args):
        copy(*args)
        os.utime(source, ns=(1, 1))

    monkeypatch.setattr(saved_module, "copy_with", and_somebody_writes)
    with pytest.raises(ArchiveError, match="was changed while it was read"):
        rewrite_file(source, target, POLICY)
    assert not target.exists()


def test_a_source_that_shrinks_meanwhile(tmp_path, monkeypatch):
    source, target = write_keras(tmp_path / "a.keras"), tmp_path / "b.keras"
    copy = saved_module.copy_with

    def after_a_cut(*args):
        os.truncate(source, 1000)
        copy(*args)

    monkeypatch.setattr(saved_module, "copy_with", after_a_cut)
    with pytest.raises(ArchiveError, match=r"changed while|became shorter"):
        rewrite_file(source, target, POLICY)
    assert not target.exists()


CHILD = """
    import os, sys
    import graphwd.saved.files
    from graphwd.saved.archive import rewrite_file
    from tests.support.saved_models import POLICY
    if sys.argv[3] == "named":
        del os.O_TMPFILE
    print("ready", flush=True)
    for _ in range(200):
        rewrite_file(sys.argv[1], sys.argv[2], POLICY, overwrite=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_the_target_whole(tmp_path, number):
    noise = np.random.default_rng(0).bytes(20 << 20)
    source = write_keras(tmp_path / "a.keras", more=[("assets/noise", noise)])
    target = tmp_path / "b.keras"
    target.write_text("before")
    strays = 0
    for attempt in range(6):
        command = [sys.executable, "-c", textwrap.dedent(CHILD), source, target, "anonymous"]
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            time.sleep(0.013 * attempt + (0.05 if attempt > 3 else 0))
            child.send_signal(number)
        if target.read_bytes() != b"before":
            assert compare_weights(source, target) == []
            assert kernel_of(target) == l2(1e-4)
        strays += len(list(tmp_path.glob(".graphwd*")))
    if hasattr(os, "O_TMPFILE"):
        # Between the two calls that name and rename the complete file a kill may leave one.
        assert strays <= 1


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_full_disk_is_an_error_in_a_line(tmp_path, suffix):
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("needs a file system of its own")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "graphwd", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("can't mount a file system here")
    try:
        noise = np.random.default_rng(0).bytes(1 << 20)
        if suffix == "keras":
            source = write_keras(tmp_path / "a.keras", more=[("assets/noise", noise)])
        else:
            source = write_h5(
                tmp_path / "a.h5", edit=lambda f: f.create_dataset("x", data=np.void(noise))
            )
        target = disk / f"b.{suffix}"
        target.write_text("before")
        with pytest.raises(ArchiveError, match="No space left on device; what was there"):
            rewrite_file(source, target, POLICY, overwrite=True)
        assert target.read_text() == "before"
        assert os.listdir(disk) == [target.name]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_limit_on_file_sizes_is_an_error_in_a_line(tmp_path, suffix):
    config = model_config(*(regularized(f"layer_{number}") for number in range(3000)))
    source = (write_keras if suffix == "keras" else write_h5)(tmp_path / f"a.{suffix}", config)
    target = tmp_path / f"b.{suffix}"
    limit = source.stat().st_size + 100
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ArchiveError, match=r"can't be written: .*; what was there"):
            rewrite_file(source, target, POLICY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == [source.name]


def test_targets_that_can_not_be(tmp_path):
    source = write_keras(tmp_path / "a.keras")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target, words in [
        (tmp_path, "directory"),
        (Path("/dev/null"), "not a regular file"),
        (pipe, "not a regular file"),
        (tmp_path / "no" / "b.keras", "no directory"),
        (tmp_path / ("b" * 300), "can't be written"),
        ("a\0b", "null"),
    ]:
        with pytest.raises(ArchiveError, match=words):
            rewrite_file(source, target, POLICY, overwrite=True)


def test_a_directory_without_permission(tmp_path, monkeypatch):
    source = write_keras(tmp_path / "a.keras")

    def denied(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(writing._Draft, "open", denied)
    with pytest.raises(ArchiveError, match=r"b\.keras' can't be written: Permission denied"):
        rewrite_file(source, tmp_path / "b.keras", POLICY)


# What is refused


def test_what_is_no_file(tmp_path, monkeypatch):
    refused(tmp_path, "is a directory without a model", target=tmp_path / "b.keras")
    (tmp_path / "unzipped").mkdir()
    (tmp_path / "unzipped" / "config.json").write_text("{}")
    refused(tmp_path / "unzipped", "names no class")
    refused(Path("/dev/zero"), "not a regular file", target=tmp_path / "b.keras")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    refused(tmp_path / "missing.keras", "No such file")
    loop = tmp_path / "loop.keras"
    loop.symlink_to(loop)
    refused(loop, "symbolic links")
    closed = write_keras(tmp_path / "closed.keras")

    def denied(path, *args):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", denied)
    refused(closed, "can't be read: Permission denied")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("{}", "names no class"),
        ('{"class_name": "A"}', "names no class"),
        ('{"class_name": 3, "config": {}}', "names no class"),
        (b"\xff\xfe{\0}\0", "not JSON"),
        ("1" * 10_000, "not JSON"),
        ("[" * 100_000 + "]" * 100_000, "nested"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested"),
        ("[" * 100_000, "nested"),
        ('"' + '\\"' * 1_000_000, "not JSON"),
        ('{"class_name": "A", "config": {"a": [' + "[]," * 3_000_000 + "1]}}", "2,000,000"),
    ],
)
def test_configs_that_are_none(tmp_path, text, words):
    refused(write_keras(tmp_path / "a.keras", text=text), "a.keras", words)
    if isinstance(text, str) and text:
        refused(write_h5(tmp_path / "a.h5", text=text), words, target=tmp_path / "b.h5")


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "a.keras"
    for content in (b"", b"hello", b"PK\3\4", b"\x89HDF\r\n\x1a", os.urandom(5000)):
        path.write_bytes(content)
        refused(path, "not a .keras archive")
    whole = write_keras(tmp_path / "whole.keras").read_bytes()
    for size in (30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path, "cut off")
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("other.txt", "x")
    refused(path, "without 'config.json'")
    path.write_bytes(weights_bytes())
    refused(path, "weights without a model")
    whole = write_h5(tmp_path / "whole.h5").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "damaged HDF5")
    for value in (3, np.arange(3), ["a", "b"], np.void(b"{}")):
        write_h5(path, edit=lambda f, value=value: f.attrs.__setitem__("model_config", value))
        refused(path, "no text")
    write_h5(path, edit=lambda f: f.attrs.__setitem__("model_config", b"\xff\xfe"))
    refused(path, "not UTF-8")


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
        local = opened.index.members["config.json"].header
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
        ([(24, 0xFFFFFFFF, ("central", "<L"))], "sizes of 'config.json' are missing"),
        ([(34, 3, ("central", "<H"))], "several parts"),
        ([(42, 3, ("central", "<L"))], "not where the index says"),
        ([(42, 1 << 31, ("central", "<L"))], "ends before"),
        ([(26, 5, ("local", "<H"))], "not where the index says"),
        ([(28, 60_000, ("local", "<H"))], "overlaps"),
        ([(0, 0, ("central", "<L"))], "index is not one"),
        ([(32, 65_000, ("central", "<H"))], "index is not one"),
    ]:
        write_keras(path)
        patched(path, edits)
        refused(path, words)


def test_the_end_of_a_zip_file_that_lies(tmp_path):
    whole = write_keras(tmp_path / "a.keras").read_bytes()
    path = tmp_path / "b.keras"
    for place, value, form, words in [
        (10, 77, "<H", "announces 77 members"),
        (12, 1 << 30, "<L", "too many"),
        (12, 1 << 25, "<L", "index is not where"),
        (16, 1 << 30, "<L", "index is not where"),
        (4, 1, "<H", "several parts"),
    ]:
        data = bytearray(whole)
        struct.pack_into(form, data, len(whole) - 22 + place, value)
        path.write_bytes(data)
        refused(path, words, target=tmp_path / "c.keras")
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    path.write_bytes(whole[:-22] + locator + whole[-22:])
    refused(path, "zip64", target=tmp_path / "c.keras")


def test_members_twice_or_overlapping(tmp_path):
    path = tmp_path / "a.keras"
    with pytest.warns(UserWarning, match="Duplicate"):
        write_keras(path, more=[("config.json", b"{}")])
    refused(path, "twice")
    write_keras(path, more=[("assets/z", b"1")])
    data = bytearray(path.read_bytes())
    with Archive(path) as opened:
        weights = opened.index.members["model.weights.h5"]
    name = data.rindex(b"model.weights.h5") - 46
    struct.pack_into("<L", data, name + 20, weights.compressed + 5)
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


def test_a_compressed_bomb_of_weights_is_not_unpacked(tmp_path):
    path = write_keras(tmp_path / "a.keras", weights=bytes(300 << 20), method=zipfile.ZIP_DEFLATED)
    with Archive(path) as opened:
        assert len(opened.slots()) == 4
        with pytest.raises(ArchiveError, match="Keras refuses it, too"):
            unreached(path)


@pytest.mark.parametrize("kind", ["soft", "external", "cycle", "virtual", "elsewhere"])
def test_hdf5_that_points_elsewhere(tmp_path, kind):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.arange(3.0)

    def edit(file):
        if kind == "soft":
            file["layers/dense/vars/2"] = h5py.SoftLink("/layers/dense/vars/0")
        elif kind == "external":
            file["layers/dense/vars/2"] = h5py.ExternalLink(str(secret), "/x")
        elif kind == "cycle":
            file["layers/dense/vars/2"] = file["layers"]
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource(str(secret), "x", (3,))
            file.create_virtual_dataset("v", layout)
        else:
            file.create_dataset("v", (3,), "f8", external=[(str(secret), 0, 24)])

    def changed(file):
        edit(file)
        file["other"] = 1

    one = write_keras(tmp_path / "a.keras", weights=weights_bytes(edit))
    two = write_keras(tmp_path / "b.keras", weights=weights_bytes(changed))
    if kind in ("virtual", "elsewhere"):
        with pytest.raises(ArchiveError, match=r"support: v can't .* it is kept in another file"):
            compare_weights(one, two)
    else:
        with pytest.raises(ArchiveError, match="twice" if kind == "cycle" else "elsewhere"):
            compare_weights(one, two)


@pytest.mark.parametrize(
    ("name", "words", "options"),
    [
        (
            "z",
            "claims 4398046511104 bytes and stores 0",
            {"shape": (1 << 40,), "chunks": (1 << 20,)},
        ),
        ("p", "it is stored in pieces", {"shape": (1 << 26,), "chunks": (1 << 26,)}),
        ("t", "values of variable length", {"data": "text"}),
    ],
)
def test_hdf5_that_asks_for_all_memory(tmp_path, name, words, options):
    if "shape" in options:
        options = {**options, "dtype": "f4", "compression": "gzip"}

    def edit(file):
        file.create_dataset(name, **options)

    def more(file):
        edit(file)
        file["other"] = 1

    one = write_keras(tmp_path / "a.keras", weights=weights_bytes(edit))
    two = write_keras(tmp_path / "b.keras", weights=weights_bytes(more))
    for act in (compare_weights, graphwd.verify):
        with pytest.raises(ArchiveError, match=f"doesn't support: {name} .*{words}") as told:
            act(one, two)
        assert "report" not in str(told.value)


def test_a_heap_of_texts_that_claims_all_memory(tmp_path):
    config = write_h5(tmp_path / "a.h5", text="x" * (65 << 20))
    refused(config, "damaged HDF5 data (a heap of texts claims", target=tmp_path / "b.h5")


# What is compared


def test_differences_of_weights(tmp_path):
    def edit(file):
        file["layers/dense/vars/0"][1, 1] = -5
        quiet = np.frombuffer(b"\x01\x00\xc0\x7f", "f4")[0]
        file["layers/dense/vars/1"][0] = quiet  # another NaN
        del file["layers/dense_1/vars/0"], file["layers/dense_1/vars/1"]
        file["layers/dense_1/vars/0"] = np.zeros((4, 3), "f2")
        file["layers/dense_1/vars/1"] = np.zeros((4,), "f4")
        file["new"] = [1]

    one, two = write_keras(tmp_path / "a.keras"), tmp_path / "b.keras"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        write_keras(two, weights=weights_bytes(edit), method=method)
        assert compare_weights(one, two) == [
            "model.weights.h5: new: only the second file has it",
            "model.weights.h5: layers/dense/vars/0: the values differ",
            "model.weights.h5: layers/dense/vars/1: the values differ",
            "model.weights.h5: layers/dense_1/vars/0: the dtype is float32 in one file and "
            "float16 in the other",
            "model.weights.h5: layers/dense_1/vars/1: the shape is (3,) in one file and (4,) in "
            "the other",
        ]
        assert "new: only the first file has it" in "".join(compare_weights(two, one))


def test_the_same_weights_stored_in_other_ways(tmp_path):
    def other_layout(file):
        data = file["layers/dense/vars/0"][...]
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", data=data, chunks=(2, 2), compression="gzip")

    one = write_keras(tmp_path / "a.keras")
    two = write_keras(tmp_path / "b.keras", method=zipfile.ZIP_DEFLATED)
    three = write_keras(tmp_path / "c.keras", weights=weights_bytes(other_layout))
    assert compare_weights(one, two) == []
    assert compare_weights(one, three) == []
    assert compare_weights(two, three) == []


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


def test_differences_of_h5_files(tmp_path):
    def edit(file):
        file["model_weights"].attrs["layer_names"] = [b"two", b"one"]
        file.attrs["training_config"] = b'{"loss": "mae"}'
        file["model_weights/one/one/kernel"][0, 0] = -1

    one, two = write_h5(tmp_path / "a.h5"), write_h5(tmp_path / "b.h5", edit=edit)
    assert compare_weights(one, two) == [
        "model_weights/one/one/kernel: the values differ",
        "the files list their layers in different orders",
        "training_config: the files differ",
    ]


def test_arrays_of_every_shape_are_read_in_bounded_pieces():
    from graphwd.saved.weights import _blocks

    for shape in [(), (0,), (7,), (3, 0, 2), (5, 4, 3), (1, 1, 30), (30, 1, 1), (2, 9, 2)]:
        data = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        for limit in (1, 2, 5, 7, 100):
            pieces = [data[block] for block in _blocks(shape, limit)]
            assert all(np.size(piece) <= limit for piece in pieces)
            joined = np.concatenate([np.ravel(piece) for piece in pieces] or [np.ravel(data)])
            assert joined.tobytes() == data.tobytes()


def test_weights_of_h5_files_are_compared_in_the_order_that_keras_loads(tmp_path):
    def rename(file):
        group = file["model_weights/one"]
        group.move("one/kernel", "model/one/kernel")
        group.move("one/bias", "model/one/bias")
        group.attrs["weight_names0"] = [b"model/one/kernel"]  # as Keras splits long lists
        group.attrs["weight_names1"] = [b"model/one/bias"]
        del group.attrs["weight_names"]

    def swap(file):
        group = file["model_weights/one"]
        group.attrs["weight_names"] = group.attrs["weight_names"][::-1]

    one = write_h5(tmp_path / "a.h5")
    assert compare_weights(one, write_h5(tmp_path / "b.h5", edit=rename)) == []
    assert len(compare_weights(one, write_h5(tmp_path / "c.h5", edit=swap))) == 2


# What a file can't tell


def test_unreached_weights(tmp_path):
    config = model_config(
        regularized("one"),
        dense("two", module="my.package", class_name="Block", kernel_regularizer=None),
        registered_name=None,
    )
    path = write_keras(tmp_path / "a.keras", config)
    assert [str(layer) for layer in unreached(path)] == [
        "two (Block): 2 arrays, 1 with a slot, 15 parameters"
    ]
    (note,) = plan_file(path, POLICY).notes
    assert "two (Block)" in note
    assert "--live" in note
    assert archive.inspect_file(path).notes == (note,)
    legacy = write_h5(tmp_path / "a.h5", model_config(regularized("one"), dense("two")))
    assert [layer.path for layer in unreached(legacy)] == ["two"]
    assert unreached(write_keras(tmp_path / "b.keras")) == []


# Speed, memory, imports


BLOCKER = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("keras", "tf_keras", "tensorflow", "jax", "torch", "custom"):
                raise ImportError("blocked: " + name)

    sys.meta_path.insert(0, Blocker())
"""


def test_nothing_of_keras_is_imported(tmp_path):
    config = model_config(
        regularized("one"),
        dense("two", module="custom.module", class_name="Layer", kernel_regularizer=None),
    )
    source = write_keras(tmp_path / "a.keras", config)
    legacy = write_h5(tmp_path / "a.h5", config)
    code = textwrap.dedent(BLOCKER) + textwrap.dedent("""
        import graphwd.saved.archive
        assert not {"h5py", "numpy", "networkx"} & set(sys.modules), "slow to start"
        from graphwd.saved.archive import *
        from tests.support.saved_models import POLICY, compare_weights
        for source in sys.argv[1:]:
            plan = rewrite_file(source, source + sys.argv[1][-6:].replace(".keras", "") +
                                (".keras" if source.endswith("s") else ".h5"), POLICY)
            assert len(plan) == 2
            assert "as planned" in str(plan)
            assert not compare_weights(source, source + (".keras" if source[-1] == "s" else ".h5"))
        print("done")
        """)
    assert run(code, source, legacy) == "done\n"


def test_memory_does_not_depend_on_the_weights(tmp_path):
    source = sparse_archive(tmp_path / "a.keras", 1 << 28)
    small = write_keras(tmp_path / "small.keras")
    code = """
        import resource, sys
        import h5py
        from graphwd.saved.archive import rewrite_file
        from tests.support.saved_models import POLICY
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rewrite_file(sys.argv[2], sys.argv[2] + ".keras", POLICY)
        before = peak()
        rewrite_file(sys.argv[1], sys.argv[1] + ".keras", POLICY)
        print(peak() - before)
    """
    assert int(run(code, source, small)) < 64 << 10  # kilobytes


# Models that Keras saved


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Models that Keras saved, a `.keras` and a `.h5` file of each, by name."""
    import keras

    folder = tmp_path_factory.mktemp("saved")

    @keras.saving.register_keras_serializable("archive_tests")
    class Scale(keras.layers.Layer):
        def __init__(self, kernel_regularizer=None, **options):
            super().__init__(**options)
            self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

        def build(self, shape):
            self.kernel = self.add_weight(shape=shape[-1:], regularizer=self.kernel_regularizer)
            self.built = True

        def call(self, inputs):
            return inputs * self.kernel

        def get_config(self):
            penalty = keras.regularizers.serialize(self.kernel_regularizer)
            return {**super().get_config(), "kernel_regularizer": penalty}

    layers = keras.layers
    mobile = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=3)
    inner = keras.Sequential([keras.Input((5, 4)), layers.Dense(3, name="d")], name="inner")
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, name="embed")(tokens)
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True, name="lstm"), name="bi")(x)
    x = layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)], return_sequences=True)(x)
    x = layers.Dropout(0.2)(inner(x))
    recurrent = keras.Model(tokens, layers.Dense(2, kernel_regularizer="l1", name="out")(x))
    recurrent.compile("adam", keras.losses.MeanSquaredError())  # Keras can't load "mse" from .h5
    recurrent.fit(np.ones((4, 5), "int32"), np.ones((4, 5, 2)), verbose=0)
    custom = keras.Sequential([keras.Input((3,)), layers.Dense(3), Scale(name="scale")])
    found = {}
    for name, model in {"mobile": mobile, "recurrent": recurrent, "custom": custom}.items():
        for suffix in ("keras", "h5"):
            found[f"{name}.{suffix}"] = folder / f"{name}.{suffix}"
            model.save(folder / f"{name}.{suffix}")
    return found


LOAD = """
    import json, os, sys
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    {imports}
    import numpy as np
    found = {{}}
    for path in sys.argv[1:]:
        model = load(path)
        kernels = [w for layer in model._flatten_layers() for w in layer.weights]
        seen, expected = set(), 0.0
        for w in kernels:
            if id(w) not in seen and w.{name}.split("/")[-1].split(":")[0] == "kernel":
                seen.add(id(w))
                expected += 1e-4 * float(np.sum(np.square(np.asarray(w, "float64"))))
        optimizer = getattr(model, "optimizer", None)
        optimizer = optimizer and int(np.asarray(optimizer.iterations))
        found[path] = [float(sum(model.losses)), expected, optimizer]
    assert "graphwd" not in sys.modules
    print(json.dumps(found))
"""


def test_stock_keras_loads_what_was_written(saved, tmp_path):
    written = {}
    for name, source in saved.items():
        if not name.startswith("custom"):
            written[name] = tmp_path / name
            rule = Rule(l2(1e-4), roles=["kernel", "depthwise"])  # both variables are a `kernel`
            plan = rewrite_file(source, tmp_path / name, Policy([rule]))
            assert len(plan) > 3
            assert compare_weights(source, tmp_path / name) == []
    code = LOAD.format(imports="import keras; load = keras.saving.load_model", name="path")
    results = json.loads(run(code, *written.values()).splitlines()[-1])
    for name, path in written.items():
        penalty, expected, steps = results[str(path)]
        assert penalty == pytest.approx(expected, rel=1e-4)
        assert penalty > 0
        assert steps == (1 if name.startswith("recurrent") else None)


def test_a_class_that_can_not_be_imported_is_no_obstacle(saved, tmp_path):
    for name in ("custom.keras", "custom.h5"):
        code = textwrap.dedent(BLOCKER) + textwrap.dedent("""
            from graphwd.saved.archive import rewrite_file
            from tests.support.saved_models import POLICY
            print([edit.path for edit in rewrite_file(*sys.argv[1:], POLICY)])
            """)
        assert "'scale/kernel'" in run(code, saved[name], tmp_path / name)
        import keras

        model = keras.saving.load_model(tmp_path / name)  # the class is registered here
        assert len(model.losses) == 2


def test_every_member_of_a_real_archive_is_untouched(saved, tmp_path):
    target = tmp_path / "b.keras"
    rewrite_file(saved["recurrent.keras"], target, POLICY)
    with zipfile.ZipFile(saved["recurrent.keras"]) as before, zipfile.ZipFile(target) as after:
        assert before.namelist() == after.namelist()
        for name in before.namelist():
            assert (before.read(name) == after.read(name)) == (name != "config.json")
        config = json.loads(before.read("config.json"))
        assert json.dumps(config) == before.read("config.json").decode()


def test_a_file_names_its_unreached_weights(tmp_path):
    import keras

    class Block(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.inner = keras.layers.Dense(2)

        def build(self, shape):
            self.inner.build(shape)
            self.built = True

        def call(self, inputs):
            return self.inner(inputs)

        def get_config(self):
            return {**super().get_config(), "name": self.name}

    inner = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, name="same"), Block(name="block")], name="inner"
    )
    inputs = keras.Input((3,))
    x = inner(Block(name="first")(keras.layers.Dense(2, name="same")(inputs)))
    x = keras.layers.BatchNormalization(scale=False, center=False)(x)
    model = keras.Model(inputs, keras.layers.Dropout(0.1)(x))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"a.{suffix}")
        found = unreached(tmp_path / f"a.{suffix}")
        assert [(layer.path, layer.layer, layer.arrays) for layer in found] == [
            ("first", "Block", 2),
            ("inner/block", "Block", 2),
        ]


MAKE_LEGACY = """
    import os, sys
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tf_keras as keras
    from tf_keras import layers
    inner = keras.Sequential([layers.Dense(3, input_shape=(4,), name="d")], name="inner")
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, kernel_regularizer=keras.regularizers.l2(0.5), name="conv")(inputs)
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3)(x))
    x = inner(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    model.compile("sgd", "mse")
    model.save(sys.argv[1])
"""


def test_tf_keras_loads_what_was_written(tmp_path):
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("needs tf_keras")
    source, target = tmp_path / "a.h5", tmp_path / "b.h5"
    run(MAKE_LEGACY, source)
    plan = rewrite_file(source, target, POLICY)
    assert sorted(edit.path for edit in plan) == ["conv/kernel", "inner/d/kernel", "out/kernel"]
    assert compare_weights(source, target) == []
    assert unreached(source) == []
    code = LOAD.format(imports="import tf_keras; load = tf_keras.models.load_model", name="name")
    penalty, expected, _ = json.loads(run(code, target).splitlines()[-1])[str(target)]
    assert penalty == pytest.approx(expected, rel=1e-4)
