"""L2SP: the penalty on the distance from where the weights started."""

import keras
import numpy as np
import pytest
from keras import layers

import graphwd
from tests.support.started import (
    KERNELS,
    by_hand,
    compiled,
    fit,
    network,
    penalised,
    start_of,
    trained,
)


def test_it_is_a_loss_that_is_written_by_hand():
    model = compiled(graphwd.rewrite(network(), KERNELS), rate=0.02)
    plain = compiled(network(), rate=0.02)
    assert len(penalised(model)) == 9
    pairs = [
        (variable, np.array(variable))
        for variable, other in zip(
            plain.trainable_variables, model.trainable_variables, strict=True
        )
        if isinstance(other.regularizer, graphwd.L2SP)
    ]
    for variable, start in pairs:  # a regularizer of each weight's own, with its start in it
        variable.regularizer = lambda w, start=start: (
            0.5 * keras.ops.sum(keras.ops.square(w - start))
        )
    ours, theirs = fit(model, epochs=3).history["loss"], fit(plain, epochs=3).history["loss"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for one, two in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_at_the_start_there_is_no_penalty_and_weights_are_what_they_were():
    original = network()
    model = graphwd.rewrite(original, KERNELS)
    assert [float(loss) for loss in model.losses] == [0.0] * 9
    assert len(model.weights) == len(original.weights)
    assert model.count_params() == original.count_params()
    assert [v.path for v in model.weights] == [v.path for v in original.weights]
    assert not original.losses
    assert graphwd.verify(original, model, KERNELS).ok
    start = penalised(model)[0].regularizer.start
    start.assign(start + 1)
    assert "attend/query/kernel" in graphwd.verify(original, model, KERNELS).problems[0]


def test_plan_and_inspect_know_it():
    original = network()
    plan = graphwd.plan(original, KERNELS)
    assert plan.to_dict()["summary"]["whole"]["planned_penalty"] == 0.0
    model, start = trained()
    told = graphwd.inspect(model)
    assert told.to_dict()["summary"]["whole"]["penalty"] == pytest.approx(
        by_hand(model, start), rel=1e-5
    )
    assert "L2SP" in str(told)
    slots = {slot["path"]: slot["distance"] for slot in told.to_dict()["slots"]}
    kernel = model.get_layer("last").kernel
    gone = np.array(kernel, "float64") - start_of(kernel, start)
    assert slots["last/kernel"] == pytest.approx(np.linalg.norm(gone), rel=1e-5)
    assert slots["last/bias"] is None
    squares = sum(distance**2 for distance in slots.values() if distance is not None)
    assert 0.5 * squares == pytest.approx(by_hand(model, start), rel=1e-5)
    assert f"{slots['last/kernel']:.4g}" in told.tables()[0].text()
    assert all(slot["distance"] is None for slot in plan.to_dict()["slots"])


def test_half_precision_starts_are_exact(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, dtype="float16", name="half")], name="small"
    )
    model = graphwd.rewrite(model, KERNELS)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(loaded.losses[0]) == 0.0


def test_a_weight_without_a_start_says_so(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, kernel_regularizer=graphwd.L2SP())]
    )
    with pytest.raises(graphwd.GraphwdError, match=r"no recorded start; let graphwd.rewrite"):
        _ = model.losses
    with pytest.raises(graphwd.GraphwdError, match="at least 0"):
        graphwd.L2SP(-1.0)
    network().save(tmp_path / "model.keras")
    with pytest.raises(graphwd.GraphwdError, match=r"L2SP.*no rewriting of a file can record"):
        graphwd.rewrite_file(tmp_path / "model.keras", tmp_path / "new.keras", KERNELS)
    assert not (tmp_path / "new.keras").exists()


def test_a_schedule_scales_it_and_the_logger_logs_it():
    model, _ = trained()
    off = graphwd.StrengthScheduler(lambda epoch: 0.0)
    history = fit(model, epochs=1, callbacks=[off, graphwd.PenaltyLogger()]).history
    assert history["penalty"] == [0.0]
    history = fit(model, epochs=1, callbacks=[graphwd.PenaltyLogger()]).history
    assert history["penalty"][0] == pytest.approx(sum(map(float, model.losses)), rel=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX has constants in its programs")
def test_the_start_is_no_constant_of_jax_program():
    import jax

    model = keras.Sequential([keras.Input((64,)), layers.Dense(512, name="large")])
    model = graphwd.rewrite(model, KERNELS)

    def losses(trainable, others):
        return model.stateless_call(
            trainable, others, np.ones((1, 64), "float32"), return_losses=True
        )[2]

    state = [
        [v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables)
    ]
    text = jax.jit(losses).lower(*state).as_text()
    assert len(text) < 20_000
    assert len(model.non_trainable_variables) == 1
