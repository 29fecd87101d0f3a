"""The tables and figures of two pages, written between their marks from the results beside them.

`<!-- benchmark:NAME -->` and `<!-- /benchmark:NAME -->` stand around a table, on lines of their
own, or around a figure within a sentence.
"""

import importlib
import json
import pathlib
import re

from benchmarks import harness
from benchmarks.listed import BENCHMARKS
from benchmarks.tables import Table

PAGE = harness.ROOT / "benchmarks" / "README.md"
PAGES = (harness.ROOT / "README.md", PAGE)
MARKED = re.compile(r"<!-- benchmark:([\w-]+) -->(.*?)<!-- /benchmark:\1 -->", re.DOTALL)


def measured(results: pathlib.Path = harness.RESULTS) -> list[str]:
    """The benchmarks that have results."""
    return [name for name in BENCHMARKS if (results / f"{name}.json").exists()]


def tables(name: str, results: pathlib.Path = harness.RESULTS) -> dict[str, Table]:
    """One benchmark's tables, from its results."""
    data = json.loads((results / f"{name}.json").read_text())["data"]
    return importlib.import_module(f"benchmarks.{name}").tables(data)


def contents(results: pathlib.Path = harness.RESULTS) -> dict[str, str]:
    """What belongs between each pair of marks."""
    found: dict[str, str] = {}
    for name in measured(results):
        kept = json.loads((results / f"{name}.json").read_text())
        module = importlib.import_module(f"benchmarks.{name}")
        new = {f"{name}-machine": machine(kept["facts"]), **module.figures(kept["data"])}
        for mark, table in module.tables(kept["data"]).items():
            assert mark not in new, f"{mark} is a figure's name already"
            new[mark] = f"\n{table.markdown()}\n"
        found |= new
    return found


def machine(facts: dict[str, object]) -> str:
    """Where and with what results were measured."""
    versions = facts["versions"]
    assert isinstance(versions, dict)
    names = {"keras": "Keras", "tensorflow": "TensorFlow"}
    parts = [f"{name} {versions[key]}" for key, name in names.items() if key in versions]
    return f"{facts['cores']} cores, {', '.join(parts)}, {facts['date']}"


def rendered(text: str, found: dict[str, str]) -> str:
    """A page as the results have it; a mark whose name is nobody's is a KeyError."""

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- benchmark:{name} -->{found[name]}<!-- /benchmark:{name} -->"

    return MARKED.sub(replaced, text)


def write(results: pathlib.Path = harness.RESULTS) -> None:
    """Writes the pages anew."""
    found = contents(results)
    for path in PAGES:
        text = path.read_text("utf-8")
        new = rendered(text, found)
        if new != text:
            path.write_text(new, "utf-8")
