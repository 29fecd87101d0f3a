"""Parsing: every error names the rule, the key and what would be right."""

from __future__ import annotations

from typing import Any

import pytest

from graphwd.errors import PolicyError
from graphwd.policy.parsing import suggest
from graphwd.policy.policies import Policy

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


def test_suggest() -> None:
    assert suggest("kernal", ["bias", "kernel"]) == "kernel"
    assert suggest("lstm", ["LSTM", "Conv2D"]) == "LSTM"
    assert suggest("xyz", ["bias", "kernel"]) is None
    assert suggest("kernel", []) is None
