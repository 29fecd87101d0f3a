"""What does it cost per step? Training steps, and the first one, which traces or compiles.

The model is a ResNet of 8 layers for images of 32 by 32 pixels, written out here, so that the same
can be built with regularizers by hand. The ways take turns, in a process for each backend.
Steps are measured in blocks of about half a second, each step's result read by the host.
"""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import charts, harness
from benchmarks.progress import Meter
from benchmarks.tables import Table, ratio, seconds

PICTURES = ("steps", "steps-first")
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX"}
BATCHES = (4, 64)
ROUNDS = 11
FIRST_ROUNDS = 3
BLOCK = 0.5
FACTOR = 5e-5
PLAIN, BY_HAND, REWRITTEN = "no penalty", "regularizers by hand", "graphwd"
IN_CALL, OPTIMIZER = "add_loss in call", "optimizer weight_decay"
WAYS = (PLAIN, BY_HAND, REWRITTEN, IN_CALL, OPTIMIZER)


def run(meter: Meter, quick: bool) -> dict[str, Any]:
    """Measures every backend that is installed.

    Args:
        meter: Shows the progress.
        quick: Whether to take TensorFlow and the small batch only, one round.

    Returns:
        For each backend the seconds of a step at each batch size, and of the first step.
    """
    backends = [backend for backend in BACKENDS if harness.installed(backend)]
    batches, rounds, first_rounds = BATCHES, ROUNDS, FIRST_ROUNDS
    if quick:
        backends, batches, rounds, first_rounds = backends[:1], BATCHES[:1], 1, 1
    meter.start(len(backends) * (len(batches) + 1))
    measured: dict[str, Any] = {}
    for backend in backends:
        settings = {"KERAS_BACKEND": backend}
        measured[backend] = {"steps": {}}
        for batch in batches:
            what = f"{BACKENDS[backend]}, batches of {batch}"
            meter.now(what)
            measured[backend]["steps"][str(batch)] = harness.worker(
                "steps:times", batch, rounds, environment=settings
            )
            meter.step(what)
        what = f"{BACKENDS[backend]}, the first step"
        meter.now(what)
        measured[backend]["first"] = harness.worker(
            "steps:first_times", BATCHES[0], first_rounds, environment=settings
        )
        meter.step(what)
    return measured


def by_backend(meter: Meter, quick: bool, function: str, rounds: int) -> dict[str, Any]:
    """What a function measures in so many rounds, in a process for each backend that is installed.

    Quickly it is one round, on TensorFlow only.
    """
    backends = [backend for backend in BACKENDS if harness.installed(backend)]
    backends, rounds = (backends[:1], 1) if quick else (backends, rounds)
    meter.start(len(backends))
    measured = {}
    for backend in backends:
        meter.now(BACKENDS[backend])
        settings = {"KERAS_BACKEND": backend}
        measured[backend] = harness.worker(function, rounds, environment=settings)
        meter.step(BACKENDS[backend])
    return measured


def network(regularizer: Any = None) -> Any:
    """A ResNet of 8 layers, with a regularizer of every kernel or without."""
    from keras import Input, Model, layers

    def convolved(x: Any, filters: int, size: int, strides: int) -> Any:
        x = layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            use_bias=False,
            kernel_regularizer=regularizer,
        )(x)
        return layers.BatchNormalization()(x)

    inputs = Input((32, 32, 3))
    x = layers.ReLU()(convolved(inputs, 16, 3, 1))
    for filters in (16, 32, 64):
        strides = 1 if filters == 16 else 2
        y = layers.ReLU()(convolved(x, filters, 3, strides))
        y = convolved(y, filters, 3, 1)
        if strides > 1:
            x = convolved(x, filters, 1, strides)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(10, "softmax", kernel_regularizer=regularizer)(x)
    return Model(inputs, outputs)


def compiled(way: str) -> Any:
    """A model that is ready for its first step."""
    import keras

    import graphwd

    penalty = keras.regularizers.L2(FACTOR)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    model = network(penalty if way == BY_HAND else None)
    if way == REWRITTEN:
        model = graphwd.rewrite(model, penalty)
    elif way == IN_CALL:
        from benchmarks.works.ways import add_loss_in_call

        model = add_loss_in_call(model, {"*": FACTOR})
    elif way == OPTIMIZER:
        optimizer.weight_decay = 2 * FACTOR
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def examples(batch: int) -> tuple[Any, Any]:
    """One batch of images and labels."""
    import numpy

    generator = numpy.random.default_rng(3)
    x = generator.normal(size=(batch, 32, 32, 3)).astype("float32")
    return x, generator.integers(10, size=batch)


def times(batch: int, rounds: int) -> dict[str, list[float]]:
    """Times steps after the first ones; runs in a process of its own."""
    return in_blocks({way: compiled(way) for way in WAYS}, *examples(batch), rounds)


def in_blocks(models: dict[str, Any], x: Any, y: Any, rounds: int) -> dict[str, list[float]]:
    """The seconds of a step of each model, after the first ones, in blocks that take turns."""
    for model in models.values():
        for _ in range(3):
            model.train_on_batch(x, y)
    start = time.perf_counter()
    next(iter(models.values())).train_on_batch(x, y)
    steps = max(2, round(BLOCK / (time.perf_counter() - start)))

    def block(model: Any) -> Callable[[], None]:
        def stepped() -> None:
            for _ in range(steps):
                model.train_on_batch(x, y)

        return stepped

    blocks = harness.in_turn({name: block(model) for name, model in models.items()}, rounds)
    return {name: [sample / steps for sample in samples] for name, samples in blocks.items()}


def first_times(batch: int, rounds: int) -> dict[str, list[float]]:
    """Times first steps, each of a new model; runs in a process of its own."""
    x, y = examples(batch)
    samples: dict[str, list[float]] = {way: [] for way in WAYS}
    compiled(PLAIN).train_on_batch(x, y)  # what is loaded on first use is nobody's
    for _ in range(rounds):
        for way in WAYS:
            model = compiled(way)
            gc.collect()
            start = time.perf_counter()
            model.train_on_batch(x, y)
            samples[way].append(time.perf_counter() - start)
    return samples


def settings(data: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """The samples of every backend and batch size, by what the tables call them."""
    return {
        f"{BACKENDS[backend]}, batch {batch}": samples
        for backend, found in data.items()
        for batch, samples in found["steps"].items()
    }


def middle(samples: dict[str, list[float]], way: str, base: str = PLAIN) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(harness.ratios(samples[way], samples[base]))


def _rows(found: dict[str, dict[str, list[float]]]) -> list[list[str]]:
    return [
        [
            label,
            seconds(statistics.median(samples[PLAIN])),
            *(ratio(harness.ratios(samples[way], samples[PLAIN])) for way in WAYS[1:]),
        ]
        for label, samples in found.items()
    ]


def first_settings(data: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """The first steps of every backend."""
    return {f"{BACKENDS[backend]}, first step": found["first"] for backend, found in data.items()}


def nothing_drawn(data: dict[str, Any]) -> dict[str, Any]:
    """No pictures: a few figures need none."""
    return {}


def tables(data: dict[str, Any]) -> dict[str, Table]:
    """The plain step in seconds, the others as ratios to it."""
    heads = ["backend, batch", PLAIN, *WAYS[1:]]
    rows = _rows(settings(data)) + _rows(first_settings(data))
    return {"steps": Table("A training step, as a ratio to one without penalty", heads, rows)}


def figures(data: dict[str, Any]) -> dict[str, str]:
    """What the pages say in prose: against a model built by hand, and the worst case."""
    each = settings(data).values()
    by_hand = [middle(samples, REWRITTEN, BY_HAND) for samples in each]
    in_call = [middle(samples, REWRITTEN, IN_CALL) for samples in each]
    plain = [middle(samples, REWRITTEN) for samples in each]
    first = [middle(samples, REWRITTEN, BY_HAND) for samples in first_settings(data).values()]
    return {
        "steps-by-hand": f"{min(by_hand):.2f} to {max(by_hand):.2f}",
        "steps-first-by-hand": f"{min(first):.2f} to {max(first):.2f}",
        "steps-in-call": f"{min(in_call):.2f} to {max(in_call):.2f}",
        "steps-plain": f"{min(plain):.2f} to {max(plain):.2f}",
    }


def draw(data: dict[str, Any]) -> dict[str, Any]:
    """Ratios to the plain step."""

    def drawn(found: dict[str, dict[str, list[float]]], title: str, axis: str) -> Any:
        groups = {
            way: [harness.ratios(samples[way], samples[PLAIN]) for samples in found.values()]
            for way in WAYS[1:]
        }
        return charts.bars(groups, list(found), title, axis, line=1.0)

    return {
        "steps": drawn(
            settings(data), "Time of a training step", "time / time without any penalty"
        ),
        "steps-first": drawn(
            first_settings(data),
            "Time of the first step, which traces or compiles",
            "time / time without any penalty",
        ),
    }
