"""How many examples a test draws: on JAX and PyTorch a few, for TensorFlow has had the others.

What is drawn there is meant to find what a backend does differently, not what a policy does wrong,
and each new shape costs JAX a compilation.
"""

import os

TENSORFLOW = os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"


def examples(number: int) -> int:
    """That many examples on TensorFlow, and a fifth on the other backends."""
    return number if TENSORFLOW else max(3, number // 5)
