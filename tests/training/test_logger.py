"""PenaltyLogger: what it logs is what Keras adds to the loss, wherever logs go, and it is cheap."""

import csv
import re

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd

X, Y = np.linspace(-1, 1, 64 * 4, dtype="float32").reshape(64, 4), np.ones((64, 2), "float32")
KERNELS = graphwd.Rule(regularizers.L2(0.5), roles="kernel")
BIASES = graphwd.Rule(regularizers.L1(0.25), roles="bias")


def small_model(policy=None, learning_rate=0.01, dtype=None):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="first", bias_initializer="ones", dtype=dtype),
            layers.Dense(2, name="last", bias_initializer="ones", dtype=dtype),
        ],
        name="small",
    )
    if policy is not None:
        model = graphwd.rewrite(model, policy)
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    return model


def penalty_of(model, factor=0.5, role="kernel"):
    """The L2 or L1 penalty, by hand."""
    power = 2 if role == "kernel" else 1
    return sum(
        factor * float(np.sum(np.abs(np.asarray(value, "float64")) ** power))
        for variable, value in zip(model.weights, model.get_weights(), strict=True)
        if variable.name == role
    )


def fit(model, *callbacks, **kwargs):
    options = {"epochs": 2, "batch_size": 16, "verbose": 0, "shuffle": False, **kwargs}
    return model.fit(X, Y, callbacks=list(callbacks), **options).history


def test_penalty_is_what_keras_adds_to_the_loss():
    model = small_model([KERNELS, BIASES])
    history = fit(model, graphwd.PenaltyLogger())
    by_hand = penalty_of(model) + penalty_of(model, 0.25, "bias")
    assert history["penalty"][-1] == pytest.approx(by_hand, rel=1e-6)
    assert history["penalty"][-1] == pytest.approx(float(sum(model.losses)), rel=1e-6)


def test_loss_without_penalty_is_the_loss_while_the_weights_stand_still():
    model, plain = small_model(KERNELS, learning_rate=0.0), small_model(learning_rate=0.0)
    plain.set_weights(model.get_weights())
    history = fit(model, graphwd.PenaltyLogger(), validation_data=(X[:32], Y[:32]))
    expected = fit(plain, validation_data=(X[:32], Y[:32]))
    assert history["penalty"][0] > 0.1
    np.testing.assert_allclose(history["loss_without_penalty"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(history["val_loss_without_penalty"], expected["val_loss"], rtol=1e-5)


def test_validation_loss_is_exact_and_training_loss_within_its_bound_while_training():
    model = small_model(KERNELS, learning_rate=0.05)
    start = penalty_of(model)
    history = fit(model, graphwd.PenaltyLogger(), epochs=1, validation_data=(X, Y))
    plain = small_model()
    plain.set_weights(model.get_weights())
    expected = plain.evaluate(X, Y, verbose=0)
    assert history["val_loss_without_penalty"][0] == pytest.approx(expected, rel=1e-5)
    end = history["penalty"][0]
    without = history["loss"][0] - history["loss_without_penalty"][0]
    assert without == pytest.approx((start + end) / 2, rel=1e-5)
    assert abs(start - end) > 0.01


def test_parts_of_the_rules_sum_up_to_the_penalty():
    first = keras.layers.Dense(3, kernel_regularizer=regularizers.L2(0.5), name="old")
    model = keras.Sequential([keras.Input((4,)), first, layers.Dense(2, name="last")])
    policy = graphwd.Policy([KERNELS, graphwd.Rule(regularizers.L2(0.1), paths="last/kernel")])
    rewritten = graphwd.rewrite(model, policy)
    rewritten.compile("sgd", "mse")
    history = fit(rewritten, graphwd.PenaltyLogger(policy), epochs=1)
    one, two = history["penalty/rule_1"][0], history["penalty/rule_2"][0]
    assert one == pytest.approx(0.5 * np.sum(rewritten.get_weights()[0] ** 2), rel=1e-6)
    assert two == pytest.approx(0.1 * np.sum(rewritten.get_weights()[2] ** 2), rel=1e-6)
    assert one + two == pytest.approx(history["penalty"][0], rel=1e-6)
    assert "penalty/no_rule" not in history
    model.compile("sgd", "mse")
    other = graphwd.Rule(regularizers.L2(0.1), paths="last/kernel")
    history = fit(model, graphwd.PenaltyLogger(other, per_rule=True), epochs=1)
    assert history["penalty/rule_1"] == [0.0]
    assert history["penalty/no_rule"] == history["penalty"] != [0.0]


def test_rules_are_logged_on_request_only():
    model = small_model(KERNELS)
    assert set(fit(model, graphwd.PenaltyLogger(KERNELS, per_rule=False))) == {
        "loss",
        "penalty",
        "loss_without_penalty",
    }
    with pytest.raises(graphwd.PolicyError, match="needs a policy"):
        graphwd.PenaltyLogger(per_rule=True)


def test_progress_bar_csv_and_callbacks_after_it_see_it(tmp_path, capsys):
    model = small_model(KERNELS)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    stop = keras.callbacks.EarlyStopping("val_loss_without_penalty", patience=5, mode="min")
    file = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = fit(
        model,
        graphwd.PenaltyLogger(KERNELS),
        file,
        stop,
        watch,
        verbose=2,
        validation_data=(X, Y),
    )
    printed = capsys.readouterr().out
    assert "penalty: " in printed
    assert "loss_without_penalty: " in printed
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert float(rows[1]["penalty"]) == pytest.approx(history["penalty"][1])
    assert float(rows[1]["penalty/rule_1"]) == pytest.approx(history["penalty"][1])
    assert [logs["penalty"] for logs in seen] == history["penalty"]
    assert stop.best == min(history["val_loss_without_penalty"])


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="TensorBoard needs TensorFlow here")
def test_tensorboard_gets_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    tensorboard = keras.callbacks.TensorBoard(tmp_path)
    fit(small_model(KERNELS), graphwd.PenaltyLogger(KERNELS), tensorboard, validation_data=(X, Y))
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("events*"))
    for tag in (b"epoch_penalty", b"epoch_penalty/rule_1", b"epoch_loss_without_penalty"):
        assert tag in written


def test_evaluate_shows_it_too(capsys):
    model = small_model(KERNELS)
    loss = model.evaluate(X, Y, verbose=2, callbacks=[graphwd.PenaltyLogger()])
    printed = capsys.readouterr().out
    shown = {key: float(value) for key, value in re.findall(r"(\w+): ([-\d.e]+)", printed)}
    assert shown["penalty"] == pytest.approx(penalty_of(model), abs=1e-4)
    assert shown["loss_without_penalty"] == pytest.approx(loss - penalty_of(model), abs=1e-3)


def test_frozen_weights_and_activations_count_as_keras_counts_them():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="first", activity_regularizer=regularizers.L2(0.1)),
            layers.Dense(2, name="last"),
        ]
    )
    model = graphwd.rewrite(model, KERNELS)
    model.get_layer("first").trainable = False
    model.compile("sgd", "mse")
    history = fit(model, graphwd.PenaltyLogger(), epochs=1)
    assert history["penalty"][0] == pytest.approx(
        0.5 * np.sum(model.get_layer("last").get_weights()[0] ** 2), rel=1e-6
    )
    model.get_layer("first").trainable = True
    model.compile("sgd", "mse")
    history = fit(model, graphwd.PenaltyLogger(), epochs=1)
    assert history["penalty"][0] == pytest.approx(penalty_of(model), rel=1e-6)


def test_one_logger_follows_what_is_unfrozen_between_two_fits():
    model, logger = small_model(KERNELS), graphwd.PenaltyLogger()
    model.get_layer("first").trainable = False
    model.compile("sgd", "mse")
    fit(model, logger)
    model.get_layer("first").trainable = True
    model.compile("sgd", "mse")
    assert fit(model, logger)["penalty"][-1] == pytest.approx(penalty_of(model), rel=1e-6)


def test_a_model_without_penalties_logs_zero():
    history = fit(small_model(), graphwd.PenaltyLogger())
    assert history["penalty"] == [0.0, 0.0]
    assert history["loss_without_penalty"] == history["loss"]


def test_a_model_that_is_built_by_its_first_batch():
    model = keras.Sequential([layers.Dense(2, kernel_regularizer=regularizers.L2(0.5))])
    model.compile("sgd", "mse")
    history = fit(model, graphwd.PenaltyLogger())
    assert history["penalty"][-1] == pytest.approx(penalty_of(model), rel=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "float16"])
def test_half_precision_is_summed_in_single_precision(dtype):
    model = small_model(KERNELS, dtype=dtype)
    value = 1.0078125  # its square has no half-precision number
    for variable in model.trainable_variables:
        variable.assign(keras.ops.full(variable.shape, value, variable.dtype))
    logger = graphwd.PenaltyLogger()
    fit(small_model(KERNELS), logger)  # a callback may serve another model next
    logger.set_model(model)
    logger.on_train_begin()
    logs = {"loss": 20.0}
    logger.on_epoch_end(0, logs)
    assert logs["penalty"] == pytest.approx(0.5 * (12 + 6) * value**2, rel=1e-6)


def test_a_training_step_without_loss_logs_the_penalty_alone():
    class Own(keras.Sequential):
        def train_step(self, *args, **kwargs):
            result = super().train_step(*args, **kwargs)
            if isinstance(result, tuple):  # JAX
                return {"own": result[0]["loss"]}, result[1]
            return {"own": result["loss"]}

    model = Own([keras.Input((4,)), layers.Dense(2, kernel_regularizer="l2")])
    model.compile("sgd", "mse")
    history = fit(model, graphwd.PenaltyLogger())
    assert history["penalty"][-1] == pytest.approx(penalty_of(model, 0.01), rel=1e-6)


def test_a_step_that_leaves_the_penalty_out_has_no_loss_without_it():
    class Ignoring(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(100.0))

        def call(self, x):
            return self.dense(x)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(keras.ops.square(y - y_pred))

    model = Ignoring()
    model.compile("sgd")
    x = np.ones((4, 3), "float32")
    data = (x, np.zeros((4, 1), "float32"))
    history = model.fit(
        *data, validation_data=data, callbacks=[graphwd.PenaltyLogger()], verbose=0
    ).history
    assert history["penalty"][0] > 0
    assert not [name for name in history if name.endswith("without_penalty")]
