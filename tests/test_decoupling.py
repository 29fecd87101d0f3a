"""decouple: after a step with zero gradients, what the policy selects has shrunk, nothing else."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from tests.composite import Composite
from tests.sample_models import sample_models

SAMPLES = sample_models()
OPTIMIZERS = ["SGD", "Adam", "AdamW", "Lion", "RMSprop", "Nadam", "Adamax", "Adafactor", "Muon"]


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
    graphwd.decouple(model, policy, optimizer)
    before = values(model)
    zero_step(model, optimizer)
    return before


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
    optimizer = graphwd.decouple(model, regularizers.L2(0.25), "adamw")
    assert isinstance(optimizer, keras.optimizers.AdamW)
    assert optimizer.weight_decay == 0.5
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.125))
    assert graphwd.decouple(model, regularizers.L2(0.25), scaled) is scaled
    fill(model)
    before = values(model)
    zero_step(model, scaled.inner_optimizer)
    kernels = [model.get_layer("first").kernel, model.get_layer("last").kernel]
    assert_decayed(model, before, kernels, 1 - 0.125 * 0.5)


def test_the_optimizer_is_the_one_given_and_the_model_is_left_alone():
    model = small_model()
    before = values(model)
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.3)
    assert graphwd.decouple(model, graphwd.weight_decay(0.05), optimizer) is optimizer
    assert optimizer.weight_decay == pytest.approx(0.05)
    assert not optimizer.built
    assert all((values(model)[key] == value).all() for key, value in before.items())
    assert not model.losses


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (
            [
                graphwd.Rule(regularizers.L2(0.1), paths="first/kernel"),
                graphwd.Rule(regularizers.L2(0.2), paths="last/kernel"),
            ],
            [
                "rule 1 (paths: first/kernel) asks for 0.2",
                "rule 2 (paths: last/kernel) asks for 0.4",
            ],
        ),
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
def test_what_one_optimizer_cant_express_is_an_error_that_names_the_rules(rules, words):
    optimizer = keras.optimizers.AdamW()
    with pytest.raises(graphwd.PolicyError) as caught:
        graphwd.decouple(small_model(), rules, optimizer)
    for word in words:
        assert word in str(caught.value)
    assert optimizer.weight_decay == 0.004


def test_a_penalty_on_outputs_cant_be_decoupled():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, activity_regularizer="l1")])
    with pytest.raises(graphwd.PolicyError, match=r"rule 1 \(everything\).*/activity"):
        graphwd.decouple(model, graphwd.Rule(regularizers.L2(0.1)), keras.optimizers.AdamW())


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


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)
def test_several_optimizers_in_one_are_refused():
    several = keras.optimizers.MultiOptimizer(lambda variable: keras.optimizers.SGD())
    with pytest.raises(graphwd.GraphwdError, match="each of its optimizers"):
        graphwd.decouple(small_model(), regularizers.L2(0.1), several)


def test_a_model_with_the_penalty_in_its_loss_is_refused():
    model = graphwd.rewrite(small_model(), regularizers.L2(0.1))
    with pytest.raises(graphwd.GraphwdError, match=r"first/kernel, last/kernel.*Rule\(None\)"):
        graphwd.decouple(model, regularizers.L2(0.1), keras.optimizers.AdamW())
    graphwd.decouple(
        model, graphwd.Rule(regularizers.L2(0.1), roles="gamma"), keras.optimizers.AdamW()
    )


def test_keras_forgets_what_a_saved_optimizer_leaves_out(tmp_path):
    """What the docstring warns of; when this fails, Keras has learnt it and the warning can go."""
    model = small_model()
    fill(model)
    model.compile(graphwd.decouple(model, regularizers.L2(0.25), keras.optimizers.SGD(0.125)))
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    before = values(loaded)
    zero_step(loaded, loaded.optimizer)
    assert_decayed(loaded, before, loaded.trainable_variables, 1 - 0.125 * 0.5)


def test_an_unbuilt_model_is_refused():
    with pytest.raises(graphwd.GraphwdError, match="is not built"):
        graphwd.decouple(
            keras.Sequential([layers.Dense(2)]), regularizers.L2(0.1), keras.optimizers.AdamW()
        )
