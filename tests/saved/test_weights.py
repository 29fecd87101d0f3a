"""Stored weights: HDF5 that is refused, and arrays that are compared."""

import zipfile

import h5py
import numpy as np
import pytest

import graphwd
from graphwd.errors import ArchiveError
from graphwd.saved.archive import Archive
from tests.support.saved_models import (
    compare_weights,
    refused,
    unreached,
    weights_bytes,
    write_h5,
    write_keras,
)


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
