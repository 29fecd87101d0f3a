"""inspect: what it says of penalties and decays is what one step without gradients does."""

import keras
import pytest

import graphwd
from tests.support.decayed import (
    MODELS,
    PENALTIES,
    RATE,
    STRENGTHS,
    notes,
    reloaded,
    small_model,
)


@pytest.mark.parametrize("name", MODELS)
def test_a_file_tells_what_the_loaded_model_does(name, tmp_path):
    model = MODELS[name]()
    policy = STRENGTHS[:2]
    model.compile(graphwd.decouple(model, policy, keras.optimizers.AdamW(RATE)), "mse")
    loaded = reloaded(model, tmp_path)
    live = graphwd.inspect(loaded).to_dict()["decays"]
    stored = graphwd.inspect(tmp_path / "model.keras").to_dict()["decays"]
    decays = {weight["path"]: weight["decay"] for weight in live}
    assert {w["path"]: w["decay"] for w in stored} == {w["path"]: decays[w["path"]] for w in stored}
    assert [w["decay"] for w in graphwd.inspect(model).to_dict()["decays"]] == [
        w["decay"] for w in live
    ]


@pytest.mark.parametrize("exclude_embeddings", [True, False])
def test_a_file_tells_what_muon_leaves_to_adamw(exclude_embeddings, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(5, 4, name="Embedding"),
            keras.layers.Dense(4, name="dense"),
            keras.layers.Dense(2, name="head"),
        ]
    )
    muon = keras.optimizers.Muon(
        weight_decay=0.5,
        adam_weight_decay=0.25,
        exclude_layers=["head", "("],
        exclude_embeddings=exclude_embeddings,
    )
    model.compile(muon, "mse")
    stored = {
        weight["path"]: weight["decay"]
        for weight in saved(model, tmp_path / "model.keras").to_dict()["decays"]
    }
    assert stored == {
        "Embedding/embeddings": 0.25 if exclude_embeddings else 0.5,
        "dense/kernel": 0.5,
        "dense/bias": 0.25,
        "head/kernel": 0.25,
        "head/bias": 0.25,
    }
    muon.exclude_layers.remove("(")  # which Keras itself does not forgive
    live = graphwd.inspect(model).to_dict()["decays"]
    assert stored == {weight["path"]: weight["decay"] for weight in live}


def saved(model, path):
    model.save(path)
    return graphwd.inspect(path)


def compiled(optimizer, policy=None):
    model = small_model() if policy is None else graphwd.rewrite(small_model(), policy)
    model.compile(optimizer, "mse")
    return model


def test_a_weight_that_is_decayed_twice():
    twice = compiled(keras.optimizers.SGD(0.1, weight_decay=0.5), PENALTIES[0])
    assert "first/kernel, last/kernel are decayed twice: by L2(0.25) in the loss" in notes(twice)
    twice.get_layer("first").trainable = False
    assert "last/kernel is decayed twice" in notes(twice)
    assert "twice" not in notes(compiled(keras.optimizers.SGD(0.1), PENALTIES[0]))


def test_exclusions_that_are_forgotten_replaced_or_match_nothing(tmp_path):
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model = compiled(optimizer)
    assert not notes(model)
    model.save(tmp_path / "model.keras")
    forgotten = "decays first/bias, norm/beta, norm/gamma and 1 more, biases or normalization"
    assert forgotten in " ".join(graphwd.inspect(tmp_path / "model.keras").notes)
    optimizer = keras.optimizers.AdamW()
    for name in ("bias", "gamma", "beta"):
        optimizer.exclude_from_weight_decay(var_names=[name])
    assert "leaves out beta but decays" in notes(compiled(optimizer))
    assert "each call of exclude_from_weight_decay replaces" in notes(compiled(optimizer))
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias", "norm/gamma", "beta"])
    assert "The pattern 'norm/gamma' of exclude_from_weight_decay matches no weight" in notes(
        compiled(optimizer)
    )
    assert not notes(compiled(graphwd.decouple(small_model(), STRENGTHS[:2], "adamw")))
    mapped = keras.optimizers.OptimizerMap(
        keras.optimizers.SGD(), {"nowhere/.*": keras.optimizers.Adam()}
    )
    several = compiled(keras.optimizers.MultiOptimizer(mapped))
    assert "The pattern 'nowhere/.*' of the MultiOptimizer matches no weight's path" in notes(
        several
    )


def test_a_penalty_under_an_adaptive_optimizer():
    assert "Adam divides the gradient of the penalty on first/kernel" in notes(
        compiled("adam", PENALTIES[0])
    )
    assert not notes(compiled("sgd", PENALTIES[0]))
    assert not notes(compiled("adam"))


def test_a_model_that_is_not_compiled_has_no_decays():
    assert graphwd.inspect(small_model()).to_dict()["decays"] is None
