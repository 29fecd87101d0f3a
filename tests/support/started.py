"""Models that are trained from a start, and what L2SP should be on them, by hand."""

import re

import keras
import numpy as np
from keras import layers

import graphwd
from tests.support.layers import Composite

KERNELS = graphwd.Rule(graphwd.L2SP(0.5), roles="kernel")


def batches(seed=0, steps=6):
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(4 * steps, 3, 4)).astype("float32"),
        generator.normal(size=(4 * steps, 2)).astype("float32"),
    )


def network():
    """Several weights of one argument, a wrapper, a composite layer, a nested model."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((3, 4))
    x = layers.MultiHeadAttention(2, 2, name="attend")(inputs, inputs)
    x = layers.Bidirectional(layers.LSTM(2), name="both")(x)
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="dense"), Composite(name="own")], name="inner"
    )
    return keras.Model(inputs, layers.Dense(2, name="last")(inner(x)), name="outer")


def compiled(model, rate=0.05):
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse")
    return model


def fit(model, seed=0, **how):
    return model.fit(*batches(seed), batch_size=4, shuffle=False, verbose=0, **how)


def penalised(model):
    return [v for v in model.trainable_variables if isinstance(v.regularizer, graphwd.L2SP)]


def start_of(variable, start):
    """A file's paths lack the wrappers' names."""
    return next(value for key, value in start.items() if key.endswith(place_of(variable)))


def place_of(variable):
    """Its path without the numbers and the model's name, which differ between copies."""
    return re.sub(r"_\d+", "", variable.path).split("outer/")[-1]


def by_hand(model, start, strength=0.5):
    """The sum of the penalties, from the values of the kernels at the start."""
    return sum(
        strength * float(((np.array(v, "float64") - start_of(v, start)) ** 2).sum())
        for v in penalised(model)
    )


def values(model):
    return {place_of(v): np.array(v, "float64") for v in model.trainable_variables}


def trained():
    """A rewritten model some steps later, and where its weights were."""
    model = compiled(graphwd.rewrite(network(), KERNELS))
    start = values(model)
    fit(model)
    return model, start
