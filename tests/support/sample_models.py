"""A fixed list of small models as people write them, by name, for many tests.

`sample_models()` gives functions, each of which builds a new model with automatic or explicit
names, filled with weights that differ from each other. Inputs: `strategies.inputs_for(model)`.
"""

from collections.abc import Callable

import keras
from keras import layers, regularizers

VOCABULARY = 9  # token ids in every model and every input of the tests are below this


def multi_input_dict() -> keras.Model:
    """Wide and deep: named inputs and outputs in dictionaries."""
    age = keras.Input((1,), name="age")
    country = keras.Input((1,), dtype="int32", name="country")
    text = keras.Input((5,), dtype="int32", name="text")
    words = layers.Embedding(VOCABULARY, 4, name="words")(text)
    place = layers.Flatten()(layers.Embedding(VOCABULARY, 2, name="places")(country))
    deep = layers.Concatenate()([age, place, layers.GlobalAveragePooling1D()(words)])
    deep = layers.Dense(8, "relu", name="hidden", kernel_regularizer="l2")(deep)
    outputs = {
        "priority": layers.Dense(1, "sigmoid", name="priority")(deep),
        "department": layers.Dense(3, "softmax", name="department")(
            layers.Concatenate()([deep, age])
        ),
    }
    return keras.Model({"age": age, "country": country, "text": text}, outputs, name="wide_deep")


def siamese() -> keras.Model:
    """Two pictures through one encoder: a shared model in a list of inputs."""
    picture = keras.Input((6, 6, 1))
    x = layers.Conv2D(3, 3, activation="relu", name="conv")(picture)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling2D()(x)
    encoder = keras.Model(picture, layers.Dense(4, name="embed")(x), name="encoder")
    left, right = keras.Input((6, 6, 1), name="left"), keras.Input((6, 6, 1), name="right")
    distance = layers.Subtract()([encoder(left), encoder(right)])
    score = layers.Dense(1, "sigmoid", name="score")(distance)
    return keras.Model([left, right], score, name="siamese")


def nested_backbone() -> keras.Model:
    """Transfer learning: a frozen part in a nested backbone, called as for inference."""
    stem = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, strides=2, padding="same", name="conv")],
        name="stem",
    )
    picture = keras.Input((8, 8, 3))
    x = stem(picture)
    shortcut = x
    x = layers.SeparableConv2D(4, 3, padding="same", use_bias=False, name="separable")(x)
    x = layers.BatchNormalization(scale=False, name="norm")(x)
    x = layers.Add()([layers.PReLU(shared_axes=[1, 2], name="prelu")(x), shortcut])
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    backbone = keras.Model(picture, x, name="backbone")
    stem.trainable = False
    backbone.get_layer("norm").trainable = False
    inputs = keras.Input((8, 8, 3), name="picture")
    x = layers.GlobalAveragePooling2D()(backbone(inputs, training=False))
    x = layers.Dropout(0.2)(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="transfer")


def bidirectional_text() -> keras.Model:
    """A text classifier with masking, recurrent layers in wrappers, and cells."""
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(VOCABULARY, 4, mask_zero=True, name="embed")(tokens)
    recurrent = layers.LSTM(
        3, return_sequences=True, recurrent_regularizer=regularizers.L1(1e-3), name="lstm"
    )
    x = layers.Bidirectional(recurrent, name="both_ways")(x)
    x = layers.TimeDistributed(layers.Dense(4, "relu", name="dense"), name="each_word")(x)
    x = layers.RNN([layers.GRUCell(3, name="lower"), layers.LSTMCell(2, name="upper")])(x)
    return keras.Model(tokens, layers.Dense(2, "softmax")(x), name="text")


def transformer() -> keras.Model:
    """A small transformer of Keras's own layers, its names automatic."""
    tokens = keras.Input((5,), dtype="int32")
    positions = layers.Embedding(5, 4)(keras.ops.arange(5))
    x = layers.Embedding(VOCABULARY, 4)(tokens) + positions
    for _ in range(2):
        attended = layers.MultiHeadAttention(2, 2, dropout=0.1)(x, x, use_causal_mask=True)
        x = layers.LayerNormalization()(x + attended)
        hidden = layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d", activation="gelu")(x)
        x = layers.LayerNormalization()(x + layers.Dropout(0.1)(layers.Dense(4)(hidden)))
    return keras.Model(tokens, layers.Dense(VOCABULARY, dtype="float32")(x))


def mixed_precision_convnet() -> keras.Model:
    """A compiled ConvNet in mixed precision with batch normalization and dropout."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        picture = keras.Input((8, 8, 3))
        x = layers.Rescaling(1 / 255)(picture)
        for filters in (4, 6):
            x = layers.Conv2D(filters, 3, use_bias=False, padding="same")(x)
            x = layers.BatchNormalization()(x)
            x = layers.MaxPooling2D()(layers.ReLU()(x))
        x = layers.Dropout(0.5, seed=3)(layers.Flatten()(x))
        model = keras.Model(picture, layers.Dense(3, "softmax", dtype="float32")(x), name="mixed")
    finally:
        keras.config.set_dtype_policy(policy)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "categorical_crossentropy")
    return model


def sequential_unbuilt() -> keras.Model:
    """A Sequential model without an input: no weights yet."""
    return keras.Sequential([layers.Dense(4, "relu"), layers.Dropout(0.3), layers.Dense(2)])


def sequential_built() -> keras.Model:
    """A Sequential model with another inside, built."""
    return keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Conv2D(3, 2, activation="relu", kernel_regularizer=regularizers.L2(0.01)),
            keras.Sequential([layers.Flatten(), layers.Dense(4, "tanh")], name="middle"),
            layers.Dense(2, bias_regularizer="l1"),
        ],
        name="stack",
    )


def ops_graph() -> keras.Model:
    """Functions of keras.ops between layers, one layer shared, outputs in a list."""
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    shared = layers.Dense(3, name="shared")
    difference = keras.ops.abs(shared(left) - shared(right)) * 2.0
    joined = keras.ops.concatenate([difference, right], axis=-1)
    gate = keras.ops.sigmoid(layers.Dense(7, name="gate")(joined))
    first = layers.Dense(1, name="first")((joined * gate)[:, 1:5])
    return keras.Model([left, right], [first, keras.ops.mean(gate, axis=-1, keepdims=True)])


def sample_models() -> dict[str, Callable[[], keras.Model]]:
    """Functions that build new models, by name. Only `sequential_unbuilt` has no weights."""
    builders = (
        multi_input_dict,
        siamese,
        nested_backbone,
        bidirectional_text,
        transformer,
        mixed_precision_convnet,
        sequential_unbuilt,
        sequential_built,
        ops_graph,
    )
    return {builder.__name__: builder for builder in builders}
