"""One rewrite, with its proof: time and peak memory beside clone_model, over six architectures.

The ways take turns in one process, since machines are noisy; medians and ratios of medians are
shown. Memory is measured in a process for each way: the growth of the peak, over the weights.
"""

import gc
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

ARCHITECTURES = (
    "MobileNet",
    "ResNet50",
    "EfficientNetB0",
    "DenseNet121",
    "VGG16",
    "ConvNeXtBase",
)
ROUNDS = 3
RESULTS = pathlib.Path(__file__).parent / "results" / "rewriting.json"


def ways() -> dict[str, Callable[[Any], Any]]:
    """The ways to get a second model, each from a first one."""
    import keras

    import graphwd

    policy = graphwd.Policy.coerce(keras.regularizers.L2(1e-4))

    def clone_and_set_weights(model: Any) -> Any:
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        return copy

    return {
        "clone_model": keras.models.clone_model,
        "clone_model + set_weights": clone_and_set_weights,
        "rewrite, not verified": lambda model: graphwd.rewrite(model, policy, verify=False),
        "rewrite": lambda model: graphwd.rewrite(model, policy),
        "rewrite in place": lambda model: graphwd.rewrite(model, policy, in_place=True),
    }


def build(name: str) -> Any:
    """One of the architectures with random weights."""
    import keras

    return getattr(keras.applications, name)(weights=None)


def seconds(name: str) -> dict[str, list[float]]:
    """Times every way on one architecture, in turn."""
    model, timed = build(name), ways()
    samples: dict[str, list[float]] = {way: [] for way in timed}
    for _ in range(ROUNDS + 1):
        for way, function in timed.items():
            if way == "rewrite in place":
                continue
            gc.collect()
            start = time.perf_counter()
            result = function(model)
            samples[way].append(time.perf_counter() - start)
            del result
    for _ in range(ROUNDS + 1):  # last, because it changes the model
        start = time.perf_counter()
        timed["rewrite in place"](model)
        samples["rewrite in place"].append(time.perf_counter() - start)
    return {way: each[1:] for way, each in samples.items()}  # the first round warms up


def peak(name: str, way: str) -> float:
    """The growth of this process's peak memory over one way, as a multiple of the weights."""
    model, function = build(name), ways()[way]
    weights = sum(math.prod(v.shape) * 4 for v in model.weights)
    function(build("MobileNet"))  # what is loaded on first use is not what a model costs
    gc.collect()
    before = _status("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    result = function(model)
    grown = _status("VmHWM") - before
    del result
    return grown / weights


def _status(key: str) -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"This system's /proc tells no {key}.")


def main() -> None:
    """Measures everything, writes the samples as JSON and prints a table."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    measured: dict[str, Any] = {}
    for name in ARCHITECTURES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        measured[name] = {"seconds": seconds(name), "memory": {}}
        code = f"from benchmarks.rewriting import peak; print(peak({name!r}, 'rewrite'))"
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        measured[name]["memory"]["rewrite"] = float(result.stdout.split()[-1])
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
    print(table(measured))


def table(measured: dict[str, Any]) -> str:
    """The results as a Markdown table: medians in seconds, ratios to clone_model, memory."""
    listed = list(next(iter(measured.values()))["seconds"])
    rows = [
        f"| model | {' | '.join(listed)} | rewrite / clone_model | memory added, in weights |",
        f"| --- |{' --- |' * (len(listed) + 2)}",
    ]
    ratios = []
    for name, result in measured.items():
        medians = {way: statistics.median(each) for way, each in result["seconds"].items()}
        ratios.append(medians["rewrite"] / medians["clone_model"])
        cells = [f"{medians[way]:.3f} s" for way in listed]
        rows.append(
            f"| {name} | {' | '.join(cells)} | {ratios[-1]:.2f} | "
            f"{result['memory']['rewrite']:.2f} |"
        )
    mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
    rows.append(f"| geometric mean |{' |' * len(listed)} {mean:.2f} | |")
    return "\n".join(rows)
