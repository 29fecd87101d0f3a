"""Layers and models that Keras's own cloning loses something of, or can't clone at all."""

import keras

OFFSET = 3.0


class Unregistered(keras.layers.Layer):
    """A layer as people write it in a notebook: not registered, no get_config."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), name="w")

    def call(self, inputs):
        return inputs @ self.w


class Holder(keras.layers.Layer):
    """A layer around a layer, whose config holds the live layer and not its config."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)

    def get_config(self):
        return {**super().get_config(), "inner": self.inner}


class BuiltInCall(keras.layers.Layer):
    """A layer that creates its sublayer's weights when it is called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return super().get_config()


class NeedsFromConfig(keras.layers.Layer):
    """A layer around a layer whose constructor can't take what its config says."""

    def __init__(self, inner, sizes, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(inner, keras.Layer) or not isinstance(sizes, frozenset):
            raise TypeError("a layer and a frozenset, please")
        self.inner, self.sizes = inner, sizes

    def build(self, input_shape):
        if not self.inner.built:  # Keras may have built it when it was deserialized
            self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner, "sizes": sorted(self.sizes)}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config.pop("inner"))
        return cls(inner, frozenset(config.pop("sizes")), **config)


class Noisy(keras.layers.Layer):
    """A layer with a seed generator of its own, whose state is not in any config."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(7)
        self.dense = keras.layers.Dense(3, name="dense")

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs, training=False):
        x = self.dense(inputs)
        return x + keras.random.normal((3,), seed=self.generator) if training else x

    def get_config(self):
        return super().get_config()


class Partial(keras.layers.Layer):
    """A layer whose kernel_regularizer reaches one of its two kernels."""

    def __init__(self, kernel_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.one = keras.layers.Dense(3, kernel_regularizer=kernel_regularizer, name="one")
        self.two = keras.layers.Dense(3, name="two")

    def build(self, input_shape):
        self.one.build(input_shape)
        self.two.build((*input_shape[:-1], 3))

    def call(self, inputs):
        return self.two(self.one(inputs))

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


class Subclassed(keras.Model):
    """A subclassed model that round-trips its config."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units, name="dense")

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class NoConfig(keras.Model):
    """A subclassed model whose constructor's argument is not in its config."""

    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def call(self, inputs):
        return self.dense(inputs)


def add_offset(x):
    return x + OFFSET


def lossy(y, p):
    return keras.ops.mean(keras.ops.abs(y - p)) * OFFSET


def through(layer, width=3, shape=(3,)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Dense(width, name="head")(layer(inputs)))
