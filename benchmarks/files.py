"""A saved model rewritten as a file, beside a plain copy and beside load, rewrite and save.

Every way is a process of its own, from its start to its end, since that is what a user waits for.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks import harness
from benchmarks.progress import Meter
from benchmarks.tables import Table, ratio, seconds

PICTURES: tuple[str, ...] = ()
MODELS = {"ResNet50": 5, "VGG16": 3}  # and how many rounds each
LIVE_ROUNDS = 2  # loading with Keras takes longest by far, and is not what is measured here
SUFFIXES = (".keras", ".h5")
COPY, REWRITE, LIVE = "cp", "graphwd, the file", "load, rewrite, save"
REWRITE_PROGRAM = (
    "import graphwd, sys; graphwd.rewrite_file(sys.argv[1], sys.argv[2], "
    "graphwd.Policy.recipe('resnet'), overwrite=True)"
)
LIVE_PROGRAM = (
    "import graphwd, keras, sys; graphwd.rewrite(keras.saving.load_model(sys.argv[1]), "
    "graphwd.Policy.recipe('resnet')).save(sys.argv[2])"
)


def run(meter: Meter, quick: bool) -> dict[str, Any]:
    """Measures both kinds of files of every model.

    Args:
        meter: Shows the progress.
        quick: Whether to measure a small model only, one round.

    Returns:
        The size of each file, and the seconds of each way.
    """
    chosen = {"MobileNet": 1} if quick else MODELS
    meter.start(3 * len(chosen))
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, rounds in chosen.items():
            meter.now(f"{name}, saving it")
            harness.worker("files:save", name, folder)
            meter.step()
            measured[name] = {}
            for suffix in SUFFIXES:
                meter.now(f"{name}{suffix}")
                measured[name][suffix] = _measure(
                    pathlib.Path(folder) / f"{name}{suffix}", rounds, name == next(iter(chosen))
                )
                meter.step(f"{name}{suffix}")
    return measured


def save(name: str, folder: str) -> None:
    """Saves an architecture with random weights both ways; runs in a process of its own."""
    import keras

    model = getattr(keras.applications, name)(weights=None)
    for suffix in SUFFIXES:
        model.save(pathlib.Path(folder) / f"{name}{suffix}")


def _measure(source: pathlib.Path, rounds: int, live: bool) -> dict[str, Any]:
    target = source.with_stem("target")
    files = [str(source), str(target)]
    copy = [sys.executable, "-c", "import shutil, sys; shutil.copyfile(*sys.argv[1:])"]
    commands = {
        COPY: [*(copy if harness.WINDOWS else ["cp"]), *files],
        REWRITE: [sys.executable, "-c", REWRITE_PROGRAM, *files],
    }
    samples = harness.in_turn({way: _runner(command) for way, command in commands.items()}, rounds)
    if live:
        command = [sys.executable, "-c", LIVE_PROGRAM, *files]
        samples |= harness.in_turn({LIVE: _runner(command)}, min(rounds, LIVE_ROUNDS))
    target.unlink()
    return {"bytes": source.stat().st_size, "seconds": samples}


def _runner(command: list[str]) -> Any:
    # Packages are compiled when they are installed; a process that may not keep what it compiled
    # does that again each time.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    return lambda: subprocess.run(
        command, check=True, capture_output=True, cwd=harness.ROOT, env=environment
    )


def excess(result: dict[str, Any]) -> float:
    """What rewriting a file takes beyond one and a half copies, in seconds."""
    each = zip(result["seconds"][REWRITE], result["seconds"][COPY], strict=True)
    return statistics.median(rewrite - 1.5 * copy for rewrite, copy in each)


def tables(data: dict[str, Any]) -> dict[str, Table]:
    """The medians."""
    heads = ["file", COPY, REWRITE, "graphwd / cp", "beyond 1.5 times cp", LIVE]
    rows = []
    for name, kinds in data.items():
        for suffix, result in kinds.items():
            middle = {way: statistics.median(each) for way, each in result["seconds"].items()}
            rows.append(
                [
                    f"{name}{suffix}, {result['bytes'] / 1e6:.0f} MB",
                    seconds(middle[COPY]),
                    f"**{seconds(middle[REWRITE])}**",
                    ratio(harness.ratios(result["seconds"][REWRITE], result["seconds"][COPY])),
                    seconds(excess(result)) if excess(result) > 0 else "none",
                    seconds(middle[LIVE]) if LIVE in middle else "",
                ]
            )
    return {"files": Table("A saved model, rewritten as a file", heads, rows)}


def figures(data: dict[str, Any]) -> dict[str, str]:
    """What the pages say in prose."""
    return {}


def draw(data: dict[str, Any]) -> dict[str, Any]:
    """No pictures: the table is all."""
    return {}
