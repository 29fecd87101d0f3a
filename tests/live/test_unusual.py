"""Models that Keras's own cloning loses something of, or can't clone at all."""

import keras
import numpy as np
import pytest

import graphwd
from tests.support import oracle
from tests.support.processes import run
from tests.support.unusual import (
    OFFSET,
    BuiltInCall,
    Holder,
    NeedsFromConfig,
    NoConfig,
    Noisy,
    Partial,
    Subclassed,
    Unregistered,
    add_offset,
    lossy,
    through,
)

RULE = graphwd.Rule({"class_name": "L2", "config": {"l2": 1e-2}}, roles="!activity")
tensorflow = keras.backend.backend() == "tensorflow"
strings = pytest.mark.skipif(not tensorflow, reason="only TensorFlow has tensors of strings")
sparse = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras has no sparse tensors on PyTorch"
)


def assert_rewrites(model, shape=(2, 3)):
    before = [oracle.bits(v) for v in model.variables]
    rewritten = graphwd.rewrite(model, RULE)
    assert [oracle.bits(v) for v in rewritten.variables] == before
    assert not {id(v) for v in model.variables} & {id(v) for v in rewritten.variables}
    x = np.random.default_rng(0).random(shape).astype("float32")
    np.testing.assert_array_equal(oracle.outputs(model, x)[0], oracle.outputs(rewritten, x)[0])
    weights = rewritten.trainable_variables
    assert len(rewritten.losses) == len(weights) > 0
    expected = 1e-2 * sum(float(np.sum(np.asarray(v, "float64") ** 2)) for v in weights)
    assert sum(float(loss) for loss in rewritten.losses) == pytest.approx(expected, rel=1e-5)
    assert model.losses == []
    return rewritten


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Unregistered(),
        lambda: Holder(keras.layers.Dense(3)),
        lambda: Holder(Holder(Unregistered())),
        lambda: BuiltInCall(),
        lambda: NeedsFromConfig(keras.layers.Dense(3), frozenset({3, 5})),
        lambda: NeedsFromConfig(NeedsFromConfig(Unregistered(), frozenset()), frozenset({1})),
        lambda: Noisy(),
        lambda: Partial(),
        lambda: keras.layers.Lambda(lambda x: x + OFFSET),
        lambda: keras.layers.Lambda(add_offset),
        lambda: keras.layers.Dense(3, activation=add_offset),
        lambda: keras.layers.Dense(3, activation=lambda x: x * OFFSET),
        lambda: keras.layers.SpectralNormalization(keras.layers.Dense(3)),
    ],
    ids=[
        "unregistered",
        "holds a live layer",
        "holds a holder",
        "built in call",
        "needs from_config",
        "from_config twice",
        "seed generator of its own",
        "reaches one of two",
        "lambda",
        "function",
        "own activation",
        "lambda activation",
        "wrapper with state",
    ],
)
def test_layers(layer):
    assert_rewrites(through(layer()))


def test_adapted_layers_and_tables():
    normal = keras.layers.Normalization()
    normal.adapt(np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 9.0]]))
    assert_rewrites(through(normal))


@strings
def test_vocabularies_and_tables():
    words = keras.layers.TextVectorization(output_mode="multi_hot")
    words.adapt(["a big cat", "a cat sat"])
    names = keras.layers.StringLookup(output_mode="multi_hot")
    names.adapt(["anna", "bert"])
    numbers = keras.layers.IntegerLookup(output_mode="multi_hot", vocabulary=[12, 36, 1138])
    text = keras.Input((1,), dtype="string", name="text")
    name = keras.Input((1,), dtype="string", name="name")
    number = keras.Input((1,), dtype="int64", name="number")
    flat = [keras.layers.Flatten()(x) for x in (words(text), names(name), numbers(number))]
    joined = keras.layers.Concatenate()(flat)
    model = keras.Model([text, name, number], keras.layers.Dense(2)(joined))
    rewritten = graphwd.rewrite(model, RULE)
    for layer in (words, names, numbers):
        copy = rewritten.get_layer(layer.name)
        assert copy is not layer
        assert copy.get_vocabulary() == layer.get_vocabulary()
    inputs = [
        keras.ops.convert_to_tensor([["a cat"], ["big"]]),
        keras.ops.convert_to_tensor([["bert"], ["carl"]]),
        keras.ops.convert_to_tensor([[36], [7]]),
    ]
    expected, actual = (oracle.outputs(m, inputs)[0] for m in (model, rewritten))
    np.testing.assert_array_equal(expected, actual)


def test_seeds_go_on_where_they_were():
    model = through(Noisy(name="noisy"))
    x = np.ones((2, 3), "float32")
    model(x, training=True)
    rewritten = graphwd.rewrite(model, RULE)
    ours, theirs = (m.get_layer("noisy").generator for m in (model, rewritten))
    assert ours.state is not theirs.state
    assert oracle.bits(ours.state) == oracle.bits(theirs.state)
    for _ in range(2):
        noise = [keras.ops.convert_to_numpy(m(x, training=True)) for m in (model, rewritten)]
        np.testing.assert_array_equal(*noise)


@sparse
def test_inputs_keep_what_they_are():
    dense = keras.Input((3,), name="dense")
    maybe = keras.Input((3,), name="maybe", optional=True)
    thin = keras.Input((3,), name="thin", sparse=True)

    class Either(keras.layers.Layer):
        def call(self, one, other=None):
            return one if other is None else one + other

        def compute_output_spec(self, one, other=None):
            return keras.KerasTensor(one.shape, one.dtype)

    hidden = Either()(dense, maybe)
    out = keras.layers.Dense(2)(hidden + keras.layers.Dense(3)(thin))
    model = keras.Model([dense, maybe, thin], out)
    rewritten = graphwd.rewrite(model, RULE)
    flags = [(t.name, t.sparse, t.ragged) for t in rewritten.inputs]
    assert [flag[1] for flag in flags] == [False, False, True]
    assert [layer.optional for layer in rewritten.layers if hasattr(layer, "optional")] == [
        layer.optional for layer in model.layers if hasattr(layer, "optional")
    ]


def test_shared_across_sub_models_stays_shared():
    shared = keras.layers.Dense(3, name="shared")
    one = keras.Sequential([keras.Input((3,)), shared], name="one")
    inputs = keras.Input((3,))
    two = keras.Model(inputs, shared(keras.layers.Dense(3, name="own")(inputs)), name="two")
    outer = keras.Input((3,))
    model = keras.Model(outer, one(outer) + two(outer))
    rewritten = assert_rewrites(model)
    first, second = (rewritten.get_layer(name).get_layer("shared") for name in ("one", "two"))
    assert first is second
    assert sum("shared" in edit.path for edit in graphwd.plan(model, RULE)) == 2


def test_calls_of_a_shared_layer_keep_their_order():
    shared = keras.layers.Dense(3, name="shared")
    inputs = keras.Input((3,))
    deep = shared(keras.layers.Dense(3)(keras.layers.Dense(3)(inputs)))
    shallow = shared(inputs)
    model = keras.Model(inputs, keras.layers.Subtract()([shallow, deep]))
    rewritten = assert_rewrites(model)
    ours, theirs = (oracle.plain(m.get_config())["layers"] for m in (model, rewritten))
    assert [layer["inbound_nodes"] for layer in ours] == [
        layer["inbound_nodes"] for layer in theirs
    ]


def test_compile_state_that_cannot_be_serialized():
    model = through(keras.layers.Dense(3))
    model.compile(keras.optimizers.Adam(1e-3), loss=lossy, metrics=[lambda y, p: lossy(y, p)])
    x, y = np.ones((4, 3), "float32"), np.zeros((4, 3), "float32")
    model.fit(x, y, epochs=3, verbose=0)
    rewritten = graphwd.rewrite(model, RULE)
    assert rewritten.loss is lossy
    assert int(rewritten.optimizer.iterations) == 3
    assert [oracle.bits(v) for v in rewritten.optimizer.variables] == [
        oracle.bits(v) for v in model.optimizer.variables
    ]
    rewritten.fit(x, y, verbose=0)
    assert int(model.optimizer.iterations) == 3


def test_subclassed_models():
    model = Subclassed(name="mine")
    model(np.ones((2, 3), "float32"))
    rewritten = assert_rewrites(model)
    assert isinstance(rewritten, Subclassed)
    assert rewritten.units == 3

    model = NoConfig(keras.layers.Dense(3))
    model(np.ones((2, 3), "float32"))
    assert len(graphwd.rewrite(model, RULE).losses) == 2
    assert not model.losses
    graphwd.rewrite(model, RULE, in_place=True)
    assert len(model.losses) == 2


def test_low_rank_and_quantized_weights():
    model = through(keras.layers.Dense(4))
    model.layers[1].enable_lora(2)
    rewritten = assert_rewrites(model)
    assert rewritten.layers[1].lora_enabled

    model = through(keras.layers.Dense(4))
    model.layers[1].quantize("int8")
    rewritten = graphwd.rewrite(model, RULE)
    assert [v.regularizer for v in rewritten.variables if "int" in str(v.dtype)] == [None]
    assert {edit.path for edit in graphwd.plan(model, RULE)} == {
        f"{model.layers[1].name}/bias",
        "head/kernel",
        "head/bias",
    }


def test_classes_of_a_notebook(tmp_path):
    """What is defined in `__main__`, registered or not, has no module that Keras could name."""
    code = """
        import sys, keras, graphwd

        class Scaled(keras.layers.Layer):
            def build(self, shape):
                self.inner = keras.layers.Dense(shape[-1], name="inner")
                self.inner.build(shape)
                self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

            def call(self, x):
                return self.inner(x) * self.scale

        @keras.saving.register_keras_serializable("notebook")
        class Registered(Scaled):
            pass

        penalty = keras.regularizers.L2(1e-2)
        rule = [graphwd.Rule(penalty), graphwd.Rule(penalty, roles="activity")]
        for cls in (Scaled, Registered):
            for in_place in (False, True):
                inputs = keras.Input((3,))
                model = keras.Model(inputs, cls()(inputs))
                rewritten = graphwd.rewrite(model, rule, in_place=in_place)
                assert type(rewritten.layers[1]).__mro__[2] is cls
                rewritten.save(sys.argv[1])
                loaded = keras.saving.load_model(sys.argv[1], custom_objects={"Scaled": Scaled})
                assert graphwd.verify(rewritten, loaded).ok
                losses = [float(sum(m.losses)) for m in (rewritten, loaded)]
                assert losses[0] == losses[1] > 0.0, losses
                assert loaded.layers[1].activity_regularizer is not None
                print(cls.__name__, len(loaded.losses))
    """
    printed = run(code, tmp_path / "model.keras")
    expected = ["Scaled 3", "Scaled 3", "Registered 3", "Registered 3"]
    assert printed.strip().splitlines()[-4:] == expected


def test_tied_embeddings():
    tied = getattr(keras.layers, "ReversibleEmbedding", None)
    if tied is None:
        pytest.skip("this Keras has no ReversibleEmbedding")
    for tie in (True, False):
        embedding = tied(7, 3, tie_weights=tie, name="embedding")
        inputs = keras.Input((4,), dtype="int32")
        hidden = keras.layers.Dense(3, name="hidden")(embedding(inputs))
        model = keras.Model(inputs, embedding(hidden, reverse=True))
        rewritten = graphwd.rewrite(model, RULE)
        copy = rewritten.get_layer("embedding")
        assert len(copy.weights) == (1 if tie else 2)
        assert len(rewritten.losses) == len(rewritten.trainable_variables) == 3 + (not tie)
        x = np.array([[1, 2, 3, 4], [6, 5, 0, 1]])
        np.testing.assert_array_equal(*(oracle.outputs(m, x)[0] for m in (model, rewritten)))
        before = oracle.bits(embedding.embeddings)
        copy.embeddings.assign(copy.embeddings + 1.0)  # one weight behind both of its uses
        assert oracle.bits(embedding.embeddings) == before
        graphwd.rewrite(model, RULE, in_place=True)
        assert len(model.losses) == len(rewritten.losses)


def test_what_training_overwrites_is_not_penalised():
    """Float8 scales get their values as gradients, to which a penalty would be added."""
    model = through(keras.layers.Dense(4, name="eight"))
    model.get_layer("eight").quantize("float8")
    overwritten = [v for v in model.variables if getattr(v, "overwrite_with_gradient", False)]
    assert overwritten
    for in_place in (False, True):
        rewritten = graphwd.rewrite(model, RULE, in_place=in_place)
        assert [
            v.regularizer
            for v in rewritten.variables
            if getattr(v, "overwrite_with_gradient", False)
        ] == [None] * len(overwritten)
        assert len(rewritten.losses) == 4  # both kernels and both biases


class Twins(keras.layers.Layer):
    """A layer whose variables share a name, and whose config tells of one of them alone."""

    def __init__(self, twins=1, **kwargs):
        super().__init__(**kwargs)
        self.twins = twins

    def build(self, input_shape):
        for name in ["w"] * self.twins + ["b"]:
            self.add_weight(shape=(input_shape[-1],), name=name)

    def call(self, inputs):
        return inputs * self.weights[0] + self.weights[-1]

    def get_config(self):
        return {"name": self.name}


def test_a_config_that_tells_of_one_of_two_variables():
    model = keras.Sequential([keras.Input((4,)), Twins(2, name="twins")])
    copy = graphwd.rewrite(model, graphwd.Rule("l2"))
    assert len(copy.get_layer("twins").weights) == len(copy.losses) == 3


@keras.saving.register_keras_serializable("test_unusual")
class Greedy(keras.regularizers.Regularizer):
    """A regularizer that takes what it needs out of the config that it is given."""

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, x):
        return self.strength * keras.ops.sum(keras.ops.abs(x))

    def get_config(self):
        return {"strength": self.strength}

    @classmethod
    def from_config(cls, config):
        return cls(config.pop("strength"))


@pytest.mark.parametrize("in_place", [True, False])
def test_a_regularizer_that_uses_its_config_up(in_place):
    inputs = keras.Input((4,))
    outputs = BuiltInCall()(BuiltInCall()(inputs))  # carried, since no config of its own has a slot
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(2)(outputs)))
    rewritten = graphwd.rewrite(model, Greedy(0.5), in_place=in_place)
    penalised = [v for v in rewritten.trainable_variables if v.regularizer is not None]
    assert [v.regularizer.strength for v in penalised] == [0.5] * 4


@pytest.mark.parametrize("in_place", [True, False])
def test_a_function_without_a_module(in_place):
    made = {}
    exec("def act(x):\n    return x * x", made)
    assert made["act"].__module__ is None
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation=made["act"])])
    rewritten = graphwd.rewrite(model, RULE, in_place=in_place)
    assert rewritten.layers[0].kernel_regularizer is not None
    assert rewritten.layers[0].activation is made["act"]
