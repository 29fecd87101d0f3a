"""What a file tells of its weights is what the loaded model tells: whose, how many, how much."""

import os
import pickle

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from graphwd.policy.policies import Policy
from graphwd.saved import weights
from graphwd.saved.archive import Archive
from tests.support.sample_models import sample_models
from tests.support.saved_models import model_config, regularized, weights_bytes, write_keras

pytestmark = pytest.mark.filterwarnings("ignore::graphwd.UnmatchedRuleWarning")
SAMPLES = sample_models()
POLICY = Policy(
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
    live, _ = told(graphwd.plan(model, POLICY))
    filed, missing = told(graphwd.plan(folder / f"model{suffix}", POLICY))
    assert not missing
    assert filed.keys() <= live.keys()  # weights that no config reaches are slots of live models
    assert_alike(filed, live)
    return live, filed


def assert_alike(filed, live):
    for path, (parameters, pair) in filed.items():
        assert parameters == live[path][0], path
        there = live[path][1]  # nothing where there is no penalty, before or after
        assert pair == (there and pytest.approx(there, rel=1e-4)), path


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        pytest.param(*pair, id=f"{n}-{type(pair[0]).__name__}")
        for n, pair in enumerate(stock_layers())
    ],
)
def test_every_layer_of_keras(layer, shape, suffix, tmp_path):
    live, filed = assert_told_alike(made(layer, shape), tmp_path, suffix)
    assert filed
    assert filed.keys() == live.keys()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_attention(suffix, tmp_path):
    _, filed = assert_told_alike(attention_model(), tmp_path, suffix)
    assert filed["many/kernel"][0] == 4 * 8 * 8
    assert "grouped/kernel" in filed


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name, suffix, tmp_path):
    model = SAMPLES[name]()
    disturb(model).save(tmp_path / f"model{suffix}")
    live, _ = told(graphwd.plan(model, POLICY))
    filed, missing = told(graphwd.plan(tmp_path / f"model{suffix}", POLICY))
    known = {path: both for path, both in filed.items() if both[1] is not None}
    assert len(known) + len(missing) == sum(pair[1] is not None for pair in live.values()) - sum(
        path not in filed and both[1] is not None for path, both in live.items()
    )
    assert_alike(known, live)


class Gate(layers.Layer):
    """A layer whose weights are in no config: graphwd carries their penalties."""

    def build(self, shape):
        self.inner = layers.Dense(shape[-1], name="inner")
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(shape[-1], 1), name="scale")

    def call(self, x):
        return self.inner(x) * self.scale[:, 0]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_carried_penalties_have_values_too(suffix, tmp_path):
    model = keras.Sequential([keras.Input((4,)), Gate(name="gate"), layers.Dense(2, name="head")])
    disturb(model)
    copy = graphwd.rewrite(
        model, graphwd.Rule(regularizers.L2(0.5), roles=["kernel", "scale", "bias"])
    )
    copy.save(tmp_path / f"model{suffix}")
    filed, missing = told(graphwd.inspect(tmp_path / f"model{suffix}"))
    live, _ = told(graphwd.inspect(copy))
    assert not missing
    assert filed == {path: (n, pytest.approx(pair)) for path, (n, pair) in live.items()}
    assert sum(pair[0] for _, pair in filed.values()) == pytest.approx(float(sum(copy.losses)))


@pytest.mark.parametrize(
    ("dtype", "suffix"),  # Keras itself does not load a .h5 file of bfloat16
    [("float16", ".keras"), ("float16", ".h5"), ("float64", ".h5"), ("bfloat16", ".keras")],
)
def test_other_precisions(dtype, suffix, tmp_path):
    inputs = keras.Input((4,), dtype=dtype)
    assert_told_alike(keras.Model(inputs, layers.Dense(300, dtype=dtype)(inputs)), tmp_path, suffix)


def test_shares_count_what_no_slot_reaches(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Gate(name="gate"), layers.Dense(2, name="head")])
    model.save(tmp_path / "model.keras")
    policy = graphwd.Rule(regularizers.L2(0.5), roles="kernel", paths="head/*")
    plans = [graphwd.plan(source, policy) for source in (model, tmp_path / "model.keras")]
    shares = [plan.to_dict()["summary"]["rules"][0]["share"] for plan in plans]
    assert shares == [8 / (16 + 4 + 4 + 8 + 2)] * 2


def numbered(path, edit=None, **options):
    """Two layers with kernels that hold 0 to 11 and 1 to 12."""
    return write_keras(path, weights=weights_bytes(edit), **options)


FIRST, SECOND = 0.5 * 506, 0.5 * 650
L2 = graphwd.Rule({"class_name": "L2", "config": {"l2": 0.5}}, roles="kernel")


def test_what_a_file_does_not_tell_is_a_note(tmp_path):
    def nameless(file):
        del file["layers/dense/vars"].attrs["name"]

    plan = graphwd.plan(numbered(tmp_path / "a.keras", nameless), L2)
    slots = plan.measured().slots
    assert unknown(slots) == ["one/kernel"]
    assert [value(edit) for edit in slots if edit.penalty is not None] == [(0.0, SECOND)]
    assert "penalty on one/kernel is not known: the file doesn't tell" in str(plan)
    whole = plan.to_dict()["summary"]["whole"]
    assert whole["planned_penalty"] is None
    assert "?" in str(plan)


def test_a_class_of_the_users_own_is_a_note(tmp_path):
    odd = {"class_name": "my>Odd", "config": {"strength": 2}}
    plan = graphwd.plan(numbered(tmp_path / "a.keras"), graphwd.Rule(odd, paths="one/kernel"))
    assert "on one/kernel is not known: only Keras can compute my>Odd" in str(plan)


def test_a_file_that_is_gone_or_another_is_a_note(tmp_path):
    path = numbered(tmp_path / "a.keras")
    plan = graphwd.plan(path, L2)
    assert not unknown(plan.measured().slots)
    write_keras(path, model_config(regularized("other")))
    assert "holds another model than before" in str(plan)
    assert [*plan.notes, *json_notes(plan)] == list(plan.measured().notes)
    assert unknown(plan.measured().slots) == ["one/kernel", "two/kernel"]
    os.unlink(path)
    assert "Note: The values of the penalties are missing: " in str(plan)
    assert "No such file" in plan._repr_html_()


def json_notes(plan):
    return [note for note in plan.to_dict()["notes"] if note not in plan.notes]


def test_a_plan_says_what_the_weights_are_when_it_is_asked(tmp_path):
    model = disturb(made(layers.Dense(3), (4,)))
    plan = graphwd.plan(model, graphwd.Rule(regularizers.L2(0.5), roles="kernel"))
    before = plan.to_dict()["summary"]["whole"]["planned_penalty"]
    kernel = model.layers[1].kernel
    kernel.assign(2 * kernel)
    after = plan.to_dict()["summary"]["whole"]["planned_penalty"]
    assert after == pytest.approx(4 * before)
    assert after == pytest.approx(0.5 * float(np.sum(np.square(kernel))))


def test_a_plan_in_another_process_has_its_values(tmp_path):
    model = disturb(made(layers.Dense(3), (4,)))
    plan = graphwd.plan(model, graphwd.Rule(regularizers.L2(0.5), roles="kernel"))
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan
    assert str(copy) == str(plan)


def test_planning_reads_no_values(tmp_path, monkeypatch):
    path = numbered(tmp_path / "a.keras")

    def refuse(*_):
        raise AssertionError("somebody reads weights")

    monkeypatch.setattr("graphwd.saved.weights.Array.content", refuse)
    plan = graphwd.plan(path, L2)
    assert len(plan) == 2
    assert plan.title
    with pytest.raises(AssertionError, match="somebody"):
        str(plan)


def test_weights_without_a_penalty_are_not_read(tmp_path, monkeypatch):
    read = []
    content = weights.Array.content
    monkeypatch.setattr(
        "graphwd.saved.weights.Array.content",
        lambda array: read.append(array.path) or content(array),
    )
    rule = graphwd.Rule(L2.regularizer, paths="two/kernel")
    str(graphwd.plan(numbered(tmp_path / "a.keras"), rule))
    assert set(read) == {"layers/dense_1/vars/0"}


def test_what_is_not_numbered_as_keras_does_is_not_taken(tmp_path):
    def swapped(file):
        group = file["layers/dense/vars"]
        group.move("0", "x")
        group.move("1", "0")
        group.move("x", "1")

    with (
        Archive(numbered(tmp_path / "a.keras", swapped)) as archive,
        archive.reach(archive.slots()) as reach,
    ):
        assert [len(arrays) for arrays in reach.arrays] == [0, 0, 1, 1]


def test_frozen_weights_sleep(tmp_path):
    config = model_config(regularized("one", trainable=False), regularized("two"))
    path = numbered(tmp_path / "a.keras", config=config)
    whole = graphwd.plan(path, L2).to_dict()["summary"]["whole"]
    assert (whole["penalty"], whole["planned_penalty"], whole["dormant_penalty"]) == (
        0,
        SECOND,
        FIRST,
    )
    assert whole["largest"] == [{"path": "two/kernel", "penalty": SECOND}]


def test_a_penalty_that_can_not_be_computed_is_a_note():
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Conv2D(2, 3, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    orthogonal = keras.regularizers.OrthogonalRegularizer(0.1)  # takes matrices alone
    plan = graphwd.plan(model, graphwd.Rule(orthogonal, roles="kernel"))
    slots = plan.measured().slots
    assert unknown(slots) == ["conv/kernel"]
    (planned,) = [edit.planned_penalty for edit in slots if edit.planned_penalty is not None]
    assert planned == pytest.approx(float(orthogonal(model.get_layer("head").kernel)))
    assert "penalty on conv/kernel is not known" in str(plan)


def test_a_weight_of_two_layers_is_counted_once():
    class Holder(layers.Layer):
        def call(self, x):
            return self.inner(x)

    shared = layers.Dense(4, use_bias=False, name="shared")
    inputs = keras.Input((4,))
    holders = Holder(name="first"), Holder(name="second")
    for holder in holders:
        holder.inner = shared
    x = holders[1](holders[0](inputs))
    model = disturb(keras.Model(inputs, x))
    plan = graphwd.plan(model, graphwd.Rule(regularizers.L2(0.5), roles="kernel"))
    assert len(plan) == 2
    planned = plan.to_dict()["summary"]["whole"]["planned_penalty"]
    assert planned == pytest.approx(0.5 * float(np.sum(np.square(shared.kernel))))


def test_a_rule_that_matches_nothing_is_told_where_the_policy_was_given(tmp_path):
    path = numbered(tmp_path / "a.keras")
    for act in (
        lambda: graphwd.plan(path, graphwd.Rule(None, roles="kernal")),
        lambda: graphwd.rewrite_file(path, tmp_path / "b.keras", graphwd.Rule(None, roles="no")),
        lambda: graphwd.plan(made(layers.Dense(3), (4,)), graphwd.Rule(None, roles="kernal")),
    ):
        with pytest.warns(graphwd.UnmatchedRuleWarning) as told_of:
            act()
        assert [one.filename for one in told_of] == [__file__]
