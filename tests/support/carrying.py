"""Layers whose configs tell nothing of their weights, and models of them that carry penalties."""

import keras
import numpy as np
import pytest

from tests.support.layers import Block


@keras.saving.register_keras_serializable(package="tests")
class Tower(keras.Model):
    """A Functional subclass with a constructor and a config of its own, as keras-hub's are."""

    def __init__(self, width=4, **kwargs):
        inputs = keras.Input((3,))
        hidden = Block(width, name="block_1")(inputs)
        hidden = Block(width, name="block_2")(hidden)
        outputs = keras.layers.Dense(2, name="head")(hidden)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.width = width

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, "width": self.width}

    def head_units(self):
        return self.get_layer("head").units


def plain_model():
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2, name="head")(Block(name="block")(inputs))
    return keras.Model(inputs, outputs, name="plain")


def expected(variables, factor=1e-2):
    return factor * sum(float(np.sum(np.asarray(v, "float64") ** 2)) for v in variables)


def assert_penalised(model, factor=1e-2):
    assert model.trainable_variables
    assert len(model.losses) == len(model.trainable_variables)
    total = sum(float(loss) for loss in model.losses)
    assert total == pytest.approx(expected(model.trainable_variables, factor), rel=1e-5)


def assert_reloads(model, path):
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert [float(x) for x in loaded.losses] == pytest.approx([float(x) for x in model.losses])
    assert len(loaded.losses) == len(model.losses) > 0
    return loaded
