"""A composite layer as people write them: its config tells nothing of its weights."""

from keras import layers


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
