"""Selectors: which slots the patterns of a rule select."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphwd.policy.policies import Rule
from tests.support.policies import L2, FakeSlot

DENSE = FakeSlot("backbone/fc/kernel", "kernel", ("Functional", "Dense"))
DENSE_BIAS = FakeSlot("backbone/fc/bias", "bias", ("Functional", "Dense"))
DEPTHWISE = FakeSlot("dw_1/depthwise", "depthwise", ("DepthwiseConv2D",))


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


# Dimensions: of weights of which each slot has one or several.


def weights(role: str, *ndims: int) -> FakeSlot:
    return FakeSlot(f"a/{role}", role, ("Layer",), ndims)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=3),
    st.sampled_from([">=", "<=", "==", "!=", ">", "<"]),
    st.integers(0, 6),
)
def test_dimensions_are_compared_as_numbers(ndims: list[int], comparison: str, number: int) -> None:
    one = weights("kernel", *ndims)
    expected = {eval(f"{ndim}{comparison}{number}") for ndim in ndims}
    selects = Rule(L2, ndim=f" {comparison} {number} ").selects(one)
    assert selects is (expected.pop() if len(expected) == 1 else None)


def test_dimensions_of_a_list_are_any_of_them() -> None:
    slots = [weights("kernel", ndim) for ndim in range(6)]
    assert [Rule(L2, ndim=[4, "<=1"]).matches(one) for one in slots] == [1, 1, 0, 0, 1, 0]


def test_a_weight_of_no_dimension_is_no_weight_of_unknown_shape() -> None:
    assert Rule(L2, ndim="<=1").selects(weights("scale", 0)) is True
    assert Rule(L2, ndim="<=1").selects(weights("scale")) is None


def test_the_argument_of_activities_has_no_dimensions() -> None:
    activity = weights("activity")
    assert [Rule(L2, ndim=n).selects(activity) for n in (0, ">=0", "<=1")] == [False] * 3
