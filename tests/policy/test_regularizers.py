"""Serialized regularizers: units, spellings, equality, and multiples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphwd.errors import PolicyError
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy, Rule
from tests.support.policies import CUSTOM, L2


def test_zero_has_no_sign() -> None:
    policy = Policy.from_dict({"rules": [{"l2": -0.0}]})
    assert repr(policy.to_dict()) == "{'rules': [{'l2': 0.0}]}"


def test_a_name_that_keras_does_not_own_is_not_its_l2() -> None:
    mine = {**CUSTOM, "class_name": "L2"}
    assert Rule(mine).regularizer == mine
    assert Rule(mine) != Rule(L2)
    assert Policy([Rule(mine)]).to_dict() == {"rules": [{"regularizer": mine}]}


FACTORS = st.floats(1e-30, 1e30)


@given(FACTORS)
def test_a_weight_decay_is_the_gradient_of_its_l2(decay: float) -> None:
    """The penalty `a * w ** 2` has the gradient `2 * a * w`."""
    factor = regularizers.from_weight_decay(decay)["config"]["l2"]
    assert 2 * factor * 3.0 == decay * 3.0


SPELLINGS = [
    {"class_name": "L2", "config": {"l2": 0.1}},
    {"class_name": "L2", "config": {"l2": 0.10000000149011612}},  # through a float32
    {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.1}, "module": "keras"},
    {"class_name": "L2", "config": {"l2": 0.1}, "module": "tf_keras.regularizers"},
    {"class_name": "L2", "config": {"l2": 0.1}, "registered_name": "L2"},
]
OTHERS = [
    None,
    {"class_name": "L1", "config": {"l1": 0.1}},
    {"class_name": "L2", "config": {"l2": 0.2}},
    {"class_name": "L2", "config": {"l2": 0.1}, "registered_name": "mine>L2"},
    {"class_name": "L2", "config": {"l2": 0.1}, "module": "mine"},
    {"class_name": "OrthogonalRegularizer", "config": {"factor": 0.1, "mode": "rows"}},
    {"class_name": "OrthogonalRegularizer", "config": {"factor": 0.1, "mode": "columns"}},
]


def test_equal_means_the_same_penalty() -> None:
    for one in SPELLINGS:
        assert all(regularizers.equal(one, other) for other in SPELLINGS)
        assert not any(regularizers.equal(one, other) for other in OTHERS)
        assert regularizers.fits_every_float(one)
    for number, one in enumerate(OTHERS):
        assert [regularizers.equal(one, other) for other in OTHERS].index(True) == number
    assert [regularizers.fits_every_float(one) for one in OTHERS] == [True] * 3 + [False] * 4


def test_each_object_is_serialized_once() -> None:
    class Counted:
        calls = 0

        def __call__(self, weights: object) -> None:
            raise NotImplementedError

        def get_config(self) -> dict[str, float]:
            Counted.calls += 1
            return {}

    pytest.importorskip("keras")
    serialize, one, other = regularizers.once(), Counted(), Counted()
    found = [serialize(each) for each in (one, one, other, one, None)]
    assert found[0] is found[1] is found[3]
    assert found[2] == found[0]
    assert found[4] is None
    assert Counted.calls == 2


def test_a_description_is_short_and_says_what_it_is() -> None:
    described = [regularizers.describe(one) for one in (*SPELLINGS[:3], *OTHERS[:2], OTHERS[5])]
    assert described == [
        "L2(0.1)",
        "L2(0.1)",
        "L1L2(l1=0, l2=0.1)",
        "none",
        "L1(0.1)",
        "OrthogonalRegularizer(factor=0.1, mode=rows)",
    ]
    function = {"class_name": "function", "config": "halve", "registered_name": "mine>halve"}
    assert regularizers.describe(function) == "mine>halve"


def test_a_multiple_of_each_class() -> None:
    keras = pytest.importorskip("keras")
    given = [
        keras.regularizers.L1(0.5),
        keras.regularizers.L1L2(0.5, 0.25),
        keras.regularizers.OrthogonalRegularizer(0.5, mode="columns"),
        {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.5}},
    ]
    values = keras.ops.convert_to_tensor([[1.0, -2.0], [0.5, 3.0]])
    for one in given:
        made = regularizers.multiplied(regularizers.serialize(one), 2)
        before, after = keras.regularizers.get(one), keras.regularizers.get(made)
        assert float(after(values)) == pytest.approx(2 * float(before(values)))
    assert regularizers.multiplied(L2, 0) is None
    assert regularizers.multiplied(None, 2) is None
    with pytest.raises(PolicyError, match=r"X\(l2=1\) can't be multiplied by 2"):
        regularizers.multiplied({**CUSTOM, "class_name": "X", "config": {"l2": 1.0}}, 2)
