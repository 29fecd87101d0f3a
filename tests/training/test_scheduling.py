"""StrengthScheduler: what a schedule asks for is what steps do."""

import keras
import numpy as np
import pytest
from keras import regularizers

import graphwd
from tests.support.scheduled import (
    MECHANISMS,
    PENALTY,
    RATE,
    STEPS,
    Cosine,
    Measure,
    X,
    Y,
    cosine,
    decoupled,
    fit,
    network,
    nothing,
    penalised,
    schedules,
)


@pytest.mark.parametrize("kind", ["schedule", "function"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_each_of_a_hundred_steps_decays_as_requested(name, kind):
    model, measure = MECHANISMS[name](), Measure()
    schedule = Cosine() if kind == "schedule" else (lambda step: float(cosine(step)))
    fit(model, graphwd.StrengthScheduler(schedule, every="step"), measure)
    wanted = [cosine(step) for step in range(STEPS)]
    for end in ("first/kernel", "last/kernel"):
        np.testing.assert_allclose(measure.of(end), wanted, atol=1e-6)
    np.testing.assert_array_equal(measure.of("first/bias"), 0.0)


@pytest.mark.parametrize("name", MECHANISMS)
def test_validation_and_epochs_between_count_no_steps(name):
    model, measure = MECHANISMS[name](), Measure()
    warmup = graphwd.StrengthScheduler(
        schedules.PolynomialDecay(0.0, 20, end_learning_rate=0.5), PENALTY
    )
    fit(model, warmup, measure, epochs=4, steps=5, validation_data=(X[:3], Y[:3]))
    wanted = [0.5 * step / 20 for step in range(20)]
    np.testing.assert_allclose(measure.of("last/kernel"), wanted, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras has it not on PyTorch")
@pytest.mark.parametrize("name", MECHANISMS)
def test_steps_per_execution(name):
    model = MECHANISMS[name](steps_per_execution=5)
    before = model.get_layer("last").kernel.numpy().astype("float64")
    fit(model, graphwd.StrengthScheduler(Cosine()), steps=20)
    factor = np.prod([1 - RATE * cosine(step) for step in range(20)])
    after = model.get_layer("last").kernel.numpy()
    np.testing.assert_allclose(after / before, factor, rtol=2e-6)


@pytest.mark.parametrize("name", MECHANISMS)
def test_functions_of_the_epoch(name):
    model, measure = MECHANISMS[name](), Measure()
    off = graphwd.StrengthScheduler(lambda epoch: 0.75 if epoch < 2 else 0.0)
    history = fit(model, off, measure, epochs=4, steps=2)
    np.testing.assert_allclose(measure.of("last/kernel"), [0.75] * 4 + [0.0] * 4, atol=1e-6)
    assert history.history["strength"] == [0.75, 0.75, 0.0, 0.0]
    halved = graphwd.StrengthScheduler(lambda epoch, factor: factor / 2, name="decay")
    history = fit(model, halved, epochs=3, steps=1)
    assert history.history["decay"] == [0.5, 0.25, 0.125]
    model, measure = MECHANISMS[name](), Measure()
    by_epoch = graphwd.StrengthScheduler(Cosine(), every="epoch")
    fit(model, by_epoch, measure, initial_epoch=7, epochs=9, steps=1)
    np.testing.assert_allclose(measure.of("last/kernel"), [cosine(7), cosine(8)], atol=1e-6)


@pytest.mark.parametrize("name", MECHANISMS)
def test_some_rules_alone_and_two_schedules(name):
    policy = [PENALTY, graphwd.Rule(graphwd.weight_decay(0.5), paths="last/kernel")]
    model, measure = MECHANISMS[name](policy=policy), Measure()
    one = graphwd.StrengthScheduler(lambda epoch: 0.25 * epoch, graphwd.Rule(None, paths="last/*"))
    two = graphwd.StrengthScheduler(schedules.PolynomialDecay(1.0, 4, 0.0), policy, name="two")
    fit(model, one, two, measure, epochs=2, steps=2)
    np.testing.assert_allclose(measure.of("first/kernel"), [1.0, 0.75, 0.5, 0.25], atol=1e-6)
    wanted = [0.0, 0.0, 0.5 * 0.25 * 0.5, 0.5 * 0.25 * 0.25]
    np.testing.assert_allclose(measure.of("last/kernel"), wanted, atol=1e-6)


@pytest.mark.parametrize("name", MECHANISMS)
def test_training_before_and_after_has_the_base_strength(name):
    model = MECHANISMS[name]()
    losses = [type(variable.regularizer) for variable in model.variables]
    variables = len(model.variables), len(model.optimizer.variables)
    classes = type(model), type(model.optimizer)
    for schedule in (Cosine(), lambda epoch: 0.5):
        for scheduler in ([], [graphwd.StrengthScheduler(schedule)], []):
            measure = Measure()
            fit(model, *scheduler, measure, steps=2)
            if not scheduler:
                np.testing.assert_allclose(measure.of("last/kernel"), [1.0, 1.0], atol=1e-6)
    assert [type(variable.regularizer) for variable in model.variables] == losses
    assert (len(model.variables), len(model.optimizer.variables)) == variables
    assert (type(model), type(model.optimizer)) == classes


@pytest.mark.parametrize("every", ["epoch", "step"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_backup_and_restore(name, every, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def schedule():
        return graphwd.StrengthScheduler(Cosine() if every == "step" else (lambda e: 0.2 * e))

    model, other = MECHANISMS[name](), MECHANISMS[name]()
    fit(model, schedule(), epochs=4, steps=3)
    with pytest.raises(KeyboardInterrupt):
        fit(
            other, keras.callbacks.BackupAndRestore(tmp_path), schedule(), Stop(), epochs=4, steps=3
        )
    other, measure = MECHANISMS[name](), Measure()
    fit(other, keras.callbacks.BackupAndRestore(tmp_path), schedule(), measure, epochs=4, steps=3)
    assert len(measure.of("last/kernel")) == 6
    for ours, theirs in zip(model.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


@pytest.mark.parametrize("name", MECHANISMS)
def test_after_an_interrupted_fit_the_next_one_begins_anew(name):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = MECHANISMS[name]()
    for schedule in (Cosine(), lambda epoch: 0.5):
        with pytest.raises(KeyboardInterrupt):
            fit(model, graphwd.StrengthScheduler(schedule), Stop())
    measure = Measure()
    scheduler = graphwd.StrengthScheduler(lambda epoch: 0.25)
    fit(model, scheduler, measure, steps=1)
    np.testing.assert_allclose(measure.of("last/kernel"), [0.25], atol=1e-6)


def test_the_logger_logs_the_scheduled_penalty():
    model = penalised(policy=graphwd.Rule(regularizers.L2(0.5), roles="kernel"))
    off = graphwd.StrengthScheduler(lambda epoch: 2.0 - epoch, PENALTY)
    history = fit(model, off, graphwd.PenaltyLogger(PENALTY), epochs=3, steps=2).history
    assert history["penalty"][2] == 0.0
    assert history["penalty"] == history["penalty/rule_1"]
    kernels = [model.get_layer(name).kernel.numpy() for name in ("first", "last")]
    last = 0.5 * sum(float((kernel**2).sum()) for kernel in kernels)
    assert history["penalty"][1] == pytest.approx(last, rel=1e-5)


def test_what_cant_be_scaled_is_an_error_that_says_so():
    model = network()
    model.compile("sgd", nothing)
    constant = graphwd.StrengthScheduler(lambda epoch: 1.0)
    with pytest.raises(graphwd.GraphwdError, match="nothing for StrengthScheduler to scale"):
        fit(model, constant)
    with pytest.raises(graphwd.GraphwdError, match="on the weights that its rules select"):
        fit(
            penalised(),
            graphwd.StrengthScheduler(lambda epoch: 1.0, graphwd.Rule(None, roles="bias")),
        )
    together = graphwd.StrengthScheduler(lambda e: 1.0, graphwd.Rule(None, paths="last/kernel"))
    with pytest.raises(graphwd.GraphwdError, match=r"last/kernel.*together with .*first/kernel"):
        fit(decoupled(), together)
    for wrong in (-1.0, float("nan"), None, "much"):
        with pytest.raises(graphwd.PolicyError, match="for epoch 0; let it return a finite"):
            fit(penalised(), graphwd.StrengthScheduler(lambda epoch, value=wrong: value))
    with pytest.raises(graphwd.GraphwdError, match="a function or a LearningRateSchedule"):
        graphwd.StrengthScheduler(0.5)
    with pytest.raises(graphwd.GraphwdError, match="neither"):
        graphwd.StrengthScheduler(Cosine(), every="batch")
