"""Stock layers to be saved, and what a plan tells of their weights."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from graphwd.policy.policies import Policy
from tests.support.saved_models import weights_bytes, write_keras

PENALTIES = Policy(
    [
        graphwd.Rule(regularizers.L1L2(0.01, 0.02)),
        graphwd.Rule(regularizers.L2(0.5), roles=["depthwise", "recurrent", "gamma"]),
        graphwd.Rule(None, roles=["beta"]),
    ]
)


def stock_layers():
    """A layer of each kind that Keras has with weights and slots, and what its input looks like."""
    image, line, flat = (8, 8, 4), (6, 4), (4,)
    volume, maps = (6, 6, 6, 4), (3, 8, 8, 4)
    yield layers.Dense(3), flat
    yield layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), line
    yield layers.EinsumDense("abc,cd->abd", (None, 3)), line
    yield layers.Embedding(9, 3), (6,)
    for rank, shape in ((1, line), (2, image), (3, volume)):
        yield getattr(layers, f"Conv{rank}D")(3, 2), shape
        yield getattr(layers, f"Conv{rank}DTranspose")(3, 2, use_bias=False), shape
        if rank < 3:
            yield getattr(layers, f"DepthwiseConv{rank}D")(2, depth_multiplier=2), shape
            yield getattr(layers, f"SeparableConv{rank}D")(3, 2), shape
    yield layers.BatchNormalization(), image
    yield layers.BatchNormalization(scale=False), image
    yield layers.LayerNormalization(), line
    yield layers.LayerNormalization(center=False), line
    yield layers.LayerNormalization(axis=[1, 2]), line
    yield layers.GroupNormalization(2), image
    yield layers.PReLU(), line
    for kind in ("SimpleRNN", "LSTM", "GRU"):
        yield getattr(layers, kind)(3), line
        yield layers.Bidirectional(getattr(layers, kind)(3)), line
        yield layers.RNN(getattr(layers, kind + "Cell")(3)), line
    yield (
        layers.Bidirectional(
            layers.GRU(3, kernel_regularizer="l1"),
            backward_layer=layers.GRU(3, go_backwards=True, kernel_regularizer="l2"),
        ),
        line,
    )
    yield layers.ConvLSTM2D(2, 2), maps
    yield layers.TimeDistributed(layers.Conv2D(2, 2)), maps
    yield layers.TimeDistributed(keras.Sequential([layers.Dense(3), layers.PReLU()])), line
    yield layers.SpectralNormalization(layers.Dense(3)), flat


def attention_model():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4, name="many")(inputs, inputs)
    x = layers.GroupQueryAttention(4, 4, 2, use_bias=False, name="grouped")(x, x)
    x = layers.Attention(use_scale=True)([x, x])
    return keras.Model(inputs, layers.AdditiveAttention()([x, x]))


def made(layer, shape):
    inputs = keras.Input(shape, dtype="int32" if isinstance(layer, layers.Embedding) else None)
    return keras.Model(inputs, layer(inputs))


def disturb(model):
    """Random weights, so that no two of them have the same sums."""
    generator = np.random.default_rng(0)
    for variable in model.variables:
        if "float" in str(variable.dtype):
            variable.assign(generator.normal(size=variable.shape))
    return model


def told(plan):
    """What a plan knows of each slot's weights, by path."""
    slots = plan.measured().slots
    assert len({edit.path for edit in slots}) == len(slots)
    return {
        edit.path: (edit.slot.parameters, value(edit)) for edit in slots if edit.role != "activity"
    }, unknown(slots)


def value(edit):
    return None if edit.penalty is None else (edit.penalty, edit.planned_penalty)


def unknown(slots):
    return [edit.path for edit in slots if edit.penalised and edit.penalty is None]


def assert_told_alike(model, folder, suffix):
    disturb(model).save(folder / f"model{suffix}")
    live, _ = told(graphwd.plan(model, PENALTIES))
    filed, missing = told(graphwd.plan(folder / f"model{suffix}", PENALTIES))
    assert not missing
    assert filed.keys() <= live.keys()  # weights that no config reaches are slots of live models
    assert_alike(filed, live)
    return live, filed


def assert_alike(filed, live):
    for path, (parameters, pair) in filed.items():
        assert parameters == live[path][0], path
        there = live[path][1]  # nothing where there is no penalty, before or after
        assert pair == (there and pytest.approx(there, rel=1e-4)), path


def numbered(path, edit=None, **options):
    """Two layers with kernels that hold 0 to 11 and 1 to 12."""
    return write_keras(path, weights=weights_bytes(edit), **options)


FIRST, SECOND = 0.5 * 506, 0.5 * 650
L2 = graphwd.Rule({"class_name": "L2", "config": {"l2": 0.5}}, roles="kernel")
