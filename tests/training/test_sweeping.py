"""A sweep over strengths is a loop on one model, whoever runs the loop."""

import keras
import numpy as np
import pytest

import graphwd
from tests.support.decayed import batches, fill, small_model


def pretrained():
    model = small_model()
    fill(model)
    return model


def penalties(model):
    return {path.regularizer.strength for path in model.trainable_variables if path.regularizer}


def test_a_loop_over_strengths_on_one_model():
    """Each turn is what a model of its own would be: nothing of the last turn is left."""
    model = pretrained()
    weights = model.get_weights()
    distances = []
    for strength in (0.0, 0.03, 3.0):
        model.set_weights(weights)
        graphwd.rewrite(model, graphwd.Rule(None), in_place=True)
        graphwd.rewrite(model, graphwd.Rule(graphwd.L2SP(strength), roles="kernel"), in_place=True)
        assert penalties(model) == {strength}
        assert [float(loss) for loss in model.losses] == [0.0, 0.0]
        model.compile(keras.optimizers.SGD(0.01), "mse")
        model.fit(*batches(), epochs=5, batch_size=4, shuffle=False, verbose=0)
        fresh = graphwd.rewrite(pretrained(), graphwd.Rule(graphwd.L2SP(strength), roles="kernel"))
        fresh.compile(keras.optimizers.SGD(0.01), "mse")
        fresh.fit(*batches(), epochs=5, batch_size=4, shuffle=False, verbose=0)
        for ours, theirs in zip(model.get_weights(), fresh.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        kernel = keras.ops.convert_to_numpy(model.get_layer("last").kernel)
        distances.append(float(np.linalg.norm(kernel - weights[6])))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0] / 2


def test_keras_tuner_sweeps_in_place(tmp_path):
    tuner = pytest.importorskip("keras_tuner")
    model = pretrained()
    weights = model.get_weights()
    built, found = [], {}

    def build(parameters):
        strength = parameters.Float("strength", 1e-3, 10.0, sampling="log")
        model.set_weights(weights)
        graphwd.rewrite(model, graphwd.Rule(None), in_place=True)
        graphwd.rewrite(model, graphwd.Rule(graphwd.L2SP(strength), roles="kernel"), in_place=True)
        model.compile(keras.optimizers.SGD(0.01), "mse")
        built.append(model)
        return model

    class Search(tuner.RandomSearch):
        def run_trial(self, trial, *args, **kwargs):
            result = super().run_trial(trial, *args, **kwargs)
            (strength,) = penalties(model)
            found[strength] = keras.ops.convert_to_numpy(model.get_layer("last").kernel)
            assert trial.hyperparameters.get("strength") == strength
            return result

    search = Search(build, objective="loss", max_trials=3, seed=1, directory=tmp_path)
    search.search(*batches(), epochs=4, verbose=0)
    assert len(found) == 3
    assert all(each is model for each in built)
    distances = [float(np.linalg.norm(found[s] - weights[6])) for s in sorted(found)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0]
    assert search.get_best_hyperparameters()[0].get("strength") in found
