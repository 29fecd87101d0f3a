"""Which argument of a layer sets which weight's regularizer: known by what the layer does."""

import random

import keras
import pytest

import graphwd
from graphwd.graph.slots import find_slots
from graphwd.live import probing, walk
from tests.support.unusual import Partial, through

RULE = graphwd.Rule({"class_name": "L2", "config": {"l2": 1e-2}}, roles="!activity")


def governed(layer):
    """The place of each weight that a slot sets, by the weight's path within the layer."""
    serialized = keras.saving.serialize_keras_object(layer)
    candidates = [slot.pointers[0] for slot in find_slots(serialized)]
    found = probing.governed(layer, serialized, candidates)
    if found is None:
        return None
    weights = walk.weights(layer)
    return {"/".join((*weights[i].names, weights[i].variable.name)): p for i, p in found.items()}


def built(layer):
    return through(layer).layers[1]


def test_a_slot_is_known_by_what_it_does():
    paths = {edit.path: edit.portable for edit in graphwd.plan(through(Partial(name="p")), RULE)}
    assert paths["p/kernel"] is True
    assert paths["p/two/kernel"] is False
    assert "p/one/kernel" not in paths


def test_only_what_the_argument_reaches_is_governed():
    assert governed(built(Partial())) == {"one/kernel": ("config", "kernel_regularizer")}


class Crossed(keras.layers.Layer):
    """Its arguments govern other weights than their names say, and one governs none."""

    def __init__(self, kernel_regularizer=None, bias_regularizer=None, gamma_regularizer=None):
        super().__init__()
        self.given = [kernel_regularizer, bias_regularizer, gamma_regularizer]

    def build(self, shape):
        kernel, bias, _ = self.given
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel", regularizer=bias)
        self.bias = self.add_weight(shape=(2,), name="bias", regularizer=kernel)
        self.gamma = self.add_weight(shape=(2,), name="gamma")

    def call(self, x):
        return (x @ self.kernel + self.bias) * self.gamma

    def get_config(self):
        names = ("kernel_regularizer", "bias_regularizer", "gamma_regularizer")
        given = map(keras.regularizers.serialize, map(keras.regularizers.get, self.given))
        return dict(zip(names, given, strict=True))

    @classmethod
    def from_config(cls, config):
        return cls(*(keras.regularizers.get(value) for value in config.values()))


def test_names_prove_nothing():
    assert governed(built(Crossed())) == {
        "kernel": ("config", "bias_regularizer"),
        "bias": ("config", "kernel_regularizer"),
    }


class Refusing(Partial):
    """One like it can't be made."""

    @classmethod
    def from_config(cls, config):
        raise RuntimeError("not again")


@pytest.mark.parametrize("cls", [Partial, Refusing])
def test_asking_changes_nothing(cls):
    layer = built(cls())
    policy = keras.config.dtype_policy()
    keras.layers.Dense(1)  # the first one of a process has no number
    number = int(keras.layers.Dense(1).name.rpartition("_")[2])
    state = random.getstate()
    weights = [keras.ops.convert_to_numpy(v).tobytes() for v in layer.variables]
    assert (governed(layer) is None) == (cls is Refusing)
    assert random.getstate() == state
    assert keras.config.dtype_policy() is policy
    assert keras.layers.Dense(1).name == f"dense_{number + 1}"
    assert [keras.ops.convert_to_numpy(v).tobytes() for v in layer.variables] == weights
    assert [v.regularizer for v in layer.variables] == [None] * 4
