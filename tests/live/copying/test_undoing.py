"""Calls for a layer's place in a graph: whatever they change is as it was."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
from keras import layers

import graphwd


class Remembering(layers.Layer):
    """Its call changes it, and keeps a symbolic tensor."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls, self.log, self.seen = 0, [], {}
        self.inner = layers.Dense(4)

    def call(self, inputs):
        self.calls += 1
        self.log.append(self.calls)
        self.seen[self.calls] = True
        self.last = inputs
        return self.inner(inputs)


def test_a_call_that_changes_the_layer_changes_no_copy():
    inputs = keras.Input((4,))
    layer = Remembering(name="remembering")
    model = keras.Model(inputs, layer(layer(inputs)))
    calls = layer.calls
    copy = graphwd.rewrite(model, "l2")
    assert copy.get_layer("remembering").calls == layer.calls == calls
    assert list(copy.get_layer("remembering").log) == list(layer.log)
    assert dict(copy.get_layer("remembering").seen) == dict(layer.seen)


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda: np.random.RandomState(3), lambda held: held.get_state()[1].tolist()),
        (lambda: random.Random(3), lambda held: held.getstate()),
        (lambda: np.random.default_rng(3), lambda held: held.bit_generator.state),
    ],
    ids=["RandomState", "Random", "Generator"],
)
def test_a_generator_that_a_call_draws_from_is_where_it_was(make, state):
    class Drawing(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.held = make()

        def call(self, inputs):
            draw = getattr(self.held, "random", None) or self.held.random_sample
            return inputs * (1 + draw())

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Drawing(name="drawing")(inputs)))
    before = state(model.get_layer("drawing").held)
    rewritten = graphwd.rewrite(model, "l2", verify=False)
    assert rewritten.get_layer("drawing").held is not model.get_layer("drawing").held
    assert state(model.get_layer("drawing").held) == before
    assert state(rewritten.get_layer("drawing").held) == before
