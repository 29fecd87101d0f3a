"""Objects that a model hangs on: containers, closures, and what the backend makes."""

from __future__ import annotations

import collections
import csv
import functools
import gc
import hashlib
import io
import pathlib
import queue
import random
import struct
import tempfile
import threading
import types
import weakref

import keras
import numpy as np
import pytest
from keras import layers

import graphwd
from tests.support.copies import X, copied, dense, same


class Codebook(layers.Layer):
    """Keeps arrays that are no variables of Keras's."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.array = np.random.default_rng().normal(size=(4, 4)).astype("float32")
        self.draws = np.random.default_rng(1)
        self.lock = threading.Lock()

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.array)


def test_state_that_is_no_variable():
    model = keras.Sequential([keras.Input((4,)), Codebook(name="book"), layers.Dense(2)])
    copy = copied(model)
    assert copy.get_layer("book").array is not model.get_layer("book").array
    copy.get_layer("book").array[:] += 1
    report = graphwd.verify(model, copy)
    assert "another array" in report.problems[0]
    assert model.get_layer("book").draws.normal() == copy.get_layer("book").draws.normal()


def test_the_backends_own_variables():
    backend = keras.backend.backend()

    class Table(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            value = np.ones((4, 4), "float32")
            if backend == "tensorflow":
                import tensorflow as tf

                self.table = tf.Variable(value)
            elif backend == "torch":
                import torch

                self.table = torch.nn.Parameter(torch.tensor(value))
            else:
                self.table = keras.ops.convert_to_tensor(value)

        def call(self, inputs):
            return keras.ops.matmul(inputs, keras.ops.convert_to_tensor(self.table))

    model = keras.Sequential([keras.Input((4,)), Table(name="table"), layers.Dense(2)])
    copy = copied(model)
    ours, theirs = model.get_layer("table").table, copy.get_layer("table").table
    assert same([ours], [theirs])
    assert (ours is theirs) == (backend == "jax")  # whose arrays can't change


def test_closures_methods_and_references_lead_to_the_copy():
    class Holder(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)
            self.by_name = {id(self.dense): "dense"}
            self.by_layer = {self.dense: "dense"}
            self.closure = lambda x: self.dense(x)
            self.partial = functools.partial(Holder.apply, self)
            self.method = self.apply
            self.weak = weakref.ref(self.dense)
            self.cached = functools.lru_cache(maxsize=4)(self.count)
            self.shared = keras.ops.relu

        def apply(self, x):
            return self.dense(x)

        def count(self):
            return len(self.layers)

        def call(self, x):
            return self.shared(self.closure(x) + self.partial(x) + self.method(x))

    model = Holder()
    model(X)
    copy = copied(model)
    assert copy.weak() is copy.dense is not model.dense
    assert copy.by_name == {id(copy.dense): "dense"}
    assert list(copy.by_layer) == [copy.dense]
    assert copy.method.__self__ is copy
    assert copy.cached.__wrapped__.__self__ is copy
    assert copy.shared is model.shared


class Parent(keras.Model):
    """Has a part that knows its parent, and weak containers of its parts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Part(self)
        self.named = weakref.WeakValueDictionary(inner=self.inner)
        self.scales = weakref.WeakKeyDictionary({self.inner: [2.0]})
        self.parts = weakref.WeakSet([self.inner])
        self.constants = types.MappingProxyType({"inner": self.inner})
        self.proxy = weakref.proxy(self.inner)
        self.weights_by_id = {(id(self.inner), "scale"): 2.0}

    def call(self, inputs):
        return self.inner(inputs) * self.scales[self.inner][0]


class Part(keras.Model):
    def __init__(self, parent, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(2)
        self.parent = weakref.ref(parent)
        self.calls = weakref.WeakMethod(self.call)

    def call(self, inputs):
        return self.dense(inputs) if self.parent() else inputs


def test_weak_references_lead_to_the_copy_of_what_the_model_keeps():
    model = Parent()
    model(X)
    copy = copied(model)
    assert copy.inner.parent() is copy
    assert copy.inner.calls().__self__ is copy.inner
    assert copy.named["inner"] is copy.constants["inner"] is copy.inner
    assert copy.proxy.dense is copy.inner.dense
    assert list(copy.parts) == [copy.inner]
    assert copy.weights_by_id == {(id(copy.inner), "scale"): 2.0}
    copy.scales[copy.inner][0] = 3.0
    assert model.scales[model.inner] == [2.0]
    part = copied(model.inner)
    assert part.parent() is model


def test_what_cleans_up_behind_itself_is_shared():
    """A copy that goes away must not close the original's file."""
    with tempfile.NamedTemporaryFile() as file:
        model = keras.Sequential([keras.Input((4,)), Holder(file), layers.Dense(2)])
        copy = copied(model)
        assert copy.layers[0].held.name == file.name
        del copy
        gc.collect()
        assert pathlib.Path(file.name).exists()
        assert not file.closed


def test_what_cannot_be_copied_is_refused_by_name_only_where_the_model_hangs_on_it():
    model = dense()
    layer = model.get_layer("dense")
    layer.numbers = (number for number in range(3))
    assert graphwd.rewrite(model, "l2").get_layer("dense").numbers is layer.numbers
    layer.numbers = (kernel for kernel in [layer.kernel, layer.kernel])
    next(layer.numbers)
    with pytest.raises(graphwd.ModelError, match=r"'dense'.*numbers.*generator.*in_place"):
        graphwd.rewrite(model, "l2")


def test_a_shared_ordered_dict_is_found():
    class Holding(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.held = collections.OrderedDict(one=1)

        def call(self, inputs):
            return inputs

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Holding(name="holding")(inputs)))
    copy = graphwd.rewrite(model, "l2")
    held = model.get_layer("holding").held
    assert copy.get_layer("holding").held is not held
    vars(copy.get_layer("holding"))["held"] = held
    assert not graphwd.verify(model, copy, "l2").ok


SENTINEL = object()


class Pair(tuple):
    """A tuple with an attribute."""


class Uncopyable:
    """Has a `__deepcopy__` that raises."""

    def __deepcopy__(self, memo):
        raise TypeError("there is one of it")


class Holder(layers.Layer):
    """Doubles its inputs, and holds what it is given."""

    def __init__(self, held, **kwargs):
        super().__init__(**kwargs)
        self.held = held

    def call(self, inputs):
        return inputs * 2.0


def held_by_copy(value):
    """What the copy of a layer holds in the place of a value."""
    model = keras.Sequential([keras.Input((4,)), Holder([value], name="holder"), layers.Dense(2)])
    return copied(model).get_layer("holder").held[0]


def test_what_is_known_by_its_identity_stays_itself():
    assert held_by_copy(SENTINEL) is SENTINEL


@pytest.mark.parametrize("draw", [np.random.normal, random.random], ids=["numpy", "python"])
def test_a_copy_draws_from_the_global_generators(draw):
    assert held_by_copy(draw).__self__ is draw.__self__


@pytest.mark.parametrize(
    "items",
    [
        [(0, 0.5), (1, 0.25)],
        [[1, 2], [3, 4]],
        [np.ones(2), np.zeros(2)],
        [{"state": np.ones(2)}, None],
    ],
    ids=["tuples", "lists", "arrays", "dicts"],
)
def test_an_array_of_objects_keeps_each(items):
    """The memory of a replay buffer."""
    array = np.empty((2, 1), dtype=object)
    for row, item in enumerate(items):
        array[row, 0] = item
    buffer = types.SimpleNamespace(data=array, last=np.array(None))
    buffer.last[()] = (1, 2)
    model = keras.Sequential([keras.Input((4,)), Holder(buffer, name="holder"), layers.Dense(2)])
    copy = copied(model)
    theirs = copy.get_layer("holder").held
    assert theirs.data.shape == (2, 1)
    assert repr(theirs.data) == repr(array)
    assert theirs.last[()] == (1, 2)
    assert theirs.data[0, 0] is not array[0, 0] or isinstance(array[0, 0], tuple)
    theirs.data[1, 0] = "other"
    assert not graphwd.verify(model, copy, "l2").ok


class Settings(dict):
    """Its items are its attributes."""

    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__ = self


def test_items_that_are_attributes_stay_one():
    copy = held_by_copy(types.SimpleNamespace(settings=Settings(gain=1.0))).settings
    copy.gain = 3.0
    assert copy["gain"] == 3.0
    assert dict(copy) == {"gain": 3.0}


def test_a_tuple_keeps_its_attributes():
    pair = Pair([1, 2])
    pair.unit = ["mm"]
    copy = held_by_copy(types.SimpleNamespace(pair=pair)).pair
    assert (copy, copy.unit) == ((1, 2), ["mm"])
    assert copy.unit is not pair.unit


@pytest.mark.parametrize(
    "make",
    [
        lambda: csv.writer(io.StringIO()),
        queue.SimpleQueue,
        lambda: hashlib.sha256(b"a"),
        lambda: struct.Struct("i"),
        Uncopyable,
    ],
    ids=["writer", "queue", "hash", "struct", "uncopyable"],
)
def test_what_python_cannot_copy_is_shared(make):
    value = make()
    assert held_by_copy(value) is value


def test_what_goes_too_deep_is_said():
    chain = None
    for _ in range(5000):
        chain = types.SimpleNamespace(rest=chain)
    model = keras.Sequential([keras.Input((4,)), Holder(chain), layers.Dense(2)])
    with pytest.raises(graphwd.ModelError, match="more deeply than Python follows"):
        graphwd.rewrite(model, keras.regularizers.L2(1e-2))


def test_layers_in_a_set_are_refused():
    """A set gives them by their addresses, so that the copy may call them in another order."""

    class Heads(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.heads = {layers.Dense(2) for _ in range(4)}

        def call(self, inputs):
            return keras.ops.concatenate([head(inputs) for head in self.heads], -1)

    model = Heads(name="heads")
    model(np.ones((2, 3), "float32"))
    with pytest.raises(graphwd.ModelError, match=r"'heads' .* in heads .*in a list"):
        graphwd.rewrite(model, keras.regularizers.L2(1e-2))
    graphwd.rewrite(model, keras.regularizers.L2(1e-2), in_place=True)
    assert len(model.losses) == 4


def noise():
    generator = np.random.default_rng(0)
    return lambda: float(generator.normal())


def counter():
    count = 0

    def counted():
        nonlocal count
        count += 1
        return count

    return counted


def history():
    calls = []

    def called(_calls=calls):
        calls.append(1)
        return len(_calls)

    return called


@pytest.mark.parametrize("make", [noise, counter, history])
def test_the_state_of_a_closure_is_the_copys_own(make):
    function, expected = make(), make()
    copy = held_by_copy(function)
    ours = [expected() for _ in range(3)]
    assert [copy() for _ in range(3)] == ours
    assert [function() for _ in range(3)] == ours


def test_a_function_without_state_is_shared():
    def recursive(number):
        return number and recursive(number - 1)

    scale = 3
    for function in (recursive, lambda x: x * scale, functools.wraps(noise)(lambda: scale), noise):
        assert held_by_copy(function) is function


def test_a_function_that_keras_knows_by_name_is_shared():
    calls = []

    @keras.saving.register_keras_serializable("graphwd_tests", name="counted_relu")
    def counted(x):
        calls.append(1)
        return keras.ops.relu(x)

    assert held_by_copy(counted) is counted
