"""Does it help? Fine-tuning on few examples, with each kind of decay over a sweep of strengths.

A small network learns scikit-learn's handwritten digits 0 to 4, and is then fine-tuned on a few
examples of each of the digits 5 to 9, from the same weights for every way and strength. The best
strength of a way is chosen by the accuracy on validation examples, and told is that on others.
"""

import statistics
from typing import Any

from benchmarks import charts, harness
from benchmarks.progress import Meter
from benchmarks.tables import Table

PICTURES = ("transfer",)
SEEDS = 10
EXAMPLES = (4,)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
EPOCHS = 40
RATE = 0.02
HEAD = 1e-3
VALIDATION = 300
PLAIN, L2, DECOUPLED, L2SP = "no decay", "L2", "decoupled decay", "L2-SP"
WAYS = (L2, DECOUPLED, L2SP)
STUDENT = 2.262  # the 97.5 % point of Student's t with 9 degrees of freedom


def run(meter: Meter, quick: bool) -> dict[str, Any]:
    """Trains every way with every strength, from several seeds.

    Args:
        meter: Shows the progress.
        quick: Whether to take one seed and one strength.

    Returns:
        For each seed, number of examples, way and strength: accuracy on the validation examples and
        on the test examples.
    """
    seeds, strengths = (1, STRENGTHS[:1]) if quick else (SEEDS, STRENGTHS)
    meter.start(seeds)
    measured = []
    for seed in range(seeds):
        meter.now(f"seed {seed + 1}")
        measured.append(
            harness.worker("transfer:tuned", seed, strengths, environment={"KERAS_BACKEND": "jax"})
        )
        meter.step(f"seed {seed + 1}")
    return {"strengths": list(strengths), "seeds": measured}


def tuned(seed: int, strengths: list[float]) -> dict[str, dict[str, list[list[float]]]]:
    """Trains from one seed; runs in a process of its own."""
    import keras
    import numpy
    import sklearn.datasets

    import graphwd

    x, y = sklearn.datasets.load_digits(return_X_y=True)
    order = numpy.random.default_rng(seed).permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order]
    keras.utils.set_random_seed(seed)
    model = _network()
    _fit(model, keras.optimizers.SGD(RATE, momentum=0.9), x[y < 5], y[y < 5], batch=32)
    start = [numpy.array(weight) for weight in model.weights]
    keras.utils.set_random_seed(seed)
    start[-2:] = [numpy.array(weight) for weight in _network().weights[-2:]]  # a new head
    x, y = x[y >= 5], y[y >= 5] - 5
    validation, test = slice(-VALIDATION, None), slice(100, -VALIDATION)
    found: dict[str, dict[str, list[list[float]]]] = {}
    for examples in EXAMPLES:
        chosen = numpy.concatenate([numpy.flatnonzero(y[:100] == k)[:examples] for k in range(5)])
        found[str(examples)] = {}
        for way in (PLAIN, *WAYS):
            results = found[str(examples)][way] = []
            for strength in strengths if way != PLAIN else [0.0]:
                model.set_weights(start)
                optimizer = keras.optimizers.SGD(RATE, momentum=0.9)
                graphwd.rewrite(model, graphwd.Rule(None), in_place=True)
                if way == DECOUPLED:
                    penalty = keras.regularizers.L2(strength)
                    optimizer = graphwd.decouple(model, penalty, optimizer)
                elif way != PLAIN:
                    graphwd.rewrite(model, _policy(way, strength), in_place=True)
                _fit(model, optimizer, x[chosen], y[chosen], batch=10)
                results.append([_accuracy(model, x[each], y[each]) for each in (validation, test)])
    return found


def _policy(way: str, strength: float) -> Any:
    """What a way penalises."""
    import keras

    import graphwd

    if way == L2:
        return graphwd.Rule(keras.regularizers.L2(strength), roles="kernel")
    return [
        graphwd.Rule(graphwd.L2SP(strength), roles="kernel"),
        graphwd.Rule(keras.regularizers.L2(HEAD), paths="head/kernel"),
    ]


def _network() -> Any:
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((64,)),
            layers.Dense(128, "relu", name="first"),
            layers.Dense(64, "relu", name="second"),
            layers.Dense(5, "softmax", name="head"),
        ]
    )


def _fit(model: Any, optimizer: Any, x: Any, y: Any, *, batch: int) -> None:
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=batch, epochs=EPOCHS, verbose=0)


def _accuracy(model: Any, x: Any, y: Any) -> float:
    import keras

    predicted = keras.ops.convert_to_numpy(model(x, training=False))
    return float((predicted.argmax(1) == y).mean())


def chosen(data: dict[str, Any], examples: str, way: str) -> int:
    """The place of the strength with the best mean accuracy on the validation examples."""
    columns = zip(*(seed[examples][way] for seed in data["seeds"]), strict=True)
    means = [statistics.fmean(each[0] for each in column) for column in columns]
    return means.index(max(means))


def accuracies(data: dict[str, Any], examples: str, way: str, place: int) -> list[float]:
    """The accuracy on the test examples, for each seed."""
    return [seed[examples][way][place][1] for seed in data["seeds"]]


def interval(values: list[float]) -> float:
    """Half of the 95 % interval of the mean."""
    if len(values) < 2:
        return 0.0
    return STUDENT * statistics.stdev(values) / len(values) ** 0.5


def tables(data: dict[str, Any]) -> dict[str, Table]:
    """Each way with its best strength, and by how much it is better than none."""
    rows = []
    for examples in data["seeds"][0]:
        plain = accuracies(data, examples, PLAIN, 0)
        for way in (PLAIN, *WAYS):
            place = chosen(data, examples, way)
            values = accuracies(data, examples, way, place)
            gains = [ours - theirs for ours, theirs in zip(values, plain, strict=True)]
            rows.append(
                [
                    f"{examples} of each digit, {way}",
                    "" if way == PLAIN else f"{data['strengths'][place]:g}",
                    f"{statistics.fmean(values):.1%} ± {interval(values):.1%}",
                    ""
                    if way == PLAIN
                    else f"{100 * statistics.fmean(gains):+.1f} ± {100 * interval(gains):.1f}",
                ]
            )
    heads = ["examples, way", "best strength", "accuracy", "points above no decay"]
    return {"transfer": Table("Digits 5 to 9, after 0 to 4", heads, rows)}


def figures(data: dict[str, Any]) -> dict[str, str]:
    """What the pages say in prose."""
    return {"transfer-seeds": str(len(data["seeds"]))}


def draw(data: dict[str, Any]) -> dict[str, Any]:
    """Accuracy over strength, a panel for each number of examples."""
    looks = {L2: "#8C959F", DECOUPLED: "#E69F00", L2SP: charts.OURS}
    picture, (panels,) = charts.figure(columns=len(data["seeds"][0]), width=8, height=4.4)
    for axes, examples in zip(panels, data["seeds"][0], strict=True):
        plain = accuracies(data, examples, PLAIN, 0)
        middle, half = statistics.fmean(plain), interval(plain)
        axes.axhspan(middle - half, middle + half, color="#24292F", alpha=0.10, linewidth=0)
        axes.axhline(middle, color="#24292F", linestyle="--", linewidth=1.2, label=PLAIN)
        for number, (way, colour) in enumerate(looks.items()):
            found = [
                accuracies(data, examples, way, place) for place in range(len(data["strengths"]))
            ]
            axes.errorbar(
                [strength * (1 + 0.12 * (number - 1)) for strength in data["strengths"]],
                [statistics.fmean(values) for values in found],
                [interval(values) for values in found],
                label=way,
                color=colour,
                marker="o",
                markersize=4,
                capsize=3,
                elinewidth=1,
            )
        axes.set(xscale="log", xlabel="strength, in the unit of keras.regularizers.L2")
        axes.set_title(f"{examples} examples of each digit")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    panels[0].set_ylabel("accuracy on digits 5 to 9")
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return {"transfer": picture}
