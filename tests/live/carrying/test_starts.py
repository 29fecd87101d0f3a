"""Starts: they stay with their layers, through files, clones and other models."""

import io
import json
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import graphwd
from tests.support.processes import run
from tests.support.started import batches, by_hand, compiled, fit, network, penalised, trained


def test_weight_files_are_those_of_the_original(tmp_path):
    original, (model, start) = network(), trained()
    original.save_weights(tmp_path / "original.weights.h5")
    model.save_weights(tmp_path / "model.weights.h5")
    plain = compiled(network())
    plain.load_weights(tmp_path / "model.weights.h5")
    for one, two in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    model.load_weights(tmp_path / "original.weights.h5", skip_mismatch=True)
    assert sum(map(float, model.losses)) == pytest.approx(by_hand(model, start), abs=1e-9)


def test_a_file_has_the_start_once_and_training_goes_on_from_it(tmp_path):
    model, start = trained()
    path = tmp_path / "model.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assets = [i for i in archive.infolist() if i.filename.endswith("graphwd_starts.npz")]
        config = json.loads(archive.read("config.json"))
    weights = 4 * sum(int(np.prod(v.shape)) for v in penalised(model))
    assert weights < sum(item.file_size for item in assets) < weights + 4000
    assert len(json.dumps(config)) < 40_000
    loaded = keras.saving.load_model(path)
    assert sum(map(float, loaded.losses)) == pytest.approx(by_hand(model, start), rel=1e-5)
    assert sum(map(float, loaded.losses)) > 0
    fit(model, 1)
    fit(loaded, 1)
    for one, two in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    # Keras's files have no seeds
    assert all("seed_generator" in line for line in graphwd.verify(model, loaded).problems)
    loaded.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    assert [float(loss) for loss in again.losses] == [float(loss) for loss in loaded.losses]


def test_a_file_in_another_process_and_layers_numbered_otherwise(tmp_path):
    model, _ = trained()
    model.save(tmp_path / "model.keras")
    code = """
        import sys, keras, graphwd, tests.support.layers
        keras.layers.LSTM(1), keras.layers.Dense(1)
        model = keras.saving.load_model(sys.argv[1])
        print("losses", *(float(loss) for loss in model.losses))
    """
    printed = run(code, tmp_path / "model.keras")
    found = [float(word) for word in printed.split("losses")[-1].split()]
    np.testing.assert_allclose(found, [float(loss) for loss in model.losses], rtol=1e-6)


def test_clones_nesting_and_transfer_learning_keep_the_start(tmp_path):
    model, start = trained()
    expected = by_hand(model, start)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert sum(map(float, clone.losses)) == pytest.approx(expected, rel=1e-5)
    cut = keras.Model(model.inputs, model.get_layer("both").output)
    head = keras.Sequential([cut, layers.Dense(3, name="new")])
    for name, larger in {"cut": cut, "head": head}.items():
        larger.save(tmp_path / f"{name}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert len(penalised(loaded)) == len(penalised(larger)) == 6
        assert [float(loss) for loss in loaded.losses] == [float(loss) for loss in larger.losses]
        assert sum(map(float, loaded.losses)) == pytest.approx(by_hand(cut, start), rel=1e-5)
    compiled(clone).fit(*batches(2), verbose=0)
    assert sum(map(float, model.losses)) == pytest.approx(expected, rel=1e-5)


def test_files_with_starts_are_inspected_verified_and_rewritten(tmp_path):
    model, start = trained()
    model.save(tmp_path / "model.keras")
    assert "L2SP(strength=0.5)" in str(graphwd.inspect(tmp_path / "model.keras"))
    policy = graphwd.Rule(None, paths="last/*")
    graphwd.rewrite_file(tmp_path / "model.keras", tmp_path / "new.keras", policy)
    assert graphwd.verify(tmp_path / "model.keras", tmp_path / "new.keras", policy).ok
    loaded = keras.saving.load_model(tmp_path / "new.keras")
    assert len(penalised(loaded)) == 8
    assert sum(map(float, loaded.losses)) == pytest.approx(by_hand(loaded, start), rel=1e-5)


@pytest.mark.parametrize("fault", ["changed", "lost"])
def test_the_proof_of_two_files_sees_a_start_that_is_changed_or_lost(fault, tmp_path):
    model, _ = trained()
    model.save(tmp_path / "model.keras")
    model.save(tmp_path / "again.keras")
    assert graphwd.verify(tmp_path / "model.keras", tmp_path / "again.keras").ok
    with (
        zipfile.ZipFile(tmp_path / "model.keras") as source,
        zipfile.ZipFile(tmp_path / "wrong.keras", "w") as target,
    ):
        member = next(n for n in source.namelist() if n.endswith("graphwd_starts.npz"))
        for name in source.namelist():
            content = source.read(name)
            if name == member and fault == "changed":
                with np.load(io.BytesIO(content)) as stored:
                    arrays = {key: stored[key].copy() for key in stored.files}
                next(iter(arrays.values()))[0] ^= 1  # one bit of one weight
                written = io.BytesIO()
                np.savez(written, **arrays)
                content = written.getvalue()
            if name != member or fault == "changed":
                target.writestr(name, content)
    (problem,) = graphwd.verify(tmp_path / "model.keras", tmp_path / "wrong.keras").problems
    assert member in problem
