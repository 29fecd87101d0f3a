"""What private attributes tell of a graph is what Keras's public methods say of it."""

import json

import keras
import pytest
from keras import layers

from graphwd.live import _keras
from tests.support.sample_models import sample_models

SAMPLES = sample_models()
GRAPHS = [name for name in SAMPLES if name != "sequential_unbuilt"]


class Subclassed(keras.Model):
    def __init__(self):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(2)(inputs))


class Renamed(keras.Model):
    """It takes what a Functional model takes."""


class Configured(keras.Model):
    """It tells of itself in its own way."""

    def get_config(self):
        return super().get_config()


class Called(keras.Model):
    def call(self, x):
        return x


def functional(cls=keras.Model):
    inputs = keras.Input((3,))
    return cls(inputs, layers.Dense(2)(inputs))


def ending_in_a_model():
    """What it returns is made by the second and the first call of a model inside."""
    one, other = keras.Input((3,)), keras.Input((3,))
    inner = functional()
    first, second = inner(one), inner(other)
    return keras.Model([one, other], [second, first])


@pytest.mark.parametrize("name", [*SAMPLES, "ending in a model"])
def test_a_graphs_config_is_what_get_config_returns(name):
    model = {**SAMPLES, "ending in a model": ending_in_a_model}[name]()

    def plainly(value):
        return json.loads(json.dumps(value, sort_keys=True))

    theirs = plainly(keras.saving.serialize_keras_object(model))["config"]
    ours = plainly(_keras.graph_config(model, keras.saving.serialize_keras_object))
    assert ours == theirs
    members = [entry["config"]["name"] for entry in theirs["layers"]]
    assert [member.name for member in _keras.members(model)] == members
    alone = plainly(
        _keras.graph_config(model, keras.saving.serialize_keras_object, calls=False)["layers"]
    )
    assert [entry["config"] for entry in alone] == [entry["config"] for entry in theirs["layers"]]


def test_models_are_told_apart():
    graphs = [functional(), functional(Renamed), functional(Configured), Subclassed()]
    others = [keras.Sequential(), Called()]
    assert [_keras.is_functional(model) for model in graphs + others] == [True] * 4 + [False] * 2
    assert [_keras.is_graph(model) for model in graphs] == [True, True, False, False]
    assert [_keras.is_graph(model) for model in others] == [True, False]
    assert not _keras.is_graph(layers.Dense(2))


def test_who_made_a_tensor_and_what_a_graph_takes():
    inputs = {"a": keras.Input((3,)), "b": keras.Input((3,))}
    add = layers.Add()
    output = add([inputs["a"], inputs["b"]])
    model = keras.Model(inputs, output)
    assert _keras.maker(output) is add
    assert _keras.inputs_of(model) == inputs
    assert isinstance(_keras.maker(inputs["a"]), layers.InputLayer)


def test_a_plain_graph_is_over_the_same_layers_and_not_compiled():
    model = functional(Renamed)
    model.compile("sgd", "mse")
    plain = _keras.plain_graph(model)
    assert type(plain) is type(functional())
    assert plain.layers == model.layers
    assert not plain.compiled
    assert _keras.plain_graph(plain) is plain


def test_arguments_beside_tensors_are_constants():
    inputs = keras.Input((3,))
    weight = keras.Variable([[1.0], [2.0], [3.0]])
    graph = keras.Function(inputs, keras.ops.matmul(inputs, weight))
    assert any(constant is weight for constant in _keras.constants_of(graph))


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "sequential_built"])
def test_calls_are_paired_and_told_alike_in_a_clone(name):
    model = SAMPLES[name]()
    clone = keras.models.clone_model(model)
    pairs = _keras.paired_calls(model, clone)
    calls = sum(len(nodes) for nodes in _keras.paired_calls(model, model))
    assert 2 * len(pairs) == calls
    for ours, theirs in pairs:
        assert type(ours.operation) is type(theirs.operation)
        assert [t.shape for t in ours.outputs] == [t.shape for t in theirs.outputs]
    _keras.order_calls(pairs, [clone])
    told, again = _keras.wiring(model), _keras.wiring(clone)
    assert [class_name for class_name, _ in told] == [class_name for class_name, _ in again]
    assert repr(told) == repr(again)


def test_calls_are_put_into_the_order_in_which_they_were_made():
    """Keras clones a graph by depth, so that the later call, which is deeper, comes first."""

    def build():
        inputs = keras.Input((3,))
        shared = layers.Dense(3)
        shallow = shared(inputs)
        deep = shared(layers.ReLU()(layers.ReLU()(inputs)))
        return keras.Model(inputs, [layers.Add()([shallow, deep]), shallow])

    model, other = build(), build()
    shared = next(layer for layer in other.layers if isinstance(layer, layers.Dense))
    assert repr(_keras.wiring(model)) == repr(_keras.wiring(other))
    pairs = _keras.paired_calls(model, other)
    shared._inbound_nodes.reverse()
    for index, node in enumerate(shared._inbound_nodes):
        for number, tensor in enumerate(node.outputs):
            tensor._keras_history = type(tensor._keras_history)(shared, index, number)
    swapped = keras.Model(other.inputs, other.outputs)
    assert repr(_keras.wiring(model)) != repr(_keras.wiring(swapped))
    _keras.order_calls(pairs, [swapped])
    assert repr(_keras.wiring(model)) == repr(_keras.wiring(swapped))
