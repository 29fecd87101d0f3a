"""A saved model that is open: known by its content, and copied but for its config."""

import json
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from graphwd.errors import ArchiveError
from graphwd.policy.policies import Policy, Rule
from graphwd.policy.regularizers import l2
from graphwd.saved.archive import Archive
from graphwd.saved.rewriting import rewrite_file
from tests.support.saved_models import (
    POLICY,
    compare_weights,
    kernel_of,
    model_config,
    refused,
    regularized,
    weights_bytes,
    write_h5,
    write_keras,
)


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
