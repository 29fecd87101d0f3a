"""Reach: which weights of a file each slot governs, as the loaded model has it."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from graphwd.saved import rewriting
from graphwd.saved.archive import Archive
from graphwd.saved.rewriting import plan_file
from tests.support.layers import Gate
from tests.support.sample_models import sample_models
from tests.support.saved_models import (
    POLICY,
    dense,
    model_config,
    regularized,
    unreached,
    write_h5,
    write_keras,
)
from tests.support.stored import (
    L2,
    PENALTIES,
    SECOND,
    assert_alike,
    assert_told_alike,
    attention_model,
    disturb,
    made,
    numbered,
    stock_layers,
    told,
    unknown,
    value,
)

pytestmark = pytest.mark.filterwarnings("ignore::graphwd.UnmatchedRuleWarning")
SAMPLES = sample_models()


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
    live, _ = told(graphwd.plan(model, PENALTIES))
    filed, missing = told(graphwd.plan(tmp_path / f"model{suffix}", PENALTIES))
    known = {path: both for path, both in filed.items() if both[1] is not None}
    assert len(known) + len(missing) == sum(pair[1] is not None for pair in live.values()) - sum(
        path not in filed and both[1] is not None for path, both in live.items()
    )
    assert_alike(known, live)


def test_shares_count_what_no_slot_reaches(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Gate(name="gate"), layers.Dense(2, name="head")])
    model.save(tmp_path / "model.keras")
    policy = graphwd.Rule(regularizers.L2(0.5), roles="kernel", paths="head/*")
    plans = [graphwd.plan(source, policy) for source in (model, tmp_path / "model.keras")]
    shares = [plan.to_dict()["summary"]["rules"][0]["share"] for plan in plans]
    assert shares == [8 / (16 + 4 + 4 + 8 + 2)] * 2


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


def test_unreached_weights(tmp_path):
    config = model_config(
        regularized("one"),
        dense("two", module="my.package", class_name="Block", kernel_regularizer=None),
        registered_name=None,
    )
    path = write_keras(tmp_path / "a.keras", config)
    assert [str(layer) for layer in unreached(path)] == [
        "two (Block): 2 arrays, 1 with a slot, 15 parameters"
    ]
    (note,) = plan_file(path, POLICY).notes
    assert "two (Block)" in note
    assert "--live" in note
    assert rewriting.inspect_file(path).notes == (note,)
    legacy = write_h5(tmp_path / "a.h5", model_config(regularized("one"), dense("two")))
    assert [layer.path for layer in unreached(legacy)] == ["two"]
    assert unreached(write_keras(tmp_path / "b.keras")) == []


def test_a_file_names_its_unreached_weights(tmp_path):
    import keras

    class Block(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.inner = keras.layers.Dense(2)

        def build(self, shape):
            self.inner.build(shape)
            self.built = True

        def call(self, inputs):
            return self.inner(inputs)

        def get_config(self):
            return {**super().get_config(), "name": self.name}

    inner = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, name="same"), Block(name="block")], name="inner"
    )
    inputs = keras.Input((3,))
    x = inner(Block(name="first")(keras.layers.Dense(2, name="same")(inputs)))
    x = keras.layers.BatchNormalization(scale=False, center=False)(x)
    model = keras.Model(inputs, keras.layers.Dropout(0.1)(x))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"a.{suffix}")
        found = unreached(tmp_path / f"a.{suffix}")
        assert [(layer.path, layer.layer, layer.arrays) for layer in found] == [
            ("first", "Block", 2),
            ("inner/block", "Block", 2),
        ]
