"""What is refused, or warned of, before a model is touched."""

from __future__ import annotations

import warnings

import keras
import pytest
from keras import layers, losses

import graphwd
from graphwd.live import checks
from tests.support.copies import Scaled, X, dense
from tests.support.decayed import notes


class Own(keras.Sequential):
    """A training step that computes the loss by itself."""

    def train_step(self, *args):
        return self.step_of(*args)

    def step_of(self, *args):
        return self.loss(args)


class Right(Own):
    def step_of(self, *args):
        return self.loss(args) + sum(self.losses)


class Super(keras.Sequential):
    def train_step(self, *args):
        return super().train_step(*args)


def test_a_training_step_that_leaves_the_penalties_out():
    for cls, wrong in ((Own, True), (Right, False), (Super, False)):
        model = cls([keras.Input((4,)), layers.Dense(2, kernel_regularizer="l2")])
        model.compile("sgd", "mse")
        assert ("leaves self.losses out" in notes(model)) == wrong, cls
        plain = cls([keras.Input((4,)), layers.Dense(2)])
        plain.compile("sgd", "mse")
        assert not notes(plain)


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


def test_an_unbuilt_model_is_warned_of():
    model = keras.Sequential([layers.Dense(3), Scaled()])
    with pytest.warns(UserWarning, match="not built"):
        graphwd.rewrite(model, "l2")


def test_a_model_whose_author_set_built_is_warned_of_while_a_part_is_not():
    model = Scaled(name="by_hand")
    model.built = True
    with pytest.warns(UserWarning, match="not built"):
        graphwd.rewrite(model, "l2")
    model(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphwd.rewrite(model, "l2")


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


def test_a_layer_that_a_lambda_calls_by_its_global_name_is_said():
    inputs = keras.Input((4,))
    outputs = layers.Lambda(lambda x: ENCODER(x), name="again")(inputs)
    model = keras.Model(inputs, layers.Add()([outputs, ENCODER(inputs)]))
    with pytest.warns(UserWarning, match="function of layer 'again' calls ENCODER"):
        graphwd.rewrite(model, "l2")


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


class Stateless(keras.Model):
    """As Keras's guide to training with JAX writes it."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)

    def compute_loss_and_updates(self, trainable, non_trainable, x, y):
        y_pred, non_trainable = self.stateless_call(trainable, non_trainable, x, training=True)
        loss, (trainable, non_trainable, *_) = self.stateless_compute_loss(
            trainable, non_trainable, [], x=x, y=y, y_pred=y_pred
        )
        return loss, (y_pred, non_trainable)

    def train_step(self, state, data):
        import jax

        trainable, non_trainable, optimizer, metrics = state
        x, y = data
        (loss, (_, non_trainable)), gradients = jax.value_and_grad(
            self.compute_loss_and_updates, has_aux=True
        )(trainable, non_trainable, x, y)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"loss": loss}, (trainable, non_trainable, optimizer, metrics)


@pytest.mark.parametrize(
    ("cls", "method"),
    [
        (Without, None),
        (Stateless, None),
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
