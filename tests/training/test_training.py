"""Training a rewritten model is training the original with the penalty added to the loss."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from tests.support import oracle

STEPS = 20
FACTOR = 0.01
RULE = graphwd.Rule(regularizers.L2(FACTOR), roles=["kernel", "depthwise"])


def network(seed: int = 0) -> keras.Model:
    """Batch normalization, dropout, a shared layer and a frozen one."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = layers.BatchNormalization(momentum=0.8, name="norm")(x)
    x = layers.Activation("relu")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SpatialDropout2D(0.2, seed=11)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(8, "tanh", name="frozen", trainable=False)(x)
    x = layers.Dropout(0.4, seed=12)(x)
    shared = layers.Dense(8, "tanh", name="shared")
    return keras.Model(inputs, layers.Dense(3, name="head")(shared(shared(x))), name="network")


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "schedule": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5), momentum=0.9, nesterov=True
    ),
}


def batches(steps: int, seed: int):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(4 * steps, 6, 6, 2)).astype("float32")
    return x, generator.normal(size=(4 * steps, 3)).astype("float32")


def trained(optimizer: str) -> keras.Model:
    """A compiled model with momentum, statistics and seeds under way."""
    model = network()
    model.compile(OPTIMIZERS[optimizer](), "mse")
    model.fit(*batches(5, 1), batch_size=4, shuffle=False, verbose=0)
    return model


def fit(model, steps: int = STEPS, seed: int = 2) -> None:
    model.fit(*batches(steps, seed), batch_size=4, shuffle=False, verbose=0)


def penalised(model) -> list:
    """The weights that the rule selects, by hand."""
    names = ("conv", "depthwise", "shared", "head")
    return [model.get_layer(name).kernel for name in names]


def train_by_hand(model, factor: float) -> None:
    """The steps of `fit`, written out, with the penalty added to the loss."""
    import tensorflow as tf

    @tf.function(jit_compile=False)
    def step(x, y):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = tf.reduce_mean(tf.square(outputs - y))
            for kernel in penalised(model):
                loss += factor * tf.reduce_sum(tf.square(kernel.value))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        model.optimizer.apply(gradients, model.trainable_variables)

    x, y = batches(STEPS, 2)
    for start in range(0, len(x), 4):
        step(tf.constant(x[start : start + 4]), tf.constant(y[start : start + 4]))


class ByHand(keras.Model):
    """A model whose loss has the penalty written into it, for any backend."""

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        for kernel in penalised(self):
            loss = loss + FACTOR * keras.ops.sum(keras.ops.square(kernel))
        return loss


def everything(model) -> list:
    return [oracle.bits(v) for v in [*model.variables, *model.optimizer.variables]]


def assert_trained_alike(one, other) -> None:
    assert [v.name for v in one.variables] == [v.name for v in other.variables]
    for ours, theirs in zip(
        [*one.variables, *one.optimizer.variables],
        [*other.variables, *other.optimizer.variables],
        strict=True,
    ):
        a, b = oracle.array(ours), oracle.array(theirs)
        if a.dtype.kind in "ui":
            np.testing.assert_array_equal(a, b, err_msg=ours.path)  # seeds, the iteration count
        else:
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6, err_msg=ours.path)


tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the loop is written in TensorFlow"
)


@tensorflow_only
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fit_is_the_loop_by_hand(optimizer):
    original = trained(optimizer)
    rewritten = graphwd.rewrite(original, RULE)
    fit(rewritten)
    train_by_hand(original, FACTOR)
    assert_trained_alike(rewritten, original)


@tensorflow_only
def test_the_comparison_can_fail():
    original = trained("momentum")
    rewritten = graphwd.rewrite(original, RULE)
    fit(rewritten)
    train_by_hand(original, 0.9 * FACTOR)
    with pytest.raises(AssertionError):
        assert_trained_alike(rewritten, original)


def test_fit_is_a_loss_by_hand():
    original = trained("momentum")
    rewritten = graphwd.rewrite(original, RULE)
    model = ByHand(original.inputs, original.outputs)
    model.compile(original.optimizer, "mse")
    fit(rewritten)
    fit(model)
    assert_trained_alike(rewritten, model)


def test_a_rewrite_that_asks_for_nothing_trains_like_the_original():
    original = trained("momentum")
    rewritten = graphwd.rewrite(original, graphwd.Rule(None))
    fit(original)
    fit(rewritten)
    assert_trained_alike(rewritten, original)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_one_leaves_the_other(optimizer):
    original = trained(optimizer)
    rewritten = graphwd.rewrite(original, RULE)
    before = everything(original)
    assert before == everything(rewritten)
    fit(rewritten, 3)
    assert everything(original) == before
    moved = everything(rewritten)
    assert moved != before
    fit(original, 3)
    assert everything(rewritten) == moved
    assert everything(original) != before


def test_training_goes_on_after_a_reload(tmp_path):
    rewritten = graphwd.rewrite(trained("momentum"), RULE)
    rewritten.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(rewritten.variables, loaded.variables, strict=True):
        theirs.assign(oracle.array(ours))  # Keras does not save the state of seed generators
    fit(rewritten)
    fit(loaded)
    assert_trained_alike(rewritten, loaded)


def test_the_penalty_is_in_the_gradient_not_only_in_the_loss():
    """Without data to learn from, every step shrinks each kernel by the learning rate's share."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="dense")(inputs))
    rewritten = graphwd.rewrite(model, graphwd.Rule(graphwd.weight_decay(0.5), roles="kernel"))
    rewritten.compile(keras.optimizers.SGD(0.1), "mse")
    kernel = rewritten.get_layer("dense").kernel
    before = oracle.array(kernel).copy()
    x = np.zeros((8, 3), "float32")
    rewritten.fit(x, np.zeros((8, 2), "float32"), batch_size=4, verbose=0)
    np.testing.assert_allclose(oracle.array(kernel), before * (1 - 0.1 * 0.5) ** 2, rtol=1e-6)
