"""What a layer carries is kept by whatever way the layer is kept, whatever its class is like."""

import abc
import copy
import gc
import inspect
import json
import multiprocessing
import pickle
import random
import threading
import weakref

import keras
import numpy as np
import pytest

import graphwd
from graphwd.live.carrying import carrier

POLICY = graphwd.Rule(keras.regularizers.L2(1e-2))
registered = keras.saving.register_keras_serializable(package="keeping")


@registered
class Gate(keras.layers.Layer):
    """A composite layer whose config has no regularizer to set: it carries three penalties."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = keras.layers.Dense(units, name="inner")

    def build(self, input_shape):
        self.inner.build(input_shape)
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")

    def call(self, inputs):
        return self.inner(inputs) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units}


TAGGED = {}


class Tagging(Gate):
    """A base that lists its subclasses by a keyword that they must give, each only once."""

    def __init_subclass__(cls, *, tag, **kwargs):
        super().__init_subclass__(**kwargs)
        if tag in TAGGED:
            raise ValueError(f"{tag} is taken")
        TAGGED[tag] = cls


@registered
class Tagged(Tagging, tag="tagged"):
    pass


class Listing(type):
    """A metaclass that lists its classes by name, and refuses one of the same name."""

    listed: dict = {}  # noqa: RUF012 # a class attribute on purpose

    def __new__(mcs, name, bases, namespace):
        if name in mcs.listed:
            raise ValueError(f"{name} is taken")
        mcs.listed[name] = super().__new__(mcs, name, bases, namespace)
        return mcs.listed[name]


@registered
class Listed(Gate, metaclass=Listing):
    pass


@registered
class Abstract(Gate, abc.ABC):
    pass


@registered
class Slotted(Gate):
    __slots__ = ("first", "second")


@registered
class Final(Gate):
    """A class that is not to be subclassed, and asks for that wherever it can."""

    def check(self):
        if type(self) is not Final:
            raise TypeError(f"{type(self)} is not Final")

    def __init__(self, *args, **kwargs):
        self.check()
        super().__init__(*args, **kwargs)

    def build(self, input_shape):
        self.check()
        super().build(input_shape)

    def call(self, inputs):
        self.check()
        return super().call(inputs)

    def compute_output_shape(self, input_shape):
        self.check()
        return (*input_shape[:-1], self.units)

    def get_config(self):
        self.check()
        return super().get_config()

    def get_build_config(self):
        self.check()
        return super().get_build_config()

    def build_from_config(self, config):
        self.check()
        super().build_from_config(config)

    def save_own_variables(self, store):
        self.check()
        super().save_own_variables(store)

    def load_own_variables(self, store):
        self.check()
        super().load_own_variables(store)


@registered
class WithoutConfig(keras.layers.Layer):
    """Keras makes its config by itself."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.a, self.b, self.c = (
            self.add_weight(shape=(input_shape[-1], self.units), name=name) for name in "abc"
        )

    def call(self, inputs):
        return inputs @ self.a + inputs @ self.b + inputs @ self.c


@registered
class Swallowing(Gate):
    """It takes any argument and keeps none."""

    def __init__(self, **anything):
        super().__init__(name=anything.get("name"))


@registered
class Tower(keras.Model):
    """A Functional subclass, which takes any argument, too: Keras's constructor keeps silent."""

    def __init__(self, **kwargs):
        inputs = keras.Input((3,))
        super().__init__(inputs, keras.layers.Dense(2)(Gate()(inputs)), **kwargs)

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable}


LAYERS = [Gate, Tagged, Listed, Abstract, Slotted, Final, WithoutConfig, Swallowing]


def model_of(layer):
    inputs = keras.Input((3,))
    return keras.Model(inputs, layer(inputs))


def carrying(cls, *, in_place=False):
    model = cls() if issubclass(cls, keras.Model) else model_of(cls())
    model = graphwd.rewrite(model, POLICY, in_place=in_place)
    kept = model if issubclass(cls, keras.Model) else model.layers[-1]
    assert carrier.is_carrier(kept)
    assert isinstance(kept, cls)
    return model, kept


def assert_kept(ours, theirs):
    assert theirs is not ours
    assert len(theirs.losses) == len(ours.losses) == len(ours.trainable_variables) > 0
    for source, variable in zip(ours.variables, theirs.variables, strict=True):
        assert variable is not source
        assert (variable.regularizer is None) == (source.regularizer is None)


def through_file(model, path):
    model.save(path)
    return keras.saving.load_model(path)


WAYS = {
    "file": lambda model, folder: through_file(model, folder / "model.keras"),
    "clone_model": lambda model, folder: keras.models.clone_model(model),
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "json": lambda model, folder: keras.models.model_from_json(model.to_json()),
    "config": lambda model, folder: type(model).from_config(model.get_config()),
}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("cls", [*LAYERS, Tower])
def test_models_are_kept_in_every_way(cls, in_place, tmp_path):
    model, kept = carrying(cls, in_place=in_place)
    taggings = dict(TAGGED), dict(Listing.listed)
    for way in WAYS.values():
        other = way(model, tmp_path)
        if way is not WAYS["clone_model"] or cls is not Tower:  # that takes it for a mere graph
            assert_kept(model, other)
            other(np.ones((2, 3), "float32"))
    if cls is not Tower:
        assert_kept(model, through_file(model, tmp_path / "model.h5"))
    assert (TAGGED, Listing.listed) == taggings
    assert graphwd.rewrite(model, graphwd.Rule(None), in_place=True).losses == []
    assert type(kept) is cls


@pytest.mark.parametrize("cls", [*LAYERS, Tower])
def test_layers_are_kept_by_themselves(cls):
    kept = carrying(cls)[1]
    for other in (
        pickle.loads(pickle.dumps(kept)),
        copy.deepcopy(kept),
        copy.copy(kept),
        pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(kept)))),
    ):
        assert_kept(kept, other)
        assert isinstance(other, cls)
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(kept)))
    other = keras.saving.deserialize_keras_object(serialized)
    other(np.ones((2, 3), "float32"))
    assert_kept(kept, other)


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


def count_losses(kept):
    return len(kept.losses)


def test_another_process():
    model, kept = carrying(Gate)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(count_losses, [model, kept]) == [3, 3]


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


def test_hdf5_is_refused_where_it_has_no_place_for_penalties(tmp_path):
    model = carrying(Tower)[0]
    path = tmp_path / "model.h5"
    path.write_bytes(b"before")
    with pytest.raises(graphwd.ModelError, match=r"\.keras"):
        model.save(path)
    assert path.read_bytes() == b"before"
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    Tower().load_weights(tmp_path / "model.weights.h5")


def penalised(model):
    return sorted(
        v.name for v in model.trainable_variables if v.regularizer is not None and v.trainable
    )


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


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_carrying_layer_of_keras_is_quantized(mode, tmp_path):
    layer = keras.layers.ReversibleEmbedding(6, 4, tie_weights=False, name="embedding")
    inputs = keras.Input((3,), dtype="int32")
    model = keras.Model(inputs, layer(layer(inputs), reverse=True))
    model = graphwd.rewrite(model, POLICY, in_place=True)
    assert carrier.is_carrier(layer)
    assert len(model.losses) == 2
    model.quantize(mode)
    assert layer.quantization_mode == mode
    loaded = through_file(model, tmp_path / "model.keras")
    assert len(loaded.losses) == len(model.losses) == 0
    one, two = (keras.ops.convert_to_numpy(m(np.ones((2, 3), "int32"))) for m in (model, loaded))
    np.testing.assert_array_equal(one, two)


def test_lora_inside_a_composite_layer(tmp_path):
    model, kept = carrying(Gate)
    kept.inner.enable_lora(2)
    loaded = through_file(model, tmp_path / "model.keras")
    assert penalised(loaded) == ["bias", "kernel", "scale"]
    assert len(loaded.weights) == 3

    again = graphwd.rewrite(model, POLICY, in_place=True)
    assert "lora_kernel_a" in penalised(again)
    with pytest.warns(UserWarning, match="lora_kernel_a in layer 'gate"):
        loaded = through_file(again, tmp_path / "again.keras")
    assert penalised(loaded) == ["bias", "kernel", "scale"]


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
