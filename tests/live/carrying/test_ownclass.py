"""A layer's own class: which one counts when, and that none is kept alive."""

import gc
import inspect
import json
import threading
import weakref

import keras
import numpy as np
import pytest

import graphwd
from graphwd.live.carrying import carrier
from tests.support.kept import LAYERS, Gate, Tower, carrying, model_of, registered


@pytest.mark.parametrize("cls", [*LAYERS, Tower])
def test_the_class_alone_is_not_made_from_what_it_would_drop(cls):
    kept = carrying(cls)[1]
    config = kept.get_config()
    for given in (config, json.loads(json.dumps(keras.saving.serialize_keras_object(config)))):
        with pytest.raises(TypeError, match="'cls'"):
            cls.from_config(given)
        with pytest.raises(TypeError, match="'cls'"):
            cls(**given)


@pytest.mark.parametrize("cls", [*LAYERS, Tower])
def test_a_new_layer_of_its_class_carries_nothing(cls):
    kept = carrying(cls)[1]
    assert type(type(kept)()) is cls
    assert type(type(kept).from_config({"name": "new"})) is cls
    assert type(kept).__name__ == cls.__name__
    assert inspect.signature(kept.call) == inspect.signature(cls().call)


def test_a_class_redefined_in_a_notebook_is_not_kept_alive():
    def define():
        class Cell(Gate):
            pass

        return Cell

    cls = define()
    layer = cls()
    layer.build((None, 3))
    weights = carrier.walk.weights(layer)
    records = [carrier.penalty(0, weights[0], "kernel", {"class_name": "L2", "config": {}})]
    known = len(keras.saving.get_custom_objects())
    carrier.attach(layer, records, carrier.fingerprint(weights))
    assert carrier.is_carrier(layer)
    assert keras.saving.get_registered_name(type(layer)) == "graphwd>Carrier"
    assert len(keras.saving.get_custom_objects()) == known
    alive = weakref.ref(cls), weakref.ref(type(layer))
    del cls, layer, weights, records
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


@registered
class Saving(Gate):
    """It is saved by its own code, and while its own code runs."""

    def saved(self, path):
        model_of(self).save(path)
        return path

    def call(self, inputs):
        if hooks:
            hooks[0]()
        return super().call(inputs)


hooks = []


def test_a_layer_is_saved_while_its_own_code_runs(tmp_path):
    model, kept = carrying(Saving)
    assert len(keras.saving.load_model(kept.saved(tmp_path / "own.keras")).losses) == 3
    try:
        hooks.append(lambda: model.save(tmp_path / "within.keras"))
        model(np.ones((2, 3), "float32"))
        reached, go_on = threading.Event(), threading.Event()
        hooks[0] = lambda: (reached.set(), go_on.wait(60))
        thread = threading.Thread(target=model, args=(np.ones((2, 3), "float32"),))
        thread.start()
        assert reached.wait(60)
        hooks.clear()
        model.save(tmp_path / "thread.keras")
        go_on.set()
        thread.join()
    finally:
        hooks.clear()
    assert carrier.is_carrier(kept)
    for name in ("within", "thread"):
        assert len(keras.saving.load_model(tmp_path / f"{name}.keras").losses) == 3


def test_a_call_that_raises_leaves_a_carrier():
    model, kept = carrying(Saving)
    hooks.append(lambda: 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            model(np.ones((2, 3), "float32"))
    finally:
        hooks.clear()
    assert carrier.is_carrier(kept)
    assert carrier.carried_penalties(kept)
    assert "get_config" not in vars(kept)


@keras.saving.register_keras_serializable(package="tests")
class Stage(keras.Model):
    """Asks for the classes of its blocks, keeps their configs, and makes another of its kind."""

    def __init__(self, blocks=({}, {}), **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Gate(**config) for config in blocks]
        self.scales = {Gate: 2.0}

    def build(self, shape):
        for block in self.blocks:
            block.build(shape)
        self.built = True

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs) * self.scales[type(block)] if type(block) is Gate else inputs
        return inputs

    def get_config(self):
        return {"name": self.name, "blocks": [block.get_config() for block in self.blocks]}

    @property
    def scale(self):
        return self.scales.get(type(self), 1.0)

    @scale.setter
    def scale(self, value):
        self.scales = {**self.scales, type(self): value}

    @classmethod
    def of_depth(cls, depth):
        assert cls is Stage
        return cls([{}] * depth)

    def stronger(self):
        return graphwd.rewrite(self, "l1")

    def another(self):
        other = self.__class__.from_config(self.get_config())
        other.build((None, 4))
        other.set_weights(self.get_weights())
        return other

    def keep(self, path):
        self.save(path)


@pytest.mark.parametrize("in_place", [False, True])
def test_all_within_are_of_their_own_classes_while_a_layers_own_code_runs(in_place, tmp_path):
    model = Stage()
    x = np.linspace(-1, 1, 8, dtype="float32").reshape(2, 4)
    before = keras.ops.convert_to_numpy(model(x))
    rewritten = graphwd.rewrite(model, "l2", in_place=in_place)
    assert np.array_equal(keras.ops.convert_to_numpy(rewritten(x)), before)
    assert all(carrier.is_carrier(block) for block in rewritten.blocks)
    rewritten.keep(tmp_path / "kept.keras")
    rewritten.save(tmp_path / "saved.keras")
    for name in ("kept", "saved"):
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert np.array_equal(keras.ops.convert_to_numpy(loaded(x)), before)
        assert len(loaded.losses) == len(rewritten.losses) == 2
    with pytest.raises(graphwd.ModelError, match="HDF5"):
        rewritten.keep(tmp_path / "kept.h5")
    with pytest.warns(UserWarning, match="without the penalties"):
        other = rewritten.another()
    assert type(other) is Stage
    assert not other.losses
    assert np.array_equal(keras.ops.convert_to_numpy(other(x)), before)


def test_properties_and_methods_of_the_class_know_their_own_class():
    model = Stage()
    model.build((None, 4))
    rewritten = graphwd.rewrite(model, "l2")
    rewritten.scale = 3.0
    assert rewritten.scale == rewritten.scales[Stage] == 3.0
    assert type(rewritten.of_depth(1)) is Stage
    assert isinstance(type(rewritten).scale, property)


def test_a_rewrite_in_a_method_of_the_model_itself_is_refused():
    model = Stage()
    model.build((None, 4))
    assert len(model.stronger().losses) == 2
    rewritten = graphwd.rewrite(model, "l2")
    with pytest.raises(graphwd.ModelError, match=r"in a method of 'stage.*' itself"):
        rewritten.stronger()
    assert len(graphwd.rewrite(rewritten, "l1").losses) == 2


@keras.saving.register_keras_serializable(package="tests")
class Noting(Gate):
    """Its config is what its public attributes are."""

    def __init__(self, label="a", **kwargs):
        super().__init__(**kwargs)
        self.label = label

    def get_config(self):
        config = super().get_config()
        known = ("label", "get_config")
        return {**config, **{name: value for name, value in vars(self).items() if name in known}}


def test_a_config_of_all_attributes_has_none_of_graphwds(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Noting("b")])
    rewritten = graphwd.rewrite(model, "l2")
    rewritten.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].label == "b"
    assert len(loaded.losses) == len(rewritten.losses) == 1


def test_a_model_that_was_compiled_comes_back_compiled(tmp_path):
    x, y = np.ones((2, 4), "float32"), np.zeros((2, 4), "float32")
    model = Stage()
    model.build((None, 4))
    rewritten = graphwd.rewrite(model, "l2")
    rewritten.compile("adam", "mse")
    rewritten.fit(x, y, verbose=0)
    rewritten.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 1
    for each in (rewritten, loaded):
        each.fit(x, y, verbose=0)
    for ours, theirs in zip(rewritten.get_weights(), loaded.get_weights(), strict=True):
        assert np.allclose(ours, theirs, atol=1e-6)
