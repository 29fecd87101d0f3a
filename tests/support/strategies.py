"""Hypothesis strategies: random small Keras models (as recipes of plain data) and policies.

A *recipe* is JSON-like data that `build` turns into a model, the same one in every process: it
prints, it shrinks, and it can be sent to another process. A functional model's recipe is a list of
steps; each makes a layer (`layer`), calls an earlier step's layer again (`again`) or applies a
function of `keras.ops` (`op`). Tensors are called `t0`, `t1`, ...: first the inputs, then what each
step returns.
"""

import functools
import math
import random
import re

import keras
import numpy as np
from hypothesis import note
from hypothesis import strategies as st

from tests.support.sample_models import VOCABULARY, sample_models

__all__ = [
    "FEATURES",
    "build",
    "compile_model",
    "features",
    "fill",
    "inputs_for",
    "models",
    "policies",
    "recipes",
    "sample_models",
    "weights",
]

REFERENCE = re.compile(r"t\d+")
LONGEST = 16  # neither channels nor spatial sizes grow beyond this
MAX_STEPS = 8

# Layers with weights that no *_regularizer argument reaches.
UNREACHABLE = ("RMSNormalization", "Attention", "AdditiveAttention")

# ---------------------------------------------------------------- from a recipe to a model


def build(recipe: dict, *, fresh_names: bool = True) -> keras.Model:
    """The model of a recipe, with every weight and every seed generator filled from its seed.

    Args:
        recipe: A draw of `recipes()`.
        fresh_names: Whether automatic names start at zero again, so that the same recipe gives
            the same names each time. Otherwise they go on counting, as in a second model.

    Returns:
        A built `keras.Model`, compiled if the recipe says so.
    """
    policy = keras.config.dtype_policy()
    # Keras draws default seeds from `random`, which a strategy must leave as it was.
    random_state = random.getstate()
    random.seed(recipe["seed"])
    if fresh_names:
        keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy(recipe["dtype_policy"])
    try:
        model = _make(recipe["model"])
        if not model.built:
            model.build((None, *recipe["model"]["built_for"]))
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(random_state)
    fill(model, recipe["seed"])
    if recipe["compile"]:
        compile_model(model, recipe["compile"], recipe["seed"])
    return model


def fill(model: keras.Model, seed: int = 0) -> None:
    """Gives every variable a value of its own, so that two swapped ones show."""
    for index, variable in enumerate(model.variables):
        generator = np.random.default_rng([seed, index])
        if not keras.backend.is_float_dtype(variable.dtype):
            if variable.shape == (2,):  # a seed generator's state
                variable.assign(np.array([seed, index], dtype="uint32"))
        elif "variance" in variable.path.rsplit("/", 1)[-1]:
            variable.assign(generator.uniform(0.5, 1.5, variable.shape).astype("float32"))
        else:
            variable.assign(generator.uniform(-0.4, 0.4, variable.shape).astype("float32"))


def weights(model: keras.Model) -> list[bytes]:
    """The values of all weights, bit for bit."""
    return [keras.ops.convert_to_numpy(weight).tobytes() for weight in model.weights]


def compile_model(model: keras.Model, compile_with: dict, seed: int = 0) -> None:
    """Compiles a model and, on request, fills the optimizer's slots as if it had trained."""
    optimizer = keras.optimizers.get(
        {"class_name": compile_with["optimizer"], "config": dict(compile_with["config"])}
    )
    if model.dtype_policy.name == "mixed_float16":
        # Said out loud: what compile() would wrap by itself, a reloaded model has unwrapped.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer, loss="mse")
    if compile_with["trained"]:
        model.optimizer.build(model.trainable_variables)
        for index, variable in enumerate(model.optimizer.variables):
            if variable.path.endswith("iteration"):
                variable.assign(3)
            elif len(variable.shape):
                generator = np.random.default_rng([seed, index, 1])
                variable.assign(generator.uniform(0.01, 0.1, variable.shape).astype("float32"))


def _make(spec: dict):
    """A layer or a model, from its part of the recipe."""
    if spec["class_name"] == "Functional":
        made = _make_functional(spec)
    elif spec["class_name"] == "Sequential":
        layers = [_make(layer) for layer in spec["layers"]]
        if spec["input_shape"] is not None:
            layers.insert(0, keras.Input(tuple(spec["input_shape"]), dtype=spec["dtype"]))
        made = keras.Sequential(layers, name=spec["name"])
    else:
        config = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in spec["config"].items()
        }
        if "wraps" in spec:
            config["layer"] = _make(spec["wraps"])
        if "backward" in spec:
            config["backward_layer"] = _make(spec["backward"])
        if "cells" in spec:
            cells = [_make(cell) for cell in spec["cells"]]
            if spec["class_name"] == "RNN" and len(cells) == 1:
                config["cell"] = cells[0]
            else:
                config["cell" if spec["class_name"] == "RNN" else "cells"] = cells
        made = getattr(keras.layers, spec["class_name"])(**config)
    if spec.get("trainable") is False:
        made.trainable = False
    return made


def _make_functional(spec: dict) -> keras.Model:
    tensors = [
        keras.Input(tuple(given["shape"]), dtype=given["dtype"], name=given["name"])
        for given in spec["inputs"]
    ]
    layers = []
    for step in spec["steps"]:
        arguments, keywords = _resolve([step["args"], step.get("kwargs", {})], tensors)
        if "op" in step:
            layers.append(None)
            result = OPERATIONS[step["op"]](*arguments, **keywords)
        else:
            layers.append(_make(step["layer"]) if "layer" in step else layers[step["again"]])
            result = layers[-1](*arguments, **keywords)
        tensors.extend(keras.tree.flatten(result))
    takes, gives = _resolve([spec["takes"], spec["gives"]], tensors)
    return keras.Model(takes, gives, name=spec["name"])


def _resolve(value, tensors: list):
    """The value with each "t3" replaced by the tensor of that number."""
    if isinstance(value, str) and REFERENCE.fullmatch(value):
        return tensors[int(value[1:])]
    if isinstance(value, list):
        return [_resolve(item, tensors) for item in value]
    if isinstance(value, dict):
        return {key: _resolve(item, tensors) for key, item in value.items()}
    return value


OPERATIONS = {
    "relu": lambda x: keras.ops.relu(x),
    "double": lambda x: x * 2,
    "one minus": lambda x: 1.0 - x,
    "subtract": lambda x, y: x - y,
    "divide": lambda x, y: x / (keras.ops.square(y) + 1.0),
    "mean": lambda x: keras.ops.mean(x, axis=-1, keepdims=True),
    "flatten": lambda x: keras.ops.reshape(x, (-1, math.prod(x.shape[1:]))),
    "first": lambda x: x[:, 0],
    "slice": lambda x: x[..., :1],
    "concatenate": lambda *xs: keras.ops.concatenate(xs, axis=-1),
}


def inputs_for(model: keras.Model, seed: int = 0, batch: int = 2):
    """Random inputs in the structure that the model takes.

    A Sequential model that is not built yet gets `(batch, 4)`.
    """
    generator = np.random.default_rng(seed)

    def draw(tensor):
        shape = (batch, *(3 if size is None else size for size in tensor.shape[1:]))
        if keras.backend.is_int_dtype(tensor.dtype):
            return generator.integers(0, VOCABULARY, shape).astype(tensor.dtype)
        return generator.standard_normal(shape).astype("float32")

    if not model.built:
        return draw(keras.KerasTensor((None, 4)))
    if isinstance(model, keras.Sequential):
        return draw(model.inputs[0] if model.inputs else keras.KerasTensor(model.input_shape))
    return keras.tree.map_structure(draw, model.input)


# ---------------------------------------------------------------- what layers are dressed with

REGULARIZERS = [
    {"class_name": "L2", "config": {"l2": 0.01}},
    {"class_name": "L1", "config": {"l1": 0.02}},
    {"class_name": "L1L2", "config": {"l1": 0.01, "l2": 0.03}},
]
ORTHOGONAL = [
    {"class_name": "OrthogonalRegularizer", "config": {"factor": 0.01, "mode": mode}}
    for mode in ("rows", "columns")
]
CONSTRAINTS = [
    {"class_name": "MaxNorm", "config": {"max_value": 2.0, "axis": 0}},
    {"class_name": "NonNeg", "config": {}},
]
INITIALIZERS = [
    "he_normal",
    {"class_name": "Constant", "config": {"value": 0.1}},
    {"class_name": "RandomUniform", "config": {"minval": -0.1, "maxval": 0.1, "seed": 7}},
]
VECTORS = ("bias", "gamma", "beta", "alpha")


@functools.cache
def _dressings(roles: tuple, flat: tuple, switches: tuple, activity: bool):
    """A strategy of at most three arguments that change no shape.

    Args:
        roles: The layer's roles, which may get a regularizer, constraint or initializer.
        flat: The roles whose weight has two dimensions, as `OrthogonalRegularizer` needs.
        switches: Arguments that may be False.
        activity: Whether the layer has an `activity_regularizer`.
    """
    options = [(switch, False) for switch in switches]
    for role in roles:
        kinds = REGULARIZERS + (ORTHOGONAL if role in flat else [])
        options += [(f"{role}_regularizer", kind) for kind in kinds]
        options.append((f"{role}_constraint", CONSTRAINTS[role in VECTORS]))
        if role in VECTORS:
            options.append((f"{role}_initializer", INITIALIZERS[1]))
        else:
            options += [(f"{role}_initializer", kind) for kind in INITIALIZERS]
    if activity:
        options += [("activity_regularizer", kind) for kind in REGULARIZERS]
    return st.lists(st.sampled_from(options), max_size=3, unique_by=lambda option: option[0])


NAMES = st.sampled_from([None, None, "stem", "block", "proj", "head", "left", "Right"])
DTYPES = st.sampled_from([None] * 12 + ["float64", "mixed_float16", "mixed_bfloat16", "float32"])
SEEDS = st.sampled_from([None, 1, 23])
RATES = st.sampled_from([0.5, 0.1, 0.0])
UNITS = st.sampled_from([4, 4, 2, 3])
ACTIVATIONS = st.sampled_from([None, "relu", "tanh", "gelu"])


class Bench:
    """Where layers are drawn: what is allowed, and the names and steps still free."""

    def __init__(
        self,
        draw,
        *,
        depth: int,
        precision: bool,
        unreachable: bool,
        fits: bool,
        policy: str = "float32",
    ):
        self.draw = draw
        self.fits = fits
        self.depth = depth
        self.precision = precision
        self.unreachable = unreachable
        self.policy = policy
        self.names = set()

    def inner(self) -> "Bench":
        return Bench(
            self.draw,
            depth=self.depth - 1,
            precision=self.precision,
            unreachable=self.unreachable,
            fits=self.fits,
            policy=self.policy,
        )

    def pick(self, *options):
        return self.draw(st.sampled_from(options))

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(0, 99)) >= 100 - percent

    def count(self, longest: int) -> int:
        """From 1 to `longest`; large more often than hypothesis would have it."""
        return self.draw(st.sampled_from([1, *range(longest, longest // 2, -1), longest, 2]))

    def name(self) -> str | None:
        """None for an automatic name, or a name that this model has not used."""
        name = self.draw(NAMES)
        if name is None:
            return None
        count = 0
        unique = name
        while unique in self.names:
            count += 1
            unique = f"{name}_{count}"
        self.names.add(unique)
        return unique

    def layer(
        self, class_name, config=None, roles=(), flat=(), switches=(), activity=False, **more
    ):
        """One layer's spec, with a name, a dtype, regularizers and so on, or without."""
        config = dict(config or {})
        name = self.name()
        if name is not None:
            config["name"] = name
        # Wrappers don't hand their dtype on; SpatialDropout's config forgets its dtype policy.
        whole = "wraps" not in more and "cells" not in more
        if self.precision and whole and not class_name.startswith("SpatialDropout"):
            dtype = self.draw(DTYPES)
            if dtype is not None and not (self.fits and dtype == "float64"):
                config["dtype"] = dtype
        dtype = config.get("dtype", self.policy)
        if dtype == "float64":
            flat = ()  # OrthogonalRegularizer computes in float32 only
        activity = activity and (dtype == "float32" or not self.fits)
        if roles or switches or activity:
            config.update(self.draw(_dressings(roles, flat, switches, activity)))
        spec = {"class_name": class_name, "config": config, **more}
        if self.chance(12):
            spec["trainable"] = False
        return spec


# ---------------------------------------------------------------- layers: one tensor in, one out
# Each takes (bench, shape without the batch) and returns (spec, the output's shape).


def dense(b, shape):
    units = b.draw(UNITS)
    config = {"units": units, "activation": b.draw(ACTIVATIONS)}
    roles = ("kernel", "bias")
    return b.layer("Dense", config, roles, ("kernel",), ("use_bias",), True), (*shape[:-1], units)


def einsum_dense(b, shape):
    units = b.draw(UNITS)
    if len(shape) == 2 and b.chance(50):
        config = {
            "equation": "abc,cde->abde",
            "output_shape": [shape[0], 2, units],
            "bias_axes": b.pick("e", "de", None),
        }
        # Three dimensions: no OrthogonalRegularizer.
        return b.layer("EinsumDense", config, ("kernel", "bias"), (), (), True), (
            shape[0],
            2,
            units,
        )
    lead = "bdefg"[: len(shape) - 1]
    config = {
        "equation": f"a{lead}x,xy->a{lead}y",
        "output_shape": [*shape[:-1], units],
        "bias_axes": b.pick("y", None),
    }
    spec = b.layer("EinsumDense", config, ("kernel", "bias"), ("kernel",), (), True)
    return spec, (*shape[:-1], units)


def batch_normalization(b, shape):
    config = {"momentum": b.pick(0.9, 0.99, 0.5)}
    spec = b.layer("BatchNormalization", config, ("beta", "gamma"), (), ("center", "scale"))
    return spec, shape


def layer_normalization(b, shape):
    return b.layer("LayerNormalization", {}, ("beta", "gamma"), (), ("center", "scale")), shape


def group_normalization(b, shape):
    config = {"groups": b.pick(1, -1) if shape[-1] % 2 else b.pick(1, 2, -1)}
    spec = b.layer("GroupNormalization", config, ("beta", "gamma"), (), ("center", "scale"))
    return spec, shape


def prelu(b, shape):
    axes = list(range(1, len(shape)))
    config = {"shared_axes": b.pick(axes, None)} if axes else {}
    return b.layer("PReLU", config, ("alpha",)), shape


def activation(b, shape):
    return b.layer(
        "Activation", {"activation": b.pick("relu", "tanh", "sigmoid", "softmax")}
    ), shape


def leaky_relu(b, shape):
    return b.layer("LeakyReLU", {"negative_slope": 0.2}), shape


def unit_normalization(b, shape):
    return b.layer("UnitNormalization"), shape


def activity_regularization(b, shape):
    if b.fits and (b.precision or b.policy != "float32"):
        return activation(b, shape)
    return b.layer("ActivityRegularization", {"l1": 0.0, "l2": 0.01}), shape


def dropout(b, shape):
    return b.layer("Dropout", {"rate": b.draw(RATES), "seed": b.draw(SEEDS)}), shape


def gaussian_noise(b, shape):
    return b.layer("GaussianNoise", {"stddev": 0.1, "seed": b.draw(SEEDS)}), shape


def gaussian_dropout(b, shape):
    return b.layer("GaussianDropout", {"rate": 0.2, "seed": b.draw(SEEDS)}), shape


def spatial_dropout(b, shape):
    if b.policy.startswith("mixed"):
        return dropout(b, shape)
    name = f"SpatialDropout{len(shape) - 1}D"
    return b.layer(name, {"rate": b.draw(RATES), "seed": b.draw(SEEDS)}), shape


def flatten(b, shape):
    return b.layer("Flatten"), (math.prod(shape),)


def rms_normalization(b, shape):
    return b.layer("RMSNormalization"), shape


def repeat_vector(b, shape):
    return b.layer("RepeatVector", {"n": 3}), (3, *shape)


def reshape(b, shape):
    if len(shape) == 1:
        target = (shape[0], 1)
    elif len(shape) == 2:
        target = (shape[1], shape[0])
    else:
        target = (math.prod(shape[:-1]), shape[-1])
    return b.layer("Reshape", {"target_shape": list(target)}), target


def permute(b, shape):
    return b.layer("Permute", {"dims": [2, 1]}), (shape[1], shape[0])


# images and sequences: convolutions and pooling


def _convolved(shape, padding, strides):
    sizes = [
        math.ceil(size / strides) if padding != "valid" else (size - 2) // strides + 1
        for size in shape[:-1]
    ]
    return tuple(sizes)


def _convolution(b, shape, *, causal=False, dilates=True):
    """The geometry that convolutions have in common: arguments, and the output's size."""
    roomy = min(shape[:-1]) >= 2
    paddings = ["same"] + (["valid"] if roomy else []) + (["causal"] if causal else [])
    config = {"kernel_size": 2, "padding": b.pick(*paddings)}
    strides = 1
    if roomy:
        strides = b.pick(1, 1, 2)
        config["strides"] = strides
    if dilates and strides == 1 and config["padding"] == "same" and b.chance(15):
        config["dilation_rate"] = 2
    config["activation"] = b.draw(ACTIVATIONS)
    return config, _convolved(shape, config["padding"], strides)


def conv(b, shape):
    config, sizes = _convolution(b, shape, causal=len(shape) == 2)
    filters = b.draw(UNITS)
    if shape[-1] == filters == 4 and b.chance(20):
        config["groups"] = 2
    config["filters"] = filters
    name = f"Conv{len(shape) - 1}D"
    return b.layer(name, config, ("kernel", "bias"), (), ("use_bias",), True), (*sizes, filters)


def conv_transpose(b, shape):
    config = {"filters": b.draw(UNITS), "kernel_size": 2, "strides": 1, "padding": "same"}
    name = f"Conv{len(shape) - 1}DTranspose"
    spec = b.layer(name, config, ("kernel", "bias"), (), ("use_bias",), True)
    return spec, (*shape[:-1], config["filters"])


def depthwise_conv(b, shape):
    config, sizes = _convolution(b, shape)
    config["depth_multiplier"] = b.pick(1, 1, 2) if shape[-1] * 2 <= LONGEST else 1
    name = f"DepthwiseConv{len(shape) - 1}D"
    spec = b.layer(name, config, ("depthwise", "bias"), (), ("use_bias",), True)
    return spec, (*sizes, shape[-1] * config["depth_multiplier"])


def separable_conv(b, shape):
    config, sizes = _convolution(b, shape, dilates=False)
    config["filters"] = b.draw(UNITS)
    config["depth_multiplier"] = b.pick(1, 1, 2)
    name = f"SeparableConv{len(shape) - 1}D"
    roles = ("depthwise", "pointwise", "bias")
    spec = b.layer(name, config, roles, (), ("use_bias",), True)
    return spec, (*sizes, config["filters"])


def pooling(b, shape):
    if min(shape[:-1]) < 2:
        return flatten(b, shape)
    name = b.pick("MaxPooling", "AveragePooling")
    spec = b.layer(f"{name}{len(shape) - 1}D", {"pool_size": 2})
    return spec, (*(size // 2 for size in shape[:-1]), shape[-1])


def global_pooling(b, shape):
    name = b.pick("GlobalAveragePooling", "GlobalMaxPooling")
    config = {}
    if b.chance(20):
        config["keepdims"] = True
    spec = b.layer(f"{name}{len(shape) - 1}D", config)
    return spec, ((*(1 for _ in shape[:-1]), shape[-1]) if config else (shape[-1],))


def zero_padding(b, shape):
    if max(shape[:-1]) + 2 > LONGEST:
        return activation(b, shape)
    spec = b.layer(f"ZeroPadding{len(shape) - 1}D", {"padding": 1})
    return spec, (*(size + 2 for size in shape[:-1]), shape[-1])


def up_sampling(b, shape):
    if max(shape[:-1]) * 2 > 8:
        return activation(b, shape)
    spec = b.layer(f"UpSampling{len(shape) - 1}D", {"size": 2})
    return spec, (*(size * 2 for size in shape[:-1]), shape[-1])


# sequences: recurrent layers and attention

RECURRENT = ("kernel", "recurrent", "bias")
SQUARE = ("kernel", "recurrent")


def _recurrent_config(b):
    config = {"units": b.draw(UNITS)}
    if b.chance(15):
        config["dropout"] = 0.2
        config["seed"] = b.draw(SEEDS)
    if b.chance(10):
        config["recurrent_dropout"] = 0.1
    return config


def recurrent(b, shape, *, sequences=None):
    name = b.pick("LSTM", "GRU", "SimpleRNN")
    config = _recurrent_config(b)
    sequences = b.chance(50) if sequences is None else sequences
    config["return_sequences"] = sequences
    if name == "GRU" and b.chance(20):
        config["reset_after"] = False
    if b.chance(10):
        config["go_backwards"] = True
    units = config["units"]
    spec = b.layer(name, config, RECURRENT, SQUARE, ("use_bias",), True)
    return spec, ((shape[0], units) if sequences else (units,))


def bidirectional(b, shape):
    inner = b.inner()
    inner.precision = False
    forward, out = recurrent(inner, shape)
    forward["config"].pop("go_backwards", None)
    forward.pop("trainable", None)
    config = {"merge_mode": b.pick("concat", "sum", "mul", "ave")}
    more = {"wraps": forward}
    if b.chance(40):
        backward = {
            "class_name": forward["class_name"],
            "config": {
                "units": forward["config"]["units"],
                "return_sequences": forward["config"]["return_sequences"],
                "go_backwards": True,
                "kernel_regularizer": b.pick(*REGULARIZERS),
            },
        }
        more["backward"] = backward
    spec = b.layer("Bidirectional", config, **more)
    width = out[-1] * 2 if config["merge_mode"] == "concat" else out[-1]
    return spec, (*out[:-1], width)


def _cell(b):
    name = b.pick("LSTMCell", "GRUCell", "SimpleRNNCell")
    spec = b.layer(name, {"units": b.draw(UNITS)}, RECURRENT, SQUARE, ("use_bias",))
    spec.pop("trainable", None)
    return spec


def rnn_of_cells(b, shape):
    """RNN(cell), RNN([cells]) or RNN(StackedRNNCells([cells]))."""
    inner = b.inner()
    inner.precision = False
    cells = [_cell(inner) for _ in range(b.pick(1, 2, 2))]
    units = cells[-1]["config"]["units"]
    if len(cells) > 1 and b.chance(40):
        # Of several cells only: a stack of one fails on masks in Keras.
        cells = [{"class_name": "StackedRNNCells", "config": {}, "cells": cells}]
    sequences = b.chance(50)
    spec = b.layer("RNN", {"return_sequences": sequences}, cells=cells)
    return spec, ((shape[0], units) if sequences else (units,))


def conv_lstm(b, shape):
    config = {
        "filters": b.draw(UNITS),
        "kernel_size": 2,
        "padding": "same",
        "return_sequences": b.chance(30),
    }
    name = f"ConvLSTM{len(shape) - 2}D"
    spec = b.layer(name, config, RECURRENT, (), ("use_bias",), True)
    sizes = shape[1:-1]
    out = (*sizes, config["filters"])
    return spec, ((shape[0], *out) if config["return_sequences"] else out)


def time_distributed(b, shape):
    inner = b.inner()
    inner.precision = False  # TimeDistributed calls the layer without its autocast
    if b.depth > 0 and b.chance(35):
        wrapped, out = sequential(inner, shape[1:], longest=2)
    else:
        makers = {
            2: [dense, dropout],
            3: [conv, dense, separable_conv, depthwise_conv],
            4: [conv, depthwise_conv, separable_conv],
        }
        wrapped, out = inner.draw(st.sampled_from(makers[len(shape)]))(inner, shape[1:])
    spec = b.layer("TimeDistributed", {}, wraps=wrapped)
    return spec, (shape[0], *out)


def attention(b, shape, class_name=None):
    """An attention layer, to be called as `layer(query, value)`."""
    dropped = {"dropout": 0.2, "seed": b.draw(SEEDS)} if b.chance(25) else {}
    if class_name in ("Attention", "AdditiveAttention"):
        return b.layer(class_name, {"use_scale": True, **dropped}), shape
    roles, switches = ("kernel", "bias"), ("use_bias",)
    if b.pick("MultiHeadAttention", "GroupQueryAttention") == "MultiHeadAttention":
        config = {"num_heads": b.pick(2, 1), "key_dim": 2, **dropped}
        if b.chance(25):
            config["value_dim"] = 3
        return b.layer("MultiHeadAttention", config, roles, (), switches, True), shape
    heads = b.pick(1, 2)
    config = {"head_dim": 2, "num_query_heads": 2, "num_key_value_heads": heads, **dropped}
    return b.layer("GroupQueryAttention", config, roles, (), switches, True), shape


def sequential(b, shape, *, longest=3):
    """A Sequential model; now and then one that is built only by being called."""
    inner = b.inner()
    layers = []
    given = shape
    for _ in range(b.count(longest)):
        spec, shape = unary(inner, shape)
        layers.append(spec)
    known = not b.chance(30)
    spec = {
        "class_name": "Sequential",
        "name": b.name(),
        "input_shape": list(given) if known else None,
        "built_for": list(given),
        "dtype": None,
        "layers": layers,
    }
    if b.chance(15):
        spec["trainable"] = False
    return spec, shape


CORE = [dense, dense, einsum_dense]
NORMALIZATION = [batch_normalization, layer_normalization, group_normalization]
ACTIVATION = [prelu, activation, prelu, leaky_relu, unit_normalization, activity_regularization]
NOISE = [dropout, gaussian_noise, gaussian_dropout]
SPATIAL_NOISE = [dropout, spatial_dropout, gaussian_noise, spatial_dropout, gaussian_dropout]
CONVOLUTION = [conv, separable_conv, depthwise_conv, conv_transpose, separable_conv]
SHAPE = [pooling, global_pooling, flatten, reshape, zero_padding, up_sampling]
RECURRENT_LAYERS = [recurrent, bidirectional, rnn_of_cells, time_distributed, rnn_of_cells]
VIDEO = [conv_lstm, time_distributed]

# A family is drawn first and then its member, so that large families don't crowd out small ones.
FAMILIES = {
    1: [CORE, CORE, NORMALIZATION, ACTIVATION, NOISE, [repeat_vector, reshape]],
    2: [
        CORE,
        *[CONVOLUTION, RECURRENT_LAYERS] * 2,
        NORMALIZATION,
        ACTIVATION,
        SPATIAL_NOISE,
        [*SHAPE, permute],
    ],
    3: [
        *[CONVOLUTION] * 3,
        NORMALIZATION,
        ACTIVATION,
        SPATIAL_NOISE,
        SHAPE,
        CORE,
        [time_distributed],
    ],
    4: [VIDEO, VIDEO, NORMALIZATION, SPATIAL_NOISE],
}


def unary(b, shape):
    """Any layer or nested Sequential that takes this shape."""
    families = FAMILIES.get(len(shape), [[flatten, dense]])
    if len(shape) == 2 and shape[0] > LONGEST:
        families = [[dense, flatten, global_pooling, layer_normalization]]
    if b.unreachable:
        families = [*families, [rms_normalization]]
    if b.depth > 0:
        families = [*families, [sequential]]
    return b.draw(st.sampled_from(b.draw(st.sampled_from(families))))(b, shape)


# ---------------------------------------------------------------- functional models

TOKENS = "int32"
INPUT_SHAPES = [
    ([4], "float32"),
    ([4, 4, 2], "float32"),
    ([4, 4, 2], "float32"),
    ([3, 4], "float32"),
    ([3, 4], "float32"),
    ([3], TOKENS),
    ([2, 4, 4, 1], "float32"),
]
MERGES = ("Add", "Concatenate", "Subtract", "Multiply", "Average", "Maximum")


class Graph:
    """A functional model while it is drawn: its tensors' shapes and its steps."""

    def __init__(self, bench: Bench, given: list):
        self.bench = bench
        self.tensors = list(given)  # (shape without the batch, dtype)
        self.inputs = len(given)
        self.used = set()
        self.steps = []
        self.calls = {}  # step number -> (arguments, shapes of the outputs), if callable again

    def floats(self) -> list[int]:
        return [index for index, (_, dtype) in enumerate(self.tensors) if dtype != TOKENS]

    def add(self, step: dict, outputs: list) -> None:
        """Appends a step; `outputs` are the shapes of what it returns."""
        self.used.update(_references([step["args"], step.get("kwargs", {})]))
        self.steps.append(step)
        if "layer" in step:
            self.calls[len(self.steps) - 1] = outputs
        self.tensors.extend((tuple(shape), "float32") for shape in outputs)

    def pick_tensor(self, indices: list[int]) -> int:
        """One of these tensors; the newest or one that nobody has used, more often than not."""
        newest = [index for index in reversed(indices) if index not in self.used]
        return self.bench.draw(st.sampled_from([*newest, *newest, *reversed(indices)]))

    def extend(self) -> None:
        """One more step of any kind."""
        b = self.bench
        kinds = ["unary"] * 4 + ["merge", "again", "operation", "pair"] * 2
        if b.depth > 0:
            kinds += ["model", "model"]
        getattr(self, b.draw(st.sampled_from(kinds)))()

    def unary(self, index: int | None = None) -> None:
        b = self.bench
        if index is None:
            index = self.pick_tensor(range(len(self.tensors)))
        shape, dtype = self.tensors[index]
        if dtype == TOKENS:
            width = b.draw(UNITS)
            config = {"input_dim": VOCABULARY, "output_dim": width}
            if b.chance(25):
                config["mask_zero"] = True
            spec = b.layer("Embedding", config, ("embeddings",), ("embeddings",))
            out = (*shape, width)
        else:
            spec, out = unary(b, shape)
        step = {"layer": spec, "args": [f"t{index}"]}
        if spec["class_name"] in ("BatchNormalization", "Dropout", "Sequential") and b.chance(15):
            step["kwargs"] = {"training": False}
        self.add(step, [out])

    def merge(self) -> None:
        b = self.bench
        first = self.pick_tensor(self.floats()) if self.floats() else None
        if first is None:
            return self.unary()
        shape = self.tensors[first][0]
        kind = b.pick(*MERGES)
        alike = [
            index
            for index in self.floats()
            if self.tensors[index][0] == shape
            or (kind == "Concatenate" and self.tensors[index][0][:-1] == shape[:-1])
        ]
        if len(alike) == 1:
            # A branch around one layer that keeps the shape: a residual connection.
            self.unary_like(first)
            alike.append(len(self.tensors) - 1)
        count = 2 if kind == "Subtract" else b.pick(2, 2, 3)
        others = [self.pick_tensor(alike) for _ in range(count - 1)]
        chosen = [first, *others]
        if b.chance(40):
            chosen.reverse()
        out = shape
        if kind == "Concatenate":
            out = (*shape[:-1], sum(self.tensors[index][0][-1] for index in chosen))
            if out[-1] > 2 * LONGEST:
                kind, chosen, out = "Add", [first, first], shape
        self.add({"layer": b.layer(kind), "args": [[f"t{index}" for index in chosen]]}, [out])
        return None

    def unary_like(self, index: int) -> None:
        """A layer that keeps the shape of its input."""
        shape = self.tensors[index][0]
        b = self.bench
        makers = [batch_normalization, prelu, dropout, layer_normalization]
        spec, out = b.draw(st.sampled_from(makers))(b, shape)
        self.add({"layer": spec, "args": [f"t{index}"]}, [out])

    def again(self) -> None:
        """Calls a layer or model a second time, on any tensors of the shapes that it knows."""
        b = self.bench
        ready = [number for number in self.calls if "initial_state" not in str(self.steps[number])]
        if not ready:
            return self.unary()
        number = b.draw(st.sampled_from(ready))
        step = self.steps[number]

        def another(reference):
            wanted = self.tensors[int(reference[1:])]
            return f"t{self.pick_tensor([i for i, t in enumerate(self.tensors) if t == wanted])}"

        arguments = _map_references(another, step["args"])
        repeated = {"again": number, "args": arguments}
        if "kwargs" in step:
            repeated["kwargs"] = step["kwargs"]
        self.add(repeated, self.calls[number])
        return None

    def operation(self) -> None:
        b = self.bench
        if not self.floats():
            return self.unary()
        index = self.pick_tensor(self.floats())
        shape = self.tensors[index][0]
        name = b.pick(*OPERATIONS)
        arguments = [f"t{index}"]
        out = shape
        if name in ("subtract", "divide", "concatenate"):
            alike = [other for other in self.floats() if self.tensors[other][0] == shape]
            arguments.append(f"t{self.pick_tensor(alike)}")
            if name == "concatenate":
                out = (*shape[:-1], 2 * shape[-1])
                if out[-1] > 2 * LONGEST:
                    name, out = "subtract", shape
        elif name in ("mean", "slice"):
            out = (*shape[:-1], 1)
        elif name == "flatten":
            out = (math.prod(shape),)
        elif name == "first":
            if len(shape) == 1:
                name = "relu"
            else:
                out = shape[1:]
        self.add({"op": name, "args": arguments}, [out])
        return None

    def pair(self) -> None:
        """Attention from one sequence to another, or a recurrent layer that returns its state."""
        b = self.bench
        sequences = [
            i for i in self.floats() if len(self.tensors[i][0]) == 2 and self.tensors[i][0][0] <= 16
        ]
        if not sequences:
            return self.unary()
        index = self.pick_tensor(sequences)
        shape = self.tensors[index][0]
        if b.chance(50):
            return self.state(index)
        class_name = None
        if b.unreachable and b.chance(40):
            class_name = b.pick("Attention", "AdditiveAttention")
        partners = [i for i in sequences if class_name is None or self.tensors[i][0][1] == shape[1]]
        spec, out = attention(b, shape, class_name)
        if spec["class_name"] == "GroupQueryAttention":  # it projects the values to their own width
            partners = [i for i in sequences if self.tensors[i][0][1] == shape[1]]
        step = {"layer": spec, "args": [f"t{index}", f"t{self.pick_tensor(partners)}"]}
        if class_name is None and b.chance(25):
            step["kwargs"] = {"use_causal_mask": True}
        elif class_name is not None:
            step["args"] = [step["args"]]
        self.add(step, [out])
        return None

    def state(self, index: int) -> None:
        """A recurrent layer with states: returned, and given by earlier tensors where they fit."""
        b = self.bench
        shape = self.tensors[index][0]
        spec, out = recurrent(b, shape)
        spec["config"]["return_state"] = True
        vectors = [i for i in self.floats() if self.tensors[i][0] in ((2,), (3,), (4,))]
        if vectors:
            spec["config"]["units"] = self.tensors[self.pick_tensor(vectors)][0][0]
            out = (*out[:-1], spec["config"]["units"])
        units = spec["config"]["units"]
        count = 2 if spec["class_name"] == "LSTM" else 1
        step = {"layer": spec, "args": [f"t{index}"]}
        fitting = [i for i in self.floats() if self.tensors[i][0] == (units,)]
        if fitting and b.chance(85):
            states = [f"t{self.pick_tensor(fitting)}" for _ in range(count)]
            step["kwargs"] = {"initial_state": states}
        self.add(step, [out, *[(units,)] * count])

    def model(self) -> None:
        """A nested functional model, called on one or two tensors."""
        b = self.bench
        indices = [self.pick_tensor(range(len(self.tensors)))]
        if b.chance(30):
            indices.append(self.pick_tensor(range(len(self.tensors))))
        given = [self.tensors[index] for index in indices]
        spec, outputs = functional(b.inner(), given, longest=3)
        spec["name"] = b.name()
        if b.chance(15):
            spec["trainable"] = False
        references = iter(f"t{index}" for index in indices)
        arguments = _map_references(lambda _: next(references), spec["takes"])
        self.add({"layer": spec, "args": [arguments]}, outputs)

    def finish(self) -> list[int]:
        """The outputs: all that nothing has used, the surplus merged into one vector."""
        for index in range(self.inputs):
            if index not in self.used:
                self.unary(index)
        ends = [index for index in range(len(self.tensors)) if index not in self.used]
        if len(ends) > 4:
            flat = []
            for index in ends[3:]:
                size = math.prod(self.tensors[index][0])
                flat.append(len(self.tensors))
                self.add({"op": "flatten", "args": [f"t{index}"]}, [(size,)])
            width = sum(self.tensors[index][0][0] for index in flat)
            step = {
                "layer": {"class_name": "Concatenate", "config": {}},
                "args": [[f"t{index}" for index in flat]],
            }
            self.add(step, [(width,)])
            ends = [*ends[:3], len(self.tensors) - 1]
        elif self.bench.chance(15):
            # An inner tensor, as a feature extractor has.
            inner = [i for i in range(self.inputs, len(self.tensors)) if i not in ends]
            ends += inner[-1:]
        return ends


def _map_references(function, value):
    """The value with each reference to a tensor replaced by what the function makes of it."""
    if isinstance(value, str):
        return function(value) if REFERENCE.fullmatch(value) else value
    if isinstance(value, list):
        return [_map_references(function, item) for item in value]
    if isinstance(value, dict):
        return {key: _map_references(function, item) for key, item in value.items()}
    return value


def _references(value) -> list[int]:
    found = []
    _map_references(lambda reference: found.append(int(reference[1:])), value)
    return found


def _structure(b: Bench, references: list[str], keys: list[str]):
    """One tensor alone or several in a list, or a dictionary (its keys not always sorted)."""
    kind = b.pick("plain", "plain", "dict", "nested")
    if kind == "dict":
        return dict(zip(keys, references, strict=False))
    if kind == "nested":
        return {"rest": references[1:], "first": references[0]} if references[1:] else references
    return references if references[1:] else references[0]


def functional(b: Bench, given: list, *, longest: int, top: bool = False):
    """A functional model on inputs of these `(shape, dtype)`: its spec, its outputs' shapes."""
    graph = Graph(b, given)
    for _ in range(b.count(longest)):
        graph.extend()
    ends = graph.finish()
    references = [f"t{index}" for index in range(len(given))]
    takes = _structure(b, references, ["query", "context", "extra"])
    if not top and isinstance(takes, dict) and "rest" in takes:
        takes = references
    gives = _structure(b, [f"t{index}" for index in ends], ["score", "label", "box", "aux", "map"])
    names = [None] * len(given)
    if isinstance(takes, dict):
        # Keras wants an input that is a dictionary's value to be called by its key.
        by_reference = {value: key for key, value in takes.items() if isinstance(value, str)}
        names = [by_reference.get(reference) for reference in references]
    spec = {
        "class_name": "Functional",
        "name": None,
        "inputs": [
            {"shape": list(shape), "dtype": dtype, "name": name}
            for (shape, dtype), name in zip(given, names, strict=True)
        ],
        "steps": graph.steps,
        "takes": takes,
        "gives": gives,
    }
    # In the order in which Keras flattens what the model returns: dictionaries by sorted key.
    order = _references(_by_key(gives))
    return spec, [graph.tensors[index][0] for index in order]


def _by_key(value):
    if isinstance(value, dict):
        return {key: _by_key(value[key]) for key in sorted(value)}
    return value


# ---------------------------------------------------------------- the strategies

COMPILED = [
    {"optimizer": "sgd", "config": {"momentum": 0.9}, "trained": True},
    {"optimizer": "adam", "config": {"learning_rate": 0.01}, "trained": True},
    {"optimizer": "sgd", "config": {"learning_rate": 0.1}, "trained": False},
]


@st.composite
def recipes(
    draw,
    *,
    max_steps: int = MAX_STEPS,
    depth: int = 2,
    precision: bool = True,
    unreachable: bool = False,
    compiled: bool = True,
    fits: bool = False,
):
    """Recipes of random models, for `build`.

    Args:
        max_steps: How many steps the outermost model may draw.
        depth: How many models may lie within each other inside the outermost.
        precision: Whether mixed precision and dtypes of single layers may occur.
        unreachable: Whether layers occur whose weights no regularizer argument reaches.
        compiled: Whether the model may be compiled.
        fits: Whether the model must be one that Keras can train. It adds up losses only if all
            are float32: no penalties on float64 weights or on activities in lower precision.
    """
    policies = ["float32"] * 7 + ["mixed_bfloat16", "mixed_float16", "float64"]
    policy = draw(st.sampled_from(policies[:-1] if fits else policies)) if precision else "float32"
    b = Bench(
        draw,
        depth=depth,
        precision=precision,
        unreachable=unreachable,
        fits=fits,
        policy=policy,
    )
    if b.chance(15):
        shape = b.pick(*(shape for shape, dtype in INPUT_SHAPES if dtype != TOKENS))
        b.depth += 1
        model, _ = sequential(b, tuple(shape), longest=max_steps)
    else:
        given = [b.pick(*INPUT_SHAPES) for _ in range(b.pick(1, 2, 1, 3))]
        given = [(tuple(shape), dtype) for shape, dtype in given]
        model, _ = functional(b, given, longest=max_steps, top=True)
        model["name"] = b.pick(None, "net")
        if b.chance(5):
            model["trainable"] = False
    return {
        "seed": draw(st.integers(0, 99)),
        "dtype_policy": policy,
        "compile": b.pick(None, None, *COMPILED) if compiled else None,
        "model": model,
    }


@st.composite
def models(draw, **limits):
    """Built models. A failing example prints the model's recipe.

    Args:
        **limits: As for `recipes`.
    """
    recipe = draw(recipes(**limits))
    note(f"recipe = {recipe!r}")
    return build(recipe)


ROLES = [
    ["kernel"],
    ["bias"],
    ["*kernel"],
    ["kernel", "recurrent", "depthwise", "pointwise"],
    ["*"],
    ["gamma", "beta"],
    ["embeddings"],
    ["depthwise", "pointwise"],
    ["recurrent"],
    ["b*"],
    ["[kpr]*"],
    ["alpha", "gamma"],
    ["activity"],
]
CLASSES = [
    ["*"],
    ["Conv*"],
    ["*Conv?D"],
    ["Dense"],
    ["Functional"],
    ["Sequential"],
    ["*Normalization"],
    ["LSTM*", "GRU*", "SimpleRNN*"],
    ["Bidirectional", "TimeDistributed", "RNN"],
]
PATHS = [["*"], ["*/kernel"], ["*/bias"], ["*s*"], ["*_1*"], ["dense*", "conv*"]]
PENALTIES = [
    {"l2": 1e-3},
    {"weight_decay": 5e-2},
    {"l1": 0.01},
    {"regularizer": None},
    {"regularizer": {"class_name": "L1L2", "config": {"l1": 0.25, "l2": 0.125}}},
    {"l2": 0.0},
]


@st.composite
def policies(draw, recipe: dict | None = None, *, max_rules: int = 4):
    """Policies as plain data: `{"rules": [...]}`. Rules overlap, and most match something.

    Args:
        recipe: If given, rules also select the classes and names that occur in it.
        max_rules: How many rules there may be; there is always one.
    """
    classes, paths = list(CLASSES), list(PATHS)
    if recipe is not None:
        specs = list(_specs(recipe["model"]))
        classes += 2 * [[name] for name in dict.fromkeys(spec["class_name"] for spec in specs)]
        names = [spec.get("name") or spec.get("config", {}).get("name") for spec in specs]
        for name in dict.fromkeys(name for name in names if name):
            paths += [[f"{name}/*"], [f"*{name}/*", f"*{name}_?/kernel"]]
    rules = []
    for _ in range(draw(st.integers(1, max_rules))):
        rule = {}
        for key, options in (("roles", ROLES), ("layers", classes), ("paths", paths)):
            if draw(st.integers(0, 3)) >= (1 if key == "roles" else 2):
                rule[key] = draw(st.sampled_from(options))
        rules.append({**rule, **draw(st.sampled_from(PENALTIES))})
    return {"rules": rules}


# ---------------------------------------------------------------- what a recipe contains


def _specs(spec: dict, depth: int = 1):
    """Every layer and model spec of a model's spec, outermost first."""
    yield spec
    inner = [step["layer"] for step in spec.get("steps", []) if "layer" in step]
    inner += spec.get("layers", []) + spec.get("cells", [])
    inner += [spec[key] for key in ("wraps", "backward") if key in spec]
    for child in inner:
        yield from _specs(child)


def _depth(spec: dict) -> int:
    inner = [step["layer"] for step in spec.get("steps", []) if "layer" in step]
    inner += spec.get("layers", []) + [spec[key] for key in ("wraps",) if key in spec]
    own = spec["class_name"] in ("Functional", "Sequential")
    return own + max(map(_depth, inner), default=0)


def features(recipe: dict) -> set[str]:
    """The words of `FEATURES` that are true of a recipe, and its layers' class names."""
    model = recipe["model"]
    found = {f"policy {recipe['dtype_policy']}"} if recipe["dtype_policy"] != "float32" else set()
    if recipe["compile"]:
        found.add("compiled")
        found.update({"optimizer slots"} if recipe["compile"]["trained"] else ())
    found.add(f"depth {_depth(model)}")
    found.add(f"top {model['class_name']}")
    if model["class_name"] == "Functional":
        found.update({"several inputs"} if len(model["inputs"]) > 1 else ())
        found.add(f"takes {type(model['takes']).__name__}")
        found.add(f"gives {type(model['gives']).__name__}")
        found.update({"several outputs"} if len(_references(model["gives"])) > 1 else ())
        found.update({"nested structure"} if "rest" in model["takes"] else ())
    for spec in _specs(model):
        found.add(spec["class_name"])
        frozen = spec.get("trainable") is False
        is_model = spec["class_name"] in ("Functional", "Sequential")
        found.update({"frozen model" if is_model else "frozen layer"} if frozen else ())
        if is_model and spec is not model:
            found.add(f"nested {spec['class_name']}")
        if spec["class_name"] == "Sequential" and spec["input_shape"] is None:
            found.add("Sequential without input")
        for key, value in spec.get("config", {}).items():
            if key.endswith("_regularizer"):
                found.update({f"regularizer {value['class_name']}", key})
            elif key.endswith(("_constraint", "_initializer")):
                found.add(key.rsplit("_", 1)[1])
            elif key in ("use_bias", "scale", "center"):
                found.add(f"{key}=False")
            elif key in ("dtype", "name", "return_state", "groups", "mask_zero"):
                found.add(key)
        if "cells" in spec and spec["class_name"] == "RNN":
            stacked = spec["cells"][0]["class_name"] == "StackedRNNCells"
            one = "RNN(StackedRNNCells)" if stacked else "RNN(cell)"
            found.add(one if len(spec["cells"]) == 1 else "RNN([cells])")
        if "wraps" in spec and spec["wraps"]["class_name"] == "Sequential":
            found.add("wrapped model")
        found.update({"backward layer"} if "backward" in spec else ())
        for step in spec.get("steps", []):
            if "op" in step:
                found.add(f"op {step['op']}")
            if "again" in step:
                again = spec["steps"][step["again"]]["layer"]["class_name"]
                shared = again in ("Functional", "Sequential")
                found.add("shared model" if shared else "shared layer")
            found.update(step.get("kwargs", {}))
    return found


FEATURES = frozenset(
    {
        "Add",
        "Concatenate",
        "Subtract",
        "Multiply",
        "Average",
        "Maximum",
        "Dense",
        "EinsumDense",
        "Embedding",
        "Conv1D",
        "Conv2D",
        "DepthwiseConv1D",
        "DepthwiseConv2D",
        "SeparableConv1D",
        "SeparableConv2D",
        "Conv1DTranspose",
        "Conv2DTranspose",
        "MultiHeadAttention",
        "GroupQueryAttention",
        "LSTM",
        "GRU",
        "SimpleRNN",
        "Bidirectional",
        "TimeDistributed",
        "RNN",
        "StackedRNNCells",
        "LSTMCell",
        "GRUCell",
        "SimpleRNNCell",
        "ConvLSTM2D",
        "BatchNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "PReLU",
        "LeakyReLU",
        "Activation",
        "Dropout",
        "GaussianNoise",
        "GaussianDropout",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "UnitNormalization",
        "ActivityRegularization",
        "Flatten",
        "Reshape",
        "RepeatVector",
        "MaxPooling2D",
        "AveragePooling2D",
        "constraint",
        "initializer",
        "dtype",
        "name",
        "mask_zero",
        "return_state",
        "initial_state",
        "training",
        "use_causal_mask",
        "use_bias=False",
        "scale=False",
        "center=False",
        "kernel_regularizer",
        "bias_regularizer",
        "recurrent_regularizer",
        "depthwise_regularizer",
        "pointwise_regularizer",
        "gamma_regularizer",
        "beta_regularizer",
        "alpha_regularizer",
        "embeddings_regularizer",
        "activity_regularizer",
        "compiled",
        "RNN(cell)",
        "RNN([cells])",
        "RNN(StackedRNNCells)",
        "Sequential without input",
        "backward layer",
        "depth 1",
        "depth 2",
        "depth 3",
        "frozen layer",
        "frozen model",
        "gives dict",
        "gives list",
        "gives str",
        "nested Functional",
        "nested Sequential",
        "nested structure",
        "optimizer slots",
        "policy float64",
        "policy mixed_bfloat16",
        "policy mixed_float16",
        "regularizer L1",
        "regularizer L1L2",
        "regularizer L2",
        "regularizer OrthogonalRegularizer",
        "several inputs",
        "several outputs",
        "shared layer",
        "shared model",
        "takes dict",
        "takes list",
        "takes str",
        "top Functional",
        "top Sequential",
        "wrapped model",
        *(f"op {name}" for name in OPERATIONS),
    }
)


POLICY = {
    "rules": [
        {"l2": 1e-3},
        {"roles": ["bias", "beta", "gamma", "activity"], "regularizer": None},
        {"layers": ["Embedding", "DepthwiseConv2D"], "l1": 1e-2},
    ]
}


@st.composite
def cases(draw, **limits):
    """A recipe and a policy that selects from it."""
    recipe = draw(recipes(**limits))
    return recipe, draw(policies(recipe))
