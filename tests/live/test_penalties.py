"""The penalties on a live model: which each weight gets, and what they come to."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from graphwd.live import penalties
from tests.support.sample_models import sample_models
from tests.support.stored import disturb, unknown

pytestmark = pytest.mark.filterwarnings("ignore::graphwd.UnmatchedRuleWarning")
SAMPLES = sample_models()


def test_a_penalty_that_can_not_be_computed_is_a_note():
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Conv2D(2, 3, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    orthogonal = keras.regularizers.OrthogonalRegularizer(0.1)  # takes matrices alone
    plan = graphwd.plan(model, graphwd.Rule(orthogonal, roles="kernel"))
    slots = plan.measured().slots
    assert unknown(slots) == ["conv/kernel"]
    (planned,) = [edit.planned_penalty for edit in slots if edit.planned_penalty is not None]
    assert planned == pytest.approx(float(orthogonal(model.get_layer("head").kernel)))
    assert "penalty on conv/kernel is not known" in str(plan)


def test_a_weight_of_two_layers_is_counted_once():
    class Holder(layers.Layer):
        def call(self, x):
            return self.inner(x)

    shared = layers.Dense(4, use_bias=False, name="shared")
    inputs = keras.Input((4,))
    holders = Holder(name="first"), Holder(name="second")
    for holder in holders:
        holder.inner = shared
    x = holders[1](holders[0](inputs))
    model = disturb(keras.Model(inputs, x))
    plan = graphwd.plan(model, graphwd.Rule(regularizers.L2(0.5), roles="kernel"))
    assert len(plan) == 2
    planned = plan.to_dict()["summary"]["whole"]["planned_penalty"]
    assert planned == pytest.approx(0.5 * float(np.sum(np.square(shared.kernel))))


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "sequential_unbuilt"])
def test_values_are_what_keras_adds_to_the_loss(name):
    policy = graphwd.Policy([graphwd.Rule(regularizers.L1L2(0.25, 0.5), roles="!bias")])
    model = disturb(graphwd.rewrite(SAMPLES[name](), policy))
    whole = graphwd.inspect(model).to_dict()["summary"]["whole"]
    added = [variable.regularizer for variable in model.trainable_variables]
    terms = [
        float(regularizer(variable))
        for regularizer, variable in zip(added, model.trainable_variables, strict=True)
        if regularizer is not None
    ]
    assert len(terms) > 1
    assert whole["penalty"] == whole["planned_penalty"] == pytest.approx(sum(terms), rel=1e-4)


def test_each_weight_is_decided_on_by_the_last_rule_that_matches():
    inputs = keras.Input((4, 3))
    x = layers.MultiHeadAttention(2, 2, name="attend")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    rules = [graphwd.Rule("l1"), graphwd.Rule("l2", paths="attend/*"), graphwd.Rule(None, ndim=1)]
    with pytest.warns(graphwd.UndecidedSlotWarning, match="attend/bias"):
        plan, pairs = penalties.planned_by_weight(model, rules)
    assert {id(w.variable) for w, _ in pairs} == {id(v) for v in model.trainable_variables}
    assert all(edit in plan.slots for _, edit in pairs)
    told = {(w.variable.path, edit.path, edit.rule) for w, edit in pairs if "head" in edit.path}
    assert {(path.split("/")[-1], rule) for path, _, rule in told} == {("kernel", 0), ("bias", 2)}
    kernels = [edit.rule for w, edit in pairs if edit.path == "attend/kernel"]
    assert kernels == [1] * 4, "one slot, four weights"
