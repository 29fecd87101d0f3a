"""Copies of models, and whether they compute what their originals do."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

import graphwd

X = np.linspace(-1, 1, 8, dtype="float32").reshape(2, 4)


def dense(**arguments) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense", **arguments)])


def same(one, other) -> bool:
    return all(
        np.array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
        for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
    )


def copied(model, x=X, policy="l2"):
    """A copy that computes the same, proves equal, and shares nothing."""
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    copy = graphwd.rewrite(model, policy)
    if x is not None:
        assert same(model(x), copy(x))
    assert graphwd.verify(model, copy, policy).ok
    for variable in copy.variables:
        if "float" in variable.dtype:
            variable.assign(variable + 1)
    assert same(before, model.variables)
    for variable in copy.variables:
        if "float" in variable.dtype:
            variable.assign(variable - 1)
    return copy


class Scaled(keras.Model):
    """As people write it: no build, no get_config, state in plain attributes."""

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.first = layers.Dense(3, activation="relu")
        self.second = layers.Dense(2)

    def call(self, inputs):
        inputs = inputs["a"] if isinstance(inputs, dict) else inputs
        return self.second(self.first(keras.ops.cast(inputs, "float32"))) * self.scale
