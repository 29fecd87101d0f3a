"""A saved ResNet50 rewritten as a file, beside a plain copy and beside load, rewrite and save.

Every way is a process of its own, from its start to its end, since that is what a user waits for.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

ROUNDS = 3
RESULTS = pathlib.Path(__file__).parent / "results" / "files.json"
PYTHON = (sys.executable, "-c")
BUILD = "import keras, sys; keras.applications.ResNet50(weights=None).save(sys.argv[1])"
AS_A_FILE = (
    "import graphwd, sys; graphwd.rewrite_file(sys.argv[1], sys.argv[2], "
    "graphwd.Policy.recipe('resnet'), overwrite=True)"
)
LIVE = (
    "import graphwd, keras, sys; graphwd.rewrite(keras.saving.load_model(sys.argv[1]), "
    "graphwd.Policy.recipe('resnet')).save(sys.argv[2])"
)


def main() -> None:
    """Measures everything, writes the samples as JSON and prints a table."""
    measured: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".keras", ".h5"):
            source, target = (str(pathlib.Path(folder) / f"{n}{suffix}") for n in ("a", "b"))
            _run([*PYTHON, BUILD, source])
            commands = {
                "cp": ["cp", source, target],
                "graphwd, the file": [*PYTHON, AS_A_FILE, source, target],
                "load, rewrite, save": [*PYTHON, LIVE, source, target],
            }
            samples: dict[str, list[float]] = {way: [] for way in commands}
            for _ in range(ROUNDS):
                for way, command in commands.items():
                    start = time.perf_counter()
                    _run(command)
                    samples[way].append(time.perf_counter() - start)
            measured[suffix] = {"bytes": os.path.getsize(source), "seconds": samples}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
    print(table(measured))


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def table(measured: dict[str, dict[str, Any]]) -> str:
    """The medians as a Markdown table."""
    ways = list(next(iter(measured.values()))["seconds"])
    rows = [f"| ResNet50 | {' | '.join(ways)} |", f"| --- |{' --- |' * len(ways)}"]
    for suffix, result in measured.items():
        cells = [f"{statistics.median(result['seconds'][way]):.2f} s" for way in ways]
        rows.append(
            f"| {suffix}, {result['bytes'] / 1e6:.0f} MB, proof included | {' | '.join(cells)} |"
        )
    return "\n".join(rows)
