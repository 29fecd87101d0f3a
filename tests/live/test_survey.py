"""The slots of every Keras layer, against the variables that the layer itself regularizes."""

import inspect

import keras
import pytest
from keras import layers, regularizers

import graphwd
from graphwd.graph import slots
from graphwd.graph.slots import find_slots
from graphwd.live import survey, walk
from tests.support import oracle
from tests.support.copies import X
from tests.support.strategies import sample_models

SEQUENCE, PICTURE, VOLUME = (4, 3), (5, 5, 2), (4, 4, 4, 2)
TOKENS = "tokens"
RECURRENT = {"units": 2}
ATTENTION = {"num_heads": 2, "key_dim": 2}


# Arguments, the input's shape, and whether it is called on one tensor twice.
LAYERS = {
    "BatchNormalization": ({}, SEQUENCE),
    "Conv1D": ({"filters": 2, "kernel_size": 2}, SEQUENCE),
    "Conv1DTranspose": ({"filters": 2, "kernel_size": 2}, SEQUENCE),
    "Conv2D": ({"filters": 2, "kernel_size": 2}, PICTURE),
    "Conv2DTranspose": ({"filters": 2, "kernel_size": 2}, PICTURE),
    "Conv3D": ({"filters": 2, "kernel_size": 2}, VOLUME),
    "Conv3DTranspose": ({"filters": 2, "kernel_size": 2}, VOLUME),
    "ConvLSTM1D": ({"filters": 2, "kernel_size": 2}, (3, *SEQUENCE)),
    "ConvLSTM2D": ({"filters": 2, "kernel_size": 2}, (3, *PICTURE)),
    "ConvLSTM3D": ({"filters": 2, "kernel_size": 2}, (3, *VOLUME)),
    "Dense": ({"units": 2}, SEQUENCE),
    "DepthwiseConv1D": ({"kernel_size": 2}, SEQUENCE),
    "DepthwiseConv2D": ({"kernel_size": 2}, PICTURE),
    "EinsumDense": (
        {"equation": "abc,cd->abd", "output_shape": (None, 2), "bias_axes": "d"},
        SEQUENCE,
    ),
    "Embedding": ({"input_dim": 5, "output_dim": 2}, TOKENS),
    "GRU": (RECURRENT, SEQUENCE),
    "GRUCell": (RECURRENT, None),
    "GroupNormalization": ({"groups": 1}, PICTURE),
    "GroupQueryAttention": (
        {"head_dim": 2, "num_query_heads": 2, "num_key_value_heads": 1},
        SEQUENCE,
    ),
    "LSTM": (RECURRENT, SEQUENCE),
    "LSTMCell": (RECURRENT, None),
    "LayerNormalization": ({}, SEQUENCE),
    "MultiHeadAttention": (ATTENTION, SEQUENCE),
    "PReLU": ({}, SEQUENCE),
    "ReversibleEmbedding": (
        {"input_dim": 5, "output_dim": 2, "tie_weights": False},
        TOKENS,
    ),
    "SeparableConv1D": ({"filters": 2, "kernel_size": 2}, SEQUENCE),
    "SeparableConv2D": ({"filters": 2, "kernel_size": 2}, PICTURE),
    "SimpleRNN": (RECURRENT, SEQUENCE),
    "SimpleRNNCell": (RECURRENT, None),
}
TWICE = ("MultiHeadAttention", "GroupQueryAttention")


# Weights that Keras itself regularizes by no argument, by layer and variable.
OUT_OF_REACH = {("ReversibleEmbedding", "reverse_embeddings")}
SWITCHED_OFF = {
    "use_bias": "bias",
    "scale": "gamma",
    "center": "beta",
}


def arguments(cls) -> list[str]:
    """The `*_regularizer` arguments of a layer class that fall on weights."""
    names = inspect.signature(cls.__init__).parameters
    found = [name for name in names if name.endswith("_regularizer")]
    return [name for name in found if name != "activity_regularizer"]


def model_of(class_name: str, **more) -> keras.Model:
    """A model around one layer, or around a cell in an RNN."""
    config, shape = LAYERS[class_name]
    layer = getattr(layers, class_name)(**config, **more)
    if shape is None:
        layer, shape = layers.RNN(layer), SEQUENCE
    inputs = keras.Input((4,), dtype="int32") if shape is TOKENS else keras.Input(shape)
    outputs = layer(inputs, inputs) if class_name in TWICE else layer(inputs)
    return keras.Model(inputs, outputs)


def governed(model) -> dict[str, str | None]:
    """Maps the path of every weight to the role of the slot that governs it."""
    found = survey.survey(model)
    roles = {}
    for unit in found.units:
        for index, weight in enumerate(unit.weights):
            slot = unit.governs.get(index)
            roles[weight.variable.path] = None if slot is None else found.slots[slot].role
    return roles


def stock_layers() -> dict[str, type]:
    """Every layer class of Keras that takes a regularizer for a weight, once."""
    found = {}
    for name in dir(layers):
        cls = getattr(layers, name)
        if inspect.isclass(cls) and issubclass(cls, keras.Layer) and arguments(cls):
            found[cls.__name__] = cls
    return found


def test_every_layer_class_is_in_the_table():
    assert {getattr(layers, name).__name__ for name in LAYERS} == set(stock_layers())


def marked(class_name: str) -> tuple[keras.Model, dict[float, str]]:
    """A model whose layer has a regularizer of its own in each argument."""
    names = arguments(getattr(layers, class_name))
    factors = {0.5 * (number + 1): name for number, name in enumerate(names)}
    more = {name: regularizers.L2(factor) for factor, name in factors.items()}
    return model_of(class_name, **more), factors


@pytest.mark.parametrize("class_name", LAYERS)
def test_slots_are_what_the_layer_does_with_its_arguments(class_name):
    """What Keras put on the variables is the truth; probe and convention must both find it."""
    model, factors = marked(class_name)
    truth = {}
    for layer in oracle.all_layers(model):
        for variable in oracle.owned(layer):
            regularizer = variable.regularizer
            name = None if regularizer is None else factors[float(regularizer.l2)]
            truth[variable.path] = name.removesuffix("_regularizer") if name else variable.name
            assert name or (class_name, variable.name) in OUT_OF_REACH
    assert len(truth) >= 1
    assert governed(model) == truth
    assert set(truth.values()) >= {name.removesuffix("_regularizer") for name in factors.values()}


@pytest.mark.parametrize("class_name", LAYERS)
def test_every_slot_of_the_config_governs_a_live_weight(class_name):
    model = model_of(class_name)
    found = survey.survey(model)
    in_config = [slot for slot in find_slots(found.serialized) if slot.role != "activity"]
    assert {slot.path for slot in in_config} <= {slot.path for slot in found.slots}
    shapes = sorted(tuple(weight.variable.shape) for unit in found.units for weight in unit.weights)
    assert sorted(shape for slot in found.slots for shape in slot.shapes) == shapes
    assert not found.notes


@pytest.mark.parametrize("class_name", LAYERS)
@pytest.mark.parametrize("switch", SWITCHED_OFF)
def test_a_weight_that_is_switched_off_has_no_slot(class_name, switch):
    names = inspect.signature(getattr(layers, class_name).__init__).parameters
    if switch not in names or (switch == "use_bias" and "equation" in names):
        return
    role = SWITCHED_OFF[switch]
    assert role in governed(model_of(class_name)).values()
    model = model_of(class_name, **{switch: False})
    found = survey.survey(model)
    assert role not in {slot.role for slot in found.slots}
    assert role not in {slot.role for slot in find_slots(found.serialized)}  # as in a file
    rewritten = graphwd.rewrite(model, graphwd.Rule("l2"))
    assert None not in oracle.variable_regularizers(rewritten)


@pytest.mark.parametrize("class_name", LAYERS)
def test_each_role_alone(class_name):
    """A rule for one role puts its penalty on the weights of that role and on no other."""
    model, _ = marked(class_name)
    roles = governed(model)
    bare = graphwd.rewrite(model, graphwd.Rule(None))
    assert set(oracle.variable_regularizers(bare)) == {None}
    for role in sorted(set(roles.values())):
        rewritten = graphwd.rewrite(bare, graphwd.Rule(regularizers.L2(2.0), roles=role))
        weights = [v for layer in oracle.all_layers(rewritten) for v in oracle.owned(layer)]
        found = {v.path: v.regularizer is not None for v in weights}
        assert found == {path: it == role for path, it in roles.items()}


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda: layers.TimeDistributed(layers.Conv1D(2, 2)),
        lambda: layers.TimeDistributed(layers.SeparableConv1D(2, 2)),
        lambda: layers.Bidirectional(layers.LSTM(2)),
        lambda: layers.Bidirectional(layers.ConvLSTM1D(2, 2)),
        lambda: layers.RNN([layers.GRUCell(2), layers.LSTMCell(3)]),
        lambda: layers.RNN(layers.StackedRNNCells([layers.SimpleRNNCell(2), layers.GRUCell(3)])),
        lambda: layers.SpectralNormalization(layers.Conv1D(2, 2)),
    ],
)
def test_wrappers(wrapped):
    layer = wrapped()
    needs_more = not isinstance(layer, (layers.RNN, layers.SpectralNormalization))
    needs_more &= type(getattr(layer, "forward_layer", None)).__name__ != "LSTM"
    inputs = keras.Input((3, *SEQUENCE) if needs_more else SEQUENCE)
    model = keras.Model(inputs, layer(inputs))
    slots = survey.survey(model).slots
    weights = walk.weights(model)
    assert all(slot.pointers for slot in slots)
    assert sum(len(slot.shapes) for slot in slots) == len(weights)
    rewritten = graphwd.rewrite(model, graphwd.Rule(regularizers.L2(0.5)))
    assert len(rewritten.losses) == len(weights)
    assert all(held == ("L2", {"l2": 0.5}) for held in oracle.variable_regularizers(rewritten))


def test_a_difference_between_config_and_variable_is_told():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="dense")(inputs))
    model.get_layer("dense").kernel_regularizer = regularizers.L2(0.5)
    (note,) = graphwd.inspect(model).notes
    assert "dense/kernel" in note
    assert "L2(0.5)" in note


def test_an_unbuilt_model_has_slots_but_no_weights():
    model = sample_models()["sequential_unbuilt"]()
    plan = graphwd.plan(model, "l2")
    assert [edit.role for edit in plan] == ["kernel", "kernel"]
    assert all(not edit.slot.shapes for edit in plan.slots)
    assert any("not built" in note for note in plan.notes)


@pytest.mark.parametrize("name", sample_models())
def test_nothing_is_passed_over_where_no_slot_is_expected(name, monkeypatch):
    serialized = keras.saving.serialize_keras_object(sample_models()[name]())
    found = find_slots(serialized)
    monkeypatch.setattr(slots, "may_hold_slots", lambda value: isinstance(value, (dict, list)))
    assert found == find_slots(serialized)


class Pair(keras.Model):
    """Tells two models in its config, which it is made of again."""

    def __init__(self, one, two, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = one, two

    def call(self, x):
        return self.two(self.one(x))

    def get_config(self):
        models = {"one": self.one, "two": self.two}
        told = {key: keras.saving.serialize_keras_object(model) for key, model in models.items()}
        return {**super().get_config(), **told}

    @classmethod
    def from_config(cls, config):
        models = {key: keras.saving.deserialize_keras_object(config[key]) for key in ("one", "two")}
        return cls(**{**config, **models})


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("names", [("a", "b"), ("a", "a"), ("first", "last"), ("last", "first")])
def test_models_in_a_config_may_have_the_names_of_others(names, in_place):
    def model(name):
        inner = [layers.Dense(4, name="first"), layers.Dense(4, name="last")]
        return keras.Sequential([keras.Input((4,)), *inner], name=name)

    pair = Pair(*map(model, names))
    pair(X)
    policy = [graphwd.Rule("l2", roles="kernel"), graphwd.Rule("l1", paths="*/last/kernel")]
    pair = graphwd.rewrite(pair, policy, in_place=in_place)
    told = [
        each["config"]["kernel_regularizer"]["class_name"]
        for key in ("one", "two")
        for each in pair.get_config()[key]["config"]["layers"][1:]
    ]
    kernels = [type(v.regularizer).__name__ for v in pair.weights if v.name == "kernel"]
    assert told == kernels == ["L2", "L1", "L2", "L1"]
