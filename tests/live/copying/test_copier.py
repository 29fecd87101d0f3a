"""The copy: what no config tells comes along, nothing is shared, and Keras is left alone."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
from keras import layers

import graphwd
from graphwd.live.copying import copier
from tests.support.copies import Scaled, X, copied, dense, same


@pytest.mark.parametrize("inputs", [X, X.astype("int32"), {"a": X}], ids=["float", "int", "dict"])
def test_a_model_without_build(inputs):
    model = Scaled(scale=3.0)
    model(inputs)
    copy = copied(model, inputs)
    assert len(copy.losses) == 2
    assert copy.scale == 3.0
    assert len(graphwd.plan(model, "l2").edits) == 2


def test_a_model_without_build_inside_a_functional_one():
    inputs = keras.Input((4,))
    copy = copied(keras.Model(inputs, layers.Dense(1)(Scaled(2.0)(inputs))))
    assert len(copy.losses) == 3


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("by", ["names", "variables"])
def test_exclusions_from_weight_decay(by, scaled, built):
    model = dense()
    kernel, bias = model.get_layer("dense").kernel, model.get_layer("dense").bias
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    if by == "names":
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    else:
        optimizer.exclude_from_weight_decay(var_list=[bias])
    outer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
    model.compile(outer, "mse")
    if built:
        model.fit(X, np.ones((2, 3)), verbose=0)
    copy = copied(model)
    inner = copy.optimizer.inner_optimizer if scaled else copy.optimizer
    assert inner is not optimizer
    before = keras.ops.convert_to_numpy(bias)
    copy.get_layer("dense").kernel.assign(kernel)
    if not inner.built:
        copy.optimizer.build(copy.trainable_variables)
    if keras.backend.backend() != "jax" or not scaled:  # whose scaled step needs to be compiled
        copy.optimizer.apply([keras.ops.zeros(v.shape) for v in copy.trainable_variables])
    assert not inner._use_weight_decay(copy.get_layer("dense").bias)
    assert inner._use_weight_decay(copy.get_layer("dense").kernel)
    if not built:
        assert same([before], [copy.get_layer("dense").bias])


def test_what_a_compile_of_ones_own_sets():
    class Adversarial(keras.Model):
        def __init__(self):
            super().__init__()
            self.one = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
            self.two = keras.Sequential([keras.Input((4,)), layers.Dense(1)])

        def compile(self, one_optimizer, two_optimizer, function):
            super().compile(run_eagerly=True)
            self.one_optimizer, self.two_optimizer = one_optimizer, two_optimizer
            self.function = function
            self.mean = keras.metrics.Mean(name="mean")

        def call(self, x):
            return self.two(self.one(x))

    model = Adversarial()
    function = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.1), keras.optimizers.SGD(0.2), function)
    model.one_optimizer.build(model.one.trainable_variables)
    model(X)
    copy = copied(model)
    assert copy.run_eagerly
    assert copy.function.from_logits if hasattr(function, "from_logits") else True
    assert copy.one_optimizer is not model.one_optimizer
    gradients = [keras.ops.ones(v.shape) for v in copy.one.trainable_variables]
    copy.one_optimizer.apply(gradients, copy.one.trainable_variables)
    assert int(copy.one_optimizer.iterations) == 1
    assert int(model.one_optimizer.iterations) == 0


def test_backbones_shared_between_models():
    inputs = keras.Input((4,))
    backbone = keras.Model(inputs, layers.Dense(3)(inputs), name="backbone")
    one = keras.Sequential([keras.Input((4,)), backbone, layers.Dense(1)])
    inputs = keras.Input((4,))
    two = keras.Model(inputs, layers.Dense(2)(backbone(inputs)))
    backbone.layers[-1](keras.Input((4,)))
    for model in (one, two, backbone):
        copied(model)


@pytest.mark.parametrize("mode", ["int8", "lora", "bfloat16"])
def test_models_that_changed_after_they_were_made(mode):
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, name="hidden", dtype="mixed_bfloat16" if mode == "bfloat16" else None)
    model = keras.Model(inputs, layers.Dense(2)(hidden(inputs)))
    policy = keras.config.dtype_policy()
    if mode == "int8":
        model.quantize("int8")
    if mode == "lora":
        hidden.enable_lora(2)
        hidden.lora_kernel_b.assign(np.ones((2, 8)))
    copied(model, policy=graphwd.Rule("l2", roles="bias"))
    assert keras.config.dtype_policy() is policy


def test_a_layer_of_another_dtype_than_its_sublayers():
    class Gate(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = layers.Dense(4)

        def call(self, x):
            return self.inner(x)

    copied(keras.Sequential([keras.Input((4,)), Gate(dtype="bfloat16")]), x=None)


def test_names_that_constructors_do_not_take():
    class Nameless(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(4)

        def call(self, x):
            return self.inner(x)

    class Swallowing(Nameless):
        def __init__(self, **kwargs):
            super().__init__()
            self.name = "mine"

    model = keras.Sequential([keras.Input((4,)), Nameless(), Swallowing()])
    copy = copied(model)
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
    assert copy.get_layer("mine")


def test_global_state_is_left_alone(monkeypatch):
    inputs = keras.Input((5,))
    x = layers.Embedding(3, 4, mask_zero=True)(inputs)  # the mask is an operation with a name
    model = keras.Model(inputs, layers.LSTM(2)(x))
    layers.Identity()
    number = int(layers.Identity().name.rpartition("_")[2])
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()
    graphwd.rewrite(model, "l2")
    monkeypatch.setattr(copier.Copier, "finish", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        graphwd.rewrite(model, "l2")
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == numpy
    assert layers.Identity().name == f"identity_{number + 1}"
    assert "not_equal" in keras.ops.not_equal(keras.Input((1,)), 0)._keras_history.operation.name


def test_keras_is_not_patched(monkeypatch):
    """Nothing of Keras's is replaced while a model is rewritten."""
    seen = []
    call = layers.Dense.call

    def watching(self, inputs, training=None):
        seen.append(keras.Layer.__setattr__ is setattr_before)
        return call(self, inputs)

    setattr_before = keras.Layer.__setattr__
    monkeypatch.setattr(layers.Dense, "call", watching)
    graphwd.rewrite(dense(), "l2", verify="outputs")
    assert seen
    assert all(seen)


def test_what_was_frozen_learns_once_it_is_unfrozen():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)])
    model.layers[0].trainable = False
    copy = graphwd.rewrite(model, [])
    assert graphwd.verify(model, copy, []).ok
    before = copy.get_weights()
    for each in (model, copy):
        each.layers[0].trainable = True
        each.compile("sgd", "mse")
        each.train_on_batch(X, X[:, :1])
    assert same(model.get_weights(), copy.get_weights())
    assert not any(map(same, before, copy.get_weights()))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a hook is PyTorch's")
def test_hooks_on_weights_come_along():
    model = dense()
    model.layers[0].kernel.value.register_hook(lambda gradient: gradient * 0)
    copy = copied(model)
    for each in (model, copy):
        each.zero_grad()
        keras.ops.sum(each(X)).backward()
        assert not each.layers[0].kernel.value.grad.any()
        assert each.layers[0].bias.value.grad.any()


def test_inputs_of_no_graph_can_be_given_one():
    """A progressive GAN keeps the inputs of the blocks that it is yet to grow."""
    model = dense()
    model.more = [keras.Input((3,), name="more")]
    copy = copied(model)
    assert copy.more[0] is not model.more[0]
    for each in (model, copy):
        grown = keras.Model(each.more, keras.ops.sum(each.more[0], -1))
        assert same([grown(np.ones((2, 3)))], [np.full(2, 3.0)])


def test_the_losses_of_the_last_call_are_those_of_the_original():
    model = dense(activity_regularizer="l2")
    model(X)
    copy = graphwd.rewrite(model, [])
    assert same(copy.losses, model.losses)
    assert len(copy.losses) == 1


class Doubling(layers.Dense):
    """Its call goes on in the graph behind the layer's own."""

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs) * 2.0


def test_a_layer_with_a_call_operator_of_its_own():
    inputs = keras.Input((4,))
    copied(keras.Model(inputs, Doubling(2)(Doubling(3)(inputs))))
