"""More than one device: MirroredStrategy on TensorFlow, keras.distribution on JAX.

The devices of a process can't be changed once it has begun, so each program of
distributed_programs.py is a process of its own, and each of its checks is a test here.
"""

import functools
import importlib.util
import json

import pytest

from tests.support import distributed_programs
from tests.support.processes import ENVIRONMENT, python

NEEDS = {"mirrored": "tensorflow", "data_parallel": "jax", "model_parallel": "jax"}
TESTS = [
    (program, check.__name__)
    for program, checks in distributed_programs.CHECKS.items()
    for check in checks
]


@functools.cache
def outcomes(program):
    """What each check of a program says is wrong: an empty text when nothing is."""
    env = {**ENVIRONMENT, "KERAS_BACKEND": NEEDS[program]}
    ran = python("-m", "tests.support.distributed_programs", program, env=env, timeout=None)
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"check"')]
    found = {line["check"]: line["problem"] for line in lines}
    if ran.returncode:
        found[""] = ran.stderr
    return found


@pytest.mark.parametrize(("program", "check"), TESTS, ids=[f"{p}-{c}" for p, c in TESTS])
def test_distribution(program, check):
    if importlib.util.find_spec(NEEDS[program]) is None:
        pytest.skip(f"{NEEDS[program]} is not installed")
    found = outcomes(program)
    assert check in found, found.get("", "the program ended before this check")
    assert not found[check], found[check]
