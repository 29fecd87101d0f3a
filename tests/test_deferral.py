"""Layers made while their variables wait for values: as Keras makes them, in one thread only."""

from __future__ import annotations

import threading
import types

import keras
import numpy as np
import pytest

from graphwd import _keras, backends
from graphwd._keras import making

LAYERS = {
    "dense": (lambda: keras.layers.Dense(3, activation="relu", kernel_regularizer="l2"), (None, 4)),
    "depthwise": (lambda: keras.layers.DepthwiseConv2D(3, padding="same"), (None, 8, 8, 3)),
    "batch": (lambda: keras.layers.BatchNormalization(), (None, 8, 8, 3)),
    "recurrent": (
        lambda: keras.layers.Bidirectional(keras.layers.LSTM(3, dropout=0.1)),
        (None, 5, 4),
    ),
    "dropout": (lambda: keras.layers.Dropout(0.5, seed=3), (None, 4)),
    "model": (lambda: keras.Sequential([keras.layers.Dense(2)]), (None, 4)),
}


class Listing(keras.layers.Layer):
    """Keeps what is tracked, and what is not, in every kind of attribute."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.found = None
        self.found = keras.layers.Dense(2)
        self.held = [keras.layers.Dense(3)]
        self.named = {"one": keras.layers.Dense(4)}
        self.number = 3
        self.number = keras.layers.Dense(5)
        self.mean = keras.metrics.Mean()
        self.seeds = keras.random.SeedGenerator(1)

    def build(self, shape):
        self.scale = self.add_weight(shape=(2,), name="scale")

    @property
    def halved(self):
        return self._halved

    @halved.setter
    def halved(self, value):
        self._halved = value / 2


def _described(layer: keras.Layer) -> dict[str, object]:
    plain = (str, int, float, bool, tuple, types.NoneType)
    return {
        name: (type(value).__name__, value if isinstance(value, plain) else None)
        for name, value in vars(layer).items()
        if not name.endswith(("_name", "_id", "_path")) and name not in ("name", "_obj_type")
    }


@pytest.mark.parametrize("kind", [*LAYERS, "listing"])
def test_a_layer_made_while_deferred_is_as_keras_makes_it(kind):
    make, shape = LAYERS.get(kind, (Listing, (None, 2)))

    def made():
        layer = make()
        layer.build(shape)
        return layer

    usual = made()
    with making.deferred(backends.placeholder) as waiting:
        ours = made()
        for variable in waiting:
            making.draw(variable)
    assert _described(ours) == _described(usual)
    assert [v.name for v in ours.weights] == [v.name for v in usual.weights]
    assert [len(part) for part in _keras.own_variables(ours)] == [
        len(part) for part in _keras.own_variables(usual)
    ]
    assert [type(layer) for layer in _keras.sublayers(ours)] == [
        type(layer) for layer in _keras.sublayers(usual)
    ]


def test_properties_are_set_as_properties_while_deferred():
    with making.deferred(backends.placeholder):
        layer = Listing()
        layer.halved = 4
        layer.trainable = False
    assert layer.halved == 2
    assert not layer.held[0].trainable


def test_other_threads_make_layers_with_values_meanwhile():
    made = []

    def other():
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        made.append(layer)

    with making.deferred(backends.placeholder) as waiting:
        ours = keras.layers.Dense(2)
        ours.build((None, 3))
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert [v.path for v in waiting] == [v.path for v in ours.variables]
    assert np.any(keras.ops.convert_to_numpy(made[0].kernel))


def test_overlapping_rewrites_in_two_threads_leave_keras_as_it_was():
    before = {
        (owner, name): getattr(owner, name)
        for owner, name in (
            (keras.Layer, "__setattr__"),
            (making.VARIABLE, "_initialize_with_initializer"),
            (making.VARIABLE, "_direct_assign"),
        )
    }
    inside, leave = threading.Event(), threading.Event()

    def other():
        with making.deferred(backends.placeholder):
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with making.deferred(backends.placeholder):
        thread.start()
        assert inside.wait(30)
    assert making.VARIABLE._direct_assign is not before[making.VARIABLE, "_direct_assign"]
    leave.set()
    thread.join()
    assert {key: getattr(*key) for key in before} == before
    assert keras.layers.Dense(2).built is False
