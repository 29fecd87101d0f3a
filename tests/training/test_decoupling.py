"""decouple: after a step with zero gradients, what the policy selects has shrunk, nothing else."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from tests.support.decayed import (
    MODELS,
    STRENGTHS,
    fill,
    reloaded,
    small_model,
    values,
    zero_step,
)
from tests.support.layers import Composite
from tests.support.sample_models import sample_models

SAMPLES = sample_models()
OPTIMIZERS = ["SGD", "Adam", "AdamW", "Lion", "RMSprop", "Nadam", "Adamax", "Adafactor", "Muon"]


def assert_decayed(model, before, selected, factor):
    """Every variable of `selected` has shrunk by `factor`; every other has the same bits."""
    after = values(model)
    assert selected
    for variable in model.variables:
        old, new = before[id(variable)], after[id(variable)]
        if id(variable) in {id(v) for v in selected}:
            assert np.abs(old).min() > 0
            # the quotient of two float32 numbers, each rounded once
            np.testing.assert_allclose(new / old, factor, rtol=3e-7)
        else:
            np.testing.assert_array_equal(new, old, err_msg=variable.path)


def one_step(model, policy, optimizer):
    fill(model)
    optimizer = graphwd.decouple(model, policy, optimizer)
    before = values(model)
    zero_step(model, optimizer)
    return before


def shrinkage(model, optimizer):
    """The factor by which a step without gradients multiplies each weight, in the model's order."""
    before = values(model)
    zero_step(model, optimizer)
    after = values(model)
    factors = []
    for variable in model.trainable_variables:
        quotients = after[id(variable)] / before[id(variable)]
        np.testing.assert_allclose(quotients, quotients.flat[0], rtol=3e-7)
        factors.append(quotients.flat[0])
    return factors


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_without_gradients_shrinks_the_selected_weights_alone(name):
    model = small_model()
    optimizer = getattr(keras.optimizers, name)(0.125)
    before = one_step(model, graphwd.Rule(regularizers.L2(0.25), roles="kernel"), optimizer)
    kernels = [model.get_layer("first").kernel, model.get_layer("last").kernel]
    assert_decayed(model, before, kernels, 1 - 0.125 * 0.5)


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in ("sequential_unbuilt",)])
def test_a_bare_regularizer_decays_what_it_would_penalise(name):
    model = graphwd.rewrite(SAMPLES[name](), graphwd.Rule(None))
    penalised = graphwd.rewrite(model, regularizers.L2(0.25))
    selected = [
        ours
        for ours, theirs in zip(
            model.trainable_variables, penalised.trainable_variables, strict=True
        )
        if theirs.regularizer is not None
    ]
    optimizer = keras.optimizers.SGD(0.125)
    before = one_step(model, regularizers.L2(0.25), optimizer)
    assert_decayed(model, before, selected, 1 - 0.125 * 0.5)


def test_plain_sgd_makes_the_same_step_with_either_mechanism():
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    policy = graphwd.Rule(graphwd.weight_decay(0.5), roles="kernel")
    model = small_model()
    fill(model)
    penalised = graphwd.rewrite(model, policy)
    model.compile(graphwd.decouple(model, policy, keras.optimizers.SGD(0.01)), "mse")
    penalised.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(x, y, verbose=0)
    penalised.fit(x, y, verbose=0)
    for ours, theirs in zip(model.get_weights(), penalised.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_last_rule_decides_and_what_no_rule_matches_is_left_out():
    model = small_model()
    policy = graphwd.Policy(
        [
            graphwd.Rule(regularizers.L1(0.1), paths="last/kernel"),  # never decides
            graphwd.Rule(regularizers.L2(0.25), roles="kernel"),
            graphwd.Rule(None, paths="first/*"),
        ]
    )
    before = one_step(model, policy, keras.optimizers.SGD(0.125))
    assert_decayed(model, before, [model.get_layer("last").kernel], 1 - 0.125 * 0.5)


def test_weights_that_no_config_reaches_are_decayed_too():
    model = keras.Sequential([keras.Input((4,)), Composite(name="own")])
    policy = graphwd.Rule(regularizers.L2(0.25), roles=["kernel", "scale"])
    before = one_step(model, policy, keras.optimizers.SGD(0.125))
    own = model.get_layer("own")
    assert_decayed(model, before, [own.inner.kernel, own.scale], 1 - 0.125 * 0.5)


def test_frozen_weights_stay_as_they_are():
    model = small_model()
    model.get_layer("first").trainable = False
    fill(model)
    before = one_step(model, regularizers.L2(0.25), keras.optimizers.SGD(0.125))
    assert_decayed(model, before, [model.get_layer("last").kernel], 1 - 0.125 * 0.5)


def test_an_identifier_and_loss_scaling_are_optimizers_too():
    model = small_model()
    everything = graphwd.Rule(regularizers.L2(0.25))
    optimizer = graphwd.decouple(model, everything, "adamw")
    assert isinstance(optimizer, keras.optimizers.AdamW)
    assert optimizer.weight_decay == 0.5
    given = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.125), initial_scale=8.0)
    scaled = graphwd.decouple(model, regularizers.L2(0.25), given)
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer)
    assert scaled.initial_scale == 8.0
    fill(model)
    before = values(model)
    zero_step(model, scaled.inner_optimizer)  # JAX has no eager step with loss scaling
    kernels = [model.get_layer("first").kernel, model.get_layer("last").kernel]
    assert_decayed(model, before, kernels, 1 - 0.125 * 0.5)


def test_one_plain_optimizer_where_one_does_and_the_model_is_left_alone():
    model = small_model()
    before = values(model)
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.3)
    everything = graphwd.Rule(graphwd.weight_decay(0.05))
    assert graphwd.decouple(model, everything, optimizer) is optimizer
    assert optimizer.weight_decay == pytest.approx(0.05)
    assert not optimizer.built
    given = keras.optimizers.AdamW(1e-3, weight_decay=0.3)
    several = graphwd.decouple(model, graphwd.weight_decay(0.05), given)
    assert [each.weight_decay for each in several.optimizers] == pytest.approx([0.05, 0.0])
    assert given.weight_decay == 0.3
    assert all((values(model)[key] == value).all() for key, value in before.items())
    assert not model.losses


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([graphwd.Rule(regularizers.L1(0.1), roles="kernel")], ["rule 1", "L1(0.1)", "rewrite"]),
        (
            [
                graphwd.Rule(regularizers.L2(0.1), roles="kernel"),
                graphwd.Rule(regularizers.L1L2(0.1, 0.1), roles="bias"),
            ],
            ["rule 2 (roles: bias)", "first/bias"],
        ),
        (
            [graphwd.Rule(regularizers.OrthogonalRegularizer(0.1), roles="kernel")],
            ["rule 1", "OrthogonalRegularizer"],
        ),
    ],
)
def test_what_no_optimizer_can_express_is_an_error_that_names_the_rules(rules, words):
    optimizer = keras.optimizers.AdamW()
    with pytest.raises(graphwd.PolicyError) as caught:
        graphwd.decouple(small_model(), rules, optimizer)
    for word in words:
        assert word in str(caught.value)
    assert optimizer.weight_decay == 0.004


def test_a_penalty_on_outputs_cant_be_decoupled():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, activity_regularizer="l1")])
    rule = graphwd.Rule(regularizers.L2(0.1), roles=["activity", "kernel"])
    with pytest.raises(graphwd.PolicyError, match=r"rule 1 \(.*\).*/activity"):
        graphwd.decouple(model, rule, keras.optimizers.AdamW())


def test_a_factor_of_zero_is_no_other_coefficient():
    model = small_model()
    rules = [
        graphwd.Rule(regularizers.L1L2(l2=0.25), roles="kernel"),
        graphwd.Rule(regularizers.L2(0.0), paths="first/kernel"),
    ]
    before = one_step(model, rules, keras.optimizers.SGD(0.125))
    assert_decayed(model, before, [model.get_layer("last").kernel], 1 - 0.125 * 0.5)


def test_a_policy_that_decays_nothing_is_an_error():
    model = small_model()
    with pytest.raises(graphwd.PolicyError, match="are none"):
        graphwd.decouple(model, graphwd.Rule(None), keras.optimizers.AdamW())
    model.trainable = False
    with pytest.raises(graphwd.PolicyError, match="are all frozen"):
        graphwd.decouple(model, regularizers.L2(0.1), keras.optimizers.AdamW())


def test_a_built_optimizer_is_refused():
    model = small_model()
    optimizer = keras.optimizers.AdamW()
    optimizer.build(model.trainable_variables)
    with pytest.raises(graphwd.GraphwdError, match="AdamW is built already"):
        graphwd.decouple(model, regularizers.L2(0.1), optimizer)
    new = keras.optimizers.AdamW.from_config(optimizer.get_config())
    graphwd.decouple(model, regularizers.L2(0.1), new)


def test_an_optimizer_without_weight_decay_is_refused():
    class Own(keras.optimizers.Optimizer):
        def __init__(self):
            super().__init__(0.1)
            del self.weight_decay

    with pytest.raises(graphwd.GraphwdError, match=r"Own has no weight decay.*AdamW"):
        graphwd.decouple(small_model(), regularizers.L2(0.1), Own())


def test_several_optimizers_in_one_are_refused():
    several = keras.optimizers.MultiOptimizer(lambda variable: keras.optimizers.SGD())
    with pytest.raises(graphwd.GraphwdError, match="give decouple the plain one"):
        graphwd.decouple(small_model(), regularizers.L2(0.1), several)


def test_keras_without_several_optimizers_in_one_is_refused(monkeypatch):
    monkeypatch.setattr("graphwd.training.optimizers.KNOWN", False)
    model, everything = small_model(), graphwd.Rule(regularizers.L2(0.1))
    assert graphwd.decouple(model, everything, keras.optimizers.SGD()).weight_decay == 0.2
    with pytest.raises(graphwd.GraphwdError, match=r"by 0 and 0\.2, .*MultiOptimizer"):
        graphwd.decouple(model, regularizers.L2(0.1), keras.optimizers.SGD())


def test_a_model_with_the_penalty_in_its_loss_is_refused():
    model = graphwd.rewrite(small_model(), regularizers.L2(0.1))
    with pytest.raises(graphwd.GraphwdError, match=r"first/kernel, last/kernel.*Rule\(None\)"):
        graphwd.decouple(model, regularizers.L2(0.1), keras.optimizers.AdamW())
    graphwd.decouple(
        model, graphwd.Rule(regularizers.L2(0.1), roles="gamma"), keras.optimizers.AdamW()
    )


def expected(model):
    """The factors of STRENGTHS by hand, from the names of the variables."""

    def decay(variable):
        if variable.path.endswith("last/kernel"):
            return 0.25
        return {"kernel": 0.5, "gamma": 0.125}.get(variable.name, 0.0)

    return [1 - 0.125 * decay(variable) for variable in model.trainable_variables]


@pytest.mark.parametrize("name", MODELS)
def test_every_strength_decays_as_much_after_a_file_as_before(name, tmp_path):
    if name == "unnamed":  # so that the numbers in names differ between here and there
        layers.Dense(1), layers.LayerNormalization()
    model = MODELS[name]()
    fill(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", graphwd.UnmatchedRuleWarning)
        optimizer = graphwd.decouple(model, STRENGTHS, keras.optimizers.AdamW(0.125))
    model.compile(optimizer, "mse")
    assert type(model.optimizer).__name__ == "MultiOptimizer"
    model.optimizer.build(model.trainable_variables)
    keras.utils.clear_session(free_memory=False)
    loaded = reloaded(model, tmp_path)
    np.testing.assert_allclose(shrinkage(loaded, loaded.optimizer), expected(model), rtol=3e-7)
    np.testing.assert_allclose(shrinkage(model, model.optimizer), expected(model), rtol=3e-7)


def test_an_unbuilt_model_is_refused():
    with pytest.raises(graphwd.GraphwdError, match="is not built"):
        graphwd.decouple(
            keras.Sequential([layers.Dense(2)]), regularizers.L2(0.1), keras.optimizers.AdamW()
        )


def test_layerwise_policies_are_the_same_in_both_mechanisms(tmp_path):
    """With plain SGD a penalty and a decay are the same step, whatever multiplies them by depth."""
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="stem")(inputs)
    for number in range(3):
        x = layers.Dense(4, name=f"block_{number}_dense")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    policy = [
        graphwd.Rule(graphwd.weight_decay(0.5), ndim=">=2"),
        graphwd.Rule(graphwd.times(0.5, blocks="block_#_*")),
        graphwd.Rule(graphwd.times(2.0), paths="head/*"),
    ]
    fill(model)
    model.compile(graphwd.decouple(model, policy, keras.optimizers.SGD(0.125)), "mse")
    model.optimizer.build(model.trainable_variables)
    loaded = reloaded(model, tmp_path)
    penalised = graphwd.rewrite(loaded, policy)
    wanted = [
        1 - 0.125 * (2 * variable.regularizer.l2 if variable.regularizer is not None else 0.0)
        for variable in penalised.trainable_variables
    ]
    assert len(set(wanted)) >= 5
    np.testing.assert_allclose(shrinkage(model, model.optimizer), wanted, rtol=3e-7)
    np.testing.assert_allclose(shrinkage(loaded, loaded.optimizer), wanted, rtol=3e-7)
