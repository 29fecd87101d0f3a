"""Several optimizers as one: the steps of a plain one but for the decay, and files go on."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from tests.support.decayed import (
    EVERYTHING,
    FORMS,
    HOW,
    MIXED,
    STRENGTHS,
    array,
    assert_same,
    batches,
    compiled,
    decay_of,
    fill,
    reloaded,
    small_model,
    trained,
    values,
    zero_step,
)


@pytest.mark.parametrize("form", ["sgd", "schedule", "accumulation", "clipnorm", "global clipnorm"])
def test_it_is_a_loop_that_is_written_by_hand(form):
    """Beside each update: `w -= learning_rate * decay * (w - start)`."""
    model, plain = compiled(form), small_model()
    fill(plain)
    optimizer = FORMS[form]()
    optimizer.weight_decay = 0.0
    plain.compile(optimizer, "mse")
    start = [array(v) for v in plain.trainable_variables]
    x, y = batches()
    every = optimizer.gradient_accumulation_steps or 1
    schedule = getattr(optimizer, "_learning_rate", None)
    for step in range(12):
        rows = slice(4 * step % 24, 4 * step % 24 + 4)
        rate = float(schedule(step)) if callable(schedule) else float(optimizer.learning_rate)
        before = [array(v) for v in plain.trainable_variables]
        plain.train_on_batch(x[rows], y[rows])
        if (step + 1) % every == 0:
            for variable, old, first in zip(plain.trainable_variables, before, start, strict=True):
                decay, towards_start = decay_of(variable)
                pulled = rate * decay * (old - first * towards_start)
                variable.assign(array(variable) - pulled.astype("float32"))
        model.train_on_batch(x[rows], y[rows])
        for ours, theirs in zip(model.trainable_weights, plain.trainable_weights, strict=True):
            if ours.path.endswith("first/bias"):  # its gradient is rounding: it is normalized away
                continue
            where = f"{ours.path} in step {step}"
            np.testing.assert_allclose(array(ours), array(theirs), 2e-5, 2e-6, err_msg=where)


@pytest.mark.parametrize("form", FORMS)
def test_going_on_from_a_file_is_going_on_towards_the_starts(form, tmp_path):
    model, _ = trained(form)
    loaded = reloaded(model, tmp_path)
    assert_same(model, loaded)
    model.fit(*batches(1), epochs=2, **HOW)
    loaded.fit(*batches(1), epochs=2, **HOW)
    assert_same(model, loaded)


def test_the_start_is_where_weights_are_when_it_is_set_up_and_takes_memory_once():
    model = small_model()
    fill(model)
    optimizer = graphwd.decouple(model, MIXED, keras.optimizers.SGD(0.125))
    start = [array(v) for v in model.trainable_variables]
    for variable in model.trainable_variables:
        variable.assign(variable + 1.0)
    optimizer.build(model.trainable_variables)
    starts = [v for v in optimizer.variables if v.path.endswith("start")]
    assert len(starts) == 2
    rest = len(optimizer.variables) - len(starts)
    plain = graphwd.decouple(
        model,
        [
            graphwd.Rule(graphwd.weight_decay(0.5), paths="first/*", roles="kernel"),
            graphwd.Rule(graphwd.weight_decay(0.125), paths="last/kernel"),
            graphwd.Rule(graphwd.weight_decay(0.25), roles="gamma"),
        ],
        keras.optimizers.SGD(0.125),
    )
    plain.build(model.trainable_variables)
    assert len(plain.variables) == rest
    zero_step(model, optimizer)
    for variable, first in zip(model.trainable_variables, start, strict=True):
        decay, towards_start = decay_of(variable)
        moved = 0.125 * decay * (1.0 if towards_start else first + 1.0)
        np.testing.assert_allclose(array(variable), first + 1.0 - moved, rtol=3e-7)


def test_rules_that_multiply_do_so_in_both_mechanisms():
    """At the learning rate of plain SGD a penalty and a decay are the same step."""
    rules = [graphwd.Rule(graphwd.L2SP(0.25), roles="kernel"), graphwd.Rule(graphwd.times(0.5))]
    decoupled, model = small_model(), small_model()
    fill(decoupled)
    fill(model)
    decoupled.compile(graphwd.decouple(decoupled, rules, keras.optimizers.SGD(0.05)), "mse")
    model = graphwd.rewrite(model, rules)
    assert model.get_layer("last").kernel.regularizer.strength == 0.125
    model.compile(keras.optimizers.SGD(0.05), "mse")
    for each in (decoupled, model):
        each.fit(*batches(), epochs=3, **HOW)
    for ours, theirs in zip(decoupled.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_one_strength_for_everything_and_frozen_weights():
    model = small_model()
    fill(model)
    model.get_layer("last").trainable = False
    model.compile(graphwd.decouple(model, EVERYTHING, keras.optimizers.SGD(0.05)), "mse")
    start = [array(v) for v in model.get_layer("last").weights]
    model.fit(*batches(), **HOW)
    for variable, first in zip(model.get_layer("last").weights, start, strict=True):
        np.testing.assert_array_equal(array(variable), first)
    assert len([v for v in model.optimizer.variables if v.path.endswith("start")]) == 4


def test_a_rewritten_copy_has_starts_of_its_own():
    for build in (False, True):
        model = trained()[0] if build else compiled()
        copy = graphwd.rewrite(model, graphwd.Rule(regularizers.L1(1e-3), roles="bias"))
        back = graphwd.rewrite(copy, graphwd.Rule(None))
        before = [array(v) for v in model.optimizer.variables]
        for each in (model, back):
            each.fit(*batches(1), **HOW)
        assert_same(model, back)
        assert len(before) <= len(model.optimizer.variables)
        assert not {id(v) for v in model.optimizer.variables} & {
            id(v) for v in back.optimizer.variables
        }


def test_the_proof_sees_a_changed_start(tmp_path):
    model, _ = trained()
    copy = graphwd.rewrite(model, graphwd.Rule(None))
    assert graphwd.verify(model, copy).ok
    model.save(tmp_path / "one.keras")
    start = next(v for v in copy.optimizer.variables if v.path.endswith("start"))
    start.assign(start + 1.0)
    copy.save(tmp_path / "other.keras")
    for one, other in ((model, copy), (tmp_path / "one.keras", tmp_path / "other.keras")):
        problems = graphwd.verify(one, other).problems
        assert problems
        assert "optimizer" in problems[0]


def test_a_start_without_a_record_is_said(tmp_path):
    model, _ = trained()
    config = model.optimizer.get_config()
    new = type(model.optimizer).from_config(config)
    new.build(model.trainable_variables)
    with pytest.raises(graphwd.GraphwdError, match=r"no record of; set it up with"):
        zero_step(model, new)
    new.set_weights([array(v) for v in model.optimizer.variables])
    zero_step(model, new)
    model.save_weights(tmp_path / "model.weights.h5")
    again = compiled()
    again.optimizer.build(again.trainable_variables)
    again.load_weights(tmp_path / "model.weights.h5")
    for each in (model, again):
        each.fit(*batches(1), **HOW)
    starts = [
        [array(v) for v in each.optimizer.variables if v.path.endswith("start")]
        for each in (model, again)
    ]
    np.testing.assert_equal(*starts)


@keras.saving.register_keras_serializable(package="tests")
class Own(keras.optimizers.SGD):
    """An optimizer of a user's."""


def test_an_optimizer_of_ones_own_keeps_its_class(tmp_path):
    model = small_model()
    fill(model)
    model.compile(graphwd.decouple(model, MIXED, Own(0.05)), "mse")
    scheduler = graphwd.StrengthScheduler(lambda epoch: 0.5)
    model.fit(*batches(), callbacks=[scheduler], **HOW)
    loaded = reloaded(model, tmp_path)
    assert all(isinstance(each, Own) for each in loaded.optimizer.optimizers)
    plain = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(Own(0.05)))
    assert type(plain) is Own
    for each in (model, loaded):
        each.fit(*batches(1), **HOW)
    assert_same(model, loaded)


def test_without_several_optimizers_it_is_refused(monkeypatch):
    monkeypatch.setattr("graphwd.training.optimizers.KNOWN", False)
    with pytest.raises(graphwd.GraphwdError, match=r"by 0\.5 towards the start, for which Keras"):
        graphwd.decouple(small_model(), EVERYTHING, keras.optimizers.SGD())


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX has constants in its programs")
def test_the_start_is_no_constant_of_jax_program():
    import jax

    model = keras.Sequential([keras.Input((64,)), layers.Dense(512, name="large")])
    optimizer = graphwd.decouple(model, EVERYTHING, keras.optimizers.SGD(0.1))
    optimizer.build(model.trainable_variables)
    weights = [v.value for v in model.trainable_variables]
    state = [v.value for v in optimizer.variables]
    text = jax.jit(optimizer.stateless_apply).lower(state, weights, weights).as_text()
    assert len(text) < 20_000


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
