"""The copy and its proof: what no config tells comes along, nothing is shared, faults are seen."""

from __future__ import annotations

import collections
import functools
import random
import threading
import warnings
import weakref

import keras
import numpy as np
import pytest
from keras import layers, losses

import graphwd
from graphwd.live import checks
from graphwd.live.copying import copier

X = np.linspace(-1, 1, 8, dtype="float32").reshape(2, 4)


def dense(**arguments) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense", **arguments)])


def same(one, other) -> bool:
    return all(
        np.array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
        for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
    )


def copied(model, x=X, policy="l2"):
    """A copy that computes the same, proves equal, and shares nothing."""
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    copy = graphwd.rewrite(model, policy)
    if x is not None:
        assert same(model(x), copy(x))
    assert graphwd.verify(model, copy, policy).ok
    for variable in copy.variables:
        if "float" in variable.dtype:
            variable.assign(variable + 1)
    assert same(before, model.variables)
    for variable in copy.variables:
        if "float" in variable.dtype:
            variable.assign(variable - 1)
    return copy


class Scaled(keras.Model):
    """As people write it: no build, no get_config, state in plain attributes."""

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.first = layers.Dense(3, activation="relu")
        self.second = layers.Dense(2)

    def call(self, inputs):
        inputs = inputs["a"] if isinstance(inputs, dict) else inputs
        return self.second(self.first(keras.ops.cast(inputs, "float32"))) * self.scale


@pytest.mark.parametrize("inputs", [X, X.astype("int32"), {"a": X}], ids=["float", "int", "dict"])
def test_a_model_without_build(inputs):
    model = Scaled(scale=3.0)
    model(inputs)
    copy = copied(model, inputs)
    assert len(copy.losses) == 2
    assert copy.scale == 3.0
    assert len(graphwd.plan(model, "l2").edits) == 2


def test_a_model_without_build_inside_a_functional_one():
    inputs = keras.Input((4,))
    copy = copied(keras.Model(inputs, layers.Dense(1)(Scaled(2.0)(inputs))))
    assert len(copy.losses) == 3


class Codebook(layers.Layer):
    """Keeps arrays that are no variables of Keras's."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.array = np.random.default_rng().normal(size=(4, 4)).astype("float32")
        self.draws = np.random.default_rng(1)
        self.lock = threading.Lock()

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.array)


def test_state_that_is_no_variable():
    model = keras.Sequential([keras.Input((4,)), Codebook(name="book"), layers.Dense(2)])
    copy = copied(model)
    assert copy.get_layer("book").array is not model.get_layer("book").array
    copy.get_layer("book").array[:] += 1
    report = graphwd.verify(model, copy)
    assert "another array" in report.problems[0]
    assert model.get_layer("book").draws.normal() == copy.get_layer("book").draws.normal()


def test_the_backends_own_variables():
    backend = keras.backend.backend()

    class Table(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            value = np.ones((4, 4), "float32")
            if backend == "tensorflow":
                import tensorflow as tf

                self.table = tf.Variable(value)
            elif backend == "torch":
                import torch

                self.table = torch.nn.Parameter(torch.tensor(value))
            else:
                self.table = keras.ops.convert_to_tensor(value)

        def call(self, inputs):
            return keras.ops.matmul(inputs, keras.ops.convert_to_tensor(self.table))

    model = keras.Sequential([keras.Input((4,)), Table(name="table"), layers.Dense(2)])
    copy = copied(model)
    ours, theirs = model.get_layer("table").table, copy.get_layer("table").table
    assert same([ours], [theirs])
    assert (ours is theirs) == (backend == "jax")  # whose arrays can't change


class Remembering(layers.Layer):
    """Its call changes it, and keeps a symbolic tensor."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls, self.log, self.seen = 0, [], {}
        self.inner = layers.Dense(4)

    def call(self, inputs):
        self.calls += 1
        self.log.append(self.calls)
        self.seen[self.calls] = True
        self.last = inputs
        return self.inner(inputs)


def test_a_call_that_changes_the_layer_changes_no_copy():
    inputs = keras.Input((4,))
    layer = Remembering(name="remembering")
    model = keras.Model(inputs, layer(layer(inputs)))
    calls = layer.calls
    copy = graphwd.rewrite(model, "l2")
    assert copy.get_layer("remembering").calls == layer.calls == calls
    assert list(copy.get_layer("remembering").log) == list(layer.log)
    assert dict(copy.get_layer("remembering").seen) == dict(layer.seen)


def test_closures_methods_and_references_lead_to_the_copy():
    class Holder(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)
            self.by_name = {id(self.dense): "dense"}
            self.by_layer = {self.dense: "dense"}
            self.closure = lambda x: self.dense(x)
            self.partial = functools.partial(Holder.apply, self)
            self.method = self.apply
            self.weak = weakref.ref(self.dense)
            self.cached = functools.lru_cache(maxsize=4)(self.count)
            self.shared = keras.ops.relu

        def apply(self, x):
            return self.dense(x)

        def count(self):
            return len(self.layers)

        def call(self, x):
            return self.shared(self.closure(x) + self.partial(x) + self.method(x))

    model = Holder()
    model(X)
    copy = copied(model)
    assert copy.weak() is copy.dense is not model.dense
    assert copy.by_name == {id(copy.dense): "dense"}
    assert list(copy.by_layer) == [copy.dense]
    assert copy.method.__self__ is copy
    assert copy.cached.__wrapped__.__self__ is copy
    assert copy.shared is model.shared


def test_what_cannot_be_copied_is_refused_by_name_only_where_the_model_hangs_on_it():
    model = dense()
    layer = model.get_layer("dense")
    layer.numbers = (number for number in range(3))
    assert graphwd.rewrite(model, "l2").get_layer("dense").numbers is layer.numbers
    layer.numbers = (kernel for kernel in [layer.kernel, layer.kernel])
    next(layer.numbers)
    with pytest.raises(graphwd.ModelError, match=r"'dense'.*numbers.*generator.*in_place"):
        graphwd.rewrite(model, "l2")


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("by", ["names", "variables"])
def test_exclusions_from_weight_decay(by, scaled, built):
    model = dense()
    kernel, bias = model.get_layer("dense").kernel, model.get_layer("dense").bias
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    if by == "names":
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    else:
        optimizer.exclude_from_weight_decay(var_list=[bias])
    outer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
    model.compile(outer, "mse")
    if built:
        model.fit(X, np.ones((2, 3)), verbose=0)
    copy = copied(model)
    inner = copy.optimizer.inner_optimizer if scaled else copy.optimizer
    assert inner is not optimizer
    before = keras.ops.convert_to_numpy(bias)
    copy.get_layer("dense").kernel.assign(kernel)
    if not inner.built:
        copy.optimizer.build(copy.trainable_variables)
    if keras.backend.backend() != "jax" or not scaled:  # whose scaled step needs to be compiled
        copy.optimizer.apply([keras.ops.zeros(v.shape) for v in copy.trainable_variables])
    assert not inner._use_weight_decay(copy.get_layer("dense").bias)
    assert inner._use_weight_decay(copy.get_layer("dense").kernel)
    if not built:
        assert same([before], [copy.get_layer("dense").bias])


def test_what_a_compile_of_ones_own_sets():
    class Adversarial(keras.Model):
        def __init__(self):
            super().__init__()
            self.one = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
            self.two = keras.Sequential([keras.Input((4,)), layers.Dense(1)])

        def compile(self, one_optimizer, two_optimizer, function):
            super().compile(run_eagerly=True)
            self.one_optimizer, self.two_optimizer = one_optimizer, two_optimizer
            self.function = function
            self.mean = keras.metrics.Mean(name="mean")

        def call(self, x):
            return self.two(self.one(x))

    model = Adversarial()
    function = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.1), keras.optimizers.SGD(0.2), function)
    model.one_optimizer.build(model.one.trainable_variables)
    model(X)
    copy = copied(model)
    assert copy.run_eagerly
    assert copy.function.from_logits if hasattr(function, "from_logits") else True
    assert copy.one_optimizer is not model.one_optimizer
    gradients = [keras.ops.ones(v.shape) for v in copy.one.trainable_variables]
    copy.one_optimizer.apply(gradients, copy.one.trainable_variables)
    assert int(copy.one_optimizer.iterations) == 1
    assert int(model.one_optimizer.iterations) == 0


FAULTS = {
    "an exclusion lost": (
        lambda c: c.optimizer.exclude_from_weight_decay(var_names=["nothing"]),
        "decays",
    ),
    "a shared optimizer": (lambda c: setattr(c, "optimizer", c.original.optimizer), "same object"),
    "an attribute changed": (lambda c: setattr(c.get_layer("dense"), "units", 4), "units"),
    "another attribute": (lambda c: setattr(c.get_layer("dense"), "extra", 4), "extra"),
    "a namesake": (
        lambda c: setattr(c.get_layer("dense"), "activation", keras.activations.gelu),
        "activation",
    ),
    "an array drawn anew": (
        lambda c: setattr(c.get_layer("dense"), "array", np.random.default_rng().normal(size=3)),
        "array",
    ),
    "a remat mode lost": (
        lambda c: setattr(c.get_layer("dense"), "_remat_mode", None),
        "remat_mode",
    ),
    "a shared variable": (
        lambda c: vars(c.get_layer("dense")).update(note=[c.original.get_layer("dense").kernel]),
        "same object",
    ),
    "run eagerly": (lambda c: setattr(c, "run_eagerly", True), "run_eagerly"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_refused(fault):
    with keras.RematScope(mode="full"):
        model = dense(activation=keras.ops.gelu)
    model.get_layer("dense").array = np.ones(3)
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse", run_eagerly=False)
    copy = graphwd.rewrite(model, "l2")
    assert graphwd.verify(model, copy, "l2").ok
    make, words = FAULTS[fault]
    vars(copy)["original"] = model if "shared" in fault else None
    make(copy)
    del vars(copy)["original"]
    report = graphwd.verify(model, copy, "l2")
    assert any(words in problem for problem in report.problems), report


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's own")
def test_requires_grad():
    model = dense()
    model.get_layer("dense").kernel.value.requires_grad_(False)
    copy = graphwd.rewrite(model, "l2")
    assert not copy.get_layer("dense").kernel.value.requires_grad
    copy.get_layer("dense").kernel.value.requires_grad_(True)
    assert not graphwd.verify(model, copy, "l2").ok


def test_backbones_shared_between_models():
    inputs = keras.Input((4,))
    backbone = keras.Model(inputs, layers.Dense(3)(inputs), name="backbone")
    one = keras.Sequential([keras.Input((4,)), backbone, layers.Dense(1)])
    inputs = keras.Input((4,))
    two = keras.Model(inputs, layers.Dense(2)(backbone(inputs)))
    backbone.layers[-1](keras.Input((4,)))
    for model in (one, two, backbone):
        copied(model)


@pytest.mark.parametrize("mode", ["int8", "lora", "bfloat16"])
def test_models_that_changed_after_they_were_made(mode):
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, name="hidden", dtype="mixed_bfloat16" if mode == "bfloat16" else None)
    model = keras.Model(inputs, layers.Dense(2)(hidden(inputs)))
    policy = keras.config.dtype_policy()
    if mode == "int8":
        model.quantize("int8")
    if mode == "lora":
        hidden.enable_lora(2)
        hidden.lora_kernel_b.assign(np.ones((2, 8)))
    copied(model, policy=graphwd.Rule("l2", roles="bias"))
    assert keras.config.dtype_policy() is policy


def test_a_layer_of_another_dtype_than_its_sublayers():
    class Gate(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = layers.Dense(4)

        def call(self, x):
            return self.inner(x)

    copied(keras.Sequential([keras.Input((4,)), Gate(dtype="bfloat16")]), x=None)


def test_names_that_constructors_do_not_take():
    class Nameless(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(4)

        def call(self, x):
            return self.inner(x)

    class Swallowing(Nameless):
        def __init__(self, **kwargs):
            super().__init__()
            self.name = "mine"

    model = keras.Sequential([keras.Input((4,)), Nameless(), Swallowing()])
    copy = copied(model)
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
    assert copy.get_layer("mine")


def test_global_state_is_left_alone(monkeypatch):
    inputs = keras.Input((5,))
    x = layers.Embedding(3, 4, mask_zero=True)(inputs)  # the mask is an operation with a name
    model = keras.Model(inputs, layers.LSTM(2)(x))
    layers.Identity()
    number = int(layers.Identity().name.rpartition("_")[2])
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()
    graphwd.rewrite(model, "l2")
    monkeypatch.setattr(copier.Copier, "finish", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        graphwd.rewrite(model, "l2")
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == numpy
    assert layers.Identity().name == f"identity_{number + 1}"
    assert "not_equal" in keras.ops.not_equal(keras.Input((1,)), 0)._keras_history.operation.name


def test_keras_is_not_patched(monkeypatch):
    """Nothing of Keras's is replaced while a model is rewritten."""
    seen = []
    call = layers.Dense.call

    def watching(self, inputs, training=None):
        seen.append(keras.Layer.__setattr__ is setattr_before)
        return call(self, inputs)

    setattr_before = keras.Layer.__setattr__
    monkeypatch.setattr(layers.Dense, "call", watching)
    graphwd.rewrite(dense(), "l2", verify="outputs")
    assert seen
    assert all(seen)


def test_what_was_frozen_learns_once_it_is_unfrozen():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)])
    model.layers[0].trainable = False
    copy = graphwd.rewrite(model, [])
    assert graphwd.verify(model, copy, []).ok
    before = copy.get_weights()
    for each in (model, copy):
        each.layers[0].trainable = True
        each.compile("sgd", "mse")
        each.train_on_batch(X, X[:, :1])
    assert same(model.get_weights(), copy.get_weights())
    assert not any(map(same, before, copy.get_weights()))


# Before a model is touched


def test_a_regularizer_that_does_not_fit_is_refused_before_anything_is_changed():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(inputs))
    for in_place in (False, True):
        with pytest.raises(graphwd.PolicyError, match=r"conv/kernel.*rank 2"):
            graphwd.rewrite(model, keras.regularizers.OrthogonalRegularizer(), in_place=in_place)
    assert model.get_layer("conv").kernel.regularizer is None


@pytest.mark.parametrize(
    "wrong", ["file.keras", None, keras.Model, 3, layers.Dense(2)], ids=lambda w: type(w).__name__
)
def test_what_is_no_model(wrong):
    with pytest.raises(graphwd.ModelError, match=r"takes a live keras\.Model"):
        graphwd.rewrite(wrong, "l2")
    if not isinstance(wrong, str):  # the others take the path of a file, too
        for ask in (
            lambda: graphwd.plan(wrong, "l2"),
            lambda: graphwd.inspect(wrong),
            lambda: graphwd.verify(wrong, dense()),
        ):
            with pytest.raises(graphwd.ModelError, match=r"takes a live keras\.Model"):
                ask()


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch traces nothing here")
def test_inside_a_traced_function():
    model = dense()

    def rewriting(x):
        graphwd.rewrite(model, "l2")
        return x

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        traced = tf.function(rewriting)
    else:
        import jax

        traced = jax.jit(rewriting)
    with pytest.raises(Exception, match="outside of the traced function"):
        traced(X)


def test_activity_in_place_is_as_in_a_copy():
    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 4, dropout=0.1)(inputs, inputs))
    policy = graphwd.Rule("l2", roles="activity")
    copy = graphwd.rewrite(model, policy)
    graphwd.rewrite(model, policy, in_place=True)
    x = np.ones((1, 5, 8), "float32")
    copy(x), model(x)
    assert len(copy.losses) == len(model.losses) == 1


def test_an_unbuilt_model_is_warned_of():
    model = keras.Sequential([layers.Dense(3), Scaled()])
    with pytest.warns(UserWarning, match="not built"):
        graphwd.rewrite(model, "l2")


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


class Pair(keras.Model):
    """Tells two models in its config, which it is made of again."""

    def __init__(self, one, two, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = one, two

    def call(self, x):
        return self.two(self.one(x))

    def get_config(self):
        models = {"one": self.one, "two": self.two}
        told = {key: keras.saving.serialize_keras_object(model) for key, model in models.items()}
        return {**super().get_config(), **told}

    @classmethod
    def from_config(cls, config):
        models = {key: keras.saving.deserialize_keras_object(config[key]) for key in ("one", "two")}
        return cls(**{**config, **models})


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("names", [("a", "b"), ("a", "a"), ("first", "last"), ("last", "first")])
def test_models_in_a_config_may_have_the_names_of_others(names, in_place):
    def model(name):
        inner = [layers.Dense(4, name="first"), layers.Dense(4, name="last")]
        return keras.Sequential([keras.Input((4,)), *inner], name=name)

    pair = Pair(*map(model, names))
    pair(X)
    policy = [graphwd.Rule("l2", roles="kernel"), graphwd.Rule("l1", paths="*/last/kernel")]
    pair = graphwd.rewrite(pair, policy, in_place=in_place)
    told = [
        each["config"]["kernel_regularizer"]["class_name"]
        for key in ("one", "two")
        for each in pair.get_config()[key]["config"]["layers"][1:]
    ]
    kernels = [type(v.regularizer).__name__ for v in pair.weights if v.name == "kernel"]
    assert told == kernels == ["L2", "L1", "L2", "L1"]


class ByItsGlobalName(keras.Model):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def call(self, x):
        return ENCODER(x)


class ByItsOwnName(ByItsGlobalName):
    def __init__(self, _):
        super().__init__(ENCODER)

    def call(self, x):
        return self.encoder(x)


ENCODER = dense()


@pytest.mark.parametrize("cls", [ByItsGlobalName, ByItsOwnName])
def test_a_layer_that_is_called_by_its_global_name_is_said(cls):
    model = cls(ENCODER)
    model(X)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        graphwd.rewrite(model, "l2")
        own = [str(each.message) for each in said]
        graphwd.rewrite(model, [], in_place=True)
    assert len(own) == len(said)
    if cls is ByItsGlobalName:
        assert "ByItsGlobalName.call calls ENCODER" in own[0]
    else:
        assert not own


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


class Without(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(1)

    def call(self, x):
        return self.inner(x)


class Ignoring(Without):
    def train_step(self, data):
        return {"loss": self.loss_of(data)}

    def loss_of(self, data):
        return keras.ops.mean(self(data))


class ThroughCompute(Without):
    def train_step(self, data):
        return {"loss": self.compute_loss(data, data, self(data))}


class ThroughSuper(Without):
    def train_step(self, data):
        return super().train_step(data)


class ThroughMethod(Ignoring):
    def loss_of(self, data):
        return keras.ops.mean(self(data)) + sum(self.losses)


class ComputesWithout(Without):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(y_pred)


class StepOverComputesWithout(ComputesWithout):
    def train_step(self, data):
        return {"loss": self.compute_loss(data, data, self(data))}


class WithLossesOfKeras(Without):
    def train_step(self, data):
        return {"loss": keras.ops.mean(keras.losses.mean_squared_error(data, self(data)))}


class WithAFunctionOfThatName(Without):
    def train_step(self, data):
        return {"loss": compute_loss(data, self(data))}


def compute_loss(y, y_pred):
    return keras.ops.mean(losses.mean_squared_error(y, y_pred))


@pytest.mark.parametrize(
    ("cls", "method"),
    [
        (Without, None),
        (WithLossesOfKeras, "WithLossesOfKeras.train_step"),
        (WithAFunctionOfThatName, "WithAFunctionOfThatName.train_step"),
        (Ignoring, "Ignoring.train_step"),
        (ThroughCompute, None),
        (ThroughSuper, None),
        (ThroughMethod, None),
        (ComputesWithout, "ComputesWithout.compute_loss"),
        (StepOverComputesWithout, "train_step"),
    ],
)
def test_a_penalty_that_never_reaches_the_loss_is_said(cls, method):
    model = cls()
    model(X)
    assert (method or "") in checks.unused_penalties(model)
    assert bool(checks.unused_penalties(model)) == bool(method)
    if method:
        with pytest.warns(graphwd.UnusedPenaltyWarning, match="decouple"):
            graphwd.rewrite(model, "l2")
        assert any(method in note for note in graphwd.plan(model, "l2").notes)


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda: np.random.RandomState(3), lambda held: held.get_state()[1].tolist()),
        (lambda: random.Random(3), lambda held: held.getstate()),
        (lambda: np.random.default_rng(3), lambda held: held.bit_generator.state),
    ],
    ids=["RandomState", "Random", "Generator"],
)
def test_a_generator_that_a_call_draws_from_is_where_it_was(make, state):
    class Drawing(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.held = make()

        def call(self, inputs):
            draw = getattr(self.held, "random", None) or self.held.random_sample
            return inputs * (1 + draw())

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Drawing(name="drawing")(inputs)))
    before = state(model.get_layer("drawing").held)
    rewritten = graphwd.rewrite(model, "l2", verify=False)
    assert rewritten.get_layer("drawing").held is not model.get_layer("drawing").held
    assert state(model.get_layer("drawing").held) == before
    assert state(rewritten.get_layer("drawing").held) == before


def test_a_shared_ordered_dict_is_found():
    class Holding(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.held = collections.OrderedDict(one=1)

        def call(self, inputs):
            return inputs

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Holding(name="holding")(inputs)))
    copy = graphwd.rewrite(model, "l2")
    held = model.get_layer("holding").held
    assert copy.get_layer("holding").held is not held
    vars(copy.get_layer("holding"))["held"] = held
    assert not graphwd.verify(model, copy, "l2").ok
