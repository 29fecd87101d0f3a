"""Starts on several devices: under MirroredStrategy, and sharded as their weights are on JAX."""

import json

import keras
import pytest

from tests.support.processes import ENVIRONMENT, python

NEEDS = {"mirrored": "tensorflow", "data_parallel": "jax", "model_parallel": "jax"}


@pytest.mark.parametrize("program", NEEDS)
def test_starts_lie_where_their_weights_lie_and_train_as_by_hand(program):
    if keras.backend.backend() != NEEDS[program]:
        pytest.skip(f"this is a program of {NEEDS[program]}")
    env = {**ENVIRONMENT, "KERAS_BACKEND": NEEDS[program]}
    ran = python("-m", "tests.support.distributed_starts", program, env=env, timeout=None)
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"check"')]
    assert [each["check"] for each in found] == ["penalty", "decay"], ran.stderr
    assert not "".join(each["problem"] for each in found)
