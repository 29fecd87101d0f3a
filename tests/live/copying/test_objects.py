"""Objects that a model hangs on: containers, closures, and what the backend makes."""

from __future__ import annotations

import collections
import functools
import threading
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
