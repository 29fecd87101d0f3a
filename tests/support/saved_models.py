"""Small saved models made without Keras, and the pieces to damage them."""

import io
import json
import os
import struct
import zipfile

import h5py
import numpy as np
import pytest

from graphwd.errors import ArchiveError
from graphwd.policy.policies import Policy, Rule
from graphwd.policy.regularizers import l2
from graphwd.saved import rewriting
from graphwd.saved.archive import Archive
from tests.support.serialized import thing

POLICY = Policy([Rule(l2(1e-4), roles="kernel")])


def dense(name, units=3, module="keras.layers", class_name="Dense", **config):
    return thing(class_name, module, name=name, units=units, use_bias=True, **config)


def regularized(name, **config):
    return dense(name, kernel_regularizer=None, bias_regularizer=None, **config)


def model_config(*layers, **top):
    layers = list(layers or [regularized("one"), regularized("two")])
    return {
        **thing("Sequential", "keras", name="model", layers=layers),
        "compile_config": {"optimizer": "adam", "loss": "mse"},
        **top,
    }


def weights_bytes(edit=None):
    """A `.weights.h5` file as Keras lays it out, with an array edited by a function."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for number, name in enumerate(("one", "two")):
            key = f"layers/dense{f'_{number}' if number else ''}/vars"
            group = file.create_group(key)
            group.attrs["name"] = name
            group["0"] = np.arange(12, dtype="float32").reshape(4, 3) + number
            group["1"] = np.full(3, np.nan, dtype="float32")
        if edit is not None:
            edit(file)
    return stream.getvalue()


def write_keras(path, config=None, weights=None, *, text=None, method=zipfile.ZIP_STORED, more=()):
    """A `.keras` archive; `text` replaces the JSON of `config`, `more` are further members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        content = json.dumps(model_config() if config is None else config) if text is None else text
        archive.writestr("config.json", content)
        archive.writestr("model.weights.h5", weights_bytes() if weights is None else weights)
        for name, data in more:
            archive.writestr(name, data)
    return path


def write_h5(path, config=None, edit=None, *, text=None):
    """A whole-model `.h5` file."""
    with h5py.File(path, "w") as file:
        content = json.dumps(model_config() if config is None else config) if text is None else text
        file.attrs["model_config"] = content.encode() if isinstance(content, str) else content
        file.attrs["training_config"] = b'{"loss": "mse"}'
        file.attrs["keras_version"] = b"3.15.1"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"one", b"two"]
        for name in ("one", "two"):
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [f"{name}/kernel".encode(), f"{name}/bias".encode()]
            inner[f"{name}/kernel"] = np.arange(12, dtype="float32").reshape(4, 3)
            inner[f"{name}/bias"] = np.full(3, np.nan, dtype="float32")
        if edit is not None:
            edit(file)
    return path


def slots_of_file(path):
    with Archive(path) as opened:
        return opened.slots()


def unreached(path):
    with Archive(path) as opened, opened.reach(opened.slots()) as reach:
        return list(reach.unreached)


def compare_weights(one, other):
    with Archive(one) as first, Archive(other) as second:
        return rewriting.compare_archives(first, second)


def kernel_of(path, number=0):
    """The kernel regularizer of one of a file's layers."""
    with Archive(path) as opened:
        return opened.config["config"]["layers"][number]["config"]["kernel_regularizer"]


def refused(path, *words, target=None):
    """Asserts that a file is refused in one line by every function that reads it."""
    for act in (slots_of_file, lambda p: rewriting.plan_file(p, POLICY)):
        with pytest.raises(ArchiveError) as error:
            act(path)
    target = path.parent / "target.keras" if target is None else target
    before = target.read_bytes() if target.exists() else None
    with pytest.raises(ArchiveError) as error:
        rewriting.rewrite_file(path, target, POLICY, overwrite=True)
    assert (target.read_bytes() if target.exists() else None) == before
    assert not list(target.parent.glob(".graphwd*"))
    message = str(error.value)
    assert message.endswith(".")
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


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
