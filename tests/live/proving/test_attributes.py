"""Two objects by their public attributes: what no config tells is compared, too."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import graphwd
from tests.support.copies import dense
from tests.support.verified import assert_refused, change, set_first

FAULTS = {
    "an exclusion lost": (
        lambda c: c.optimizer.exclude_from_weight_decay(var_names=["nothing"]),
        "decays",
    ),
    "a shared optimizer": (lambda c: setattr(c, "optimizer", c.original.optimizer), "same object"),
    "an attribute changed": (lambda c: setattr(c.get_layer("dense"), "units", 4), "units"),
    "another attribute": (lambda c: setattr(c.get_layer("dense"), "extra", 4), "extra"),
    "a namesake": (
        lambda c: setattr(c.get_layer("dense"), "activation", keras.activations.gelu),
        "activation",
    ),
    "an array drawn anew": (
        lambda c: setattr(c.get_layer("dense"), "array", np.random.default_rng().normal(size=3)),
        "array",
    ),
    "a remat mode lost": (
        lambda c: setattr(c.get_layer("dense"), "_remat_mode", None),
        "remat_mode",
    ),
    "a shared variable": (
        lambda c: vars(c.get_layer("dense")).update(note=[c.original.get_layer("dense").kernel]),
        "same object",
    ),
    "run eagerly": (lambda c: setattr(c, "run_eagerly", True), "run_eagerly"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_refused(fault):
    with keras.RematScope(mode="full"):
        model = dense(activation=keras.ops.gelu)
    model.get_layer("dense").array = np.ones(3)
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse", run_eagerly=False)
    copy = graphwd.rewrite(model, "l2")
    assert graphwd.verify(model, copy, "l2").ok
    make, words = FAULTS[fault]
    vars(copy)["original"] = model if "shared" in fault else None
    make(copy)
    del vars(copy)["original"]
    report = graphwd.verify(model, copy, "l2")
    assert any(words in problem for problem in report.problems), report


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's own")
def test_requires_grad():
    model = dense()
    model.get_layer("dense").kernel.value.requires_grad_(False)
    copy = graphwd.rewrite(model, "l2")
    assert not copy.get_layer("dense").kernel.value.requires_grad
    copy.get_layer("dense").kernel.value.requires_grad_(True)
    assert not graphwd.verify(model, copy, "l2").ok


# ---------------------------------------------------------------- state that no layer tracks
class Scale:
    """A plain object with a variable, which Keras does not track."""

    def __init__(self):
        self.factor = keras.Variable([2.0, 3.0])


class Scaled(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = Scale()

    def call(self, inputs):
        return inputs * self.scale.factor


def test_a_variable_of_a_plain_object_counts():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(2)(Scaled(name="scaled")(inputs)))
    rewritten = graphwd.rewrite(model, "l2")
    assert graphwd.verify(model, rewritten, "l2").ok
    change(rewritten.get_layer("scaled").scale.factor, set_first)
    assert_refused(graphwd.verify(model, rewritten, "l2"), "scaled")
