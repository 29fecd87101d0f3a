"""Starts on several devices: under MirroredStrategy, and sharded as their weights are on JAX."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

NEEDS = {"mirrored": "tensorflow", "data_parallel": "jax", "model_parallel": "jax"}


@pytest.mark.parametrize("program", NEEDS)
def test_starts_lie_where_their_weights_lie_and_train_as_by_hand(program):
    if keras.backend.backend() != NEEDS[program]:
        pytest.skip(f"this is a program of {NEEDS[program]}")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.distributed_starts", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": NEEDS[program]},
    )
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"check"')]
    assert [each["check"] for each in found] == ["penalty", "decay"], ran.stderr
    assert not "".join(each["problem"] for each in found)
