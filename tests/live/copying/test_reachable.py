"""What hangs on an object: every way by which Python leads from it to a variable or a layer."""

import functools
import types
import weakref

import keras
import numpy as np
import pytest
from keras import layers

from graphwd.live.copying import reachable
from tests.support.layers import Composite


@pytest.fixture(scope="module")
def layer():
    made = layers.Dense(2, name="dense")
    made.build((None, 3))
    return made


class Plain:
    def __init__(self, value):
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


def closing_over(value):
    return lambda: value


def generating(value):
    yield value


WAYS = {
    "itself": lambda layer: layer,
    "list": lambda layer: [0, [layer]],
    "key": lambda layer: {layer: 1},
    "attribute": Plain,
    "slot": Slotted,
    "closure": closing_over,
    "default": lambda layer: lambda value=layer: value,
    "keyword default": lambda layer: lambda *, value=layer: value,
    "method": lambda layer: layer.call,
    "partial": lambda layer: functools.partial(print, layer),
    "cached": lambda layer: functools.lru_cache(closing_over(layer)),
    "weak reference": weakref.ref,
    "weak proxy": weakref.proxy,
    "weak method": lambda layer: weakref.WeakMethod(layer.call),
    "generator": generating,
    "property of a mapping": lambda layer: types.MappingProxyType({"a": layer}),
    "a cycle": lambda layer: (lambda made: made.append(made) or made)([layer]),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_layer_is_found_by_whatever_leads_to_it(way, layer):
    value = WAYS[way](layer)
    assert reachable.holds(value)
    found = [each for each in reachable.held(value) if isinstance(each, layers.Layer)]
    assert found == ([] if value is layer else [layer])
    inside = {id(layer.kernel), id(layer.bias)} <= set(map(id, reachable.everything(value)))
    assert inside == (not way.startswith("weak"))
    assert id(layer) in set(map(id, reachable.everything(value, weakly=True)))
    assert (id(layer) in reachable.kept(value)) == inside


@pytest.mark.parametrize(
    "value",
    [None, 3, "a", [1, {"a": (2, np.ones(3))}], len, Plain(Slotted(4)), closing_over(5), Composite],
    ids=lambda value: type(value).__name__,
)
def test_what_leads_to_none_holds_none(value):
    assert not reachable.holds(value)
    assert reachable.held(value) == []


def test_held_is_what_comes_first_and_everything_what_is_inside(layer):
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("adam", "mse")
    value = Plain([model, layer.bias])
    assert set(map(id, reachable.held(value))) == {id(model), id(layer.bias)}
    inside = set(map(id, reachable.everything(value)))
    expected = [model, layer, model.optimizer, *model.variables, *model.optimizer.variables]
    assert set(map(id, expected)) <= inside


def test_other_models_that_call_a_layer_do_not_hang_on_it():
    shared, after = layers.Dense(2), layers.Dense(2)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, after(shared(inputs)))
    found = set(map(id, reachable.everything(shared)))
    assert id(shared.kernel) in found
    assert not {id(model), id(after), id(after.kernel)} & found
    assert {id(shared), id(after)} <= set(map(id, reachable.everything(model)))


def test_weights_among_the_arguments_of_a_call_are_found(layer):
    inputs = keras.Input((3,))
    graph = keras.Function(inputs, keras.ops.matmul(inputs, layer.kernel))
    assert id(layer.kernel) in set(map(id, reachable.everything(graph)))
