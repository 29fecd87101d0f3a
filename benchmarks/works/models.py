"""The models that every way is tried on: small ones, since what is tested has no size."""

from typing import Any

import numpy

from benchmarks.works.framework import keras, legacy

CLASSES = 3
BATCH = 8


def mobilenet() -> Any:
    """Convolutions, depthwise convolutions, batch normalization and a Dense layer."""
    return keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, dropout=0.0, weights=None, classes=CLASSES
    )


def nested() -> Any:
    """A model as a layer of another, and one layer outside of it."""
    inputs = keras.Input((6, 6, 2))
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, name="inner_conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(6, "tanh", name="inner_dense"),
        ],
        name="backbone",
    )
    return keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax", name="head")(inner(inputs)))


def recurrent() -> Any:
    """An LSTM, a Bidirectional one, and a Dense layer."""
    inputs = keras.Input((5, 4))
    x = keras.layers.LSTM(4, return_sequences=True, name="plain")(inputs)
    x = keras.layers.Bidirectional(keras.layers.LSTM(3), name="both_ways")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax", name="head")(x))


def transformer() -> Any:
    """Attention and a feed-forward block; with KerasHub, one of its encoders follows."""
    inputs = keras.Input((6, 8))
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    x = keras.layers.LayerNormalization(name="norm")(keras.layers.Add()([x, inputs]))
    x = keras.layers.Dense(8, "relu", name="feedforward")(x)
    encoder = _encoder()
    if encoder is not None:
        x = encoder(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax", name="head")(x))


def _encoder() -> Any:
    if legacy:
        return None
    try:
        import keras_hub
    except ImportError:
        return None
    return keras_hub.layers.TransformerEncoder(8, 2, name="encoder")


def choosable() -> Any:
    """Two layers that shall have penalties of their own."""
    layers = [keras.layers.Dense(6, "tanh", name="body"), keras.layers.Dense(CLASSES, name="head")]
    inputs = keras.Input((5,))
    x = inputs
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, keras.layers.Activation("softmax")(x))


MODELS = {
    "mobilenet": mobilenet,
    "nested": nested,
    "recurrent": recurrent,
    "transformer": transformer,
    "choosable": choosable,
}
SHAPES = {
    "mobilenet": (32, 32, 3),
    "nested": (6, 6, 2),
    "recurrent": (5, 4),
    "transformer": (6, 8),
    "choosable": (5,),
}


def batch(model: str) -> tuple[Any, Any]:
    """One batch of noise that fits a model, the same every time."""
    generator = numpy.random.default_rng(7)
    x = generator.normal(size=(BATCH, *SHAPES[model])).astype("float32")
    y = generator.integers(CLASSES, size=BATCH)
    return x, numpy.eye(CLASSES, dtype="float32")[y]


def is_kernel(name: str) -> bool:
    """Whether a variable is one that the task wants penalised, by its name."""
    return name.split("/")[-1].split(":")[0].endswith("kernel")


def kernels(model: Any) -> list[int]:
    """The places of the kernels among a model's weights."""
    return [place for place, weight in enumerate(model.weights) if is_kernel(weight.name)]
