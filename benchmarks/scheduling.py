"""What does StrengthScheduler cost per step? Steps with a schedule on, beside steps without.

The model and the batches are those of the benchmark of steps. Penalties in the loss and decoupled
decay, with a schedule by epochs and by steps, take turns in a process for each backend.
"""

import statistics
from typing import Any

from benchmarks import harness
from benchmarks.progress import Meter
from benchmarks.steps import (
    BACKENDS,
    BATCHES,
    FACTOR,
    by_backend,
    examples,
    in_blocks,
    network,
    nothing_drawn,
)
from benchmarks.tables import Table, ratio, seconds

PICTURES: tuple[str, ...] = ()
draw = nothing_drawn
ROUNDS = 41
MECHANISMS = ("penalty", "decoupled")
SCHEDULES = ("none", "by epoch", "by step")
WAYS = tuple(f"{mechanism}, {schedule}" for mechanism in MECHANISMS for schedule in SCHEDULES)


def run(meter: Meter, quick: bool) -> dict[str, Any]:
    """Measures every backend that is installed.

    Args:
        meter: Shows the progress.
        quick: Whether to take TensorFlow only, one round.

    Returns:
        For each backend and way the seconds of a step.
    """
    return by_backend(meter, quick, "scheduling:times", ROUNDS)


def times(rounds: int) -> dict[str, list[float]]:
    """Times steps after the first ones; runs in a process of its own."""
    return in_blocks(
        {way: scheduled(*way.split(", ")) for way in WAYS}, *examples(BATCHES[-1]), rounds
    )


def scheduled(mechanism: str, schedule: str) -> Any:
    """A compiled model with a schedule on, as it is in the middle of an epoch of `fit`."""
    import keras

    import graphwd

    model, penalty = network(), keras.regularizers.L2(FACTOR)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    if mechanism == "penalty":
        model = graphwd.rewrite(model, penalty)
    else:
        optimizer = graphwd.decouple(model, penalty, optimizer)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    if schedule != "none":
        form: Any = keras.optimizers.schedules.CosineDecay(0.1, 10_000, warmup_target=1.0)
        scheduler = graphwd.StrengthScheduler((lambda epoch: 0.5) if "epoch" in schedule else form)
        scheduler.set_params({"epochs": 1, "steps": 10_000})
        scheduler.set_model(model)
        scheduler.on_train_begin()
        scheduler.on_epoch_begin(0)
    return model


def shares(samples: dict[str, list[float]], mechanism: str, schedule: str) -> list[float]:
    """Each round's time of a step beside that without a schedule."""
    return harness.ratios(samples[f"{mechanism}, {schedule}"], samples[f"{mechanism}, none"])


def tables(data: dict[str, Any]) -> dict[str, Table]:
    """Seconds without a schedule, and the ratios with one."""
    rows = [
        [
            f"{BACKENDS[backend]}, {mechanism}",
            seconds(statistics.median(samples[f"{mechanism}, none"])),
            *(ratio(shares(samples, mechanism, schedule)) for schedule in SCHEDULES[1:]),
        ]
        for backend, samples in data.items()
        for mechanism in MECHANISMS
    ]
    heads = ["backend", "a step without a schedule", *SCHEDULES[1:]]
    return {"scheduling": Table("StrengthScheduler", heads, rows)}


def figures(data: dict[str, Any]) -> dict[str, str]:
    """The smallest and the largest ratio, as the pages say it."""
    middles = [
        statistics.median(shares(samples, mechanism, schedule))
        for samples in data.values()
        for mechanism in MECHANISMS
        for schedule in SCHEDULES[1:]
    ]
    return {"scheduling-ratio": f"{min(middles):.2f} to {max(middles):.2f}"}
