"""The one writer: what it refuses, what the new file keeps, and what is left when it is stopped."""

import contextlib
import errno
import functools
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import keras
import pytest

import graphwd
from graphwd import writing
from graphwd.cli import models
from graphwd.errors import ArchiveError, GraphwdError, PolicyError
from graphwd.policy.policies import Policy
from graphwd.saved.rewriting import rewrite_file
from tests.support.processes import ENVIRONMENT, run
from tests.support.saved_models import POLICY, write_keras

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return graphwd.plan(write_keras(tmp_path_factory.mktemp("plan") / "a.keras"), POLICY)


@pytest.fixture(scope="module")
def small():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


@pytest.fixture
def ways(plan, small, tmp_path_factory):
    """Every way in which graphwd writes a file: its suffix, and what writes to a path."""
    source = write_keras(tmp_path_factory.mktemp("source") / "a.keras")
    return {
        "file": (".keras", lambda path: rewrite_file(source, path, POLICY, overwrite=True)),
        "live": (".keras", lambda path: models.save(small, str(path), overwrite=True)),
        "live h5": (".h5", lambda path: models.save(small, str(path), overwrite=True)),
        "policy": (".toml", lambda path: POLICY.save(path, overwrite=True)),
        "page": (".html", plan.save_html),
    }


WAYS = ["file", "live", "live h5", "policy", "page"]


def seen(path):
    """What a file is; when somebody looked at it last is no part of that."""
    found = os.lstat(path)
    return (*found[:7], found.st_mtime_ns, found.st_ctime_ns)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_regular_file_is_never_replaced(way, ways, tmp_path):
    suffix, write = ways[way]
    made = {name: tmp_path / f"{name}{suffix}" for name in ("pipe", "socket", "folder", "device")}
    os.mkfifo(made["pipe"])
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(tmp_path):
        listening.bind(made["socket"].name)
    made["folder"].mkdir()
    if os.geteuid() == 0:
        os.mknod(made["device"], stat.S_IFCHR | 0o666, os.makedev(1, 3))
    made["link"] = tmp_path / f"link{suffix}"
    made["link"].symlink_to(os.devnull)
    before = {name: seen(path) for name, path in made.items() if path.exists()}
    null = os.stat(os.devnull)
    for name in before:
        with pytest.raises(GraphwdError, match=r"can't be written: it is (not a reg|a dir).*\.$"):
            write(made[name])
    assert {name: seen(made[name]) for name in before} == before
    assert os.stat(os.devnull).st_ino == null.st_ino
    assert len(list(tmp_path.iterdir())) == len(before)


@pytest.mark.parametrize("way", WAYS)
def test_a_new_file_obeys_the_umask_and_an_old_one_keeps_its_mode(way, ways, tmp_path):
    suffix, write = ways[way]
    path = tmp_path / f"a{suffix}"
    for umask in (0o022, 0o077, 0o027):
        before = os.umask(umask)
        try:
            write(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~umask
            path.chmod(0o604)
            write(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o604
        finally:
            os.umask(before)
        path.unlink()


@pytest.mark.parametrize("way", WAYS)
def test_what_replaces_a_file_keeps_owner_attributes_and_links(way, ways, tmp_path):
    suffix, write = ways[way]
    path, link = tmp_path / f"a{suffix}", tmp_path / f"link{suffix}"
    path.write_text("before")
    link.symlink_to(path)
    if os.geteuid() == 0:
        os.chown(path, 1234, 5678)
    keeps = False
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(path, "user.note", b"mine")
        keeps = True
    write(link)
    assert link.is_symlink()
    assert path.read_bytes() != b"before"
    if os.geteuid() == 0:
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)
    if keeps:
        assert os.getxattr(path, "user.note") == b"mine"
    assert sorted(os.listdir(tmp_path)) == [path.name, link.name]


def test_an_access_control_list_is_kept(plan, tmp_path):
    path = tmp_path / "a.html"
    path.write_text("before")
    # Version 2; user rw, user 1234 r, group r, mask r, others nothing.
    entries = [(1, 6, -1), (2, 4, 1234), (4, 4, -1), (16, 4, -1), (32, 0, -1)]
    packed = b"".join(
        tag.to_bytes(2, "little")
        + rights.to_bytes(2, "little")
        + (who % 2**32).to_bytes(4, "little")
        for tag, rights, who in entries
    )
    try:
        os.setxattr(path, "system.posix_acl_access", b"\2\0\0\0" + packed)
    except (OSError, AttributeError):
        pytest.skip("no access control lists here")
    before = os.getxattr(path, "system.posix_acl_access")
    plan.save_html(path)
    assert os.getxattr(path, "system.posix_acl_access") == before
    assert path.stat().st_size > 100


def test_a_private_source_has_a_private_copy(small, tmp_path):
    source = write_keras(tmp_path / "a.keras")
    source.chmod(0o600)
    rewrite_file(source, tmp_path / "b.keras", POLICY)
    models.save(small, str(tmp_path / "c.keras"), source=str(source))
    for name in ("b.keras", "c.keras"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("broken", ["read-only", "full"])
def test_the_systems_own_reason_is_said(way, broken, ways, tmp_path):
    suffix, write = ways[way]
    if os.geteuid() != 0:
        pytest.skip("needs a file system of its own")
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=4k" if broken == "full" else "size=100k"
    mount = ["mount", "-t", "tmpfs", "-o", options, "graphwd", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("can't mount a file system here")
    try:
        path = disk / f"a{suffix}"
        path.write_text("before")
        if broken != "full":
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        reason = os.strerror(errno.ENOSPC if broken == "full" else errno.EROFS)
        with pytest.raises(
            (ArchiveError, PolicyError), match=f"can't be written: {reason}; what"
        ) as told:
            write(path)
        assert str(told.value).count("\n") == 0
        assert path.read_text() == "before"
        assert not list(disk.glob(".graphwd*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_may_be_written_but_not_read(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs another user")
    box = tmp_path / "box"
    box.mkdir()
    for folder in [tmp_path, *tmp_path.parents]:
        folder.chmod(0o755)
        if folder.name.startswith("pytest-of-"):
            break
    box.chmod(0o733)
    code = """
        import os, sys
        from graphwd import writing
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        writing.write_whole(sys.argv[1], b"new", overwrite=False)
        writing.write_whole(sys.argv[1], b"newer", overwrite=True)
        with writing.replacing_by_name(sys.argv[2], overwrite=False) as name:
            open(name, "w").write("new")
    """
    run(code, box / "a", box / "b.keras")
    assert (box / "a").read_bytes() == b"newer"
    assert sorted(os.listdir(box)) == ["a", "b.keras"]


def test_nothing_is_no_path(plan):
    for path in (None, 3, object()):
        with pytest.raises(ArchiveError, match="is no path"):
            plan.save_html(path)
        with pytest.raises(ArchiveError, match="is no path"):
            rewrite_file(path, "b.keras", POLICY)


def test_bytes_and_names_that_are_not_utf8(plan, tmp_path):
    source = os.fsencode(write_keras(tmp_path / "a.keras"))
    odd = os.fsencode(tmp_path) + b"/\xff.keras"
    assert len(rewrite_file(source, odd, POLICY)) == 2
    again = graphwd.plan(odd, POLICY)
    assert "0 of the" in str(again)
    again.save_html(os.fsencode(tmp_path) + b"/\xff.html")
    assert graphwd.verify(source, odd, POLICY).ok
    assert len(graphwd.inspect(source).to_dict()["slots"])


# Stopped

SAVING = """
    import os, sys, time
    import keras
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.name = "stopped"
    save = type(model).save

    def slow(self, path, **options):
        save(self, path, **options)
        os.write(1, b"ready" + bytes([10]))  # standard output itself goes elsewhere meanwhile
        try:
            time.sleep(60)
        except BaseException:  # as Keras does while it saves
            time.sleep(60)

    type(model).save = slow
    keras.applications.MobileNet = lambda weights=None: model
    from graphwd.__main__ import main
    main()
"""
DRAWING = """
    import sys, time
    import io
    from graphwd import writing
    from graphwd.__main__ import main
    from graphwd.plans import page

    def slow(path, data, overwrite):
        with writing.replacing(path, overwrite=overwrite) as file:
            file.write(data[: len(data) // 2])
            print("ready", flush=True)
            time.sleep(60)

    page.write_whole = slow
    if sys.argv.pop(1) == "named":
        import os
        del os.O_TMPFILE
    main()
"""


@LINUX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (SAVING, ["rewrite", "app:MobileNet", "out.keras", "--recipe", "vgg"]),
        (SAVING, ["rewrite", "app:MobileNet", "out.h5", "--recipe", "vgg"]),
        (DRAWING, ["anonymous", "report", "a.keras", "-o", "out.html"]),
        (DRAWING, ["named", "report", "a.keras", "-o", "out.html"]),
    ],
)
def test_a_signal_leaves_nothing_behind(tmp_path, code, arguments, number):
    if number == signal.SIGINT and code is SAVING:
        pytest.skip("Ctrl-C is Keras's to pass on")
    write_keras(tmp_path / "a.keras")
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Whoever runs the tests in the background of a shell has them started deaf to some signals.
    hearing = functools.partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(
        command, env=ENVIRONMENT, cwd=tmp_path, preexec_fn=hearing, **pipes
    ) as child:
        assert child.stdout.readline() == b"ready\n", child.stderr.read().decode()
        child.send_signal(number)
        began = time.monotonic()
        child.wait(30)
        assert time.monotonic() - began < 20
    assert child.returncode == (130 if number == signal.SIGINT else -number)
    assert os.listdir(tmp_path) == ["a.keras"]


def fill_folder(target, name, text, error=None):
    with writing.replacing_folder(target, overwrite=True) as inner:
        Path(inner, name).write_text(text)
        if error is not None:
            raise error


def test_a_stopped_folder_is_put_back(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "x").write_text("before")
    for error in (KeyboardInterrupt, OSError(28, "No space left on device")):
        with pytest.raises((KeyboardInterrupt, ArchiveError)):
            fill_folder(target, "x", "after", error)
        assert (target / "x").read_text() == "before"
        assert os.listdir(tmp_path) == ["folder"]
    with pytest.raises(ArchiveError, match="exists; "):
        writing.check_target(target, overwrite=False, folder=True)
    fill_folder(target, "y", "after")
    assert os.listdir(target) == ["y"]
    assert os.listdir(tmp_path) == ["folder"]


def test_a_folder_that_can_not_get_its_name_leaves_the_old_one(tmp_path, monkeypatch):
    target, rename = tmp_path / "b", os.rename
    fill_folder(target, "x", "2")
    failing = iter([False, True])

    def second_fails(one, other):
        if next(failing, False):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        rename(one, other)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(ArchiveError, match="Permission denied; what was there"):
        fill_folder(target, "x", "3")
    assert (target / "x").read_text() == "2"
    assert os.listdir(tmp_path) == ["b"]


def test_a_policy_is_not_read_from_a_device_or_without_end(tmp_path):
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "large.json").write_bytes(b" " * (2 << 20))
    for name, words in [
        ("zero.toml", "not a regular file"),
        ("pipe.json", "not a regular file"),
        ("large.json", "larger than 1 MiB"),
    ]:
        with pytest.raises(PolicyError, match=words):
            Policy.load(tmp_path / name)
