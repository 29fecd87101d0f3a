"""The Keras of this process: Keras 3, or the legacy tf_keras where the environment says so."""

import importlib
import os

VARIABLE = "GRAPHWD_BENCHMARK_KERAS"

keras = importlib.import_module(os.environ.get(VARIABLE, "keras"))
legacy = keras.__name__ == "tf_keras"
