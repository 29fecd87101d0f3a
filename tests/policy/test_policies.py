"""Policies: what is given as one, equality, round trips, and the papers' recipes."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

import graphwd
from graphwd.errors import PolicyError
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy, Rule, bare, recipes
from tests.support.policies import CUSTOM, L2, FakeSlot, policies
from tests.support.processes import run


@given(policies)
def test_dict_round_trip(policy: Policy) -> None:
    again = Policy.from_dict(policy.to_dict())
    assert again == policy
    assert hash(again) == hash(policy)
    assert again.to_dict() == policy.to_dict(), "the dict form is canonical"
    assert [rule.regularizer for rule in again if rule.regularizer is None] == [
        rule.regularizer for rule in policy if rule.regularizer is None
    ]


@given(policies, policies)
def test_equality_is_by_value(one: Policy, other: Policy) -> None:
    assert (one == other) == ((tuple(one), one.mechanism) == (tuple(other), other.mechanism))
    if one == other:
        assert hash(one) == hash(other)
    assert one != one.to_dict()
    assert pickle.loads(pickle.dumps(one)) == one == copy.deepcopy(one)


def test_one_penalty_in_several_spellings() -> None:
    spellings = [
        {"l2": 2.5e-4},
        {"weight_decay": 5e-4},
        {"regularizer": regularizers.l2(2.5e-4)},
        {"regularizer": {"class_name": "L2", "config": {"l2": 2.5e-4}}},
        {"regularizer": {"class_name": "L1L2", "config": {"l1": 0, "l2": 2.5e-4}}},
        {"regularizer": {"class_name": "L1L2", "config": {"l2": 2.5e-4}}},
    ]
    policies = [Policy.from_dict({"rules": [entry]}) for entry in spellings]
    assert len(set(policies)) == 1
    assert all(policy.to_dict() == {"rules": [{"l2": 2.5e-4}]} for policy in policies)
    assert all(policy.rules[0].regularizer["module"] == "keras.regularizers" for policy in policies)


def test_dict_form_is_short() -> None:
    policy = Policy(
        [
            Rule(regularizers.l1(0.5), roles="kernel", layers=["Dense"], paths=["a/*", "!a/b/*"]),
            Rule({"class_name": "L1L2", "config": {"l1": 1, "l2": 2}}),
            Rule(None, roles=["bias"]),
            Rule(CUSTOM),
            Rule({**CUSTOM, "module": None}),
            Rule(L2, ndim=" >= 2", expect=54),
            Rule(L2, ndim=[4, "<2"]),
            Rule(graphwd.times(0.1), roles="kernel"),
            Rule(graphwd.times(0.75, blocks="*_block_#/*")),
        ]
    )
    assert policy.to_dict() == {
        "rules": [
            {"roles": ["kernel"], "layers": ["Dense"], "paths": ["a/*", "!a/b/*"], "l1": 0.5},
            {"regularizer": {"class_name": "L1L2", "config": {"l1": 1.0, "l2": 2.0}}},
            {"roles": ["bias"], "regularizer": None},
            {"regularizer": CUSTOM},
            {"regularizer": {key: CUSTOM[key] for key in CUSTOM if key != "module"}},
            {"ndim": ">=2", "expect": 54, "l2": 1e-4},
            {"ndim": [4, "<2"], "l2": 1e-4},
            {"roles": ["kernel"], "times": 0.1},
            {"times": 0.75, "blocks": ["*_block_#/*"]},
        ]
    }
    again = Policy.from_dict(policy.to_dict())
    assert again.rules[3].regularizer == CUSTOM
    assert again.rules[4].regularizer == {**CUSTOM, "module": None}


def test_a_policy_is_immutable() -> None:
    given_dict = copy.deepcopy(CUSTOM)
    rule = Rule(given_dict, roles=["kernel"])
    policy = Policy([rule])
    before = hash(policy)
    given_dict["config"]["rank"] = 4
    rule.regularizer["config"]["inner"]["x"] = 9
    policy.to_dict()["rules"][0]["regularizer"]["config"]["names"].append("c")
    assert hash(policy) == before
    assert rule.regularizer == CUSTOM
    with pytest.raises(FrozenInstanceError):
        rule.roles = None  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        policy.rules = ()  # type: ignore[misc]


def test_coerce(tmp_path: Path) -> None:
    rule = Rule(L2, roles="kernel")
    policy = Policy([rule])
    assert Policy.coerce(policy) is policy
    policy.save(tmp_path / "policy.toml")
    policy.save(tmp_path / "policy.json")
    (entry,) = policy.to_dict()["rules"]
    forms = (rule, [rule], (rule,), iter([rule]), policy.to_dict(), entry, [entry], (entry,))
    for value in (*forms, tmp_path / "policy.toml", str(tmp_path / "policy.json")):
        assert Policy.coerce(value) == policy
    assert Policy.coerce([rule, entry]) == Policy([rule, rule])
    expected = Policy([Rule(L2, roles="!*bias*", ndim=">=2")])
    assert Policy.coerce(L2) == Policy([bare(L2)]) == expected
    assert Policy.from_dict(expected.to_dict()) == expected
    assert Policy.coerce({"times": 0.5}) == Policy([Rule(graphwd.times(0.5))])


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_coerce_takes_the_name_of_a_recipe(recipe: Any) -> None:
    assert Policy.coerce(recipe.name) == recipe.policy


def test_coerce_keras_objects() -> None:
    keras = pytest.importorskip("keras")
    assert Policy.coerce(keras.regularizers.L2(1e-4)) == Policy.coerce(L2)
    assert Policy.coerce("l1") == Policy.coerce(regularizers.l1(0.01))
    both = Rule(keras.regularizers.L1L2(0.1, 0.2))
    assert Policy.from_dict(Policy([both]).to_dict()) == Policy([both])
    keras_object = keras.regularizers.OrthogonalRegularizer(0.3, mode="columns")
    orthogonal = Policy([Rule(keras_object)])
    again = Policy.from_dict(orthogonal.to_dict())
    assert again == orthogonal
    read = keras.regularizers.get(again.rules[0].regularizer)
    assert read.get_config() == keras_object.get_config()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "graphwd.Rule(None)"),
        ("policy.toml", "'policy.toml' can't be read"),
        (Path("policy"), "'policy' must have a name that ends in .json or .toml"),
        ({"rolse": []}, "'rolse'"),
        ({"rolse": "kernel", "l2": 1}, "Rule 1 has an unknown key 'rolse'"),
        ([{"l2": 1}, {"roles": "kernel"}], "Rule 2 has no strength"),
        ([L2], "Rule 1 of the policy"),
        ([Rule(L2), "kernel"], "Rule 2 of the policy"),
        (3, "graphwd.weight_decay(3)"),
        (object(), "the name of a recipe, the path of a .toml or .json file, a dictionary"),
        ("no-such-regularizer", "'no-such-regularizer' is no policy: a policy is a graphwd.Policy"),
        ("no-bais", "'no-bais' is no policy (did you mean 'no-bias'?)"),
    ],
)
def test_coerce_refuses(value: Any, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.coerce(value)
    assert message in str(caught.value)


def test_policy_takes_rules_only() -> None:
    for value in ("kernel", 3, Rule(None)):
        with pytest.raises(PolicyError, match="takes a list of rules"):
            Policy(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ([], "a list"),
        (None, "null"),
        ("rules", "'rules'"),
        ("rules" * 20, "a long string"),
        ({}, "no `rules`"),
        ({"rules": None}, "null"),
        ({"rules": {"l2": 1}}, "a table"),
        ({"rules": "kernel"}, "'kernel'"),
        ({"rule": [{"l2": 1}]}, "did you mean 'rules'"),
        ({"rules": [], "version": 1}, "'version'"),
        ({"rules": [], "mechanism": "decoupling"}, '"penalty" or "decoupled"'),
        ({"rules": [], "mechanism": []}, '"penalty" or "decoupled"'),
    ],
)
def test_errors_of_the_whole(data: Any, part: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(data)
    assert part in str(caught.value)


# name: (unit, coefficient, decayed roles of a layer that is none of Keras's)
MATRICES = {"kernel", "depthwise", "pointwise", "recurrent"}
EVERYTHING = {*MATRICES, "bias", "embeddings", "gamma", "beta", "alpha"}
KNOWN = {
    "uniform": ("l2", 2e-5, {*MATRICES, "bias"}),
    "no-bias": ("weight_decay", 1e-4, MATRICES),
    "resnet": ("weight_decay", 1e-4, set()),
    "vgg": ("weight_decay", 5e-4, {"kernel"}),
    "wide-resnet": ("weight_decay", 5e-4, {"kernel", "bias", "gamma", "beta"}),
    "densenet": ("weight_decay", 1e-4, {"kernel", "bias", "gamma", "beta"}),
    "inception": ("weight_decay", 4e-5, {"kernel"}),
    "inception-resnet": ("weight_decay", 4e-5, {"kernel", "bias"}),
    "xception": ("weight_decay", 1e-5, {"kernel", "pointwise"}),
    "nasnet": ("weight_decay", 5e-5, {"kernel", "depthwise", "pointwise"}),
    "nasnet-mobile": ("weight_decay", 4e-5, {"kernel", "depthwise", "pointwise"}),
    "mobilenet": ("weight_decay", 4e-5, {"kernel", "pointwise"}),
    "mobilenetv2": ("weight_decay", 4e-5, {"kernel", "pointwise"}),
    "mobilenetv3": ("weight_decay", 1e-5, {"kernel", "pointwise"}),
    "efficientnet": ("weight_decay", 1e-5, {"kernel", "depthwise", "bias"}),
    "efficientnetv2": ("weight_decay", 1e-5, {*MATRICES, "embeddings", "alpha"}),
    "convnext": ("weight_decay", 0.05, {*MATRICES, "embeddings"}),
    "vit": ("weight_decay", 0.05, {*MATRICES, "embeddings"}),
    "deit": ("weight_decay", 0.05, {*MATRICES, "embeddings"}),
    "swin": ("weight_decay", 0.05, {*MATRICES, "embeddings"}),
    "segformer": ("weight_decay", 0.01, EVERYTHING),
    "detr": ("weight_decay", 1e-4, EVERYTHING),
    "bert": ("weight_decay", 0.01, {*MATRICES, "embeddings"}),
    "decoder": ("weight_decay", 0.1, {*MATRICES, "embeddings"}),
}
ALL_ROLES = ["kernel", "depthwise", "pointwise", "recurrent", "bias"]
ALL_ROLES += ["embeddings", "gamma", "beta", "alpha", "activity"]


def decide(policy: Policy, role: str) -> Any:
    """What the last rule that matches says; "as it is" when none does."""
    ndim = 1 if role in ("bias", "gamma", "beta", "alpha") else 2
    slot = FakeSlot(f"layer/{role}", role, ("Layer",), () if role == "activity" else (ndim,))
    matching = [rule for rule in policy if rule.matches(slot)]
    return matching[-1].regularizer if matching else "as it is"


def test_recipes_are_all_here() -> None:
    assert [recipe.name for recipe in recipes()] == list(KNOWN)


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_recipe(recipe: Any) -> None:
    unit, coefficient, decayed = KNOWN[recipe.name]
    assert (recipe.unit, recipe.coefficient) == (unit, coefficient)
    factor = coefficient / 2 if unit == "weight_decay" else coefficient
    policy = Policy.recipe(recipe.name)
    assert policy == recipe.policy
    got = {role for role in ALL_ROLES if decide(policy, role) not in (None, "as it is")}
    assert got == decayed
    assert all(decide(policy, role) == regularizers.l2(factor) for role in decayed)
    assert recipe.title
    assert recipe.weights.endswith(".")
    assert recipe.notes.endswith(".")
    assert recipe.mechanism in ("penalty", "decoupled")
    assert "arXiv:" in recipe.source or recipe.name == "uniform"
    assert not any("\n" in text for text in (recipe.quote, recipe.notes, recipe.title))
    data = recipe.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert Policy.from_dict({key: data[key] for key in ("rules", "mechanism")}) == policy
    assert policy.mechanism == recipe.mechanism


@pytest.mark.parametrize("name", list(KNOWN))
def test_recipe_strength(name: str) -> None:
    policy = Policy.recipe(name)
    by_decay = Policy.recipe(name, weight_decay=6e-4)
    assert by_decay == Policy.recipe(name, l2=3e-4)
    for role in ALL_ROLES:
        before, after = decide(policy, role), decide(by_decay, role)
        assert after == (before if before in (None, "as it is") else regularizers.l2(3e-4))
    assert Policy.recipe(name) == policy, "the cached recipe is as it was"
    assert Policy.recipe(name, l2=0) == Policy.recipe(name, weight_decay=Fraction(0))


def test_strength_keeps_every_selector() -> None:
    rule = Rule(L2, roles="a", layers="b", paths="c")
    recipe = replace(recipes()[0], policy=Policy([rule]))
    changed = Rule(regularizers.l2(0.5), roles="a", layers="b", paths="c")
    assert recipe.with_strength(l2=0.5) == Policy([changed])


def test_strength_keeps_ratios() -> None:
    rules = [
        Rule(None, roles="bias"),
        Rule(regularizers.from_weight_decay(1e-4), roles="kernel", ndim=2, expect=3),
        Rule(regularizers.from_weight_decay(1e-2), paths="head/*"),
        Rule(graphwd.times(0.1), paths="stem/*"),
        Rule(regularizers.l1(1e-5), layers="Embedding"),
    ]
    recipe = replace(recipes()[0], policy=Policy(rules, mechanism="decoupled"))
    changed = Policy(
        [
            rules[0],
            Rule(regularizers.from_weight_decay(1e-3), roles="kernel", ndim=2, expect=3),
            Rule(regularizers.from_weight_decay(1e-1), paths="head/*"),
            rules[3],
            Rule(regularizers.l1(1e-4), layers="Embedding"),
        ]
    )
    assert recipe.with_strength(weight_decay=1e-3) == changed
    assert recipe.with_strength(l2=5e-4) == changed
    assert recipe.with_strength().mechanism == "decoupled"
    assert recipe.with_strength(l2=0).rules[2] == Rule(regularizers.l2(0), paths="head/*")


def test_depthwise_is_cleared_where_it_is_not_regularized() -> None:
    cleared = {name for name in KNOWN if decide(Policy.recipe(name), "depthwise") is None}
    assert cleared == {"xception", "mobilenet", "mobilenetv2", "mobilenetv3"}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"name": "mobilnet"}, ["'mobilnet'", "did you mean 'mobilenet'", "no-bias"]),
        ({"name": "zzzzzz"}, ["'zzzzzz'", "no-bias", "mobilenet"]),
        ({"name": "Vgg"}, ["did you mean 'vgg'"]),
        ({"name": None}, ["None"]),
        ({"name": "vgg", "weight_decay": 1, "l2": 1}, ["not both"]),
        ({"name": "vgg", "weight_decay": -1}, ["weight_decay", "at least 0"]),
        ({"name": "vgg", "l2": float("nan")}, ["l2", "finite"]),
        ({"name": "vgg", "l2": True}, ["l2"]),
        ({"name": "vgg", "l2": "1e-4"}, ["l2"]),
    ],
)
def test_recipe_errors(arguments: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.recipe(**arguments)
    for part in parts:
        assert part in str(caught.value)


def test_imports_no_framework() -> None:
    code = """
import sys
from graphwd.policy.policies import Policy, Rule, recipes
policy = Policy.recipe("mobilenet", weight_decay=1e-4)
policy = Policy.coerce({"class_name": "L2", "config": {"l2": 1e-4}})
assert Policy.from_dict(policy.to_dict()) == policy and recipes()
loaded = {"keras", "tensorflow", "numpy", "h5py", "networkx"} & set(sys.modules)
assert not loaded, loaded
"""
    run(code)


def test_a_string_is_a_regularizer_and_a_recipe_is_named() -> None:
    assert len(Policy.coerce("l2")) == 1
    assert Policy.coerce("resnet") == Policy.recipe("resnet")
    with pytest.raises(PolicyError, match=r"did you mean 'resnet'.*the name of a recipe"):
        Policy.coerce("resnett")
    assert [recipe.name for recipe in graphwd.recipes()] == [recipe.name for recipe in recipes()]
