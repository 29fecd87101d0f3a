"""Editing in place: the same result as a copy, all or nothing."""

from __future__ import annotations

import operator
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, note, settings
from keras import layers, regularizers

import graphwd
from graphwd.live import editing, survey
from graphwd.live.carrying import carrier
from graphwd.live.copying import copier
from graphwd.live.proving import verification
from tests.support import oracle
from tests.support.strategies import POLICY, build, cases, inputs_for, sample_models

NAMES = [name for name in sample_models() if name != "sequential_unbuilt"]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", graphwd.UnmatchedRuleWarning)
        yield


def assert_like_the_copy(model, policy, path) -> None:
    copy = graphwd.rewrite(model, policy)
    values = [(id(v), oracle.bits(v)) for v in model.variables]
    identities = [id(layer) for layer in oracle.all_layers(model)]
    edited = graphwd.rewrite(model, policy, in_place=True)
    assert edited is model
    assert [(id(v), oracle.bits(v)) for v in model.variables] == values
    assert [id(layer) for layer in oracle.all_layers(model)] == identities
    assert not oracle.config_differences(edited.get_config(), copy.get_config())
    assert oracle.variable_regularizers(edited) == oracle.variable_regularizers(copy)
    assert oracle.losses_sum(edited) == pytest.approx(oracle.losses_sum(copy), rel=1e-6)
    assert not graphwd.plan(edited, policy).edits
    edited.save(path / "edited.keras")
    copy.save(path / "copy.keras")
    ours, theirs = (keras.saving.load_model(path / f"{n}.keras") for n in ("edited", "copy"))
    assert not oracle.config_differences(ours.get_config(), theirs.get_config())
    assert oracle.variable_regularizers(ours) == oracle.variable_regularizers(theirs)
    assert oracle.losses_sum(ours) == pytest.approx(oracle.losses_sum(theirs), rel=1e-6)


@settings(max_examples=15)
@given(case=cases(unreachable=True))
def test_in_place_is_the_copy(tmp_path_factory, case):
    recipe, policy = case
    note(f"recipe = {recipe!r}")
    note(f"policy = {policy!r}")
    path = tmp_path_factory.mktemp("in_place")
    assert_like_the_copy(build(recipe), graphwd.Policy.from_dict(policy), path)


@pytest.mark.parametrize("name", NAMES)
def test_models_as_people_write_them(tmp_path, name):
    model = sample_models()[name]()
    assert_like_the_copy(model, graphwd.Policy.from_dict(POLICY), tmp_path)


class Untold(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that can't tell its config, as many are written."""

    def __call__(self, step):
        return 0.1 / (1.0 + keras.ops.cast(step, "float32"))


@pytest.mark.parametrize("in_place", [False, True])
def test_an_optimizer_that_cannot_be_saved_does_not_matter(in_place):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(Untold()), "mse")
    with pytest.raises(NotImplementedError):
        model.get_compile_config()
    rewritten = graphwd.rewrite(model, "l2", portable=True, in_place=in_place)
    assert [layer.kernel_regularizer is not None for layer in rewritten.layers] == [True, True]
    assert len(rewritten.losses) == 2


def test_no_clone_is_made(monkeypatch):
    monkeypatch.setattr(copier, "copied", None)
    monkeypatch.setattr(keras.models, "clone_model", None)
    model = sample_models()["nested_backbone"]()
    assert graphwd.rewrite(model, "l2", in_place=True) is model
    assert model.losses


def test_training_follows_after_compiling():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="dense")(inputs))
    graphwd.rewrite(model, graphwd.Rule(graphwd.weight_decay(0.5), roles="kernel"), in_place=True)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = oracle.array(model.get_layer("dense").kernel).copy()
    model.fit(np.zeros((4, 3), "float32"), np.zeros((4, 2), "float32"), batch_size=4, verbose=0)
    after = oracle.array(model.get_layer("dense").kernel)
    np.testing.assert_allclose(after, before * 0.95, rtol=1e-6)


class Box:
    """Holds what it is given, and is no container that one could look into."""

    def __init__(self, held):
        self.held = held

    def __getitem__(self, key):
        return self.held[key]


class Stubborn(layers.Layer):
    """Keeps its regularizer where nobody looks for it."""

    def __init__(self, units=2, kernel_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = {"it": regularizers.get(kernel_regularizer)}

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(shape[-1], self.units), name="kernel", regularizer=self.hidden["it"]
        )

    def call(self, x):
        return x @ self.kernel

    def get_config(self):
        kept = regularizers.serialize(self.hidden["it"]) if self.hidden["it"] else None
        return {**super().get_config(), "units": self.units, "kernel_regularizer": kept}


def stubborn_model(kernel_regularizer=None) -> keras.Model:
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="first", kernel_regularizer="l1")(inputs)
    x = layers.RMSNormalization(name="norm")(x)
    return keras.Model(inputs, Stubborn(2, kernel_regularizer, name="stubborn")(x))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("held", [None, "l1"])
def test_what_no_attribute_holds(held, in_place, tmp_path):
    """It is set where it is found; what is not there is carried."""
    model = graphwd.rewrite(stubborn_model(held), graphwd.Rule("l2"), in_place=in_place)
    assert len(model.losses) == 4
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", custom_objects={"Stubborn": Stubborn}
    )
    assert len(loaded.losses) == 4


def assert_untouched_by(model, action) -> None:
    before = oracle.state(model)
    action()
    after = oracle.state(model)
    for key, value in before.items():
        assert after[key] == value, key


def test_an_error_leaves_the_model_as_it_was():
    model = stubborn_model("l1")
    stubborn = model.get_layer("stubborn")
    stubborn.hidden = Box(stubborn.hidden)

    def fail():
        with pytest.raises(graphwd.ModelError, match="stubborn"):
            graphwd.rewrite(model, graphwd.Rule("l2"), in_place=True)

    assert_untouched_by(model, fail)
    with pytest.raises(graphwd.ModelError, match="stubborn"):
        graphwd.rewrite(model, graphwd.Rule("l2"))


def test_a_slot_that_is_held_nowhere_and_governs_nothing_yet_is_an_error():
    model = keras.Sequential([Stubborn(2, "l1", name="stubborn")])
    with pytest.raises(graphwd.ModelError, match=r"'stubborn'.*kernel_regularizer"):
        graphwd.rewrite(model, graphwd.Rule("l2"), in_place=True)


def test_a_failed_proof_leaves_the_model_as_it_was(monkeypatch):
    model = sample_models()["siamese"]()
    monkeypatch.setattr(verification, "set_regularizers", lambda config, values: config)

    def fail():
        with pytest.raises(graphwd.EquivalenceError):
            graphwd.rewrite(model, "l2", in_place=True)

    assert_untouched_by(model, fail)
    graphwd.rewrite(model, "l2", in_place=True, verify=False)
    assert model.losses


def test_an_interrupt_leaves_the_model_as_it_was(monkeypatch):
    model = stubborn_model()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(verification, "set_regularizers", interrupt)

    def fail():
        with pytest.raises(KeyboardInterrupt):
            graphwd.rewrite(model, graphwd.Rule("l2", layers="RMS*"), in_place=True)

    assert_untouched_by(model, fail)


def test_there_and_back():
    """What was carried, set and removed is all undone by the opposite policy."""
    for builder in (sample_models()["transformer"], stubborn_model):
        model = builder()
        rule = graphwd.Rule("l2", layers=["Dense", "RMSNormalization", "MultiHeadAttention"])
        plain = graphwd.rewrite(model, graphwd.Rule(None))
        graphwd.rewrite(plain, rule, in_place=True)
        assert oracle.losses_sum(plain) > 0
        graphwd.rewrite(plain, graphwd.Rule(None, layers=rule.layers), in_place=True)
        assert oracle.losses_sum(plain) == 0
        bare = graphwd.rewrite(model, graphwd.Rule(None))
        assert not oracle.config_differences(plain.get_config(), bare.get_config())
        assert [type(x) for x in oracle.all_layers(plain)] == [
            type(x) for x in oracle.all_layers(bare)
        ]


def test_an_error_while_starts_are_kept_leaves_the_model_as_it_was(monkeypatch, tmp_path):
    inputs = keras.Input((4,))
    outputs = layers.Dense(2, name="b")(layers.Dense(3, name="a")(inputs))
    model = graphwd.rewrite(
        keras.Model(inputs, outputs), graphwd.Rule(graphwd.L2SP(1e-2), paths="a/kernel")
    )
    kernel = model.get_layer("a").kernel
    kernel.assign(kernel + 1.0)
    penalty, keep = float(sum(model.losses)), carrier.keep_starts

    def failing(layer, before):
        if layer.name == "b":
            raise MemoryError
        keep(layer, before)

    monkeypatch.setattr(carrier, "keep_starts", failing)
    states = [list(layer.non_trainable_variables) for layer in model.layers]

    def fail():
        with pytest.raises(MemoryError):
            graphwd.rewrite(model, graphwd.Rule(graphwd.L2SP(1.0), roles="kernel"), in_place=True)

    assert_untouched_by(model, fail)
    assert float(sum(model.losses)) == penalty
    for layer, held in zip(model.layers, states, strict=True):
        assert all(map(operator.is_, layer.non_trainable_variables, held))
    model.save(tmp_path / "kept.keras")
    assert float(sum(keras.saving.load_model(tmp_path / "kept.keras").losses)) == penalty


def test_portable_refuses_before_anything_is_edited():
    model = stubborn_model()

    def fail():
        with pytest.raises(graphwd.UnreachableWeightError, match="norm/scale"):
            graphwd.rewrite(
                model, graphwd.Rule("l2", layers=["RMS*", "Dense"]), in_place=True, portable=True
            )

    assert_untouched_by(model, fail)


def test_a_large_model_takes_no_copy_of_its_weights():
    inputs = keras.Input((64,))
    model = keras.Model(inputs, layers.Dense(64, name="dense")(inputs))
    inputs_for(model)
    handle = model.get_layer("dense").kernel
    plan = graphwd.plan(model, "l2")
    found = survey.survey(model, calls=False)
    with editing.edited(found, plan):
        pass
    assert model.get_layer("dense").kernel is handle
    assert isinstance(handle.regularizer, regularizers.L2)


@pytest.mark.parametrize("name", ["first", "second"])
def test_an_edit_that_reaches_another_layer_is_refused(name):
    shared = layers.Dense(3, name="shared")
    inputs = keras.Input((4, 3))
    x = layers.TimeDistributed(shared, name="first")(inputs)
    model = keras.Model(inputs, layers.TimeDistributed(shared, name="second")(x))
    with pytest.raises(graphwd.EquivalenceError):
        graphwd.rewrite(model, graphwd.Rule("l2", paths=f"{name}/*", roles="kernel"), in_place=True)
    assert shared.kernel_regularizer is None
    assert shared.kernel.regularizer is None


def test_activity_in_place_is_as_in_a_copy():
    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 4, dropout=0.1)(inputs, inputs))
    policy = graphwd.Rule("l2", roles="activity")
    copy = graphwd.rewrite(model, policy)
    graphwd.rewrite(model, policy, in_place=True)
    x = np.ones((1, 5, 8), "float32")
    copy(x), model(x)
    assert len(copy.losses) == len(model.losses) == 1


class Locked(layers.Layer):
    """Its regularizer can't be exchanged once it is built."""

    def __init__(self, kernel_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.kernel_regularizer = kernel_regularizer

    def build(self, shape):
        self.kernel = self.add_weight(
            (shape[-1], 1), name="kernel", regularizer=self.kernel_regularizer
        )

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel)

    def get_config(self):
        return {**super().get_config(), "kernel_regularizer": None}

    def __setattr__(self, name, value):
        if name == "kernel_regularizer" and self.__dict__.get("built"):
            raise AttributeError("it is locked")
        super().__setattr__(name, value)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_layer_that_lets_nothing_be_set_leaves_the_model_as_it_was(in_place):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), Locked(name="locked")])
    with pytest.raises(graphwd.ModelError, match=r"'locked'.*kernel_regularizer.*it is locked"):
        graphwd.rewrite(model, "l2", in_place=in_place)
    assert not model.losses
    assert model.layers[0].kernel_regularizer is None


class Annealed(keras.regularizers.Regularizer):
    """It trains, and tells no config."""

    def __init__(self):
        self.factor = keras.Variable(0.1, trainable=False)

    def __call__(self, weight):
        return self.factor * keras.ops.sum(keras.ops.abs(weight))


class Own(keras.Model):
    """Its bias has a penalty of which none can be made from a config."""

    def __init__(self, kind):
        super().__init__()
        self.factor = keras.Variable(0.1, trainable=False)
        regularizer = {
            "method": self.penalty,
            "closure": lambda weight: self.factor * keras.ops.sum(weight),
            "no config": Annealed(),
        }[kind]
        self.first = keras.layers.Dense(4, bias_regularizer=regularizer, name="first")
        self.last = keras.layers.Dense(1, name="last")

    def penalty(self, weight):
        return self.factor * keras.ops.sum(weight)

    def call(self, inputs):
        return self.last(self.first(inputs))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", ["method", "closure", "no config"])
def test_a_penalty_that_tells_no_config_stays_where_no_rule_wants_another(kind, in_place):
    x = np.ones((2, 4), "float32")
    model = Own(kind)
    model(x)
    model.first.bias.assign(np.ones(4))
    model.compile("sgd", "mse")
    before = [float(loss) for loss in model.losses]
    rule = graphwd.Rule("l2", roles="kernel")
    assert "first/bias" in str(graphwd.inspect(model))
    assert len(graphwd.plan(model, rule)) == 2
    rewritten = graphwd.rewrite(model, rule, in_place=in_place)
    assert len(rewritten.losses) == 3
    assert any(float(loss) == pytest.approx(before[0]) for loss in rewritten.losses)
    rewritten.compile("sgd", "mse")
    rewritten.train_on_batch(x, np.ones((2, 1)))
    removed = graphwd.rewrite(rewritten, graphwd.Rule(None))
    assert not removed.losses
