"""How many examples a test draws: on JAX and PyTorch a few, for TensorFlow has had the others.

What is drawn there is meant to find what a backend does differently, not what a policy does wrong,
and each new shape costs JAX a compilation.
"""

import os

PART = {"tensorflow": 1, "torch": 5, "jax": 10}[os.environ.get("KERAS_BACKEND", "tensorflow")]


def examples(number: int) -> int:
    """That many examples on TensorFlow, a fifth on PyTorch, a tenth on JAX."""
    return number if PART == 1 else max(2, number // PART)
