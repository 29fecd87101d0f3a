"""Rules: what selects, what is equal, what is refused, and how each is described."""

from __future__ import annotations

from typing import Any

import pytest

import graphwd
from graphwd.errors import PolicyError
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy, Rule
from tests.support.policies import CUSTOM, L2


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


def test_describe() -> None:
    assert Rule(L2).describe() == "everything"
    rule = Rule(L2, roles=["kernel", "bias"], layers="Dense", paths="a/*")
    assert rule.describe() == "roles: kernel|bias, layers: Dense, paths: a/*"
    assert repr(Rule(L2, roles="kernel")) == "Rule(L2(0.0001), roles=['kernel'])"
    assert repr(Policy([Rule(None)])) == "Policy([Rule(none)])"


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


def test_a_number_is_told_its_two_units() -> None:
    with pytest.raises(PolicyError, match=r"graphwd\.weight_decay\(0\.1\) or keras\.regularizers"):
        Rule(0.1)
