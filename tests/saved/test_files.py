"""Ranges of files compared with each other, and files brought to disk."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphwd.errors import ArchiveError
from graphwd.saved import files
from graphwd.saved.files import (
    CHUNK,
    Source,
    Window,
    flushed_meanwhile,
    pieces,
    same_content,
)

BLOCK = 4096
AREA = 6 * BLOCK


def same_range(one, start, other, other_start, size):
    return same_content(pieces(one, start, size), pieces(other, other_start, size))


# What stands where in a file of six blocks.
LAYOUTS = st.dictionaries(st.integers(0, AREA - 1), st.sampled_from([b"", b"\0", b"x", b"yy"]))


def written(path, layout, shift=0):
    """A file, and what it holds read plainly."""
    with open(path, "wb") as file:
        file.truncate(AREA + shift)
        for place, data in layout.items():
            file.seek(place + shift)
            file.write(data)
        file.truncate(AREA + shift)
    return path.read_bytes()[shift:]


@given(LAYOUTS, LAYOUTS, st.booleans(), st.integers(0, AREA), st.integers(0, 300), st.data())
def test_a_range_is_the_same_if_its_bytes_are(tmp_path_factory, one, other, equal, start, shift, d):
    folder = tmp_path_factory.mktemp("ranges")
    mine = written(folder / "one", one)
    theirs = written(folder / "other", one if equal else other, shift)
    size = d.draw(st.integers(0, AREA - start))
    expected = mine[start : start + size] == theirs[start : start + size]
    with (
        Source(folder / "one") as a,
        Source(folder / "other") as b,
        pytest.MonkeyPatch.context() as m,
    ):
        m.setattr(files, "CHUNK", 1000)
        assert same_range(a, start, b, start + shift, size) is expected
        window = Window(b.file, shift, AREA)
        assert same_range(a, start, window, start, size) is expected


@pytest.mark.parametrize("place", [0, CHUNK - 1, CHUNK, 2 * CHUNK + 5])
def test_one_bit_in_any_piece(tmp_path, place):
    data = os.urandom(2 * CHUNK + 6)
    changed = bytearray(data)
    changed[place] ^= 1
    (tmp_path / "one").write_bytes(data)
    (tmp_path / "other").write_bytes(b"abc" + changed)
    with Source(tmp_path / "one") as one, Source(tmp_path / "other") as other:
        assert same_range(one, 0, one, 0, len(data))
        assert not same_range(one, 0, other, 3, len(data))
        assert same_range(one, 0, other, 3, place)


def test_a_range_that_ends_beyond_its_file_is_an_error(tmp_path):
    (tmp_path / "one").write_bytes(b"1234567890")
    with Source(tmp_path / "one") as source:
        with pytest.raises(ArchiveError, match="ends before"):
            same_range(source, 0, source, 5, 6)
        with pytest.raises(OSError, match="cut off"):
            same_range(source, 0, Window(source.file, 2, 4), 0, 5)
        with pytest.raises(OSError, match="cut off"):
            same_range(source, 0, Window(source.file, 2), 0, 9)


def test_what_the_disk_refuses_is_said_after_the_block(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ran = []
    with open(tmp_path / "one", "wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space left"), flushed_meanwhile(file):
            ran.append(True)
        with pytest.raises(KeyError), flushed_meanwhile(file):
            raise KeyError
    assert ran == [True]


def test_without_a_thread_it_is_brought_to_disk_after_the_block(tmp_path, monkeypatch):
    def none_left(*args):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    monkeypatch.setattr(threading.Thread, "start", none_left)
    with open(tmp_path / "one", "wb", buffering=0) as file:
        with flushed_meanwhile(file):
            assert flushed == []
        assert flushed == [file.fileno()]
