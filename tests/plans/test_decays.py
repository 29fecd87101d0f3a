"""inspect: what it says of penalties and decays is what one step without gradients does."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from tests.support.decayed import MODELS, STRENGTHS, fill, reloaded, small_model
from tests.support.sample_models import sample_models

RATE = 0.125
SAMPLES = {name: make for name, make in sample_models().items() if name != "sequential_unbuilt"}
PENALTIES = [
    graphwd.Rule(regularizers.L2(0.25), roles="kernel"),
    graphwd.Rule(regularizers.L2(0.125), roles="gamma"),
]


def nothing(y, outputs):
    return 0.0 * keras.ops.sum(outputs)


def measured(model):
    """What a step of SGD without gradients of its own multiplies each weight by."""
    before = {v.path: np.array(v, "float64") for v in model.trainable_variables}
    size = model.input_shape[1:]
    target = np.zeros((1, *model.output_shape[1:]), "float32")
    model.fit(np.ones((1, *size), "float32"), target, verbose=0)
    return {v.path: float((np.array(v) / before[v.path]).mean()) for v in model.trainable_variables}


def told(model):
    """The same by what inspect says: of the penalty, and of the optimizer's decay."""
    factors = {}
    for weight in graphwd.inspect(model).to_dict()["decays"]:
        l2 = 0.0 if weight["penalty"] is None else weight["penalty"]["config"]["l2"]
        if not weight["frozen"]:
            # Keras takes the gradient before it decays the weight
            factors[weight["variable"]] = 1 - RATE * weight["decay"] - RATE * 2 * l2
    return factors


def excluding(names):
    optimizer = keras.optimizers.SGD(RATE, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=names)
    return optimizer


FORMS = {
    "plain": lambda model: keras.optimizers.SGD(RATE, weight_decay=0.5),
    "no decay": lambda model: keras.optimizers.SGD(RATE),
    "names": lambda model: excluding(["bias", "gamma", "beta"]),
    "decoupled": lambda model: graphwd.decouple(model, STRENGTHS[:2], keras.optimizers.SGD(RATE)),
    "scaled": lambda model: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(RATE, weight_decay=0.5), initial_scale=2.0
    ),
}


@pytest.mark.parametrize("penalties", [[], PENALTIES], ids=["plain", "penalised"])
@pytest.mark.parametrize("form", FORMS)
def test_the_figures_agree_with_a_measured_step(form, penalties, tmp_path):
    model = small_model()
    fill(model)
    optimizer = FORMS[form](model)
    if penalties:
        model = graphwd.rewrite(model, penalties)
    model.compile(optimizer, nothing)
    keras_saved = form == "names"  # Keras forgets these
    model.save(tmp_path / "model.keras")
    of_file = graphwd.inspect(tmp_path / "model.keras").to_dict()["decays"]
    wanted = told(model)
    found = measured(model)
    assert wanted.keys() == found.keys()
    for path, factor in found.items():
        assert factor == pytest.approx(wanted[path], abs=2e-6), path
    custom = {"nothing": nothing}
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=custom)
    live = graphwd.inspect(loaded).to_dict()["decays"]
    assert [w["decay"] for w in of_file] == [w["decay"] for w in live]
    found = measured(loaded)
    for path, factor in told(loaded).items():
        assert factor == pytest.approx(found[path], abs=2e-6), path
    assert (told(loaded)["first/bias"] == 1) != (keras_saved or form in ("plain", "scaled"))


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


def test_every_weight_of_every_model_is_told_of():
    for make in SAMPLES.values():
        model = make()
        model.compile("adamw", "mse")
        weights = graphwd.inspect(model).to_dict()["decays"]
        paths = {v.path for v in model.trainable_variables}
        assert {w["variable"] for w in weights if w["decay"] == 0.004} == paths
        assert all(w["frozen"] for w in weights if w["variable"] not in paths)


def notes(model):
    return " ".join(graphwd.inspect(model).notes)


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


class Own(keras.Sequential):
    """A training step that computes the loss by itself."""

    def train_step(self, *args):
        return self.step_of(*args)

    def step_of(self, *args):
        return self.loss(args)


class Right(Own):
    def step_of(self, *args):
        return self.loss(args) + sum(self.losses)


class Super(keras.Sequential):
    def train_step(self, *args):
        return super().train_step(*args)


def test_a_training_step_that_leaves_the_penalties_out():
    for cls, wrong in ((Own, True), (Right, False), (Super, False)):
        model = cls([keras.Input((4,)), layers.Dense(2, kernel_regularizer="l2")])
        model.compile("sgd", "mse")
        assert ("leaves self.losses out" in notes(model)) == wrong, cls
        plain = cls([keras.Input((4,)), layers.Dense(2)])
        plain.compile("sgd", "mse")
        assert not notes(plain)


def test_a_model_that_is_not_compiled_has_no_decays():
    assert graphwd.inspect(small_model()).to_dict()["decays"] is None
