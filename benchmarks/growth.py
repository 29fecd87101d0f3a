"""How time grows with a model's depth and width: chains and ladders of Dense layers.

Live models are as large as Keras builds in reasonable time. The comparison of two serialized
graphs, which is the core of the proof, needs no Keras and goes on to 100,000 layers.
"""

import copy
import statistics
from typing import Any

from benchmarks import charts, harness
from benchmarks.progress import Meter
from benchmarks.tables import Table, seconds

PICTURES = ("growth",)
SHAPES = ("chain", "ladder")
LIVE_SIZES = (50, 100, 200, 400, 800)  # at a thousand Keras runs out of recursion
GRAPH_SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
LIVE_ROUNDS = 2
GRAPH_ROUNDS = 3
WIDTH = 4
CLONE, REWRITE, COMPARE = "clone_model", "graphwd", "graphwd, graphs alone"


def run(meter: Meter, quick: bool) -> dict[str, Any]:
    """Measures every shape at every size.

    Args:
        meter: Shows the progress.
        quick: Whether to take small sizes only.

    Returns:
        For each shape and way, the seconds at each size.
    """
    live_sizes = LIVE_SIZES[:2] if quick else LIVE_SIZES
    graph_sizes = GRAPH_SIZES[:2] if quick else GRAPH_SIZES
    meter.start(2 * len(SHAPES))
    measured: dict[str, Any] = {}
    for shape in SHAPES:
        meter.now(f"{shape}s, live")
        live = harness.worker("growth:live", shape, live_sizes, 1 if quick else LIVE_ROUNDS)
        meter.step(f"{shape}s, live")
        meter.now(f"{shape}s, graphs")
        graphs = harness.worker("growth:graphs", shape, graph_sizes, 1 if quick else GRAPH_ROUNDS)
        meter.step(f"{shape}s, graphs")
        measured[shape] = {**live, **graphs}
    return measured


def live(shape: str, sizes: list[int], rounds: int) -> dict[str, Any]:
    """Times clone_model and a rewrite at every size; runs in a process of its own."""
    import keras

    import graphwd

    penalty = keras.regularizers.L2(1e-4)
    found: dict[str, Any] = {CLONE: {}, REWRITE: {}}
    for size in sizes:
        model = build(shape, size)
        timed = {
            CLONE: lambda model=model: keras.models.clone_model(model),
            REWRITE: lambda model=model: graphwd.rewrite(model, penalty),
        }
        samples = harness.in_turn(timed, rounds)
        for way in found:
            found[way][size] = samples[way]
    return found


def build(shape: str, size: int) -> Any:
    """A chain or a ladder with that many Dense layers.

    A chain is one layer after another. In a ladder each layer takes the sum of two: what came out
    before, on its own side and on the other.
    """
    import keras

    inputs = keras.Input((WIDTH,))
    if shape == "chain":
        x = inputs
        for number in range(size):
            x = keras.layers.Dense(WIDTH, name=f"dense_{number}")(x)
        return keras.Model(inputs, x)
    sides = [inputs, inputs]
    for number in range(size):
        both = keras.layers.Add(name=f"add_{number}")(sides)
        sides[number % 2] = keras.layers.Dense(WIDTH, name=f"dense_{number}")(both)
    return keras.Model(inputs, sides)


def graphs(shape: str, sizes: list[int], rounds: int) -> dict[str, Any]:
    """Times the comparison of two equal serialized models at every size."""
    from graphwd.graph import equivalence

    found: dict[int, list[float]] = {}
    for size in sizes:
        one = serialized(shape, size)
        other = copy.deepcopy(one)

        def compared(one: Any = one, other: Any = other) -> None:
            if not equivalence.compare(one, other).ok:
                raise harness.BenchmarkError(f"A {shape} isn't found equal to its copy.")

        found[size] = harness.in_turn({COMPARE: compared}, rounds)[COMPARE]
    return {COMPARE: found}


def serialized(shape: str, size: int) -> dict[str, Any]:
    """The config that Keras would write for a model of that shape, made without Keras."""
    layers = [_layer("InputLayer", "input", {"batch_shape": [None, WIDTH]}, [])]
    sides = ["input", "input"]
    for number in range(size):
        name = f"dense_{number}"
        takes = sides[0]
        if shape == "ladder":
            takes = f"add_{number}"
            layers.append(_layer("Add", takes, {}, list(sides)))
        layers.append(_layer("Dense", name, {"units": WIDTH}, [takes]))
        sides[number % 2 if shape == "ladder" else 0] = name
    ends = sides if shape == "ladder" else sides[:1]
    config = {
        "name": shape,
        "layers": layers,
        "input_layers": [["input", 0, 0]],
        "output_layers": [[end, 0, 0] for end in ends],
    }
    return {"module": "keras", "class_name": "Functional", "config": config}


def _layer(kind: str, name: str, config: dict[str, Any], takes: list[str]) -> dict[str, Any]:
    tensors = [
        {
            "class_name": "__keras_tensor__",
            "config": {
                "shape": [None, WIDTH],
                "dtype": "float32",
                "keras_history": [taken, 0, 0],
            },
        }
        for taken in takes
    ]
    arguments = [tensors] if len(tensors) > 1 else tensors
    return {
        "module": "keras.layers",
        "class_name": kind,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": [{"args": arguments, "kwargs": {}}] if takes else [],
    }


def points(samples: dict[str, list[float]]) -> tuple[list[int], list[float]]:
    """The sizes and the medians."""
    return [int(size) for size in samples], [statistics.median(s) for s in samples.values()]


def tables(data: dict[str, Any]) -> dict[str, Table]:
    """The largest size of each, and the exponent of the fit."""
    rows = []
    for shape, ways in data.items():
        for way, samples in ways.items():
            sizes, medians = points(samples)
            rows.append(
                [
                    f"{shape}, {way}",
                    f"{sizes[0]:,} to {sizes[-1]:,}",
                    seconds(medians[-1]),
                    f"{medians[-1] / sizes[-1] * 1000:.2f} ms",
                    f"{harness.exponent(sizes, medians):.2f}",
                ]
            )
    heads = ["shape, way", "Dense layers", "at the largest", "each layer", "exponent"]
    return {"growth": Table("How time grows", heads, rows)}


def figures(data: dict[str, Any]) -> dict[str, str]:
    """What the pages say in prose."""
    slopes = [
        harness.exponent(*points(samples))
        for ways in data.values()
        for way, samples in ways.items()
        if way != CLONE
    ]
    most = max(points(ways[COMPARE])[0][-1] for ways in data.values())
    return {"growth-exponent": f"{max(slopes):.2f}", "growth-most": f"{most:,}"}


def draw(data: dict[str, Any]) -> dict[str, Any]:
    """Time over size, both axes logarithmic, one panel for each shape."""
    picture, (panels,) = charts.figure(columns=len(data), width=10, height=4.6)
    for axes, (shape, ways) in zip(panels, data.items(), strict=True):
        for number, (way, samples) in enumerate(ways.items()):
            sizes, medians = points(samples)
            slope = harness.exponent(sizes, medians)
            axes.plot(
                sizes,
                medians,
                marker="o",
                markersize=4.5,
                linestyle="--" if way == COMPARE else "-",
                color=charts.colour(way, number),
                label=f"{way}, exponent {slope:.2f}",
            )
        axes.set(xscale="log", yscale="log", xlabel="Dense layers", ylabel="time in s")
        axes.set_title(f"{shape}s".capitalize())
        axes.legend(loc="upper left", fontsize=9)
        axes.margins(y=0.15)
    panels[0].sharey(panels[-1])
    return {"growth": picture}
