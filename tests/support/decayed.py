"""Models, policies of several strengths, and optimizers, for the tests of what these decay."""

import keras
import numpy as np
from keras import layers, regularizers

import graphwd
from tests.support.sample_models import sample_models

SAMPLES = sample_models()


def small_model():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="first", bias_initializer="ones"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name="last", bias_initializer="ones"),
        ],
        name="small",
    )


def fill(model):
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(generator.uniform(0.5, 1.0, variable.shape).astype("float32"))


def values(model):
    return {id(v): keras.ops.convert_to_numpy(v).astype("float64") for v in model.variables}


def zero_step(model, optimizer):
    optimizer.apply(
        [keras.ops.zeros(v.shape, v.dtype) for v in model.trainable_variables],
        model.trainable_variables,
    )


def reloaded(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


STRENGTHS = [
    graphwd.Rule(graphwd.weight_decay(0.5), roles=["kernel", "scale"]),
    graphwd.Rule(graphwd.weight_decay(0.25), paths="*last/kernel"),
    graphwd.Rule(graphwd.weight_decay(0.125), roles="gamma"),
]


def nested():
    """The same layer names at two depths, and in two models of one model."""
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="last")], name="inner")
    other = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="first")], name="other")
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="first")(other(inner(inputs)))
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, layers.Dense(2, name="last")(x), name="outer")


def attention():
    """Several weights that one regularizer argument governs, and a wrapper of two layers."""
    inputs = keras.Input((3, 4))
    x = layers.MultiHeadAttention(2, 2, name="attend")(inputs, inputs)
    x = layers.Bidirectional(layers.LSTM(2), name="both")(x)
    return keras.Model(inputs, layers.Dense(2, name="last")(x))


@keras.saving.register_keras_serializable(package="tests")
class Unnamed(layers.Layer):
    """Keras numbers the layers within, and starts anew in each process."""

    def build(self, shape):
        self.one, self.two = layers.Dense(4), layers.LayerNormalization()
        self.one.build(shape)
        self.two.build((None, 4))

    def call(self, x):
        return self.two(self.one(x))


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A model that is no graph, with layers that have no names of their own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.norm = layers.Dense(4), layers.BatchNormalization()
        self.last = layers.Dense(2, name="last")

    def call(self, x):
        return self.last(self.norm(self.one(x)))


def subclassed():
    model = Subclassed()
    model(np.ones((1, 4), "float32"))
    return model


MODELS = {
    "small": small_model,
    "nested": nested,
    "attention": attention,
    "subclassed": subclassed,
    "unnamed": lambda: keras.Sequential(
        [keras.Input((4,)), Unnamed(name="a"), Unnamed(name="b"), layers.Dense(2, name="last")]
    ),
}
FORMS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "schedule": lambda: keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(0.05, 30, warmup_target=0.1, warmup_steps=5)
    ),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.05), initial_scale=4.0, dynamic_growth_steps=3
    ),
    "scale factor": lambda: keras.optimizers.Adam(0.05, loss_scale_factor=16.0),
    "accumulation": lambda: keras.optimizers.AdamW(0.05, gradient_accumulation_steps=2),
    "clipnorm": lambda: keras.optimizers.AdamW(0.05, clipnorm=0.1),
    "global clipnorm": lambda: keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=0.1),
    "muon": lambda: keras.optimizers.Muon(0.05),
}


def batches(seed=0):
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(24, 4)).astype("float32"),
        generator.normal(size=(24, 2)).astype("float32"),
    )


MIXED = [
    graphwd.Rule(graphwd.L2SP(0.25), paths="first/*", roles="kernel"),
    graphwd.Rule(graphwd.weight_decay(0.125), paths="last/kernel"),
    graphwd.Rule(graphwd.L2SP(0.125), roles="gamma"),
]
EVERYTHING = graphwd.Rule(graphwd.L2SP(0.25))
HOW = {"batch_size": 4, "shuffle": False, "verbose": 0}


def decay_of(variable):
    """By hand, what MIXED asks for: a coefficient, and whether towards the start."""
    if variable.path.endswith("first/kernel"):
        return 0.5, True
    if variable.path.endswith("last/kernel"):
        return 0.125, False
    return (0.25, True) if variable.name == "gamma" else (0.0, False)


def array(variable):
    return keras.ops.convert_to_numpy(variable).copy()


def compiled(form="sgd", policy=MIXED):
    model = small_model()
    fill(model)
    model.compile(graphwd.decouple(model, policy, FORMS[form]()), "mse")
    return model


def trained(form="sgd", policy=MIXED):
    """A model some steps later, and where its weights were."""
    model = compiled(form, policy)
    start = [array(v) for v in model.trainable_variables]
    model.fit(*batches(), **HOW)
    return model, start


def assert_same(one, other):
    for ours, theirs in zip(
        [*one.variables, *one.optimizer.variables],
        [*other.variables, *other.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(array(ours), array(theirs), err_msg=ours.path)


RATE = 0.125
PENALTIES = [
    graphwd.Rule(regularizers.L2(0.25), roles="kernel"),
    graphwd.Rule(regularizers.L2(0.125), roles="gamma"),
]


def notes(model):
    return " ".join(graphwd.inspect(model).notes)
