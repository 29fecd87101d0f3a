"""Properties of rewrite, over generated models and policies and over handwritten models."""

import json
import math
import warnings
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import given, note, settings

import graphwd
from graphwd.live import survey
from graphwd.live.copying import copier
from tests.support import oracle
from tests.support.effort import examples
from tests.support.strategies import (
    POLICY,
    build,
    cases,
    inputs_for,
    sample_models,
)

ONE_PER_NAME = [name for name in sample_models() if name != "sequential_unbuilt"]


def build_case(case):
    recipe, policy = case
    note(f"recipe = {recipe!r}")
    note(f"policy = {policy!r}")
    return build(recipe), graphwd.Policy.from_dict(policy)


@pytest.fixture(autouse=True)
def quiet():
    """Random policies often match nothing; that this warns is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", graphwd.UnmatchedRuleWarning)
        yield


def slots_of(model):
    return survey.survey(model).slots


def tolerance(model) -> float:
    return 1e-5 if all(v.dtype in ("float32", "float64") for v in model.weights) else 1e-2


def assert_penalty(model, rewritten, policy) -> None:
    regularizers = oracle.wanted(model, slots_of(model), policy)
    expected = oracle.penalty_sum(model, regularizers)
    assert oracle.losses_sum(rewritten) == pytest.approx(expected, rel=tolerance(model), abs=1e-7)


def assert_same_weights(one, other) -> None:
    assert [v.path for v in one.variables] == [v.path for v in other.variables]
    assert [oracle.bits(v) for v in one.variables] == [oracle.bits(v) for v in other.variables]
    assert [v.trainable for v in one.variables] == [v.trainable for v in other.variables]
    assert not {id(v) for v in one.variables} & {id(v) for v in other.variables}


def assert_keeps_the_model(model, rewritten) -> None:
    assert type(rewritten) is type(model)
    assert rewritten.name == model.name
    configs = model.get_config(), rewritten.get_config()
    assert not oracle.config_differences(*configs, regularizers=False)
    assert_same_weights(model, rewritten)
    ours, theirs = oracle.all_layers(model), oracle.all_layers(rewritten)
    assert [layer.trainable for layer in ours] == [layer.trainable for layer in theirs]
    assert [layer.dtype_policy for layer in ours] == [layer.dtype_policy for layer in theirs]
    assert not {id(layer) for layer in ours} & {id(layer) for layer in theirs}
    inputs = inputs_for(model)
    keras.tree.assert_same_structure(model(inputs), rewritten(inputs))
    for expected, actual in zip(
        oracle.outputs(model, inputs), oracle.outputs(rewritten, inputs), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)


def assert_compiled_alike(model, rewritten) -> None:
    assert rewritten.compiled == model.compiled
    if not model.compiled:
        return
    ours, theirs = model.optimizer, rewritten.optimizer
    assert theirs is not ours
    assert type(theirs) is type(ours)
    assert not oracle.config_differences(theirs.get_config(), ours.get_config())
    assert [oracle.bits(v) for v in theirs.variables] == [oracle.bits(v) for v in ours.variables]


def drift(model, path) -> tuple:
    """A model, saved and loaded again, and what Keras itself changes in its config by that."""
    model.save(path)
    loaded = keras.saving.load_model(path)
    configs = model.get_config(), loaded.get_config()
    return loaded, oracle.config_differences(*configs, regularizers=False)


def assert_reloads(model, rewritten, path) -> None:
    expected = oracle.losses_sum(rewritten)
    held = oracle.variable_regularizers(rewritten)
    trainable = [v.trainable for v in rewritten.weights]
    loaded, differences = drift(rewritten, path)
    if differences:
        assert differences == drift(model, path)[1]
    assert [oracle.bits(v) for v in loaded.weights] == [oracle.bits(v) for v in rewritten.weights]
    assert oracle.variable_regularizers(loaded) == held
    if [v.trainable for v in loaded.weights] != trainable:
        # Keras thaws what lies in a frozen nested model, so the penalties there wake up.
        weights = [v for layer in oracle.all_layers(loaded) for v in oracle.owned(layer)]
        expected = oracle.penalty_sum(
            loaded, {id(v): pair for v, pair in zip(weights, held, strict=True)}
        )
        assert [v.trainable for v in loaded.weights] == [
            v.trainable for v in drift(model, path)[0].weights
        ]
    assert oracle.losses_sum(loaded) == pytest.approx(expected, rel=tolerance(model), abs=1e-7)


@settings(max_examples=examples(30))
@given(case=cases())
def test_only_regularizers_change(case):
    model, policy = build_case(case)
    rewritten = graphwd.rewrite(model, policy)
    assert_compiled_alike(model, rewritten)
    assert_keeps_the_model(model, rewritten)


@settings(max_examples=examples(30))
@given(case=cases(unreachable=True))
def test_the_penalty_is_the_sum_by_hand(case):
    model, policy = build_case(case)
    slots = slots_of(model)
    paths = oracle.governed(model, {slot.path for slot in slots})
    assert {slot.path for slot in slots if slot.role != "activity"} == set(paths.values())
    rewritten = graphwd.rewrite(model, policy)
    assert_penalty(model, rewritten, case[1])
    kept = oracle.wanted(model, slots, case[1])
    expected = [kept[id(v)] for layer in oracle.all_layers(model) for v in oracle.owned(layer)]
    assert_regularizers(oracle.variable_regularizers(rewritten), expected)


def assert_regularizers(actual, expected) -> None:
    """The same classes and coefficients; Keras rounds some to float32."""
    assert len(actual) == len(expected)
    for one, two in zip(actual, expected, strict=True):
        if one is None or two is None:
            assert one is two
            continue
        assert one[0] == two[0]
        assert one[1] == {
            key: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            for key, value in two[1].items()
        }


@settings(max_examples=examples(20))
@given(case=cases(unreachable=True))
def test_saving_and_loading_keep_it(tmp_path_factory, case):
    model, policy = build_case(case)
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    assert_reloads(model, graphwd.rewrite(model, policy), path)


@settings(max_examples=examples(30))
@given(case=cases(unreachable=True))
def test_the_original_is_untouched(case):
    model, policy = build_case(case)
    before = oracle.state(model)
    graphwd.rewrite(model, policy)
    graphwd.plan(model, policy)
    graphwd.inspect(model)
    after = oracle.state(model)
    for key, value in before.items():
        assert after[key] == value, key


@settings(max_examples=examples(20))
@given(case=cases(unreachable=True))
def test_twice_is_once(case):
    model, policy = build_case(case)
    once = graphwd.rewrite(model, policy)
    twice = graphwd.rewrite(once, policy)
    assert not graphwd.plan(once, policy).edits
    assert not oracle.config_differences(twice.get_config(), once.get_config())
    assert oracle.variable_regularizers(twice) == oracle.variable_regularizers(once)
    assert_same_weights(once, twice)


SWITCHES = {
    "bias_regularizer": "use_bias",
    "gamma_regularizer": "scale",
    "beta_regularizer": "center",
}


def without_regularizers(value):
    """A recipe without the regularizers in it, but for those of weights that don't exist."""
    if isinstance(value, dict):
        return {
            key: without_regularizers(item)
            for key, item in value.items()
            if not key.endswith("_regularizer") or value.get(SWITCHES.get(key)) is False
        }
    return [without_regularizers(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=examples(20))
@given(case=cases(unreachable=True))
def test_removing_all_gives_the_plain_model(case):
    model, policy = build_case(case)
    removed = graphwd.rewrite(graphwd.rewrite(model, policy), graphwd.Rule(None))
    bare = build(without_regularizers(case[0]))
    assert not oracle.config_differences(removed.get_config(), bare.get_config())
    assert set(oracle.variable_regularizers(removed)) <= {None}
    assert oracle.losses_sum(removed) == 0
    assert_same_weights(model, removed)


@settings(max_examples=examples(20))
@given(case=cases(unreachable=True))
def test_verify_accepts_every_rewrite(case):
    model, policy = build_case(case)
    rewritten = graphwd.rewrite(model, policy, verify=False)
    for report in (
        graphwd.verify(model, rewritten, policy),
        graphwd.verify(model, rewritten),
        graphwd.verify(rewritten, model),
    ):
        assert report.ok, str(report)
        assert report.compared["variables"] == len({id(v) for v in model.variables})


def canonical(value):
    """A saved config without what means nothing.

    That is: the addresses of shared objects, the absence of an activity regularizer, and decimal
    places beyond float32, to which Keras rounds the factors of some regularizers.
    """
    if isinstance(value, dict):
        return {
            key: canonical(item)
            for key, item in value.items()
            if key != "shared_object_id" and (key, item) != ("activity_regularizer", None)
        }
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return float(np.float32(value)) if isinstance(value, float) else value


@settings(max_examples=examples(15))
@given(case=cases())
def test_a_rewritten_file_is_the_file_of_the_rewritten_model(tmp_path_factory, case):
    model, policy = build_case(case)
    folder = tmp_path_factory.mktemp("files")
    model.save(folder / "original.keras")
    graphwd.rewrite_file(folder / "original.keras", folder / "file.keras", policy)
    graphwd.rewrite(model, policy).save(folder / "live.keras")
    ours, theirs = (
        json.loads(zipfile.ZipFile(folder / name).read("config.json"))
        for name in ("file.keras", "live.keras")
    )
    assert not oracle.config_differences(canonical(ours), canonical(theirs))
    assert graphwd.verify(folder / "live.keras", folder / "file.keras").ok


@pytest.mark.parametrize("name", ONE_PER_NAME)
def test_models_as_people_write_them(tmp_path, name):
    model = sample_models()[name]()
    policy = graphwd.Policy.from_dict(POLICY)
    before = oracle.state(model)
    rewritten = graphwd.rewrite(model, policy)
    after = oracle.state(model)
    for key, value in before.items():
        assert after[key] == value, key
    assert_penalty(model, rewritten, POLICY)
    assert_reloads(model, rewritten, tmp_path / "model.keras")
    assert graphwd.verify(model, rewritten, policy, outputs=True).compared["outputs"] > 0
    assert_compiled_alike(model, rewritten)
    assert_keeps_the_model(model, rewritten)


def test_an_unbuilt_sequential_gets_its_penalties_when_it_is_built():
    model = sample_models()["sequential_unbuilt"]()
    rewritten = graphwd.rewrite(model, keras.regularizers.L2(0.5))
    assert not model.built
    assert not rewritten.built
    rewritten.build((None, 4))
    kernels = [v for v in rewritten.trainable_variables if v.name == "kernel"]
    expected = sum(0.5 * (oracle.array(v).astype("float64") ** 2).sum() for v in kernels)
    assert len(kernels) == 2
    assert oracle.losses_sum(rewritten) == pytest.approx(expected, rel=1e-6)
    model.build((None, 4))
    assert not model.losses


def test_activity_regularizers():
    inputs = keras.Input((3,))
    dense = keras.layers.Dense(4, name="dense", activity_regularizer=keras.regularizers.L1(0.5))
    model = keras.Model(inputs, dense(inputs))
    batch = np.arange(6, dtype="float32").reshape(2, 3)

    def activity(rewritten) -> float:
        (output,) = oracle.outputs(rewritten, batch)
        assert output.shape == (2, 4)
        return oracle.losses_sum(rewritten)

    (output,) = oracle.outputs(model, batch)
    absolute, squares = np.abs(output).sum(), (output.astype("float64") ** 2).sum()
    ratio = activity(model) / (0.5 * absolute)  # whether Keras takes the mean over the batch
    assert ratio == pytest.approx(1.0) or ratio == pytest.approx(0.5)
    twice = graphwd.rewrite(model, graphwd.Rule(keras.regularizers.L2(0.25), roles="activity"))
    assert activity(twice) == pytest.approx(ratio * 0.25 * squares, rel=1e-5)
    assert activity(graphwd.rewrite(model, graphwd.Rule(None))) == 0
    bare = graphwd.rewrite(model, keras.regularizers.L2(0.0))
    assert activity(bare) == pytest.approx(ratio * 0.5 * absolute, rel=1e-5)


def test_a_frozen_weight_is_penalised_once_it_is_thawed():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="dense")(inputs))
    model.get_layer("dense").trainable = False
    (edit,) = graphwd.plan(model, graphwd.Rule("l2", roles="kernel"))
    assert edit.dormant
    rewritten = graphwd.rewrite(model, graphwd.Rule("l2", roles="kernel"))
    assert rewritten.losses == []
    rewritten.get_layer("dense").trainable = True
    kernel = oracle.array(rewritten.get_layer("dense").kernel).astype("float64")
    assert oracle.losses_sum(rewritten) == pytest.approx(0.01 * (kernel**2).sum(), rel=1e-6)


@pytest.mark.parametrize("kind", ["layer", "model", "same arguments"])
def test_a_shared_layer_keeps_the_order_of_its_calls(kind):
    """Keras walks a model by depth and may come to the second call first, as clone_model does."""
    shared = keras.layers.Dense(2, name="shared")
    if kind == "model":
        inner = keras.Input((2,))
        shared = keras.Model(inner, shared(inner), name="twice")
    inputs = keras.Input((2,))
    deep = keras.layers.Dense(2, name="deep")(inputs)
    first, second = shared(deep), shared(deep if kind == "same arguments" else inputs)
    for name in ("a", "b", "c"):
        second = keras.layers.Dense(2, name=name)(second)
    for pair in ([first, second], [second, first]):
        model = keras.Model(inputs, [keras.layers.Subtract()(pair), first])
        rewritten = graphwd.rewrite(model, "l2")
        assert_keeps_the_model(model, rewritten)
        assert_keeps_the_model(model, graphwd.rewrite(rewritten, "l1"))


def add_one(model, copy):
    copy.weights[0].assign(copy.weights[0] + 1)


def share_a_layer(model, copy):
    vars(copy.layers[0])["_original_layer"] = [model.layers[-1]]


@pytest.mark.parametrize(
    ("damage", "words"), [(add_one, "conv2d"), (share_a_layer, "same object in both")]
)
def test_wrong_rewrites_are_refused(monkeypatch, damage, words):
    """The proof is made by default, and what fails it is not returned."""
    model = sample_models()["sequential_built"]()
    copied = copier.copied

    def damaged(model):
        copy, copies = copied(model)
        damage(model, copy)
        return copy, copies

    monkeypatch.setattr(copier, "copied", damaged)
    with pytest.raises(graphwd.EquivalenceError, match=words) as caught:
        graphwd.rewrite(model, "l2")
    assert not caught.value.report.ok
    assert graphwd.rewrite(model, "l2", verify=False) is not model


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="each penalty is a compilation on JAX: minutes"
)
def test_thousands_of_layers_in_a_row():
    """Keras itself stops near 900 chained calls; rewrite goes as far as Keras does."""
    inputs = keras.Input((2,))
    x = inputs
    for _ in range(800):
        x = keras.layers.Dense(2)(x)
    model = keras.Model(inputs, x)
    rewritten = graphwd.rewrite(model, graphwd.Rule("l2", roles="kernel"))
    assert len(rewritten.losses) == 800
    assert math.isfinite(oracle.losses_sum(rewritten))
