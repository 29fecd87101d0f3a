"""Does it work? Every way tried on what training, saving and transfer ask of it."""

import concurrent.futures
import pathlib
import subprocess
import venv
from typing import Any

from benchmarks import harness
from benchmarks.progress import Meter
from benchmarks.tables import Table
from benchmarks.works.catalogue import (
    COLUMNS,
    HELPER,
    KERAS,
    LEGACY,
    SHORT_COLUMNS,
    SHORT_WAYS,
    TOO_MANY,
    WAYS,
)

PICTURES: tuple[str, ...] = ()
ENVIRONMENT = harness.ROOT / "benchmarks" / ".environments" / "helper"
HELPERS_PACKAGE = "keras-cv-attention-models==1.4.3"
READY = "made"


def run(meter: Meter, quick: bool) -> dict[str, Any]:
    """Tries every way in a process of its own, two at a time: nothing here is timed.

    Args:
        meter: Shows the progress.
        quick: Whether to try two ways only.

    Returns:
        For each way its answers and lines, or why it could not be tried.
    """
    chosen = ["add_loss", "graphwd_live"] if quick else list(WAYS)
    meter.start(len(chosen))
    meter.now("every way, two at a time")

    def tried(way: str) -> dict[str, Any]:
        result = _tried(way)
        meter.step(way)
        return result

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(chosen, pool.map(tried, chosen), strict=True))


def _tried(way: str) -> dict[str, Any]:
    kind = WAYS[way].environment
    if kind == KERAS:
        return harness.worker("works.checks:answers", way)
    if kind == LEGACY:
        if not harness.installed("tf-keras"):
            return {"not tried": "tf_keras is not installed."}
        settings = {"GRAPHWD_BENCHMARK_KERAS": "tf_keras"}
        return harness.worker("works.checks:answers", way, environment=settings)
    assert kind == HELPER
    try:
        python = helpers_python()
    except (OSError, subprocess.CalledProcessError) as error:
        return {"not tried": f"Its environment can't be made ({error})."}
    return harness.worker("works.checks:answers", way, python=python)


def helpers_python() -> pathlib.Path:
    """The interpreter of the published helper's own environment, which is made once and kept."""
    folder = "Scripts" if harness.WINDOWS else "bin"
    python = ENVIRONMENT / folder / ("python.exe" if harness.WINDOWS else "python")
    ready = ENVIRONMENT / READY
    if not ready.exists():
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        same = [f"{name}=={harness.version(name)}" for name in ("keras", "tensorflow")]
        install = [str(python), "-m", "pip", "install", "--quiet", HELPERS_PACKAGE, *same]
        subprocess.run(install, check=True, capture_output=True)
        ready.touch()
    return python


def cell(answer: dict[str, Any]) -> str:
    """One answer in the table."""
    right, wanted = answer["right"], answer["wanted"]
    if right == wanted:
        return "yes"
    if TOO_MANY in answer["why"]:
        return "too many"
    return f"{right} of {wanted}" if right else "no"


def tables(data: dict[str, Any]) -> dict[str, Table]:
    """Ways down the side, questions along the top: all with the reasons below, and a choice."""
    rows, notes, short = [], [], []
    for way, result in data.items():
        entry = WAYS[way]
        number = ""
        if entry.reason:
            notes.append(f"{len(notes) + 1}. {entry.title}: {entry.reason}")
            number = f" <sup>{len(notes)}</sup>"
        cells = dict.fromkeys((*COLUMNS, "lines"), "")
        if "not tried" in result:
            notes[-1] += f" Not tried here: {result['not tried']}"
        else:
            found = result["answers"]
            raised = all(answer["why"].startswith("ValueError") for answer in found.values())
            cells |= {column: "error" if raised else cell(found[column]) for column in COLUMNS}
            cells["lines"] = str(result["lines"])
        rows.append([entry.title + number, *cells.values()])
        if way in SHORT_WAYS:
            short.append([entry.title, *(cells[column] for column in SHORT_COLUMNS)])
    return {
        "works": Table("Does it work?", ["way", *COLUMNS.values(), "lines"], rows, notes),
        "works-short": Table("In short", ["way", *SHORT_COLUMNS.values()], short),
    }


def figures(data: dict[str, Any]) -> dict[str, str]:
    """No figures: the tables are all."""
    return {}


def draw(data: dict[str, Any]) -> dict[str, Any]:
    """No pictures either."""
    return {}
