"""Penalties that no config expresses: they go wherever the layer that carries them goes."""

import json
import subprocess
import sys
import textwrap
import zipfile

import keras
import numpy as np
import pytest

import graphwd
from graphwd.graph.slots import CARRIED
from graphwd.live.carrying import carrier
from tests.support import oracle


@keras.saving.register_keras_serializable(package="tests")
class Block(keras.layers.Layer):
    """A composite layer whose config has no regularizer to set."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = keras.layers.Dense(units, activation="relu", name="first")
        self.second = keras.layers.Dense(units, name="second")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((*input_shape[:-1], self.units))
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")

    def call(self, inputs):
        return self.second(self.first(inputs)) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class Tower(keras.Model):
    """A Functional subclass with a constructor and a config of its own, as keras-hub's are."""

    def __init__(self, width=4, **kwargs):
        inputs = keras.Input((3,))
        hidden = Block(width, name="block_1")(inputs)
        hidden = Block(width, name="block_2")(hidden)
        outputs = keras.layers.Dense(2, name="head")(hidden)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.width = width

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, "width": self.width}

    def head_units(self):
        return self.get_layer("head").units


def plain_model():
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2, name="head")(Block(name="block")(inputs))
    return keras.Model(inputs, outputs, name="plain")


@pytest.fixture
def rewritten():
    return graphwd.rewrite(plain_model(), graphwd.Rule(keras.regularizers.L2(1e-2)))


@pytest.fixture
def tower():
    return graphwd.rewrite(Tower(name="tower"), graphwd.Rule(keras.regularizers.L2(1e-2)))


def expected(variables, factor=1e-2):
    return factor * sum(float(np.sum(np.asarray(v, "float64") ** 2)) for v in variables)


def assert_penalised(model, factor=1e-2):
    assert model.trainable_variables
    assert len(model.losses) == len(model.trainable_variables)
    total = sum(float(loss) for loss in model.losses)
    assert total == pytest.approx(expected(model.trainable_variables, factor), rel=1e-5)


def assert_reloads(model, path):
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert [float(x) for x in loaded.losses] == pytest.approx([float(x) for x in model.losses])
    assert len(loaded.losses) == len(model.losses) > 0
    return loaded


def test_every_weight_is_reached_and_told_apart():
    model = plain_model()
    plan = graphwd.plan(model, graphwd.Rule(keras.regularizers.L2(1e-2)))
    assert {edit.path: edit.portable for edit in plan} == {
        "block/scale": False,
        "block/first/kernel": False,
        "block/first/bias": False,
        "block/second/kernel": False,
        "block/second/bias": False,
        "head/kernel": True,
        "head/bias": True,
    }
    assert {edit.layer for edit in plan if edit.path == "block/first/kernel"} == {"Dense"}
    inside = graphwd.plan(model, graphwd.Rule(keras.regularizers.L2(1e-2), layers="Block"))
    assert {edit.path.split("/")[0] for edit in inside} == {"block"}


def test_portable_refuses_and_names_the_weights():
    with pytest.raises(graphwd.UnreachableWeightError, match="block/first/kernel") as caught:
        graphwd.rewrite(
            plain_model(), graphwd.Rule(keras.regularizers.L2(1e-2), roles="kernel"), portable=True
        )
    assert caught.value.paths == ("block/first/kernel", "block/second/kernel")


def test_only_what_config_cannot_express_is_carried(rewritten):
    assert carrier.is_carrier(rewritten.get_layer("block"))
    assert type(rewritten.get_layer("head")) is keras.layers.Dense
    assert isinstance(rewritten.get_layer("block"), Block)
    assert_penalised(rewritten)


def test_the_gradient_has_the_penalty(rewritten):
    model = plain_model()
    model.set_weights(rewritten.get_weights())
    x, y = np.zeros((4, 3), "float32"), np.zeros((4, 2), "float32")
    before = [np.asarray(v) for v in rewritten.trainable_variables]
    rewritten.compile(keras.optimizers.SGD(1.0), loss=lambda y, p: 0.0 * keras.ops.mean(p))
    rewritten.fit(x, y, verbose=0)
    for old, new in zip(before, rewritten.trainable_variables, strict=True):
        np.testing.assert_allclose(np.asarray(new), old * (1 - 2e-2), rtol=1e-5, atol=1e-7)


def test_file_and_larger_models(rewritten, tmp_path):
    loaded = assert_reloads(rewritten, tmp_path / "own.keras")
    assert graphwd.verify(rewritten, loaded).ok

    inputs = keras.Input((3,))
    functional = keras.Model(inputs, keras.layers.Dense(1)(rewritten(inputs)))
    assert_reloads(functional, tmp_path / "functional.keras")
    sequential = keras.Sequential([keras.Input((3,)), rewritten, keras.layers.Dense(1)])
    assert_reloads(sequential, tmp_path / "sequential.keras")
    wrapped = keras.Sequential(
        [keras.Input((5, 3)), keras.layers.TimeDistributed(rewritten.get_layer("block"))]
    )
    assert_reloads(wrapped, tmp_path / "wrapped.keras")


def test_transfer_learning_keeps_the_penalty(rewritten, tower, tmp_path):
    for index, model in enumerate((rewritten, tower)):
        head = keras.layers.Dense(5, name="new_head")(model.layers[-2].output)
        transfer = keras.Model(model.inputs, head)
        blocks = [v for v in transfer.trainable_variables if "new_head" not in v.path]
        loaded = assert_reloads(transfer, tmp_path / f"{index}.keras")
        assert sum(float(x) for x in loaded.losses) == pytest.approx(expected(blocks), rel=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class Numbered(keras.layers.Layer):
    """A composite layer of equal sublayers whose names Keras numbers, here and in each process."""

    def build(self, input_shape):
        self.inner = [keras.layers.Dense(3) for _ in range(3)]
        for layer in self.inner:
            layer.build(input_shape)

    def call(self, inputs):
        for layer in self.inner:
            inputs = layer(inputs)
        return inputs

    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable(package="tests")
class NumberedTower(keras.Model):
    """A class that builds its graph itself, with automatic names for equal layers."""

    def __init__(self, **kwargs):
        inputs = keras.Input((3,))
        outputs = keras.layers.Dense(3)(Numbered()(keras.layers.Dense(3)(inputs)))
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("tower", [False, True])
def test_numbered_names_differ_where_it_is_loaded(tower, in_place, tmp_path):
    keras.utils.clear_session()
    inputs = keras.Input((3,))
    model = NumberedTower() if tower else keras.Model(inputs, Numbered()(inputs))
    paths = [edit.path for edit in graphwd.plan(model, graphwd.Rule("l2", roles="kernel"))]
    assert len(paths) == len(set(paths)) == (5 if tower else 3)
    rules = [
        graphwd.Rule(keras.regularizers.L2(number / 10), paths=path)
        for number, path in enumerate(paths, start=1)
    ]
    rewritten = graphwd.rewrite(model, rules, in_place=in_place)

    def held(model):
        return {oracle.bits(v): v.regularizer and float(v.regularizer.l2) for v in model.weights}

    expected = held(rewritten)
    factors = [factor for factor in expected.values() if factor]
    assert sorted(factors) == pytest.approx([(n + 1) / 10 for n in range(len(paths))])
    rewritten.save(tmp_path / "model.keras")
    for others in (0, 1, 8):
        keras.utils.clear_session()
        for _ in range(others):
            keras.layers.Dense(1)
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert held(loaded) == expected
        if others:
            assert [v.path for v in loaded.weights] != [v.path for v in rewritten.weights]


def test_clone_model_and_rewrite_again():
    original = plain_model()
    rewritten = graphwd.rewrite(original, graphwd.Rule(keras.regularizers.L2(1e-2)))
    clone = keras.models.clone_model(rewritten)
    assert_penalised(clone)
    again = graphwd.rewrite(rewritten, graphwd.Rule(keras.regularizers.L2(1e-2)))
    assert graphwd.verify(rewritten, again).ok
    assert len(graphwd.plan(rewritten, graphwd.Rule(keras.regularizers.L2(1e-2)))) == 0
    doubled = graphwd.rewrite(rewritten, graphwd.Rule(keras.regularizers.L2(2e-2)))
    assert_penalised(doubled, 2e-2)
    assert_penalised(rewritten, 1e-2)
    removed = graphwd.rewrite(rewritten, graphwd.Rule(None))
    assert removed.losses == []
    assert type(removed.get_layer("block")) is Block
    assert oracle.plain(removed.get_config()) == oracle.plain(original.get_config())


def test_class_with_its_attributes_and_methods(tower, tmp_path):
    assert isinstance(tower, Tower)
    assert type(tower).__name__ == "Tower"
    assert (tower.width, tower.head_units()) == (4, 2)
    assert_penalised(tower)
    loaded = assert_reloads(tower, tmp_path / "tower.keras")
    assert isinstance(loaded, Tower)
    removed = graphwd.rewrite(tower, graphwd.Rule(None))
    assert type(removed) is Tower
    assert removed.get_config() == Tower(name="tower").get_config()
    assert removed.losses == []
    assert type(removed.get_layer("block_1")) is Block


def test_in_place_and_back(tmp_path):
    for model in (plain_model(), Tower()):
        config = oracle.plain(model.get_config())
        same = graphwd.rewrite(model, graphwd.Rule(keras.regularizers.L2(1e-2)), in_place=True)
        assert same is model
        assert_penalised(model)
        assert_reloads(model, tmp_path / "model.keras")
        graphwd.rewrite(model, graphwd.Rule(None), in_place=True)
        assert model.losses == []
        assert not any(carrier.is_carrier(layer) for layer in model.layers)
        assert oracle.plain(model.get_config()) == config


def test_without_graphwd_the_file_says_what_is_missing(rewritten, tmp_path):
    path = tmp_path / "model.keras"
    rewritten.save(path)
    code = """
        import sys, keras
        class Block(keras.layers.Layer):
            pass
        try:
            keras.saving.load_model(sys.argv[1], custom_objects={"Block": Block})
        except TypeError as error:
            assert "graphwd" in str(error), error
            print("refused")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "refused"


@pytest.mark.parametrize("first", ["graphwd", "keras"])
def test_importing_graphwd_is_enough(first, tmp_path):
    inputs = keras.Input((4, 3))
    hidden = keras.layers.RMSNormalization(name="norm")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    rewritten = graphwd.rewrite(model, graphwd.Rule(keras.regularizers.L2(1e-2)))
    path = tmp_path / "model.keras"
    rewritten.save(path)
    second = {"graphwd": "keras", "keras": "graphwd"}[first]
    code = (
        f"import {first}, {second}, keras, sys\n"
        "print(len(keras.saving.load_model(sys.argv[1]).losses))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.split()[-1] == str(len(rewritten.losses)) == "3"


def edited(path, target, change):
    """A copy of a saved model whose carried record is changed."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for member in source.namelist():
            data = source.read(member)
            if member == "config.json":
                config = json.loads(data)
                block = next(
                    layer for layer in config["config"]["layers"] if CARRIED in layer["config"]
                )
                change(block["config"])
                data = json.dumps(config).encode()
            copy.writestr(member, data)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config[CARRIED].update(weights="4:0000"),
        lambda config: config[CARRIED]["penalties"][0].update(place=[0, 99]),
    ],
    ids=["another fingerprint", "another place"],
)
def test_what_does_not_fit_is_refused(rewritten, tmp_path, change):
    rewritten.save(tmp_path / "model.keras")
    edited(tmp_path / "model.keras", tmp_path / "changed.keras", change)
    with pytest.raises(Exception, match="block"):
        keras.saving.load_model(tmp_path / "changed.keras")
