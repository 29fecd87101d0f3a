"""Composite layers as people write them: their configs tell nothing of their weights."""

import keras
from keras import layers


@keras.saving.register_keras_serializable(package="tests")
class Composite(layers.Layer):
    """A Dense layer within, and two weights of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(3, name="inner")

    def build(self, shape):
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(3,), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(3,), initializer="zeros", name="shift")

    def call(self, x):
        return self.inner(x) * self.scale + self.shift


@keras.saving.register_keras_serializable(package="tests")
class Gate(layers.Layer):
    """A composite layer whose config has no regularizer to set: it carries three penalties."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = layers.Dense(units, name="inner")

    def build(self, input_shape):
        self.inner.build(input_shape)
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")

    def call(self, inputs):
        return self.inner(inputs) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class Block(layers.Layer):
    """A composite layer whose config has no regularizer to set."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, activation="relu", name="first")
        self.second = layers.Dense(units, name="second")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((*input_shape[:-1], self.units))
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")

    def call(self, inputs):
        return self.second(self.first(inputs)) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units}
