"""What an optimizer's private attributes tell of decay is what a step without gradients does."""

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from graphwd.live import _keras

RATE, DECAY = 0.125, 0.5


def built():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="one"), layers.Dense(2)])
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones(variable.shape))
    return model


def shrinkage(optimizer, variables):
    """The decay of each variable, from what a step without gradients leaves of it."""
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables], variables)
    return [float((1 - np.array(v, "float64").mean()) / RATE) for v in variables]


def excluding(**what):
    optimizer = optimizers.SGD(RATE, weight_decay=DECAY)
    optimizer.exclude_from_weight_decay(**what)
    return optimizer


FORMS = {
    "no decay": lambda model: optimizers.SGD(RATE),
    "all": lambda model: optimizers.SGD(RATE, weight_decay=DECAY),
    "names": lambda model: excluding(var_names=["bias"]),
    "variables": lambda model: excluding(var_list=[model.layers[0].kernel]),
    "muon": lambda model: optimizers.Muon(RATE, weight_decay=DECAY),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_decay_that_is_told_is_what_a_step_does(form):
    model = built()
    variables = model.trainable_variables
    optimizer = FORMS[form](model)
    if form == "muon":
        optimizer.adam_weight_decay = DECAY / 2  # of the biases, for which Muon is AdamW
    optimizer.build(variables)
    before = dict(vars(optimizer))
    decays = [_keras.is_decayed(optimizer, variable) for variable in variables]
    assert set(vars(optimizer)) == set(before), "asking leaves no trace"
    told = [_keras.decay_of(optimizer, variable) for variable in variables]
    np.testing.assert_allclose(shrinkage(optimizer, variables), told, atol=1e-6)
    assert decays == [bool(decay) for decay in told] or form == "no decay"


def test_exclusions_are_told_as_they_were_given():
    model = built()
    kernel, bias = model.layers[0].weights
    optimizer = excluding(var_names=["bias", "gamma"])
    keys, pattern = _keras.excluded_from_decay(optimizer)
    assert (keys, sorted(pattern.split("|"))) == (set(), ["bias", "gamma"])
    optimizer = excluding(var_list=[kernel])
    assert _keras.excluded_from_decay(optimizer) == ({_keras.key_of(kernel)}, "")
    assert _keras.is_listed(optimizer, kernel)
    assert not _keras.is_listed(optimizer, bias)
    assert _keras.excluded_from_decay(optimizers.SGD()) == (set(), "")


def test_the_learning_rate_is_told_as_it_was_given():
    schedule = optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert _keras.learning_rate_of(optimizers.SGD(schedule)) is schedule
    assert float(_keras.learning_rate_of(optimizers.SGD(RATE))) == RATE


def test_an_optimizers_variables_and_steps():
    model = built()
    variables = model.trainable_variables
    optimizer = optimizers.SGD(RATE)
    assert _keras.optimized_variables(optimizer) == []
    optimizer.build(variables)
    assert [id(v) for v in _keras.optimized_variables(optimizer)] == [id(v) for v in variables]
    assert [_keras.index_of(optimizer, v) for v in variables] == list(range(len(variables)))
    shrinkage(optimizer, variables)
    assert int(_keras.iterations_of(optimizer)) == 1
    extra = keras.Variable(0.0, name="extra", trainable=False)
    _keras.track_variable(optimizer, extra)
    assert any(variable is extra for variable in optimizer.variables)


def test_which_of_several_updates_a_variable():
    model = built()
    variables = model.trainable_variables
    mapped = {".*one/.*": optimizers.SGD(RATE)}
    default = optimizers.Adam(RATE)
    optimizer = optimizers.MultiOptimizer(optimizers.OptimizerMap(default, mapped))
    scaled = optimizers.LossScaleOptimizer(optimizer)
    inside = [default, *mapped.values()]
    for each in (optimizer, scaled):
        assert _keras.optimizer_map(each) == mapped
        found = [_keras.optimizer_of(each, inside, variable) for variable in variables]
        assert [type(one).__name__ for one in found] == ["SGD", "SGD", "Adam", "Adam"]
    assert _keras.optimizer_map(default) is None
    alone = optimizers.SGD()
    assert _keras.optimizer_of(alone, [alone], variables[0]) is alone
    alone.build(variables[:1])
    assert _keras.optimizer_of(alone, [alone], variables[0]) is alone
    assert _keras.optimizer_of(alone, [alone], variables[1]) is None


def test_an_own_decay_takes_the_place_of_keras():
    class Own(_keras.OwnDecay, optimizers.SGD):
        def decay_weights(self, variables):
            for variable in variables:
                variable.assign(variable * (1 - RATE * 0.25))

    model = built()
    found = shrinkage(Own(RATE, weight_decay=DECAY), model.trainable_variables)
    np.testing.assert_allclose(found, 0.25, atol=1e-6)
