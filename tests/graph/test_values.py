"""Values of configs: equal where their JSON is, whatever they are and however deep."""

import copy
import functools
import json
import math

import numpy as np
import pytest
from hypothesis import given

from graphwd.graph import equivalence, values
from tests.support.graphs import json_values
from tests.support.serialized import deep


class Plain:
    def __init__(self, value):
        self.value = value
        self.me = self


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Refusing:
    def __eq__(self, other):
        raise RuntimeError("don't ask")

    __hash__ = None


class Configured:
    def __init__(self, value):
        self.value = value
        self.unique = object()

    def get_config(self):
        return {"value": self.value}


def some_function(value):
    return value


def endless():
    inner = []
    inner.append(inner)
    return Plain(inner)


EQUAL = [
    (endless(), endless()),
    ((1, [2, (3,)]), [1, (2, [3])]),
    (math.nan, float("nan")),
    ([math.nan], [float("nan")]),
    (np.float32(0.5), 0.5),
    (np.int64(3), 3),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.array([1.0, math.nan]), np.array([1.0, math.nan])),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    (Plain([1, 2]), Plain([1, 2])),
    (Slotted(1), Slotted(1)),
    (Refusing(), Refusing()),
    (Configured(1), Configured(1)),
    (some_function, some_function),
    (functools.partial(some_function, 1), functools.partial(some_function, 1)),
    ({1, 2}, {2, 1}),
]
DIFFERENT = [
    (1, True),
    (1, 1.0),
    (0, False),
    (0, None),
    ("1", 1),
    (math.nan, 0.0),
    ([math.nan], [0.0]),
    ([1], [1, 2]),
    ([], {}),
    ({"a": None}, {}),
    ({}, {"a": None}),
    (np.float32(0.1), 0.1),
    (np.array([1]), np.array([1.0])),
    (np.array([1]), np.array([[1]])),
    (np.array([1]), [1]),
    (np.array([1], "int32"), np.array([1], "int64")),
    (Plain([1, 2]), Plain([1, 3])),
    (Slotted(1), Slotted(2)),
    (Plain(1), Slotted(1)),
    (Configured(1), Configured(2)),
    (some_function, lambda value: value),
    (functools.partial(some_function, 1), functools.partial(some_function, 2)),
    (int, float),
    ({1, 2}, {1, 3}),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_values(one, other):
    for pair in ((one, other), (other, one)):
        assert values.differences(*pair) == []
        assert equivalence.compare({"value": pair[0]}, {"value": pair[1]}).ok


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_values(one, other):
    for pair in ((one, other), (other, one)):
        assert len(values.differences(*pair)) == 1
        (problem,) = equivalence.compare({"value": pair[0]}, {"value": pair[1]}).problems
        assert problem.startswith("the model: value")
        assert "\n" not in problem
        assert len(problem) < 400


@given(json_values, json_values)
def test_values_compare_as_their_json_does(one, other):
    def canonical(value):
        # -0.0 and 0.0 are one number, as in Python.
        return json.dumps(value, sort_keys=True).replace("-0.0", "0.0")

    assert bool(values.differences(one, other)) == (canonical(one) != canonical(other))
    assert values.differences(one, copy.deepcopy(one)) == []
    assert "\n" not in values.show(one)
    assert len(values.show([one] * 99)) < 4000


def test_a_config_nested_100000_deep_is_walked():
    one, other, third = (deep(each, 100_000) for each in (1, 1, 2))
    assert equivalence.compare({"value": one}, {"value": other}).ok
    (problem,) = equivalence.compare({"value": one}, {"value": third}).problems
    assert problem.endswith("is [1] in the original and [2] in the rewritten model")
    assert len(problem) < 400
    (problem,) = equivalence.compare({"value": one}, {"value": 3}).problems
    assert len(problem) < 400
