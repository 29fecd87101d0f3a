"""Strengths multiplied inside a step: files and configs know nothing, and 0 leaves them out."""

import json
import zipfile

import keras
import numpy as np
import pytest

import graphwd
from tests.support.decayed import (
    FORMS,
    HOW,
    array,
    assert_same,
    batches,
    compiled,
    fill,
    reloaded,
    small_model,
    trained,
)
from tests.support.scheduled import (
    MECHANISMS,
    OWN,
    RATE,
    Cosine,
    Measure,
    cosine,
    decoupled,
    fit,
    nothing,
    schedules,
)


def test_a_schedule_scales_it_and_what_is_saved_meanwhile_goes_on(tmp_path):
    model, _ = trained()
    loaded = reloaded(model, tmp_path)
    saved = tmp_path / "meanwhile.keras"

    def halve(epoch):
        return 0.5**epoch

    save = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epoch == 1 and model.save(saved)
    )
    model.fit(*batches(1), epochs=4, callbacks=[graphwd.StrengthScheduler(halve), save], **HOW)
    meanwhile = keras.saving.load_model(saved)
    assert [each.weight_decay for each in meanwhile.optimizer.optimizers] == [
        each.weight_decay for each in loaded.optimizer.optimizers
    ]
    meanwhile.fit(
        *batches(1),
        epochs=4,
        initial_epoch=2,
        callbacks=[graphwd.StrengthScheduler(halve)],
        **HOW,
    )
    assert_same(model, meanwhile)
    loaded.fit(*batches(1), epochs=4, **HOW)
    kernels = [each.get_layer("first").kernel for each in (model, loaded)]
    assert np.abs(array(kernels[0]) - array(kernels[1])).max() > 1e-4


def test_a_schedule_that_is_zero_leaves_it_out():
    model, plain = compiled(), small_model()
    fill(plain)
    plain.compile(FORMS["sgd"](), "mse")
    off = graphwd.StrengthScheduler(lambda step: 0.0, every="step")
    model.fit(*batches(), callbacks=[off], **HOW)
    plain.fit(*batches(), **HOW)
    for ours, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("every", ["epoch", "step"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_a_file_saved_in_the_middle_has_the_base_strength_and_goes_on(name, every, tmp_path):
    def schedule():
        form = Cosine() if every == "step" else (lambda epoch: 0.1 * epoch)
        return graphwd.StrengthScheduler(form)

    def optimizer():
        return keras.optimizers.Adam(RATE, weight_decay=0.5 if name == "penalty" else None)

    model = MECHANISMS[name](optimizer())
    model.save(tmp_path / "before.keras")
    keep = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    fit(model, schedule(), keep, epochs=4, steps=3)
    configs = []
    for file in ("before", "2"):
        with zipfile.ZipFile(tmp_path / f"{file}.keras") as archive:
            configs.append(json.loads(archive.read("config.json")))
        assert configs[-1]["compile_config"]["optimizer"].pop("registered_name") in OWN
    assert configs[0] == configs[1]
    custom = {"nothing": nothing}
    loaded = keras.saving.load_model(tmp_path / "2.keras", custom_objects=custom)
    fit(loaded, schedule(), initial_epoch=2, epochs=4, steps=3)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)
    assert len(model.optimizer.variables) == len(loaded.optimizer.variables)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE), initial_scale=2.0),
        lambda: keras.optimizers.SGD(RATE, global_clipnorm=1.0),
        lambda: keras.optimizers.Muon(RATE, weight_decay=1.0),
        lambda: keras.optimizers.AdamW(schedules.PiecewiseConstantDecay([50], [RATE, RATE])),
    ],
    ids=["loss scaling", "global clipping", "muon", "learning-rate schedule"],
)
def test_optimizers_of_every_form(optimizer):
    model, measure = decoupled(optimizer()), Measure()
    fit(model, graphwd.StrengthScheduler(Cosine()), measure, steps=10)
    wanted = [cosine(step) for step in range(10)]
    np.testing.assert_allclose(measure.of("last/kernel"), wanted, atol=1e-6)
