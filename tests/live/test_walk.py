"""Walking live layers: what each weight is called, and what is paired with what."""

import keras
import pytest
from keras import layers, regularizers

import graphwd
from graphwd.live import survey, walk
from graphwd.policy.policies import Rule


class Unnamed(layers.Layer):
    """A layer that leaves the names of its weights to Keras."""

    def build(self, shape):
        self.first = self.add_weight(shape=(shape[-1],))
        self.named = self.add_weight(shape=(2,), name="scale")
        self.second = self.add_weight(shape=(shape[-1],))

    def call(self, x):
        return x * self.first + self.second


class Nested(layers.Layer):
    """A layer that leaves the names of its sublayers to Keras, but for one."""

    def build(self, shape):
        self.inner = [layers.Dense(3), layers.Dense(3, name="own"), Unnamed(), layers.Dense(3)]
        for layer in self.inner:
            layer.build(shape)

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


PATHS = [
    *("nested/dense/kernel", "nested/dense/bias", "nested/own/kernel", "nested/own/bias"),
    *("nested/unnamed/variable", "nested/unnamed/scale", "nested/unnamed/variable_1"),
    *("nested/dense_1/kernel", "nested/dense_1/bias"),
]


def nested():
    inputs = keras.Input((3,))
    return keras.Model(inputs, Nested(name="nested")(inputs))


def test_names_do_not_depend_on_what_was_built_before():
    def build():
        inputs = keras.Input((3,))
        x = Unnamed(name="one")(inputs)
        return keras.Model(inputs, Unnamed(name="two")(x))

    roles = ["variable", "scale", "variable_1"] * 2
    assert [one.path for one in survey.survey(nested()).slots if one.shapes] == PATHS
    assert [one.path for one in survey.survey(nested()).slots if one.shapes] == PATHS
    for _ in range(2):
        model = build()
        found = survey.survey(model).slots
        assert [one.role for one in found if one.role != "activity"] == roles
    policy = Rule(regularizers.L2(0.5), paths="two/variable_1", expect=1)
    rewritten = graphwd.rewrite(model, policy)
    assert len(rewritten.losses) == 1
    assert rewritten.get_layer("two").second.regularizer is not None


def test_every_weight_is_found_once_and_in_keras_order():
    shared = layers.Dense(3, name="shared")
    inputs = keras.Input((3,))
    inner = keras.Model(inputs, shared(inputs), name="inner")
    model = keras.Sequential([inputs, inner, layers.BatchNormalization(), shared])
    inner.trainable = False
    found = walk.weights(model)
    assert [(weight.names[-1], weight.variable.name) for weight in found] == [
        *(("shared", "kernel"), ("shared", "bias")),
        *((model.layers[1].name, "gamma"), (model.layers[1].name, "beta")),
    ]
    owners = [id(layer) for *_, layer in walk.layers_within(model)]
    assert len(owners) == len(set(owners))
    assert {id(layer) for layer in (model, *model.layers, *inner.layers[1:])} <= set(owners)
    inner.trainable = True
    assert [id(weight.variable) for weight in found] == [id(v) for v in model.trainable_variables]


class Tied(layers.Layer):
    """It has the weight of another layer for its own, too."""

    def __init__(self, other):
        super().__init__()
        self.other = other

    def build(self, shape):
        self.other.build(shape)
        self.kernel = self.other.kernel

    def call(self, x):
        return self.other(x) @ keras.ops.transpose(self.kernel)


def test_a_weight_that_two_layers_track_is_one():
    tied = Tied(layers.Dense(2, use_bias=False, name="inner"))
    tied(keras.Input((3,)))
    (weight,) = walk.weights(tied)
    assert (weight.owner, weight.variable) == (tied, tied.other.kernel)


def test_layers_are_paired_by_name_or_else_by_place():
    def build(*names):
        return keras.Sequential(
            [keras.Input((3,), name="x"), *(layers.Dense(3, name=n) for n in names)]
        )

    model = build("a", "b")
    for other, expected in (
        (build("b", "a"), {"a": "a", "b": "b"}),
        (build("c", "d"), {"a": "c", "b": "d"}),
    ):
        pairs = walk.pair_layers(model, other)
        assert (model, other) in pairs
        told = {ours.name: theirs.name for ours, theirs in pairs}
        assert {name: told[name] for name in "ab"} == expected
        variables = walk.pair_variables(pairs)
        assert [ours.name for ours, _ in variables] == ["kernel", "bias"] * 2
        assert {id(ours) for ours, _ in variables} == {id(v) for v in model.variables}
        assert {id(theirs) for _, theirs in variables} == {id(v) for v in other.variables}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: [layers.Dense(3)], "holds 3 sublayers but 2"),
        (lambda: [layers.Dense(3), layers.ReLU()], "in its place in the other"),
        (lambda: [layers.Dense(3), layers.Dense(4)], "has the variables"),
        (lambda: [layers.Dense(3), layers.Dense(3, dtype="bfloat16")], "has the variables"),
    ],
)
def test_what_is_no_counterpart_is_an_error_that_names_the_layer(change, words):
    one = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(3)])
    other = keras.Sequential([keras.Input((3,)), *change()])
    with pytest.raises(graphwd.ModelError, match=words) as caught:
        walk.pair_variables(walk.pair_layers(one, other))
    assert any(f"'{layer.name}'" in str(caught.value) for layer in (one, *one.layers))
