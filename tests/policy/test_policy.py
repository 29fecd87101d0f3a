"""Policies: matching, units, round trips, files, recipes, and the words of every error."""

from __future__ import annotations

import copy
import fnmatch
import json
import os
import pickle
import stat
import subprocess
import sys
import tomllib
from dataclasses import FrozenInstanceError, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import graphwd
from graphwd.errors import PolicyError
from graphwd.policy import regularizers
from graphwd.policy.parsing import suggest
from graphwd.policy.policies import Policy, Rule, bare, recipes

L2 = regularizers.l2(1e-4)
CUSTOM = {
    "module": "my.regularizers",
    "class_name": "Spectral",
    "config": {"rank": 3, "on": True, "names": ["a", "b"], "inner": {"x": 0.5}},
    "registered_name": "my>Spectral",
}


@dataclass(frozen=True)
class FakeSlot:
    path: str
    role: str
    layers: tuple[str, ...]
    ndims: tuple[int, ...] = ()


DENSE = FakeSlot("backbone/fc/kernel", "kernel", ("Functional", "Dense"))
DENSE_BIAS = FakeSlot("backbone/fc/bias", "bias", ("Functional", "Dense"))
DEPTHWISE = FakeSlot("dw_1/depthwise", "depthwise", ("DepthwiseConv2D",))

# --- random policies -------------------------------------------------------------------------

factors = st.floats(min_value=0, max_value=1e30, allow_nan=False)
patterns = st.lists(st.text(min_size=1).filter(lambda p: p != "!"), min_size=1, max_size=4)
selectors = st.one_of(st.none(), patterns, st.text(min_size=1).filter(lambda p: p != "!"))
plain = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(-1e30, 1e30) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
serialized = st.one_of(
    st.none(),
    factors.map(regularizers.l1),
    factors.map(regularizers.l2),
    factors.map(regularizers.from_weight_decay),
    st.builds(
        lambda l1, l2: {"class_name": "L1L2", "config": {"l1": l1, "l2": l2}}, factors, factors
    ),
    st.builds(
        lambda config, module, registered: {
            "module": module,
            "class_name": "Custom",
            "config": config,
            "registered_name": registered,
        },
        st.dictionaries(st.text(), plain, max_size=3),
        st.sampled_from([None, "my.module"]),
        st.sampled_from([None, "my>Custom"]),
    ),
)
conditions = st.integers(0, 99) | st.builds(
    "{}{}".format, st.sampled_from([">=", "<=", "==", "!=", ">", "<", ""]), st.integers(0, 99)
)
multiples = st.builds(
    lambda factor, blocks: graphwd.times(factor, blocks=blocks),
    factors,
    st.none() | st.lists(st.text("ab*?/", max_size=5).map("#".__add__), min_size=1, max_size=3),
)
rules = st.builds(
    Rule,
    serialized | multiples,
    roles=selectors,
    layers=selectors,
    paths=selectors,
    ndim=st.none() | conditions | st.lists(conditions, min_size=1, max_size=3),
    expect=st.none() | st.integers(0, 2**40),
)
policies = st.builds(
    lambda rules, mechanism: Policy(rules, mechanism=mechanism),
    st.lists(rules, max_size=4),
    st.sampled_from(["penalty", "decoupled"]),
)


@given(policies)
def test_dict_round_trip(policy: Policy) -> None:
    again = Policy.from_dict(policy.to_dict())
    assert again == policy
    assert hash(again) == hash(policy)
    assert again.to_dict() == policy.to_dict(), "the dict form is canonical"
    assert [rule.regularizer for rule in again if rule.regularizer is None] == [
        rule.regularizer for rule in policy if rule.regularizer is None
    ]


@pytest.mark.parametrize("suffix", [".json", ".toml", ".JSON"])
def test_file_round_trip(suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("policies") / f"policy{suffix}"

    @given(policies)
    @example(Policy([]))
    @example(Policy([Rule(None), Rule(CUSTOM, paths="a\r\n\t\"'\\\x00é/*")]))
    def check(policy: Policy) -> None:
        policy.save(path, overwrite=True)
        again = Policy.load(path)
        assert again == policy
        assert hash(again) == hash(policy)
        assert again.to_dict() == policy.to_dict(), "factors survive to the last bit"

    check()
    parse = tomllib.loads if suffix == ".toml" else json.loads
    assert "rules" in parse(path.read_text("utf-8"))


@given(policies, policies)
def test_equality_is_by_value(one: Policy, other: Policy) -> None:
    assert (one == other) == ((tuple(one), one.mechanism) == (tuple(other), other.mechanism))
    if one == other:
        assert hash(one) == hash(other)
    assert one != one.to_dict()
    assert pickle.loads(pickle.dumps(one)) == one == copy.deepcopy(one)


def test_equality_sees_every_part() -> None:
    parts: list[dict[str, Any]] = [
        {},
        {"roles": "kernel"},
        {"layers": "kernel"},
        {"paths": "kernel"},
        {"roles": ["kernel", "bias"]},
        {"roles": ["bias", "kernel"]},
        {"ndim": 2},
        {"ndim": ">=2"},
        {"ndim": [2, ">=2"]},
        {"expect": 2},
    ]
    different = {Rule(value, **part) for part in parts for value in (None, L2, CUSTOM)}
    different |= {Rule(graphwd.times(0.5), **part) for part in parts}
    assert len(different) == 4 * len(parts)
    assert Rule(graphwd.times(0.5)) != Rule(graphwd.times(0.5, blocks="#")) != Rule(None)
    assert Policy([Rule(L2)]) != Policy([Rule(L2)], mechanism="decoupled")
    assert Rule(L2, ndim=2) == Rule(L2, ndim="== 2") == Rule(L2, ndim=["2"])
    assert Rule(L2, roles="kernel") == Rule(regularizers.l2(1e-4), roles=["kernel"])
    assert Policy([Rule(L2), Rule(None)]) != Policy([Rule(None), Rule(L2)])
    assert Rule(L2) != "everything"


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


def test_zero_has_no_sign() -> None:
    policy = Policy.from_dict({"rules": [{"l2": -0.0}]})
    assert repr(policy.to_dict()) == "{'rules': [{'l2': 0.0}]}"


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


# --- matching ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "slot", "expected"),
    [
        ({}, DENSE, True),
        ({"roles": "kernel"}, DENSE, True),
        ({"roles": "Kernel"}, DENSE, False),
        ({"roles": "kern"}, DENSE, False),
        ({"roles": "ernel"}, DENSE, False),
        ({"roles": "k*"}, DENSE, True),
        ({"roles": "[!k]ernel"}, DENSE, False),
        ({"roles": ["bias", "kernel"]}, DENSE, True),
        ({"roles": ["bias", "gamma"]}, DENSE, False),
        ({"layers": "Dense"}, DENSE, True),
        ({"layers": "Functional"}, DENSE, True),
        ({"layers": "Conv*"}, DENSE, False),
        ({"paths": "backbone/*"}, DENSE, True),
        ({"paths": "b*l"}, DENSE, True),  # * crosses the slash
        ({"paths": "fc/kernel"}, DENSE, False),
        ({"paths": "*/fc/?ernel"}, DENSE, True),
        ({"roles": "kernel", "layers": "Dense", "paths": "*"}, DENSE, True),
        ({"roles": "kernel", "layers": "Conv2D"}, DENSE, False),
        ({"roles": "bias", "layers": "Dense"}, DENSE, False),
        ({"roles": "kernel", "paths": "head/*"}, DENSE, False),
        ({"roles": "!bias"}, DENSE, True),
        ({"roles": "!bias"}, DENSE_BIAS, False),
        ({"roles": ["!bias", "!gamma"]}, DENSE, True),
        ({"roles": ["!bias", "bias"]}, DENSE_BIAS, False),
        ({"roles": ["*", "!b*"]}, DENSE_BIAS, False),
        ({"roles": ["kernel", "!b*"]}, DEPTHWISE, False),
        ({"layers": "!Functional"}, DENSE, False),
        ({"layers": "!Conv*"}, DENSE, True),
        ({"paths": ["backbone/*", "!*/bias"]}, DENSE, True),
        ({"paths": ["backbone/*", "!*/bias"]}, DENSE_BIAS, False),
        ({"layers": "*"}, FakeSlot("w", "w", ()), False),
        ({"layers": "!Dense"}, FakeSlot("w", "w", ()), True),
    ],
)
def test_matching(selection: dict[str, Any], slot: FakeSlot, expected: bool) -> None:
    assert Rule(None, **selection).matches(slot) is expected


globs = st.text("ab*?[!]/", min_size=1, max_size=6).filter(lambda p: not p.startswith("!"))


@given(st.lists(globs, min_size=1, max_size=3), st.text("ab[!]/\n", max_size=6))
def test_globs_are_those_of_fnmatch(patterns: list[str], name: str) -> None:
    expected = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    slot = FakeSlot(name, name, ("x", name))
    assert Rule(None, roles=patterns).matches(slot) == expected
    assert Rule(None, paths=patterns).matches(slot) == expected
    excluding = [f"!{pattern}" for pattern in patterns]
    assert Rule(None, roles=excluding).matches(slot) != expected


def test_describe() -> None:
    assert Rule(L2).describe() == "everything"
    rule = Rule(L2, roles=["kernel", "bias"], layers="Dense", paths="a/*")
    assert rule.describe() == "roles: kernel|bias, layers: Dense, paths: a/*"
    assert repr(Rule(L2, roles="kernel")) == "Rule(L2(0.0001), roles=['kernel'])"
    assert repr(Policy([Rule(None)])) == "Policy([Rule(none)])"


# --- what is given as a policy ---------------------------------------------------------------


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


# --- errors ------------------------------------------------------------------------------------

DEEP: dict[str, Any] = {}
for _ in range(100_000):
    DEEP = {"x": DEEP}

BAD_ENTRIES: list[tuple[Any, list[str]]] = [
    (3, ["the number 3"]),
    (None, ["null"]),
    ({"l2": DEEP}, ["`l2`", "a table"]),
    (["roles"], ["a list"]),
    ({"rolse": ["kernel"], "l2": 1}, ["'rolse'", "did you mean 'roles'"]),
    ({"role": ["kernel"], "l2": 1}, ["'role'", "did you mean 'roles'"]),
    ({"L2": 1}, ["'L2'", "did you mean 'l2'"]),
    ({7: 1, "l2": 1}, ["'7'"]),
    ({}, ["no strength", "exactly one"]),
    ({"roles": ["kernel"]}, ["no strength"]),
    ({"l1": 1, "l2": 2}, ["`l1` and `l2`", "exactly one"]),
    ({"l2": 1, "weight_decay": 2}, ["`l2` and `weight_decay`"]),
    ({"l2": 1, "regularizer": None}, ["`l2` and `regularizer`"]),
    *(
        ({key: value}, [f"`{key}`", "finite number of at least 0"])
        for key in ("l1", "l2", "weight_decay")
        for value in (
            -1,
            -1e-9,
            "x" * 99,
            float("inf"),
            float("nan"),
            True,
            "1e-4",
            None,
            [1],
            {},
            10**400,
        )
    ),
    ({"l2": 1, "roles": []}, ["`roles`", "empty list"]),
    ({"l2": 1, "layers": ""}, ["`layers`", "empty"]),
    ({"l2": 1, "paths": ["a", "!"]}, ["`paths`", "'!'"]),
    ({"l2": 1, "roles": 3}, ["`roles`", "the number 3"]),
    ({"l2": 1, "roles": None}, ["`roles`", "null"]),
    ({"l2": 1, "roles": True}, ["`roles`", "true"]),
    ({"l2": 1, "layers": {"a": 1}}, ["`layers`", "a table"]),
    ({"l2": 1, "paths": ["a", 3]}, ["`paths`", "the number 3"]),
    ({"l2": 1, "paths": [["a"]]}, ["`paths`", "a list"]),
    *(
        ({"l2": 1, "ndim": value}, ["`ndim`", '">=2"'])
        for value in ("", "=2", "2>=", ">=-1", -1, 2.0, True, None, {}, ["2", "x"], [[2]], ">= two")
    ),
    ({"l2": 1, "ndim": []}, ["`ndim`", "empty list"]),
    *(
        ({"l2": 1, "expect": value}, ["`expect`", "whole number of at least 0"])
        for value in (-1, 1.0, "1", True, None, [1])
    ),
    *(
        ({"times": value}, ["`times`", "finite number of at least 0"])
        for value in (-1, float("inf"), True, "2", None, [1])
    ),
    ({"times": 1, "l2": 1}, ["`l2` and `times`", "exactly one"]),
    ({"l2": 1, "blocks": "#"}, ["`blocks` without `times`"]),
    ({"times": 1, "blocks": "block_1"}, ["`blocks`", "'block_1'", "`#`"]),
    ({"times": 1, "blocks": ["#", "!#"]}, ["`blocks`", "'!#'"]),
    ({"times": 1, "blocks": []}, ["`blocks`", "empty list"]),
    ({"regularizer": "l2"}, ["`regularizer`", "'l2'"]),
    ({"regularizer": 1e-4}, ["`regularizer`", "0.0001"]),
    ({"regularizer": False}, ["`regularizer`", "false"]),
    ({"regularizer": {}}, ["`regularizer`", "`class_name`"]),
    ({"regularizer": {"class_name": 3, "config": {}}}, ["`regularizer`", "`class_name`"]),
    ({"regularizer": {"class_name": "", "config": {}}}, ["`regularizer`", "`class_name`"]),
    ({"regularizer": {"class_name": "L2"}}, ["`regularizer`", "`config`"]),
    ({"regularizer": {"class_name": "L2", "config": [1]}}, ["`regularizer`", "`config`"]),
    ({"regularizer": {"class_name": "L2", "config": {}}}, ["`regularizer`", "has no `l2`"]),
    ({"regularizer": {"class_name": "L2", "config": {"l2": -1}}}, ["`regularizer`", "`l2`"]),
    ({"regularizer": {"class_name": "L1", "config": {"l2": 1}}}, ["`regularizer`", "'l2'"]),
    ({"regularizer": {"class_name": "X", "config": {3: 1}}}, ["`regularizer`", "key 3"]),
    ({"regularizer": {"class_name": "X", "config": {"a": {1}}}}, ["`regularizer`", "type set"]),
    (
        {"regularizer": {"class_name": "X", "config": {"a": [float("nan")]}}},
        ["`regularizer`", "nan"],
    ),
    ({"regularizer": {"class_name": "X", "config": DEEP}}, ["`regularizer`", "nested"]),
]


@pytest.mark.parametrize(("entry", "parts"), BAD_ENTRIES, ids=range(len(BAD_ENTRIES)))
def test_errors_name_rule_and_key(entry: Any, parts: list[str]) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict({"rules": [{"l2": 1}, entry]})
    message = str(caught.value)
    for part in ["Rule 2", *parts]:
        assert part in message
    assert message.count("\n") == 0
    assert message.endswith(".")
    assert len(message) < 300


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


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"roles": []}, "`roles`"),
        ({"layers": ""}, "`layers`"),
        ({"paths": "!"}, "`paths`"),
        ({"paths": [None]}, "`paths`"),
        ({"roles": {"kernel"}}, "`roles`"),
        ({"roles": 3}, "`roles`"),
        ({"ndim": "two"}, "`ndim`"),
        ({"expect": -1}, "`expect`"),
    ],
)
def test_rule_refuses_selectors(arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Rule(L2, **arguments)
    assert part in str(caught.value)


def test_rule_refuses_regularizers() -> None:
    for value in (
        3,
        {"class_name": "L2"},
        {"class_name": "L2", "config": {"l2": -1.0}},
        {"class_name": "L2", "config": {}},
        {"class_name": "X", "config": {"a": object()}},
    ):
        with pytest.raises(PolicyError):
            Rule(value)
    with pytest.raises(PolicyError, match="function"):
        Rule(lambda weights: weights)
    for arguments in ((-1,), (float("nan"),), ("x",), (None,)):
        with pytest.raises(PolicyError, match="times must be a finite number"):
            graphwd.times(*arguments)
    with pytest.raises(PolicyError, match="put `#` where"):
        graphwd.times(0.5, blocks="block_1")


def test_a_name_that_keras_does_not_own_is_not_its_l2() -> None:
    mine = {**CUSTOM, "class_name": "L2"}
    assert Rule(mine).regularizer == mine
    assert Rule(mine) != Rule(L2)
    assert Policy([Rule(mine)]).to_dict() == {"rules": [{"regularizer": mine}]}


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("p.json", b'{"rules": [\n{"l2" 1}]}', ["not JSON", "line 2", "column 7"]),
        ("p.json", b"", ["not JSON", "line 1"]),
        ("p.toml", b"[[rules]]\nl2 = = 1\n", ["not TOML", "line 2"]),
        ("p.toml", b'[[rules]]\nl2 = 1\nroles = "\xff"\n', ["UTF-8", "line 3"]),
        ("p.json", b"\xff\xfe", ["UTF-8", "line 1"]),
        ("p.json", b'{"rules": ' + b"[" * 200_000, ["nested too deep"]),
        ("p.toml", b"rules = " + b"[" * 200_000, ["nested too deep"]),
        ("p.json", b'{"rules": [{"l2": ' + b"9" * 5000 + b"}]}", ["number"]),
        ("p.json", b'{"rules": [{"l2": 1e999}]}', ["Rule 1", "`l2`"]),
        ("p.json", b'{"rules": [{"l2": NaN}]}', ["Rule 1", "`l2`"]),
        ("p.json", b'{"rules": [{"l2": 1, "l2": 2}]}', ["'l2'", "twice"]),
        ("p.toml", b"[[rules]]\nl2 = 1\nl2 = 2\n", ["not TOML", "line 3"]),
        ("p.toml", b"[[rules]]\nl2 = 1\n[[rules]]\nl2 = 2020-01-01\n", ["Rule 2", "`l2`"]),
        ("p.toml", b"l2 = 1\n", ["'l2'"]),
        ("p.json", b"[]", ["a list"]),
        ("p.json", b'{"rules": [{"l2": 1}, {"rols": "kernel"}]}', ["Rule 2", "'roles'"]),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, parts: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    message = str(caught.value)
    for part in [str(path), *parts]:
        assert part in message
    assert message.count("\n") == 0
    assert message.endswith(".")


def test_files_that_can_not_be_read_or_written(tmp_path: Path) -> None:
    policy = Policy([Rule(L2)])
    for path, part in [
        (tmp_path / "none.json", "No such file"),
        (tmp_path / "policy.yaml", ".json or .toml"),
        (tmp_path / "policy", ".json or .toml"),
    ]:
        with pytest.raises(PolicyError) as caught:
            Policy.load(path)
        assert str(path) in str(caught.value)
        assert part in str(caught.value)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(PolicyError, match="can't be read"):
        Policy.load(tmp_path / "folder.json")
    with pytest.raises(PolicyError, match="can't be written"):
        policy.save(tmp_path / "folder.json")
    with pytest.raises(PolicyError, match="can't be written"):
        policy.save(tmp_path / "nowhere" / "policy.json")
    with pytest.raises(PolicyError, match=r"\.json or \.toml"):
        policy.save(tmp_path / "policy.txt")
    with pytest.raises(PolicyError, match="UTF-8"):
        Policy([Rule(L2, paths="\ud800")]).save(tmp_path / "policy.toml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.json"]


def test_none_is_the_same_in_both_kinds_of_file(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"rules": [{"regularizer": "none"}]}')
    (tmp_path / "q.json").write_text('\ufeff{"rules": [{"regularizer": null}]}', "utf-8")
    (tmp_path / "p.toml").write_text('rules = [{regularizer = "none"}]\n')
    loaded = {Policy.load(path) for path in tmp_path.iterdir()}
    assert loaded == {Policy([Rule(None)])}


def test_toml_has_no_null_inside_a_config(tmp_path: Path) -> None:
    policy = Policy([Rule(L2), Rule({"class_name": "X", "config": {"a": [{"b": None}]}})])
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy
    with pytest.raises(PolicyError, match=r"Rule 2.*null.*\.json"):
        policy.save(tmp_path / "policy.toml")
    assert not (tmp_path / "policy.toml").exists()


def test_save_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.json"
    link = tmp_path / "link.json"
    first, second = Policy([Rule(L2)]), Policy([Rule(None)])
    first.save(path)
    path.chmod(0o640)
    link.symlink_to(path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(PolicyError, match="No space left"):
            second.save(path, overwrite=True)
        with pytest.raises(PolicyError, match=r"exists; .*overwrite=True\.$"):
            second.save(path)
    assert Policy.load(path) == first
    assert sorted(os.listdir(tmp_path)) == ["link.json", "policy.json"]

    second.save(link, overwrite=True)
    assert link.is_symlink()
    assert Policy.load(path) == second
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.json", "policy.json"]


# --- recipes -----------------------------------------------------------------------------------

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


def test_suggest() -> None:
    assert suggest("kernal", ["bias", "kernel"]) == "kernel"
    assert suggest("lstm", ["LSTM", "Conv2D"]) == "LSTM"
    assert suggest("xyz", ["bias", "kernel"]) is None
    assert suggest("kernel", []) is None


# --- weight ------------------------------------------------------------------------------------


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
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


def test_a_string_is_a_regularizer_and_a_recipe_is_named() -> None:
    assert len(Policy.coerce("l2")) == 1
    assert Policy.coerce("resnet") == Policy.recipe("resnet")
    with pytest.raises(PolicyError, match=r"did you mean 'resnet'.*the name of a recipe"):
        Policy.coerce("resnett")
    assert [recipe.name for recipe in graphwd.recipes()] == [recipe.name for recipe in recipes()]


def test_a_number_is_told_its_two_units() -> None:
    with pytest.raises(PolicyError, match=r"graphwd\.weight_decay\(0\.1\) or keras\.regularizers"):
        Rule(0.1)
