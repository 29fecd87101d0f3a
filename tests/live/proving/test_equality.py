"""Two live models beyond their configs: every bit of every weight, flags, and penalties."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from tests.support import oracle
from tests.support.layers import Gate
from tests.support.verified import (
    POLICY,
    assert_refused,
    change,
    flip_bit,
    layer,
    set_first,
    small_model,
    weight,
)


def lowest_bit(model):
    change(layer(model, "first").kernel, flip_bit)


def moving_statistic(model):
    change(layer(model, "backbone/norm").moving_variance, set_first)


def exchanged_weights(model):
    one, two = layer(model, "first").kernel, layer(model, "second").kernel
    ours, theirs = oracle.array(one), oracle.array(two)
    one.assign(theirs)
    two.assign(ours)


def seed_state(model):
    change(layer(model, "drop").seed_generator.state, set_first)


def coefficient_in_config_only(model):
    layer(model, "shared").kernel_regularizer = regularizers.L2(0.25)


def coefficient_on_variable_only(model):
    layer(model, "shared").kernel.regularizer = regularizers.L2(0.25)


def missing_on_variable(model):
    layer(model, "backbone/conv").kernel.regularizer = None


def missing_in_config(model):
    layer(model, "backbone/conv").kernel_regularizer = None


def another_class(model):
    layer(model, "first").kernel.regularizer = regularizers.L1(0.125)


def extra_on_variable(model):
    layer(model, "second").bias.regularizer = regularizers.L2(0.125)


def frozen_layer(model):
    layer(model, "shared").trainable = False


def frozen_variable(model):
    layer(model, "first").kernel.trainable = False


def dtype_policy(model):
    layer(model, "second").dtype_policy = keras.DTypePolicy("mixed_bfloat16")


def activation(model):
    layer(model, "second").activation = keras.activations.relu


def dropout_rate(model):
    layer(model, "drop").rate = 0.25


def epsilon(model):
    layer(model, "backbone/norm").epsilon = 1e-2


LIVE = {
    weight: "conv",
    lowest_bit: "first",
    moving_statistic: "norm",
    exchanged_weights: "first",
    seed_state: "drop",
    coefficient_in_config_only: "shared",
    coefficient_on_variable_only: "shared",
    missing_on_variable: "conv",
    missing_in_config: "conv",
    another_class: "first",
    extra_on_variable: "second",
    frozen_layer: "shared",
    frozen_variable: "first",
    dtype_policy: "second",
    activation: "second",
    dropout_rate: "drop",
    epsilon: "norm",
}


@pytest.mark.parametrize("fault", LIVE, ids=lambda fault: fault.__name__)
def test_a_fault_in_a_live_model(original, fault):
    rewritten = graphwd.rewrite(original, POLICY)
    assert graphwd.verify(original, rewritten, POLICY).ok
    fault(rewritten)
    assert_refused(graphwd.verify(original, rewritten, POLICY), LIVE[fault])
    # Without a policy, too: the variables must have what the config says.
    assert_refused(graphwd.verify(original, rewritten), LIVE[fault])


def test_a_coefficient_changed_in_both_places(original):
    """Consistent with itself, so only the policy can tell that it is wrong."""
    rewritten = graphwd.rewrite(original, POLICY)
    coefficient_in_config_only(rewritten)
    coefficient_on_variable_only(rewritten)
    assert graphwd.verify(original, rewritten).ok
    assert_refused(graphwd.verify(original, rewritten, POLICY), "shared")


def test_the_name_of_a_layer_that_no_config_tells_counts():
    """A graph's comparison has the names of its layers, not of those inside of them."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(Gate(name="gate")(inputs)))
    rewritten = graphwd.rewrite(model, POLICY)
    assert graphwd.verify(model, rewritten, POLICY).ok
    rewritten.get_layer("gate").inner.name = "another"
    assert_refused(graphwd.verify(model, rewritten, POLICY), "another")


def test_the_payload_of_a_nan_counts():
    model = small_model()
    kernel = model.get_layer("first").kernel
    change(kernel, lambda value: value.fill(np.nan))
    rewritten = graphwd.rewrite(model, POLICY)
    assert graphwd.verify(model, rewritten, POLICY).ok
    change(rewritten.get_layer("first").kernel, flip_bit)
    assert np.isnan(oracle.array(rewritten.get_layer("first").kernel)).all()
    assert_refused(graphwd.verify(model, rewritten, POLICY), "first")


def test_the_sign_of_zero_counts():
    model = small_model()
    change(model.get_layer("first").kernel, lambda value: value.fill(0.0))
    rewritten = graphwd.rewrite(model, POLICY)
    change(rewritten.get_layer("first").kernel, lambda value: flip_bit(value, bit=31))
    assert (oracle.array(rewritten.get_layer("first").kernel) == 0).all()
    assert_refused(graphwd.verify(model, rewritten, POLICY), "first")


def test_a_weight_among_the_arguments_of_a_call_counts():
    factor = keras.Variable([2.0, 3.0], name="factor")
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Multiply(name="product")([layers.Dense(2)(inputs), inputs]))
    model = keras.Model(inputs, keras.ops.multiply(model(inputs), factor))
    rewritten = graphwd.rewrite(model, "l2")
    assert graphwd.verify(model, rewritten, "l2").ok
    (constant,) = (
        argument
        for operation in rewritten.operations
        for node in operation._inbound_nodes
        for argument in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
        if isinstance(argument, keras.Variable)
    )
    assert constant is not factor
    change(constant, set_first)
    assert not graphwd.verify(model, rewritten, "l2").ok


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's own")
def test_the_state_of_a_module_of_pytorch_counts():
    import torch

    class Held(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.held = {"norm": torch.nn.BatchNorm1d(2)}

        def call(self, inputs):
            return inputs

    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(2)(Held(name="held")(inputs)))
    rewritten = graphwd.rewrite(model, "l2")
    assert graphwd.verify(model, rewritten, "l2").ok
    rewritten.get_layer("held").held["norm"].running_mean += 1
    assert_refused(graphwd.verify(model, rewritten, "l2"), "held")


class Noise(layers.Layer):
    """Draws in inference, too, and counts its calls."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(3)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")
        self.calls = []

    def call(self, inputs):
        self.count.assign(self.count + 1)
        self.calls.append(1)
        return inputs + keras.random.normal((4,), seed=self.seed_generator)


def test_comparing_outputs_leaves_no_trace():
    model = keras.Sequential([keras.Input((4,)), Noise(name="noise"), layers.Dense(2)])
    before = [oracle.array(variable).copy() for variable in model.variables]
    calls = len(model.get_layer("noise").calls)
    rewritten = graphwd.rewrite(model, POLICY, verify="outputs")
    for each in (model, rewritten):
        for variable, value in zip(each.variables, before, strict=True):
            assert np.array_equal(oracle.array(variable), value), variable.path
        assert len(each.get_layer("noise").calls) == calls


def test_outputs_are_compared_with_the_same_draws():
    inputs = keras.Input((3,))
    noise = layers.Lambda(
        lambda x: x + keras.random.normal(keras.ops.shape(x)), output_shape=(3,), name="noise"
    )
    model = keras.Model(inputs, layers.Dense(2)(noise(inputs)))
    keras.utils.set_random_seed(1)
    expected = keras.ops.convert_to_numpy(keras.random.normal((2,)))
    keras.utils.set_random_seed(1)
    graphwd.rewrite(model, POLICY, verify="outputs")
    assert np.array_equal(expected, keras.ops.convert_to_numpy(keras.random.normal((2,))))
