"""What does it cost once? Time and peak memory of one rewrite, beside every other way that works.

The ways take turns in one process for each architecture. Memory is measured in a process for each
way: how far its peak rises above what it had before, as a multiple of the weights.
"""

import gc
import math
import pathlib
import statistics
import tracemalloc
from collections.abc import Callable
from typing import Any

from benchmarks import charts, harness
from benchmarks.progress import Meter
from benchmarks.tables import Table, seconds
from benchmarks.tables import ratio as of_rounds

PICTURES = ("rewriting-time", "rewriting-memory")
ARCHITECTURES = {
    "MobileNet": 4,
    "EfficientNetB0": 4,
    "DenseNet121": 3,
    "ResNet50": 4,
    "InceptionResNetV2": 2,
    "VGG16": 4,
    "ConvNeXtLarge": 2,
    "ConvNeXtXLarge": 2,
}  # and how many rounds each
CLONE = "clone_model"
CLONE_AND_SET = "clone_model + set_weights"
FROM_JSON = "model_from_json + set_weights"
UNVERIFIED = "graphwd, verify=False"
REWRITE = "graphwd"
IN_PLACE = "graphwd, in place"
OBJECTS = "its layers' own objects"
MEMORY_WAYS = (CLONE_AND_SET, FROM_JSON, REWRITE, IN_PLACE)
IN_PLACE_ROUNDS = 25  # it takes milliseconds, and noise comes in waves of seconds
LARGE = 20e6  # parameters from which the weights are most of a model
ELSEWHERE = ("ResNet50", "VGG16")
BACKENDS = {"jax": "JAX", "torch": "PyTorch"}
_CLEAR = pathlib.Path("/proc/self/clear_refs")


def run(meter: Meter, quick: bool) -> dict[str, Any]:
    """Measures every architecture.

    Args:
        meter: Shows the progress.
        quick: Whether to measure two small ones, one round each.

    Returns:
        The seconds of each way, and the memory of some, for each architecture.
    """
    chosen = {"MobileNet": 1, "ResNet50": 1} if quick else ARCHITECTURES
    backends = [backend for backend in BACKENDS if harness.installed(backend)]
    elsewhere = [name for name in ELSEWHERE if name in chosen]
    meter.start(len(chosen) * (3 + len(MEMORY_WAYS)) + len(backends) * len(elsewhere))
    others: dict[str, Any] = {}
    for backend in backends:
        others[backend] = {}
        for name in elsewhere:
            meter.now(f"{name}, memory on {BACKENDS[backend]}")
            others[backend][name] = harness.worker(
                "rewriting:memory", name, REWRITE, environment={"KERAS_BACKEND": backend}
            )
            meter.step(f"{name}, memory on {BACKENDS[backend]}")
    measured: dict[str, Any] = {}
    for name, rounds in chosen.items():
        meter.now(f"{name}, time")
        measured[name] = harness.worker("rewriting:times", name, rounds)
        meter.step(f"{name}, time")
        meter.now(f"{name}, in place")
        in_place = harness.worker("rewriting:times_in_place", name, 3 if quick else IN_PLACE_ROUNDS)
        measured[name]["in_place"] = in_place
        meter.step(f"{name}, in place")
        measured[name]["memory"] = {}
        for way in MEMORY_WAYS:
            meter.now(f"{name}, memory of {way}")
            measured[name]["memory"][way] = harness.worker("rewriting:memory", name, way)
            meter.step(f"{name}, memory of {way}")
        meter.now(f"{name}, objects of a copy")
        measured[name]["objects"] = harness.worker("rewriting:objects", name)
        meter.step(f"{name}, objects of a copy")
    return {"architectures": measured, "memory_elsewhere": others}


def ways() -> dict[str, Callable[[Any], Any]]:
    """The ways to get a second model, each from a first one, and the way that needs none."""
    import keras

    import graphwd

    penalty = keras.regularizers.L2(1e-4)
    policy = graphwd.Policy.coerce(penalty)

    def rebuild(layer: Any) -> Any:
        config = layer.get_config()
        for name in ("kernel_regularizer", "depthwise_regularizer"):
            if name in config:
                config[name] = penalty
        return type(layer).from_config(config)

    def clone_and_set(model: Any) -> Any:
        copy = keras.models.clone_model(model, clone_function=rebuild)
        copy.set_weights(model.get_weights())
        return copy

    def from_json(model: Any) -> Any:
        for layer in model.layers:
            for name in ("kernel_regularizer", "depthwise_regularizer"):
                if hasattr(layer, name):
                    setattr(layer, name, penalty)
        copy = keras.models.model_from_json(model.to_json())
        copy.set_weights(model.get_weights())
        return copy

    return {
        CLONE: keras.models.clone_model,
        CLONE_AND_SET: clone_and_set,
        UNVERIFIED: lambda model: graphwd.rewrite(model, policy, verify=False),
        REWRITE: lambda model: graphwd.rewrite(model, policy),
        FROM_JSON: from_json,
        IN_PLACE: lambda model: graphwd.rewrite(model, policy, in_place=True),
    }


def build(name: str) -> Any:
    """One of the architectures with random weights."""
    import keras

    return getattr(keras.applications, name)(weights=None)


def times(name: str, rounds: int) -> dict[str, Any]:
    """Times every way on one architecture, in turn; runs in a process of its own."""
    model, plain = build(name), build(name)
    parameters = model.count_params()
    timed = {
        # model_from_json edits its model, so that one has a model of its own
        way: (lambda function=function, way=way: function(model if way != FROM_JSON else plain))
        for way, function in ways().items()
        if way != IN_PLACE  # which has nothing to do when it is asked again
    }
    samples = harness.in_turn(timed, rounds)
    return {"parameters": parameters, "layers": len(model.layers), "seconds": samples}


def times_in_place(name: str, rounds: int) -> list[float]:
    """Times editing in place; each round asks for another penalty, so that there is work to do."""
    import keras

    import graphwd

    model, strengths = build(name), iter(range(1, rounds + 2))

    def edit() -> None:
        policy = keras.regularizers.L2(next(strengths) * 1e-4)
        graphwd.rewrite(model, policy, in_place=True)

    return harness.in_turn({IN_PLACE: edit}, rounds)[IN_PLACE]


def memory(name: str, way: str) -> float | None:
    """The growth of this process's peak memory over one way, as a multiple of the weights.

    Args:
        name: The architecture.
        way: One of the ways.

    Returns:
        The multiple; None where the system can't tell a peak apart (it takes Linux's /proc).
    """
    if not _CLEAR.exists():
        return None
    model, function = build(name), ways()[way]
    function(build("MobileNet"))  # what is loaded on first use is not what a model costs
    before = _status("VmRSS")
    _CLEAR.write_text("5")  # resets the peak
    result = function(model)
    grown = _status("VmHWM") - before
    del result
    return max(0, grown) / _bytes(model)  # less than before: the allocator gave something back


def objects(name: str) -> float:
    """The Python objects that a rewritten model is made of, as a multiple of the weights.

    That is what no second model of Keras's can do without. Values are not among them.
    """
    model, function = build(name), ways()[REWRITE]
    function(build("MobileNet"))
    gc.collect()
    tracemalloc.start()
    result = function(model)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    del result
    return held / _bytes(model)


def _bytes(model: Any) -> int:
    return sum(math.prod(variable.shape) * 4 for variable in model.weights)


def _status(key: str) -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"This system's /proc tells no {key}.")


def medians(result: dict[str, Any]) -> dict[str, float]:
    """The median of each way on one architecture."""
    return {way: statistics.median(samples) for way, samples in result["seconds"].items()}


def ratio(result: dict[str, Any], way: str, base: str) -> float:
    """The median of the rounds' ratios on one architecture."""
    samples = result["seconds"]
    return statistics.median(harness.ratios(samples[way], samples[base]))


def mean_ratio(data: dict[str, Any], way: str, base: str) -> float:
    """The geometric mean of the ratios over all architectures."""
    each = data["architectures"].values()
    return harness.geometric_mean(ratio(result, way, base) for result in each)


def share_of_proof(data: dict[str, Any]) -> float:
    """What part of a rewrite the proof is: the mean over the architectures, each a median."""
    each = data["architectures"].values()
    return statistics.fmean(1 - ratio(result, UNVERIFIED, REWRITE) for result in each)


def tables(data: dict[str, Any]) -> dict[str, Table]:
    """Seconds and ratios; and memory."""
    listed = (CLONE, CLONE_AND_SET, FROM_JSON, UNVERIFIED, REWRITE)
    rows, memory_rows = [], []
    for name, result in data["architectures"].items():
        middle = medians(result)
        label = f"{name}, {result['parameters'] / 1e6:.0f} M"
        samples = result["seconds"]
        rows.append(
            [
                label,
                *(seconds(middle[way]) for way in listed),
                of_rounds(harness.ratios(samples[REWRITE], samples[CLONE])),
                seconds(statistics.median(result["in_place"])),
            ]
        )
        cells = [result["memory"][way] for way in MEMORY_WAYS]
        cells.insert(MEMORY_WAYS.index(REWRITE) + 1, result["objects"])
        cells += [of.get(name) for of in data["memory_elsewhere"].values()]
        memory_rows.append([label, *("" if cell is None else f"{cell:.2f}" for cell in cells)])
    means = [f"{mean_ratio(data, way, CLONE):.2f}" for way in listed]
    rows.append(["to clone_model, geometric mean", *means, f"**{means[-1]}**", ""])
    heads = [BACKENDS[backend] for backend in data["memory_elsewhere"]]
    return {
        "rewriting": Table(
            "One rewrite, proof included",
            ["model, parameters", *listed, "graphwd / clone_model", IN_PLACE],
            rows,
        ),
        "rewriting-memory": Table(
            "Peak memory added, in multiples of the weights",
            [
                "model, parameters",
                CLONE_AND_SET,
                FROM_JSON,
                REWRITE,
                OBJECTS,
                IN_PLACE,
                *(f"graphwd, {h}" for h in heads),
            ],
            memory_rows,
        ),
    }


def figures(data: dict[str, Any]) -> dict[str, str]:
    """What the pages say in prose."""
    many = data["architectures"].values()
    large = [each["memory"][REWRITE] for each in many if each["parameters"] >= LARGE]
    here = [each["memory"][REWRITE] for each in many]
    elsewhere = [one for each in data["memory_elsewhere"].values() for one in each.values()]
    return {
        "rewriting-count": str(len(data["architectures"])),
        "rewriting-mean": f"{mean_ratio(data, REWRITE, CLONE):.2f}",
        "rewriting-mean-set": f"{mean_ratio(data, REWRITE, CLONE_AND_SET):.2f}",
        "rewriting-proof": f"{share_of_proof(data):.0%}",
        "rewriting-in-place": seconds(
            statistics.median(data["architectures"]["ResNet50"]["in_place"])
        ),
        "rewriting-memory-most": _most(here),
        "rewriting-large": f"{LARGE / 1e6:.0f} M",
        "rewriting-memory-large": _most(large),
        "rewriting-objects": _most([each["objects"] for each in many]),
        "rewriting-memory-elsewhere": _most(elsewhere),
    }


def _most(values: list[float | None]) -> str:
    return f"{max((value for value in values if value is not None), default=0.0):.2f}"


def draw(data: dict[str, Any]) -> dict[str, Any]:
    """The ratios to clone_model, and the memory."""
    architectures = data["architectures"]
    labels = [f"{name} {r['parameters'] / 1e6:.0f} M" for name, r in architectures.items()]
    listed = (CLONE_AND_SET, FROM_JSON, REWRITE)
    time_bars = {}
    for way in listed:
        time_bars[way] = [
            harness.ratios(r["seconds"][way], r["seconds"][CLONE]) for r in architectures.values()
        ]
    memory_bars = {
        way: [[r["memory"][way] or 0.0] for r in architectures.values()]
        for way in MEMORY_WAYS
        if way != IN_PLACE  # which adds nothing to be seen
    }
    return {
        "rewriting-time": charts.bars(
            time_bars,
            labels,
            "Time of one rewrite, proof included",
            "time / time of clone_model",
            line=1.0,
        ),
        "rewriting-memory": charts.bars(
            memory_bars,
            labels,
            "Peak memory added by one rewrite, TensorFlow",
            "peak memory added / size of the weights",
        ),
    }
