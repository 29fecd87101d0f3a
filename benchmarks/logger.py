"""What does PenaltyLogger cost? Its work in an epoch, beside an epoch of a hundred steps.

The model and the small batch are those of the benchmark of steps, where the share is largest.
Epochs with the logger and its work alone take turns, in a process for each backend.
"""

import statistics
from typing import Any

from benchmarks import harness
from benchmarks.progress import Meter
from benchmarks.steps import (
    BACKENDS,
    BATCHES,
    REWRITTEN,
    by_backend,
    compiled,
    examples,
    nothing_drawn,
)
from benchmarks.tables import Table, seconds

PICTURES: tuple[str, ...] = ()
draw = nothing_drawn
STEPS = 100
ROUNDS = 5
EPOCH, WORK = "an epoch of 100 steps", "PenaltyLogger in it"


def run(meter: Meter, quick: bool) -> dict[str, Any]:
    """Measures every backend that is installed.

    Args:
        meter: Shows the progress.
        quick: Whether to take TensorFlow only, one round.

    Returns:
        For each backend the seconds of epochs and of the logger's work in one.
    """
    return by_backend(meter, quick, "logger:times", ROUNDS)


def times(rounds: int) -> dict[str, list[float]]:
    """Times epochs, and what the logger does in one; runs in a process of its own."""
    import keras

    import graphwd

    x, y = examples(BATCHES[0])
    model = compiled(REWRITTEN)
    logger = graphwd.PenaltyLogger()
    logger.set_model(model)
    logger.on_train_begin()

    def work() -> None:
        logger.on_epoch_begin(0)
        logger.on_epoch_end(0, {"loss": 1.0, "val_loss": 1.0})

    def epoch() -> None:
        for _ in range(STEPS):
            model.train_on_batch(x, y)
        keras.ops.convert_to_numpy(model.trainable_variables[0])  # until all steps are done

    return harness.in_turn({EPOCH: epoch, WORK: work}, rounds)


def shares(samples: dict[str, list[float]]) -> list[float]:
    """The logger's work as a share of each round's epoch."""
    return harness.ratios(samples[WORK], samples[EPOCH])


def tables(data: dict[str, Any]) -> dict[str, Table]:
    """Seconds of both, and the share."""
    rows = [
        [
            BACKENDS[backend],
            seconds(statistics.median(samples[EPOCH])),
            seconds(statistics.median(samples[WORK])),
            f"{statistics.median(shares(samples)):.1%}",
        ]
        for backend, samples in data.items()
    ]
    return {"logger-times": Table("PenaltyLogger", ["backend", EPOCH, WORK, "share"], rows)}


def figures(data: dict[str, Any]) -> dict[str, str]:
    """The largest share, as the pages say it."""
    share = max(statistics.median(shares(samples)) for samples in data.values())
    return {"logger-share": f"{share:.1%}"}
