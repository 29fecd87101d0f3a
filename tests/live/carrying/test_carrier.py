"""Penalties that no config expresses: they go wherever the layer that carries them goes."""

import keras
import numpy as np
import pytest
from keras import layers

import graphwd
from graphwd.live.carrying import carrier
from tests.support import oracle
from tests.support.carrying import (
    Block,
    Tower,
    assert_penalised,
    assert_reloads,
    expected,
    plain_model,
)
from tests.support.copies import Scaled, X, dense, same


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


class Regressor(keras.Model):
    """Has an encoder with weights before it is called, and a head without."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = dense()
        self.head = layers.Dense(1)

    def call(self, x):
        return self.head(self.encoder(x))


def test_a_model_that_is_built_in_part_trains_with_its_penalties(tmp_path):
    with pytest.warns(UserWarning, match="not built"):
        model = graphwd.rewrite(Regressor(), graphwd.Rule("l2", roles="kernel"))
    model.compile("sgd", "mse")
    model.train_on_batch(X, X[:, :1])
    model(X)
    assert len(model.losses) == 1
    model.save(tmp_path / "model.keras")
    with keras.saving.custom_object_scope({"Regressor": Regressor}):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert same(loaded(X), model(X))
    assert len(loaded.losses) == 1
    assert len(graphwd.rewrite(model, "l2").losses) == 2


class PartlyBuilt(keras.Model):
    """Has weights before its first call, and more of them after it."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(4)
        inputs = keras.Input((4,))
        self.block = keras.Model(inputs, layers.Dense(4)(Scaled(name="scaled")(inputs)))

    def call(self, x):
        return self.block(self.first(x))


def test_what_a_partly_built_model_gets_outlasts_its_first_call():
    model = PartlyBuilt()
    with pytest.warns(UserWarning, match="not built"):
        copy = graphwd.rewrite(model, graphwd.Rule("l2", roles="!bias"))
    before = [weight.path for weight in copy.block.weights if weight.regularizer]
    copy(np.ones((1, 4), "float32"))
    assert len(before) == 3
    assert [weight.path for weight in copy.block.weights if weight.regularizer] == before
    assert [weight.path for weight in copy.weights if weight.regularizer][-3:] == before
    assert len(copy.losses) == 3


class Game(keras.Model):
    """Two players that its config doesn't tell of."""

    def __init__(self, first, second, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = first, second

    def call(self, inputs):
        return self.second(self.first(inputs))


class Player(keras.Sequential):
    """A subclass of a Sequential model, with a composite layer in it."""

    def __init__(self, **kwargs):
        super().__init__([keras.Input((3,)), layers.Dense(4), Block(4)], **kwargs)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_part_that_is_taken_out_keeps_its_penalties(in_place, tmp_path):
    """A user saves `distiller.student`, and not the distiller."""
    model = Game(dense(kernel_regularizer="l1"), Player())
    model(X)
    rewritten = graphwd.rewrite(model, "l2", in_place=in_place)
    path = tmp_path / "part.keras"
    for part in (
        rewritten.first,
        keras.Sequential([keras.Input((3,)), *rewritten.second.layers]),
        keras.Sequential([keras.Input((4,)), rewritten.first]),
    ):
        part.save(path)
        loaded = keras.saving.load_model(path, custom_objects={"Block": Block})
        kept = [
            variable.regularizer.get_config()
            for variable in loaded.trainable_variables
            if variable.regularizer is not None
        ]
        assert len(kept) == len(part.losses) >= 1
        assert all("l2" in each and "l1" not in each for each in kept)
    again = graphwd.rewrite(rewritten, graphwd.Rule(None))
    again.first.save(path)
    assert not keras.saving.load_model(path).losses


class ClassToken(layers.Layer):
    """Its config has keys of its own that Keras's `Layer.__new__`, or the carrier, takes, too."""

    def __init__(self, units, start=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        start = np.zeros(units) if start is None else start
        self.cls = self.add_weight((units,), name="cls")
        self.cls.assign(start)

    def call(self, inputs):
        return inputs + self.cls

    def get_config(self):
        start = keras.ops.convert_to_numpy(self.cls)
        return {**super().get_config(), "units": self.units, "cls": start}

    @classmethod
    def from_config(cls, config):
        start = keras.saving.deserialize_keras_object(config.pop("cls"))
        return cls(start=start, **config)


def test_a_config_with_a_key_called_cls(tmp_path):
    model = keras.Sequential([keras.Input((4,)), ClassToken(4, np.ones(4), name="token")])
    rewritten = graphwd.rewrite(model, graphwd.Rule("l2"))
    assert graphwd.verify(model, rewritten, graphwd.Rule("l2")).ok
    rewritten.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", custom_objects={"ClassToken": ClassToken}
    )
    assert same(loaded.weights, model.weights)
    assert len(loaded.losses) == 1
