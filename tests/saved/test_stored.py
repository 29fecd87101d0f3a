"""The values of penalties on stored weights: those of the loaded model, read when asked for."""

import os

import keras
import pytest
from keras import layers, regularizers

import graphwd
from graphwd.saved import weights
from tests.support.layers import Gate
from tests.support.saved_models import model_config, regularized, write_keras
from tests.support.stored import (
    FIRST,
    L2,
    SECOND,
    assert_told_alike,
    disturb,
    numbered,
    told,
    unknown,
)

pytestmark = pytest.mark.filterwarnings("ignore::graphwd.UnmatchedRuleWarning")


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
