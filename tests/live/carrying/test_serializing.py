"""A live model's config is told as Keras itself writes it."""

from __future__ import annotations

import keras
import pytest

import graphwd
from graphwd.graph import slots, values
from graphwd.live.carrying.serializing import serialize_layer
from tests.support.sample_models import sample_models


def keras_writes(model):
    serialized = keras.saving.serialize_keras_object(model)
    serialized.pop("compile_config", None)
    return slots.strip_carried(serialized)


def assert_same(model):
    assert not list(values.differences(keras_writes(model), serialize_layer(model)))
    assert not list(values.differences(serialize_layer(model), keras_writes(model)))


@pytest.mark.parametrize("name", sample_models())
def test_a_model_is_told_as_keras_writes_it(name):
    assert_same(sample_models()[name]())


@pytest.mark.parametrize("name", ["nested_backbone", "transformer", "siamese"])
def test_what_a_model_carries_is_left_out(name):
    model = graphwd.rewrite(sample_models()[name](), graphwd.Rule(graphwd.weight_decay(1e-3)))
    assert_same(model)


def test_compile_state_is_left_out_of_the_model_but_told_of_models_inside():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="inner")
    inner.compile("sgd", "mse")
    outer = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(1)])
    outer.compile("adam", "mse")
    serialized = serialize_layer(outer)
    assert "compile_config" not in serialized
    assert_same(outer)


def test_an_output_may_be_that_of_a_model_inside():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="inner")
    inputs = keras.Input((4,))
    functional = keras.Model(inputs, keras.layers.Dense(3)(inputs), name="functional_inside")
    outer = keras.Input((4,))
    assert_same(keras.Model(outer, [inner(outer), functional(outer), functional(outer)]))


def test_a_class_of_a_notebook_is_told_without_a_module():
    layer = type("Scale", (keras.layers.Dense,), {"__module__": "__main__"})(2)
    model = keras.Sequential([keras.Input((4,)), layer])
    assert serialize_layer(layer)["module"] is None
    assert_same(model)
