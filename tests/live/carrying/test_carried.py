"""What a layer carries: the weights of a record are known again, or refused."""

import json
import random
import zipfile

import keras
import pytest

import graphwd
from graphwd.graph.slots import CARRIED
from tests.support import oracle
from tests.support.kept import POLICY, Gate, Tower, carrying, penalised, registered, through_file


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


def test_hdf5_is_refused_where_it_has_no_place_for_penalties(tmp_path):
    model = carrying(Tower)[0]
    path = tmp_path / "model.h5"
    path.write_bytes(b"before")
    with pytest.raises(graphwd.ModelError, match=r"\.keras"):
        model.save(path)
    assert path.read_bytes() == b"before"
    with pytest.raises(graphwd.ModelError, match=r"\.keras"):
        keras.saving.save_model(model, tmp_path / "other.h5")
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    Tower().load_weights(tmp_path / "model.weights.h5")


def saved_and_loaded(model, path):
    """The model that comes back; saving may refuse, but what is saved is there again."""
    loaded = through_file(model, path)
    for source, variable in zip(model.weights, loaded.weights, strict=False):
        assert source.shape == variable.shape
    return loaded


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_what_keras_could_not_load_is_not_saved(mode, tmp_path):
    """Keras writes a quantized Dense inside a composite layer, and can't load it."""
    model, kept = carrying(Gate)
    kept.inner.quantize(mode)
    with pytest.raises(graphwd.ModelError, match="inner can't load the weights") as caught:
        kept.get_config()
    assert kept.name in str(caught.value)
    with pytest.raises(graphwd.ModelError):
        model.save(tmp_path / "model.keras")


@registered
class Compiled(Tower):
    """It compiles itself, as keras-hub's tasks do: its optimizer needs values at once."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.compile("adam", "mse")


def test_a_model_that_compiles_itself_is_tried_out_before_it_is_saved(tmp_path):
    model, kept = carrying(Compiled, in_place=True)
    model.save(tmp_path / "model.keras")
    before = (tmp_path / "model.keras").read_bytes()
    kept.layers[-1].quantize("int8")
    with pytest.raises(graphwd.ModelError, match="can't load the weights"):
        model.save(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").read_bytes() == before


@registered
class Growing(Gate):
    """A layer that gets more blocks while it is trained, and may tell so in its config."""

    def __init__(self, blocks=1, **kwargs):
        super().__init__(**kwargs)
        self.told = blocks
        self.blocks = [keras.layers.Dense(4, name=f"block_{i}") for i in range(blocks)]

    def build(self, input_shape):
        super().build(input_shape)
        for block in self.blocks:
            block.build((*input_shape[:-1], 4))

    def call(self, inputs):
        inputs = super().call(inputs)
        for block in self.blocks:
            inputs = block(inputs)
        return inputs

    def grow(self, *, tell):
        self._tracker.unlock()
        block = keras.layers.Dense(4, name=f"block_{len(self.blocks)}")
        block.build((None, 4))
        self.blocks.append(block)
        self._tracker.lock()
        self.told += tell

    def get_config(self):
        return {**super().get_config(), "blocks": self.told}


def test_a_layer_that_grows(tmp_path):
    model, kept = carrying(Growing)
    assert len(model.losses) == 5
    kept.grow(tell=True)
    loaded = through_file(model, tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights) == 7
    assert len(loaded.losses) == len(model.losses) == 5

    model = graphwd.rewrite(model, POLICY, in_place=True)
    loaded = through_file(model, tmp_path / "model.keras")
    assert len(loaded.losses) == len(model.losses) == 7

    kept.grow(tell=False)
    model = graphwd.rewrite(model, POLICY, in_place=True)
    with pytest.raises(graphwd.ModelError, match="lacks block_2/kernel"):
        kept.get_config()


def test_a_penalty_that_is_taken_away_by_hand_is_not_saved(tmp_path):
    model, kept = carrying(Gate)
    kept.scale.regularizer = None
    kept.inner.bias.regularizer = keras.regularizers.L1(0.5)
    loaded = through_file(model, tmp_path / "model.keras")
    assert penalised(loaded) == ["bias", "kernel"]
    assert float(loaded.layers[-1].inner.bias.regularizer.l1) == 0.5


def test_saving_leaves_no_trace_in_the_process():
    model = carrying(Tower)[0]
    unnamed = keras.layers.Dense(1).name
    before = random.getstate()
    model.get_config()
    assert random.getstate() == before
    number = int(keras.layers.Dense(1).name.rpartition("_")[2])
    assert number == int(unnamed.rpartition("_")[2] or 0) + 1
