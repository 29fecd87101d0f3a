"""Working directories with saved models in them."""

import keras
import numpy as np
import pytest

from tests.support.saved_models import write_h5, write_keras


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small compiled model, saved by Keras."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv_1")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depth")(x)
    x = keras.layers.Conv2D(4, 3, name="conv_2")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    model.compile("adam", keras.losses.MeanSquaredError())
    model.fit(np.ones((4, 8, 8, 3)), np.ones((4, 2)), verbose=0)  # Keras saves a used optimizer
    folder = tmp_path_factory.mktemp("models")
    model.save(folder / "model.keras")
    model.save(folder / "model.h5", include_optimizer=False)
    return folder


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    """A working directory with the saved models and a policy in it."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "decay.toml").write_text('[[rules]]\nroles = "kernel"\nl2 = 1e-3\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """A working directory with two archives that no Keras has made."""
    write_keras(tmp_path / "a.keras")
    write_h5(tmp_path / "b.h5")
    monkeypatch.chdir(tmp_path)
    return tmp_path
