"""decouple with L2SP: what an optimizer decays goes towards where it started."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from tests.support.decayed import (
    FORMS,
    batches,
    fill,
    reloaded,
    small_model,
    values,
    zero_step,
)

MIXED = [
    graphwd.Rule(graphwd.L2SP(0.25), paths="first/*", roles="kernel"),
    graphwd.Rule(graphwd.weight_decay(0.125), paths="last/kernel"),
    graphwd.Rule(graphwd.L2SP(0.125), roles="gamma"),
]
EVERYTHING = graphwd.Rule(graphwd.L2SP(0.25))
HOW = {"batch_size": 4, "shuffle": False, "verbose": 0}


def decay_of(variable):
    """By hand, what MIXED asks for: a coefficient, and whether towards the start."""
    if variable.path.endswith("first/kernel"):
        return 0.5, True
    if variable.path.endswith("last/kernel"):
        return 0.125, False
    return (0.25, True) if variable.name == "gamma" else (0.0, False)


def array(variable):
    return keras.ops.convert_to_numpy(variable).copy()


def compiled(form="sgd", policy=MIXED):
    model = small_model()
    fill(model)
    model.compile(graphwd.decouple(model, policy, FORMS[form]()), "mse")
    return model


def trained(form="sgd", policy=MIXED):
    """A model some steps later, and where its weights were."""
    model = compiled(form, policy)
    start = [array(v) for v in model.trainable_variables]
    model.fit(*batches(), **HOW)
    return model, start


def assert_same(one, other):
    for ours, theirs in zip(
        [*one.variables, *one.optimizer.variables],
        [*other.variables, *other.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(array(ours), array(theirs), err_msg=ours.path)


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
def test_going_on_from_a_file_is_going_on(form, tmp_path):
    model, _ = trained(form)
    loaded = reloaded(model, tmp_path)
    assert_same(model, loaded)
    model.fit(*batches(1), epochs=2, **HOW)
    loaded.fit(*batches(1), epochs=2, **HOW)
    assert_same(model, loaded)


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
