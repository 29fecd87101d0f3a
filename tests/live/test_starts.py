"""L2SP: the penalty on the distance from where the weights started, which stays with the layers."""

import io
import json
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from tests.support.composite import Composite

KERNELS = graphwd.Rule(graphwd.L2SP(0.5), roles="kernel")
keras.saving.register_keras_serializable(package="tests")(Composite)


def batches(seed=0, steps=6):
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(4 * steps, 3, 4)).astype("float32"),
        generator.normal(size=(4 * steps, 2)).astype("float32"),
    )


def network():
    """Several weights of one argument, a wrapper, a composite layer, a nested model."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((3, 4))
    x = layers.MultiHeadAttention(2, 2, name="attend")(inputs, inputs)
    x = layers.Bidirectional(layers.LSTM(2), name="both")(x)
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="dense"), Composite(name="own")], name="inner"
    )
    return keras.Model(inputs, layers.Dense(2, name="last")(inner(x)), name="outer")


def compiled(model, rate=0.05):
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse")
    return model


def fit(model, seed=0, **how):
    return model.fit(*batches(seed), batch_size=4, shuffle=False, verbose=0, **how)


def penalised(model):
    return [v for v in model.trainable_variables if isinstance(v.regularizer, graphwd.L2SP)]


def start_of(variable, start):
    """A file's paths lack the wrappers' names."""
    return next(value for key, value in start.items() if key.endswith(place_of(variable)))


def place_of(variable):
    """Its path without the numbers and the model's name, which differ between copies."""
    return re.sub(r"_\d+", "", variable.path).split("outer/")[-1]


def by_hand(model, start, strength=0.5):
    """The sum of the penalties, from the values of the kernels at the start."""
    return sum(
        strength * float(((np.array(v, "float64") - start_of(v, start)) ** 2).sum())
        for v in penalised(model)
    )


def values(model):
    return {place_of(v): np.array(v, "float64") for v in model.trainable_variables}


def trained():
    """A rewritten model some steps later, and where its weights were."""
    model = compiled(graphwd.rewrite(network(), KERNELS))
    start = values(model)
    fit(model)
    return model, start


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


def test_weight_files_are_those_of_the_original(tmp_path):
    original, (model, start) = network(), trained()
    original.save_weights(tmp_path / "original.weights.h5")
    model.save_weights(tmp_path / "model.weights.h5")
    plain = compiled(network())
    plain.load_weights(tmp_path / "model.weights.h5")
    for one, two in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    model.load_weights(tmp_path / "original.weights.h5", skip_mismatch=True)
    assert sum(map(float, model.losses)) == pytest.approx(by_hand(model, start), abs=1e-9)


def test_a_file_has_the_start_once_and_training_goes_on_from_it(tmp_path):
    model, start = trained()
    path = tmp_path / "model.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assets = [i for i in archive.infolist() if i.filename.endswith("graphwd_starts.npz")]
        config = json.loads(archive.read("config.json"))
    weights = 4 * sum(int(np.prod(v.shape)) for v in penalised(model))
    assert weights < sum(item.file_size for item in assets) < weights + 4000
    assert len(json.dumps(config)) < 40_000
    loaded = keras.saving.load_model(path)
    assert sum(map(float, loaded.losses)) == pytest.approx(by_hand(model, start), rel=1e-5)
    assert sum(map(float, loaded.losses)) > 0
    fit(model, 1)
    fit(loaded, 1)
    for one, two in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    # Keras's files have no seeds
    assert all("seed_generator" in line for line in graphwd.verify(model, loaded).problems)
    loaded.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    assert [float(loss) for loss in again.losses] == [float(loss) for loss in loaded.losses]


def test_a_file_in_another_process_and_layers_numbered_otherwise(tmp_path):
    model, _ = trained()
    model.save(tmp_path / "model.keras")
    program = (
        "import keras, graphwd, tests.live.test_starts\n"
        "keras.layers.LSTM(1), keras.layers.Dense(1)\n"
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r})\n"
        "print('losses', *(float(loss) for loss in model.losses))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    found = [float(word) for word in ran.stdout.split("losses")[-1].split()]
    np.testing.assert_allclose(found, [float(loss) for loss in model.losses], rtol=1e-6)


def test_clones_nesting_and_transfer_learning_keep_the_start(tmp_path):
    model, start = trained()
    expected = by_hand(model, start)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert sum(map(float, clone.losses)) == pytest.approx(expected, rel=1e-5)
    cut = keras.Model(model.inputs, model.get_layer("both").output)
    head = keras.Sequential([cut, layers.Dense(3, name="new")])
    for name, larger in {"cut": cut, "head": head}.items():
        larger.save(tmp_path / f"{name}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert len(penalised(loaded)) == len(penalised(larger)) == 6
        assert [float(loss) for loss in loaded.losses] == [float(loss) for loss in larger.losses]
        assert sum(map(float, loaded.losses)) == pytest.approx(by_hand(cut, start), rel=1e-5)
    compiled(clone).fit(*batches(2), verbose=0)
    assert sum(map(float, model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("in_place", [False, True])
def test_rewriting_again_keeps_a_start_that_no_rule_changes(in_place):
    model, start = trained()
    expected = by_hand(model, start)
    again = graphwd.rewrite(model, graphwd.Rule("l1", roles="bias"), in_place=in_place)
    found = [v for v in again.trainable_variables if isinstance(v.regularizer, graphwd.L2SP)]
    assert sum(float(v.regularizer(v)) for v in found) == pytest.approx(expected, rel=1e-5)
    same = graphwd.rewrite(again, KERNELS, in_place=in_place)
    found = [v for v in same.trainable_variables if isinstance(v.regularizer, graphwd.L2SP)]
    assert sum(float(v.regularizer(v)) for v in found) == pytest.approx(expected, rel=1e-5)
    other = graphwd.rewrite(
        same, graphwd.Rule(graphwd.L2SP(0.25), roles="kernel"), in_place=in_place
    )
    assert sum(float(v.regularizer(v)) for v in penalised(other)) == 0.0
    none = graphwd.rewrite(other, graphwd.Rule(None), in_place=in_place)
    assert not none.losses
    assert {type(layer).__module__.split(".")[0] for layer in none.layers} == {"keras"}
    assert len(none.variables) == len(network().variables)


def test_a_rule_of_the_head_and_one_of_the_backbone():
    policy = [
        graphwd.Rule(graphwd.L2SP(1e-2), paths="inner/*", ndim=">=2"),
        graphwd.Rule(regularizers.L2(1e-2), paths="last/*", ndim=">=2"),
    ]
    model = graphwd.rewrite(network(), policy)
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    kinds = {v.path.split("/")[-2]: type(v.regularizer) for v in kernels}
    assert kinds["dense"] is graphwd.L2SP
    assert kinds["last"] is regularizers.L2


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


def test_files_with_starts_are_inspected_verified_and_rewritten(tmp_path):
    model, start = trained()
    model.save(tmp_path / "model.keras")
    assert "L2SP(strength=0.5)" in str(graphwd.inspect(tmp_path / "model.keras"))
    policy = graphwd.Rule(None, paths="last/*")
    graphwd.rewrite_file(tmp_path / "model.keras", tmp_path / "new.keras", policy)
    assert graphwd.verify(tmp_path / "model.keras", tmp_path / "new.keras", policy).ok
    loaded = keras.saving.load_model(tmp_path / "new.keras")
    assert len(penalised(loaded)) == 8
    assert sum(map(float, loaded.losses)) == pytest.approx(by_hand(loaded, start), rel=1e-5)


@pytest.mark.parametrize("fault", ["changed", "lost"])
def test_the_proof_of_two_files_sees_a_start_that_is_changed_or_lost(fault, tmp_path):
    model, _ = trained()
    model.save(tmp_path / "model.keras")
    model.save(tmp_path / "again.keras")
    assert graphwd.verify(tmp_path / "model.keras", tmp_path / "again.keras").ok
    with (
        zipfile.ZipFile(tmp_path / "model.keras") as source,
        zipfile.ZipFile(tmp_path / "wrong.keras", "w") as target,
    ):
        member = next(n for n in source.namelist() if n.endswith("graphwd_starts.npz"))
        for name in source.namelist():
            content = source.read(name)
            if name == member and fault == "changed":
                with np.load(io.BytesIO(content)) as stored:
                    arrays = {key: stored[key].copy() for key in stored.files}
                next(iter(arrays.values()))[0] ^= 1  # one bit of one weight
                written = io.BytesIO()
                np.savez(written, **arrays)
                content = written.getvalue()
            if name != member or fault == "changed":
                target.writestr(name, content)
    (problem,) = graphwd.verify(tmp_path / "model.keras", tmp_path / "wrong.keras").problems
    assert member in problem


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
