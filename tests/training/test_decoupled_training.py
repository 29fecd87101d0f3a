"""decouple in training: with every kind of optimizer, towards 0 or a start, and from a file on."""

import keras
import numpy as np
import pytest

import graphwd
from tests.support.decayed import FORMS, STRENGTHS, batches, fill, reloaded, small_model, values


@pytest.mark.parametrize("name", FORMS)
def test_going_on_from_a_file_is_going_on(name, tmp_path):
    model = small_model()
    fill(model)
    model.compile(graphwd.decouple(model, STRENGTHS, FORMS[name]()), "mse")
    how = {"batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(*batches(), **how)
    loaded = reloaded(model, tmp_path)
    model.fit(*batches(1), epochs=2, **how)
    loaded.fit(*batches(1), epochs=2, **how)
    assert len(model.optimizer.variables) == len(loaded.optimizer.variables)
    for ours, theirs in zip(
        [*model.variables, *model.optimizer.variables],
        [*loaded.variables, *loaded.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


@pytest.mark.parametrize("name", ["sgd", "schedule", "accumulation", "clipnorm", "global clipnorm"])
def test_but_for_the_decay_the_steps_are_those_of_one_plain_optimizer(name):
    """With one strength, the exclusions of a plain optimizer say the same."""
    policy = graphwd.Rule(graphwd.weight_decay(0.5), roles="kernel")
    model, plain = small_model(), small_model()
    fill(model)
    fill(plain)
    model.compile(graphwd.decouple(model, policy, FORMS[name]()), "mse")
    optimizer = FORMS[name]()
    optimizer.weight_decay = 0.5
    optimizer.exclude_from_weight_decay(var_list=[v for v in plain.variables if v.name != "kernel"])
    plain.compile(optimizer, "mse")
    for each in (model, plain):
        each.fit(*batches(), batch_size=4, shuffle=False, verbose=0)
    for ours, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_clipping_is_by_the_norm_of_all_gradients_also_when_the_loss_is_scaled():
    for factor in (None, 8.0):
        model = small_model()
        fill(model)
        optimizer = graphwd.decouple(
            model,
            STRENGTHS,
            keras.optimizers.SGD(1.0, global_clipnorm=1.0, loss_scale_factor=factor),
        )
        before = values(model)
        size = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        scaled = 3.0 * (factor or 1.0)
        optimizer.apply(
            [keras.ops.full(v.shape, scaled) for v in model.trainable_variables],
            model.trainable_variables,
        )
        for variable in model.trainable_variables:
            if variable.name in ("bias", "beta"):  # not decayed
                moved = before[id(variable)] - values(model)[id(variable)]
                np.testing.assert_allclose(moved, 1 / np.sqrt(size), rtol=1e-4)


def test_global_clipping_of_accumulated_gradients_is_refused():
    optimizer = keras.optimizers.SGD(0.1, global_clipnorm=1.0, gradient_accumulation_steps=2)
    with pytest.raises(graphwd.GraphwdError, match="use clipnorm"):
        graphwd.decouple(small_model(), STRENGTHS, optimizer)


def test_moving_averages_are_those_of_one_plain_optimizer():
    form = {"use_ema": True, "ema_momentum": 0.5}
    model, plain = small_model(), small_model()
    everything = graphwd.Rule(graphwd.weight_decay(0.5))
    twice = [everything, graphwd.Rule(graphwd.weight_decay(0.5 + 1e-9), roles="kernel")]
    for each, policy in ((model, twice), (plain, everything)):
        fill(each)
        each.compile(graphwd.decouple(each, policy, keras.optimizers.SGD(0.05, **form)), "mse")
        each.fit(*batches(), batch_size=4, shuffle=False, verbose=0)
    assert len(model.optimizer.optimizers) == 2
    for ours, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_callbacks_set_the_learning_rate_of_all():
    model = small_model()
    model.compile(graphwd.decouple(model, STRENGTHS, keras.optimizers.AdamW(0.1)), "mse")
    rate = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    model.fit(*batches(), epochs=2, verbose=0, callbacks=[rate])
    for each in model.optimizer.optimizers:
        assert float(each.learning_rate) == pytest.approx(0.025)
