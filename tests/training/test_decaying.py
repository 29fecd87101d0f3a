"""What inspect says of decays is what one step without gradients does."""

import keras
import numpy as np
import pytest

import graphwd
from tests.support.decayed import (
    EVERYTHING,
    MIXED,
    PENALTIES,
    RATE,
    STRENGTHS,
    compiled,
    decay_of,
    fill,
    small_model,
    trained,
    values,
    zero_step,
)
from tests.support.sample_models import sample_models


def test_at_the_start_nothing_moves_and_later_what_inspect_says():
    model = compiled("sgd", EVERYTHING)
    before = values(model)
    zero_step(model, model.optimizer)
    assert all((values(model)[key] == value).all() for key, value in before.items())
    model, start = trained(policy=MIXED)
    told = {each["variable"]: each for each in graphwd.inspect(model).to_dict()["decays"]}
    model.optimizer.learning_rate = 0.125
    for variable in model.optimizer.variables:
        if "momentum" in variable.path:
            variable.assign(np.zeros(variable.shape))
    before = values(model)
    zero_step(model, model.optimizer)
    for variable, first in zip(model.trainable_variables, start, strict=True):
        decay, towards_start = decay_of(variable)
        old = before[id(variable)]
        assert told[variable.path]["decay"] == decay
        assert (told[variable.path]["reason"] == "towards its start") == towards_start
        if towards_start:
            gone = np.linalg.norm(old - first)
            assert told[variable.path]["distance"] == pytest.approx(gone, rel=1e-5)
        wanted = old - 0.125 * decay * (old - first * towards_start)
        np.testing.assert_allclose(values(model)[id(variable)], wanted, rtol=3e-7)


def test_inspect_tells_of_a_file_what_it_tells_of_the_model(tmp_path):
    model, _ = trained()
    model.save(tmp_path / "model.keras")
    live, stored = (
        {each["path"]: (each["decay"], each["reason"]) for each in told.to_dict()["decays"]}
        for told in (graphwd.inspect(model), graphwd.inspect(tmp_path / "model.keras"))
    )
    assert live == stored
    assert stored["first/kernel"] == (0.5, "towards its start")


SAMPLES = {name: make for name, make in sample_models().items() if name != "sequential_unbuilt"}


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


def test_every_weight_of_every_model_is_told_of():
    for make in SAMPLES.values():
        model = make()
        model.compile("adamw", "mse")
        weights = graphwd.inspect(model).to_dict()["decays"]
        paths = {v.path for v in model.trainable_variables}
        assert {w["variable"] for w in weights if w["decay"] == 0.004} == paths
        assert all(w["frozen"] for w in weights if w["variable"] not in paths)
