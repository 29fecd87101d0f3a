"""A small model to prove things of, and how single faults are put into it."""

import keras
import numpy as np
from keras import layers, regularizers

import graphwd
from tests.support import oracle
from tests.support.strategies import fill

POLICY = graphwd.Policy(
    [graphwd.Rule(regularizers.L2(0.125), roles="kernel"), graphwd.Rule(None, layers="Embedding")]
)


def small_model() -> keras.Model:
    """Something of everything that a fault can hit; not compiled."""
    picture = keras.Input((6, 6, 2), name="picture")
    extra = keras.Input((4,), name="extra")
    inner_input = keras.Input((6, 6, 2))
    inner = layers.Conv2D(3, 3, padding="same", name="conv")(inner_input)
    inner = layers.BatchNormalization(name="norm")(inner)
    backbone = keras.Model(inner_input, inner, name="backbone")
    x = layers.GlobalAveragePooling2D(name="pool")(backbone(picture, training=False))
    x = layers.Dense(4, name="project", kernel_regularizer="l1")(x)
    shared = layers.Dense(4, name="shared")
    difference = layers.Subtract(name="subtract")([shared(x), shared(extra)])
    x = layers.Dropout(0.5, name="drop", seed=5)(difference)
    first = layers.Dense(2, name="first")(x)
    second = layers.Dense(2, name="second")(x)
    model = keras.Model([picture, extra], [first, second], name="small")
    fill(model, 3)
    return model


def change(variable, edit) -> None:
    value = oracle.array(variable).copy()
    edit(value)
    variable.assign(value)


def flip_bit(value, element: int = 0, bit: int = 0) -> None:
    raw = value.reshape(-1).view(np.uint8)
    raw[element * value.itemsize + bit // 8] ^= 1 << bit % 8


def layer(model, path: str):
    for name in path.split("/"):
        model = model.get_layer(name)
    return model


def set_first(value) -> None:
    value.flat[0] += 1


def weight(model):
    change(layer(model, "backbone/conv").kernel, set_first)


def assert_refused(report, name: str) -> None:
    assert not report.ok
    assert not report
    assert any(name in problem for problem in report.problems), str(report)
    assert all("\n" not in problem for problem in report.problems)
    assert report.to_dict()["problems"] == list(report.problems)
