"""Test settings: quiet TensorFlow, and hypothesis's profiles.

`GRAPHWD_HYPOTHESIS_PROFILE=deep pytest tests/test_x.py` searches longer and anew on every run.
"""

import os

# Both must be set before anything imports Keras or TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from hypothesis import HealthCheck, settings

from tests.support.effort import examples

# Building a Keras model takes tens of milliseconds, so drawing is slow by nature.
SUPPRESSED = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=examples(60),
    print_blob=True,
    suppress_health_check=SUPPRESSED,
)
settings.register_profile(
    "deep",
    deadline=None,
    max_examples=1500,
    print_blob=True,
    suppress_health_check=SUPPRESSED,
)
settings.load_profile(os.environ.get("GRAPHWD_HYPOTHESIS_PROFILE", "ci"))
