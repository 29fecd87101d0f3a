"""A model that a step changes by its decay alone, and what measures that decay.

The loss is zero times the outputs.
"""

import keras
import numpy as np
from keras import layers

import graphwd

STEPS = 100
RATE = 0.125
X, Y = np.ones((STEPS, 4), "float32"), np.zeros((STEPS, 2), "float32")
PENALTY = graphwd.Rule(graphwd.weight_decay(1.0), roles="kernel")
schedules = keras.optimizers.schedules


def nothing(y, outputs):
    return 0.0 * keras.ops.sum(outputs)


def network():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="first", bias_initializer="ones"),
            layers.Dropout(0.5, seed=1),
            layers.Dense(2, name="last", bias_initializer="ones"),
        ],
        name="small",
    )
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(generator.uniform(0.5, 1.0, variable.shape).astype("float32"))
    return model


def penalised(optimizer=None, policy=PENALTY, **options):
    model = graphwd.rewrite(network(), policy)
    model.compile(optimizer or keras.optimizers.SGD(RATE), nothing, **options)
    return model


def decoupled(optimizer=None, policy=PENALTY, **options):
    model = network()
    optimizer = graphwd.decouple(model, policy, optimizer or keras.optimizers.SGD(RATE))
    model.compile(optimizer, nothing, **options)
    return model


OWN = (None, "Adam", "MultiOptimizer")  # Keras takes the class's own name for none
MECHANISMS = {"penalty": penalised, "decay": decoupled}


class Measure(keras.callbacks.Callback):
    """The weight decay of each weight in each step, from how much the step has shrunk it."""

    def __init__(self):
        super().__init__()
        self.decays = {}

    def values(self):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        return {v.path: np.array(v, "float64") for v in self.model.trainable_variables}

    def on_train_begin(self, logs=None):
        self.before = self.values()

    def on_train_batch_end(self, batch, logs=None):
        after = self.values()
        for path, value in after.items():
            ratios = value / self.before[path]
            self.decays.setdefault(path, []).append(float((1 - ratios.mean()) / RATE))
        self.before = after

    def of(self, end):
        (found,) = [v for path, v in self.decays.items() if path.endswith(end)]
        return found


def fit(model, *callbacks, epochs=1, steps=STEPS, **options):
    how = {"batch_size": 1, "shuffle": False, "verbose": 0, **options}
    return model.fit(X[:steps], Y[:steps], epochs=epochs, callbacks=list(callbacks), **how)


def cosine(step):
    """From 0.04 to 0.4, as DINO (arXiv:2104.14294) has it for its weight decay."""
    return 0.4 + 0.5 * (0.04 - 0.4) * (1 + np.cos(np.pi * step / STEPS))


class Cosine(schedules.LearningRateSchedule):
    def __call__(self, step):
        ops = keras.ops
        return 0.4 + 0.5 * (0.04 - 0.4) * (1 + ops.cos(np.pi * ops.cast(step, "float32") / STEPS))
