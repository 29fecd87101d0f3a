"""Two processes on JAX, joined over the loopback interface: neither holds all of a model."""

import functools
import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.two_processes import KINDS

ROOT = Path(__file__).parents[2]


@functools.cache
def outcomes():
    """What each of the two processes says of each kind of distribution."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "tests.support.two_processes", address]
    both = [
        subprocess.Popen(
            [*command, number],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in ("0", "1")
    ]
    found = []
    for process in both:
        try:
            out, error = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            out, error = process.communicate()
        lines = [line for line in out.splitlines() if line.startswith("{")]
        found.append(json.loads(lines[-1]) if lines else dict.fromkeys(KINDS, error[-4000:]))
    return found


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_no_process_has_the_whole_of(kind, process):
    problem = outcomes()[process][kind]
    assert not problem, problem
