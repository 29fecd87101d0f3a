"""Real models for the tests of graphs, where Keras is installed."""

import pytest

from tests.support.serialized import parsed


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def sound(keras):
    """A model with a shared layer, two outputs of an operation, and a call argument."""
    layers = keras.layers
    one, other = keras.Input((8, 8, 3), name="one"), keras.Input((8, 8, 3), name="other")
    shared = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv1")
    difference = layers.Subtract(name="subtract")([shared(one), shared(other)])
    halves = keras.ops.split(difference, 2, axis=-1)
    left = layers.Dense(4, activation="relu", name="left")(halves[0])
    right = layers.Dense(4, name="right")(halves[1])
    left = layers.Dropout(0.5, name="dropout")(left, training=False)
    joined = layers.Concatenate(name="joined")([left, right])
    model = keras.Model([one, other], [joined, difference], name="sound")
    return parsed(keras.saving.serialize_keras_object(model))
