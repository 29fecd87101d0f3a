"""What private attributes tell of layers and variables is what is public of them, in its order."""

import random

import keras
import numpy as np
import pytest
from keras import layers

from graphwd.live import _keras
from tests.support.layers import Block, Composite
from tests.support.sample_models import sample_models

SAMPLES = sample_models()


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "sequential_unbuilt"])
def test_every_variable_has_one_owner(name):
    model = SAMPLES[name]()
    pending, found = [model], []
    seen = set()
    while pending:
        layer = pending.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            found += [v for kind in _keras.own_variables(layer) for v in kind]
            pending += _keras.sublayers(layer)
    assert {id(v) for v in model.variables} == {id(v) for v in found}
    assert len(found) == len(model.variables)


def test_weights_stay_weights_while_they_are_frozen():
    layer = layers.BatchNormalization()
    layer.build((None, 3))
    layer.trainable = False
    weights, statistics, state = _keras.own_variables(layer)
    assert [v.name for v in weights] == ["gamma", "beta"]
    assert [v.name for v in statistics] == ["moving_mean", "moving_variance"]
    assert state == []
    dropout = layers.Dropout(0.5)
    assert _keras.own_variables(dropout)[2] == [dropout.seed_generator.state]


def test_sublayers_are_in_the_order_of_tracking():
    block = Block()
    assert _keras.sublayers(block) == [block.first, block.second]
    tracker = next(v for v in vars(block).values() if isinstance(v, _keras.Tracker))
    assert any(block.first in store for store in _keras.stores(tracker))


def test_a_variables_shape_dtype_and_value():
    variable = keras.Variable(np.ones((2, 3)), dtype="bfloat16")
    assert _keras.shape_of(variable) == tuple(variable.shape) == (2, 3)
    assert _keras.dtype_of(variable) == variable.dtype == "bfloat16"
    other = keras.Variable(np.zeros((2, 3)), dtype="bfloat16")
    _keras.set_value(other, _keras.value_of(variable))
    assert _keras.value_of(other) is _keras.value_of(variable)
    with keras.StatelessScope([(variable, keras.ops.zeros((2, 3), "bfloat16"))]):
        assert float(keras.ops.sum(variable.value)) == 0.0
        assert _keras.value_of(variable) is _keras.value_of(other)
    assert np.array(variable, "float32").sum() == 6.0


class Unregistered(layers.Layer):
    pass


@pytest.mark.parametrize("cls", [layers.ReLU, Composite, Unregistered, keras.Sequential])
def test_a_class_is_named_as_keras_names_it(cls):
    serialized = keras.saving.serialize_keras_object(cls())
    assert _keras.identity(cls) == {
        key: serialized[key] for key in ("module", "class_name", "registered_name")
    }


def test_a_class_of_a_notebook_has_no_module(monkeypatch):
    monkeypatch.setattr(Unregistered, "__module__", "__main__")
    assert _keras.identity(Unregistered)["module"] is None


def test_what_lasts_of_a_model_are_neither_its_calls_nor_its_compiled_steps():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
    model(keras.Input((3,)))
    lasting = _keras.lasting(model)
    assert model.train_function is not None
    assert lasting["train_function"] is None
    assert [lasting[name] for name in _keras.CALLS] == [[], []]
    assert any(getattr(model, name) for name in _keras.CALLS), "the model itself keeps them"
    assert lasting["optimizer"] is model.optimizer


def test_how_a_layer_computes_is_told_where_two_differ():
    one, other = (keras.Sequential([keras.Input((2,)), layers.Dense(1)]) for _ in range(2))
    one.compile("sgd", "mse", run_eagerly=True)
    other.compile("sgd", "mse", run_eagerly=False)
    assert _keras.modes(one, other)["run_eagerly"] == (True, False)
    with keras.RematScope(mode="full"):
        remat = layers.Dense(1)
    assert (
        _keras.modes(remat, layers.Dense(1))["remat_mode"][0]
        != (_keras.modes(remat, layers.Dense(1))["remat_mode"][1])
    )


def test_what_is_made_within_leaves_no_trace():
    before = keras.config.dtype_policy()
    layers.Dense(1)  # the first one of a process has no number
    number = int(layers.Dense(1).name.rpartition("_")[2])
    states = random.getstate(), repr(np.random.get_state()[2:])

    def make():
        with _keras.unchanged_globals():
            keras.config.set_dtype_policy("mixed_bfloat16")
            layers.Dense(1), layers.Dense(1)
            random.random(), np.random.normal()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make()
    assert (random.getstate(), repr(np.random.get_state()[2:])) == states
    assert keras.config.dtype_policy() is before
    assert layers.Dense(1).name == f"dense_{number + 1}"


def test_a_state_that_is_shown_is_a_variable_but_no_weight():
    class Holder:
        def __init__(self):
            self.state = keras.Variable(0.0, trainable=False)

    layer, holder = layers.Dense(2), Holder()
    layer.build((None, 3))
    weights = layer.get_weights()
    _keras.show_state(layer, holder)
    assert any(variable is holder.state for variable in layer.variables)
    assert len(layer.weights) == len(weights)
    _keras.hide_states(layer, Holder)
    assert not any(variable is holder.state for variable in layer.variables)
