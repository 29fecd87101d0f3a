"""The target of a rewrite: whole or what it was, whatever happens."""

import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from graphwd import writing
from graphwd.errors import ArchiveError, EquivalenceError
from graphwd.policy.regularizers import l2
from graphwd.saved import rewriting, zips
from graphwd.saved.archive import Archive
from graphwd.saved.rewriting import rewrite_file
from tests.support.processes import ENVIRONMENT
from tests.support.saved_models import (
    POLICY,
    compare_weights,
    kernel_of,
    model_config,
    regularized,
    write_h5,
    write_keras,
)


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
    with (
        Archive(source) as opened,
        pytest.raises(ArchiveError, match="exists"),
        opened.written(target, model_config()),
    ):
        target.write_text("theirs")
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
    wrong = rewriting.set_regularizers
    calls = []

    def forgetful(config, edits):
        calls.append(edits)
        return wrong(config, dict(list(edits.items())[1:]) if len(calls) == 1 else edits)

    monkeypatch.setattr(rewriting, "set_regularizers", forgetful)
    with pytest.raises(EquivalenceError, match="not the planned one"):
        rewrite_file(source, target, POLICY)
    monkeypatch.undo()
    copy = zips.Zip.copy_with

    def flips_a_bit(source, name, content, target):
        copy(source, name, content, target)
        target.seek(0)
        place = target.read().index(b"these bytes")
        target.seek(place)
        target.write(b"those")

    monkeypatch.setattr(zips.Zip, "copy_with", flips_a_bit)
    with pytest.raises(EquivalenceError, match="assets/x: the members differ"):
        rewrite_file(source, target, POLICY)
    assert not target.exists()


def test_a_source_that_changes_meanwhile(tmp_path, monkeypatch):
    source, target = write_keras(tmp_path / "a.keras"), tmp_path / "b.keras"
    copy = zips.Zip.copy_with

    def and_somebody_writes(*args):
        copy(*args)
        os.utime(source, ns=(1, 1))

    monkeypatch.setattr(zips.Zip, "copy_with", and_somebody_writes)
    with pytest.raises(ArchiveError, match="was changed while it was read"):
        rewrite_file(source, target, POLICY)
    assert not target.exists()


def test_a_source_that_shrinks_meanwhile(tmp_path, monkeypatch):
    source, target = write_keras(tmp_path / "a.keras"), tmp_path / "b.keras"
    copy = zips.Zip.copy_with

    def after_a_cut(*args):
        os.truncate(source, 1000)
        copy(*args)

    monkeypatch.setattr(zips.Zip, "copy_with", after_a_cut)
    with pytest.raises(ArchiveError, match=r"changed while|became shorter"):
        rewrite_file(source, target, POLICY)
    assert not target.exists()


CHILD = """
    import os, sys
    import graphwd.saved.files
    from graphwd.saved.rewriting import rewrite_file
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
