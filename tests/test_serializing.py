"""A live model's config is told as Keras itself writes it."""

from __future__ import annotations

import contextlib

import keras
import pytest
from keras.src.saving import serialization_lib

import graphwd
from graphwd import slots, values
from graphwd._keras import making
from graphwd.serializing import serialize
from tests.sample_models import sample_models

KERAS_SERIALIZES = serialization_lib.serialize_keras_object


def keras_writes(model):
    serialized = keras.saving.serialize_keras_object(model)
    serialized.pop("compile_config", None)
    return slots.strip_carried(serialized)


def assert_same(model):
    assert not list(values.differences(keras_writes(model), serialize(model)))
    assert not list(values.differences(serialize(model), keras_writes(model)))


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
    serialized = serialize(outer)
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
    assert serialize(layer)["module"] is None
    assert_same(model)


@pytest.mark.parametrize(
    "part",
    [
        keras.initializers.HeNormal(seed=3),
        keras.constraints.MaxNorm(2.0, axis=1),
        keras.regularizers.L1L2(1e-3, 1e-2),
        keras.DTypePolicy("mixed_bfloat16"),
        keras.dtype_policies.QuantizedDTypePolicy("int8"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_parts_are_written_alike_while_keras_is_quickened(part):
    usual = keras.saving.serialize_keras_object({"part": part, "again": [part]})
    with making.quickened():
        assert keras.saving.serialize_keras_object({"part": part, "again": [part]}) == usual


class Scaled(keras.initializers.Initializer):
    def __init__(self, factor=2.0):
        self.factor = factor

    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype) * self.factor

    def get_config(self):
        return {"factor": self.factor}


def plain_objects():
    yield from (1, 2.5, "text", None, True)
    yield from (keras.initializers.HeNormal(3), keras.initializers.Zeros(), Scaled(4.0))
    yield from (keras.regularizers.L1L2(1e-5, 1e-4), keras.regularizers.OrthogonalRegularizer())
    yield from (keras.constraints.MaxNorm(2, axis=[0, 1]), keras.constraints.NonNeg())
    yield from (keras.DTypePolicy("mixed_float16"), keras.dtype_policies.get("int8_from_float32"))
    yield from (keras.activations.relu, keras.activations.linear, keras.activations.softmax)
    yield from (keras.layers.Dense(2, name="dense"), keras.losses.MeanSquaredError())
    yield from ([keras.initializers.Ones(), (1, 2)], {"a": keras.regularizers.L2(0.1)})


@pytest.mark.parametrize("sharing", [False, True])
def test_what_is_asked_once_is_told_as_keras_tells_it(sharing):
    objects = [*plain_objects(), *plain_objects()]
    shared = keras.initializers.HeNormal(1)
    objects += [shared, shared, keras.activations.relu]
    if not sharing:  # Keras goes by the id of the generator's copy, which is gone by then
        seeded = keras.initializers.VarianceScaling(seed=keras.random.SeedGenerator(1))
        objects += [seeded, seeded]

    def told():
        scope = serialization_lib.ObjectSharingScope() if sharing else contextlib.nullcontext()
        with scope:
            each = [serialization_lib.serialize_keras_object(value) for value in objects]
        ids = {}  # of objects that are shared; which they are differs from scope to scope
        for value in each:
            if isinstance(value, dict) and "shared_object_id" in value:
                number = value["shared_object_id"]
                value["shared_object_id"] = ids.setdefault(number, len(ids))
        return each

    expected = told()
    with making.quickened():
        assert serialization_lib.serialize_keras_object is not KERAS_SERIALIZES
        again = told()
    assert again == expected
    assert [list(a) for a in again if isinstance(a, dict)] == [
        list(e) for e in expected if isinstance(e, dict)
    ]
    assert serialization_lib.serialize_keras_object is KERAS_SERIALIZES


def test_what_is_told_of_an_initializer_can_be_edited():
    with making.quickened():
        one, two = (keras.initializers.serialize(keras.initializers.HeNormal(1)) for _ in range(2))
        one["config"]["seed"] = 2
        one["module"] = "elsewhere"
        assert two == keras.initializers.serialize(keras.initializers.HeNormal(1))
