"""The command line: `python -m benchmarks` runs all, `python -m benchmarks NAME` one."""

import importlib
import json
import pathlib
import sys
import tempfile
import time

import click
import rich.console

from benchmarks import charts, harness, page, progress
from benchmarks.listed import BENCHMARKS

TABLES = "tables"
EPILOG = "\n\n".join(
    [
        "\b\nBenchmarks:\n"
        + "\n".join(f"  {name:<10} {what}" for name, what in BENCHMARKS.items()),
        f"{TABLES} measures nothing: it writes the tables of the pages, and the pictures, from "
        "the results that are there.",
    ]
)


@click.command(epilog=EPILOG)
@click.argument("names", nargs=-1, type=click.Choice([*BENCHMARKS, TABLES]), metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Tiny settings, to see that it runs; keeps nothing.")
def main(names: tuple[str, ...], quick: bool) -> None:
    """Measures graphwd beside every other way, here and now.

    Without a NAME everything runs. Samples go to benchmarks/results, pictures to
    benchmarks/pictures, and the tables and figures of benchmarks/README.md, and of the README, are
    written from them.
    """
    console = rich.console.Console()
    chosen = [name for name in names or BENCHMARKS if name != TABLES]
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder) if quick else harness.RESULTS
        pictures = pathlib.Path(folder) if quick else harness.PICTURES
        failed = {}
        with progress.bar() as bar:
            for name in chosen:
                try:
                    measure(name, results, bar, quick=quick)
                    draw(name, results, pictures)
                except harness.BenchmarkError as error:  # the others go on; said at the end
                    failed[name] = error
        if TABLES in names:
            for name in page.measured(results):
                draw(name, results, pictures)
        if not quick:
            page.write(results)
        for name in chosen:
            if name in failed:
                continue
            for table in page.tables(name, results).values():
                console.print(table.rich())
                console.print()
    for name, error in failed.items():
        console.print(f"{name} failed and keeps its former results. {error}", markup=False)
    if failed:
        sys.exit(1)


def measure(name: str, results: pathlib.Path, bar: progress.Bar, *, quick: bool) -> None:
    """Runs one benchmark and keeps its samples."""
    meter = progress.Meter(bar, name)
    start = time.perf_counter()
    data = importlib.import_module(f"benchmarks.{name}").run(meter, quick)
    facts = {**harness.facts(), "minutes": round((time.perf_counter() - start) / 60, 1)}
    results.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"facts": facts, "data": data}, indent=1)
    (results / f"{name}.json").write_text(text + "\n")
    meter.finish()


def draw(name: str, results: pathlib.Path, pictures: pathlib.Path) -> None:
    """Draws one benchmark's pictures from its samples."""
    module = importlib.import_module(f"benchmarks.{name}")
    source = results / f"{name}.json"
    for picture, drawn in module.draw(json.loads(source.read_text())["data"]).items():
        charts.save(drawn, pictures, picture, charts.digest(source))


if __name__ == "__main__":
    main()
