"""Plans: text, tables and plain data, measured when they are looked at, and warnings."""

import dataclasses
import json
import pickle
import warnings

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from graphwd.plans import page
from graphwd.plans.plan import Plan, make_plan
from graphwd.policy.policies import Policy, Rule
from tests.support.slots import L2, sized, state
from tests.support.stored import disturb, made, numbered


def test_a_look_at_a_plan_measures_once():
    calls = []
    plan = make_plan([sized("a/kernel")], Policy([Rule(L2)]), measure=lambda d: calls.append(d))
    assert not calls
    plan = dataclasses.replace(plan, measure=lambda d: calls.append(d) or [(0.0, 1.0)])
    for number, look in enumerate((str, Plan.to_dict, Plan._repr_html_, page.render), start=1):
        look(plan)
        assert len(calls) == number


def test_a_plan_is_text_html_and_json():
    slots = [sized("a_1/kernel"), sized("a_2/kernel"), sized("b/kernel", held=L2)]
    plan = make_plan(slots, Policy([Rule(L2, paths="a*")]), source="model 'm'", notes=["Look."])
    text = str(plan)
    assert text.startswith("2 of the 3 slots of model 'm' get another regularizer\n")
    assert "a_*/kernel" in text
    assert text.endswith("Note: Look.")
    page = plan._repr_html_()
    assert page.count("<table>") == page.count("</table>") == 3
    assert "a_*/kernel" in page
    data = json.loads(json.dumps(plan.to_dict()))
    assert [edit["path"] for edit in data["edits"]] == ["a_1/kernel", "a_2/kernel"]
    assert [one["rule"] for one in data["slots"]] == [1, 1, None]
    assert data["slots"][0]["after"] == L2
    assert data["notes"] == ["Look."]


def test_what_is_penalised_now():
    plan = state(sized("a/kernel", held=L2), sized("a/bias"), sized("a/activity", shape=None))
    assert str(plan).startswith("1 of the 3 slots of it hold a regularizer\n")
    assert "a/activity" not in str(plan)
    assert "planned" not in str(plan)


@pytest.mark.parametrize("live", [True, False])
def test_dormant_means_a_penalty_on_frozen_weights_wherever_it_is_said(live, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(2, kernel_regularizer="l2", name="loses", trainable=False),
            layers.Dense(2, name="gets", trainable=False),
            layers.Dense(2, name="awake"),
        ]
    )
    model.save(tmp_path / "model.keras")
    rules = [Rule(L2, paths=["gets/kernel", "awake/kernel"]), Rule(None, paths="loses/kernel")]
    plan = graphwd.plan(model if live else tmp_path / "model.keras", rules)
    expected = {"loses/kernel": False, "gets/kernel": True, "awake/kernel": False}
    data = plan.to_dict()
    assert {edit.path: edit.dormant for edit in plan} == expected
    assert {edit["path"]: edit["dormant"] for edit in data["edits"]} == expected
    slots = {slot["path"]: slot for slot in data["slots"]}
    assert {path: slots[path]["dormant"] for path in expected} == expected
    assert [slots[path]["frozen"] for path in expected] == [True, True, False]
    assert data["summary"]["whole"]["dormant"] == 1
    inspected = graphwd.inspect(model if live else tmp_path / "model.keras")
    assert [edit.path for edit in inspected.slots if edit.dormant] == ["loses/kernel"]
    assert not inspected.edits


def test_a_decoupled_strength_as_a_penalty_is_a_warning(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(inputs))
    policy = Policy([Rule(graphwd.weight_decay(0.05), roles="kernel")], mechanism="decoupled")
    with pytest.warns(graphwd.DecoupledStrengthWarning, match=r"far too strong with SGD"):
        rewritten = graphwd.rewrite(model, policy)
    model.save(tmp_path / "model.keras")
    with pytest.warns(graphwd.DecoupledStrengthWarning, match=r"graphwd\.decouple"):
        graphwd.rewrite_file(tmp_path / "model.keras", tmp_path / "new.keras", policy)
    assert any("decoupled" in note for note in graphwd.plan(model, policy).notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphwd.rewrite(model, Policy(policy.rules))
        graphwd.rewrite(rewritten, policy)  # nothing is added
        graphwd.rewrite(model, Policy([Rule(None)], mechanism="decoupled"))
        graphwd.plan(model, policy)
        graphwd.decouple(model, policy, keras.optimizers.AdamW(1e-3))
        graphwd.rewrite(model, Policy.recipe("convnext", weight_decay=1e-4))


pytestmark = pytest.mark.filterwarnings("ignore::graphwd.UnmatchedRuleWarning")


def test_a_plan_says_what_the_weights_are_when_it_is_asked(tmp_path):
    model = disturb(made(layers.Dense(3), (4,)))
    plan = graphwd.plan(model, graphwd.Rule(regularizers.L2(0.5), roles="kernel"))
    before = plan.to_dict()["summary"]["whole"]["planned_penalty"]
    kernel = model.layers[1].kernel
    kernel.assign(2 * kernel)
    after = plan.to_dict()["summary"]["whole"]["planned_penalty"]
    assert after == pytest.approx(4 * before)
    assert after == pytest.approx(0.5 * float(np.sum(np.square(kernel))))


def test_a_plan_in_another_process_has_its_values(tmp_path):
    model = disturb(made(layers.Dense(3), (4,)))
    plan = graphwd.plan(model, graphwd.Rule(regularizers.L2(0.5), roles="kernel"))
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan
    assert str(copy) == str(plan)


def test_a_rule_that_matches_nothing_is_told_where_the_policy_was_given(tmp_path):
    path = numbered(tmp_path / "a.keras")
    for act in (
        lambda: graphwd.plan(path, graphwd.Rule(None, roles="kernal")),
        lambda: graphwd.rewrite_file(path, tmp_path / "b.keras", graphwd.Rule(None, roles="no")),
        lambda: graphwd.plan(made(layers.Dense(3), (4,)), graphwd.Rule(None, roles="kernal")),
    ):
        with pytest.warns(graphwd.UnmatchedRuleWarning) as told_of:
            act()
        assert [one.filename for one in told_of] == [__file__]
