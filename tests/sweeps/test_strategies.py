"""Tests that the strategies reach what they claim, quickly, with models that Keras reloads."""

import hashlib
import json
from pathlib import Path

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from tests.support.processes import run
from tests.support.sample_models import sample_models
from tests.support.strategies import (
    FEATURES,
    build,
    features,
    fill,
    inputs_for,
    models,
    policies,
    recipes,
    weights,
)


def values(structure) -> list[np.ndarray]:
    flat = keras.tree.flatten(structure)
    return [keras.ops.convert_to_numpy(keras.ops.cast(item, "float64")) for item in flat]


def drawn(strategy, count: int, seed: int = 0) -> list:
    """Examples of a strategy, the same on every run."""
    examples = []

    @hypothesis.seed(seed)
    @settings(max_examples=count, derandomize=False, database=None, phases=[Phase.generate])
    @given(strategy)
    def collect(example):
        examples.append(example)

    collect()
    return examples


def assert_reloads(model: keras.Model, path: Path) -> None:
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert weights(loaded) == weights(model)
    assert [w.trainable for w in loaded.weights] == [w.trainable for w in model.weights]
    assert [float(loss) for loss in loaded.losses] == [float(loss) for loss in model.losses]
    inputs = inputs_for(model)
    before, after = model(inputs), loaded(inputs)
    keras.tree.assert_same_structure(before, after)
    for expected, actual in zip(values(before), values(after), strict=True):
        assert np.isfinite(expected).all()
        np.testing.assert_array_equal(actual, expected)


def missing(strategy, wanted: frozenset, batches: int = 6) -> frozenset:
    """What none of up to `200 * batches` recipes has; one batch reaches nearly everything."""
    for seed in range(batches):
        wanted = wanted.difference(*map(features, drawn(strategy, 200, seed)))
        if not wanted:
            break
    return wanted


def test_every_feature_is_reached():
    assert len(missing(recipes(), FEATURES, batches=1)) <= len(FEATURES) // 8
    assert not missing(recipes(), FEATURES)


def test_layers_without_slots_come_only_on_request():
    classes = frozenset({"RMSNormalization", "Attention", "AdditiveAttention"})
    assert missing(recipes(), classes, batches=1) == classes
    assert not missing(recipes(unreachable=True), classes)


def test_limits_are_kept():
    for recipe in drawn(recipes(max_steps=1, depth=0, precision=False, compiled=False), 40):
        found = features(recipe)
        assert recipe["dtype_policy"] == "float32"
        assert not found & {"dtype", "compiled", "nested Functional", "nested Sequential"}


@settings(max_examples=25)
@given(recipe=recipes(unreachable=True))
def test_models_reload(tmp_path_factory, recipe):
    model = build(recipe)
    assert_reloads(model, tmp_path_factory.mktemp("reload") / "model.keras")


@settings(max_examples=10)
@given(recipe=recipes())
def test_a_recipe_gives_the_same_model_each_time(recipe):
    assert json.loads(json.dumps(recipe)) == recipe
    first, second = build(recipe), build(recipe)
    assert first.get_config() == second.get_config()
    assert weights(first) == weights(second)
    policy = keras.config.dtype_policy()
    build({**recipe, "dtype_policy": "mixed_bfloat16"})
    assert keras.config.dtype_policy() == policy


def test_a_recipe_gives_the_same_model_in_another_process(tmp_path):
    recipe = max(drawn(recipes(), 40), key=lambda example: len(features(example)))
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe))
    program = (
        "import json, sys, hashlib\n"
        "from tests.support.strategies import build, weights\n"
        "model = build(json.load(open(sys.argv[1])))\n"
        "print(hashlib.sha256(b''.join(weights(model))).hexdigest(), [layer.name for layer in "
        "model.layers])"
    )
    there = run(program, file)
    model = build(recipe)
    here = hashlib.sha256(b"".join(weights(model))).hexdigest()
    assert there.split("\n")[-2] == f"{here} {[layer.name for layer in model.layers]}"


@settings(max_examples=8)
@given(recipe=recipes(fits=True, unreachable=True))
def test_models_train_on_request(recipe):
    model = build(recipe)
    if not recipe["compile"]:
        model.compile("sgd", "mse")
    model.run_eagerly = True
    inputs = inputs_for(model)
    targets = keras.tree.map_structure(lambda item: np.zeros(item.shape, "float32"), model(inputs))
    history = model.fit(inputs, targets, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@settings(max_examples=10)
@given(model=models(max_steps=2))
def test_weights_are_filled(model):
    for weight in model.weights:
        if weight.shape != () and np.prod(weight.shape) > 1:
            assert len(np.unique(keras.ops.convert_to_numpy(weight))) > 1, weight.path


def test_policies_mostly_select_something():
    for policy in drawn(policies(), 60):
        assert set(policy) == {"rules"}
        for rule in policy["rules"]:
            penalties = set(rule) - {"roles", "layers", "paths"}
            assert len(penalties) == 1
            assert penalties < {"l1", "l2", "weight_decay", "regularizer"}
        assert json.loads(json.dumps(policy)) == policy
    counts = [len(rule) for policy in drawn(policies(), 60) for rule in policy["rules"]]
    assert set(counts) == {1, 2, 3, 4}


def test_policies_select_from_a_recipe():
    recipe = {
        "model": {
            "class_name": "Sequential",
            "name": "only",
            "input_shape": [4],
            "layers": [{"class_name": "Dense", "config": {"name": "special", "units": 2}}],
        }
    }
    paths = {
        path
        for policy in drawn(policies(recipe), 60)
        for rule in policy["rules"]
        for path in rule.get("paths", [])
    }
    assert "special/*" in paths


@pytest.mark.parametrize("name", sample_models())
def test_sample_models_reload(tmp_path, name):
    builder = sample_models()[name]
    model = builder()
    assert builder() is not model
    if name == "sequential_unbuilt":
        assert not model.built
        assert model(inputs_for(model)).shape == (2, 2)
    fill(model, seed=3)
    assert_reloads(model, tmp_path / "model.keras")
