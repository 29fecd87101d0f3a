"""What commands print: plans and tables, in colour where there is a terminal, JSON, progress."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from graphwd.plans.plan import Plan
from graphwd.plans.summary import count_parameters
from graphwd.plans.tables import Table, printable

if TYPE_CHECKING:
    from rich.console import Console

    from graphwd.graph.equivalence import Report

_NARROWEST = 10  # of a column of texts; what doesn't fit goes on below


def show_plan(plan: Plan) -> None:
    """Prints a plan on standard output, with colours where that is a terminal."""
    if sys.stdout.isatty():
        _show(plan.title, *plan.shown())
    else:
        print(plan)  # a pipe gets lines as wide as they are, and saves the import


def show_table(table: Table) -> None:
    """Prints a table on standard output, with colours where that is a terminal."""
    if sys.stdout.isatty():
        _show("", [table], ())
    else:
        print(table.text())


def show_report(report: Report) -> None:
    """Prints what a comparison found."""
    click.echo("\n".join(map(printable, str(report).splitlines())))


def _show(title: str, tables: Sequence[Table], notes: Sequence[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if title:
        console.print(Text(printable(title), style="bold"))
    for table in tables:
        _print_table(console, table)
    for note in notes:
        console.print(Text(f"\nNote: {printable(note)}"))


def _print_table(console: Console, table: Table) -> None:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print(Text(f"\n{table.title}", style="bold"))
    drawn = RichTable(
        box=box.SIMPLE_HEAD,
        header_style="bold cyan",
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in table.columns:
        # A number on two lines reads as two numbers; a text is folded wherever it must be.
        drawn.add_column(
            column.header,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column.right,
            min_width=None if column.right else min(column.width, _NARROWEST),
        )
    for row in table.rows:
        drawn.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    console.print(drawn)


def _style(cell: str) -> str:
    if cell in ("none", "frozen"):
        return "dim"
    if cell in ("dormant", "carried", "unreached"):
        return "yellow"
    return ""


def show_facts(title: str, facts: Iterable[tuple[str, str]]) -> None:
    """Prints a line, and below it what there is to say: each fact after its key."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = click.HelpFormatter(width=width)
    lines.write(f"{printable(title)}\n")
    with lines.indentation():
        lines.write_dl([(key, printable(text)) for key, text in facts])
    click.echo(lines.getvalue(), nl=False)


def size_of(path: str) -> int:
    """The bytes in a file, or in all files of a folder."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    names = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(map(os.path.getsize, names))


def summarize(plan: Plan) -> list[tuple[str, str]]:
    """What a rewrite did: how much was edited, and what a user should know of it."""
    roles = Counter(edit.role for edit in plan)
    by_role = ", ".join(f"{count:,} {role}" for role, count in roles.items())
    edits = f"{len(plan):,} of {len(plan.slots):,} slots"
    penalised = [edit for edit in plan.slots if edit.after is not None]
    penalties = f"{len(penalised):,} slot{'' if len(penalised) == 1 else 's'}"
    parameters, total = count_parameters(penalised), plan.summary().total
    if parameters is not None and total:
        penalties += f", {parameters:,} parameters ({parameters / total:.1%} of those that can be)"
    facts = [("edited", f"{edits}: {by_role}" if by_role else edits), ("penalised", penalties)]
    reasons = {
        "dormant": "frozen: Keras skips these penalties until the weights are trainable",
        "carried": "no config holds these: import graphwd before loading the file",
        "unreached": "no config reaches these weights, and no rule penalises them",
    }
    for word, why in reasons.items():
        count = sum(getattr(edit, word) for edit in plan.slots)
        if word == "unreached" and not count and plan.notes:
            continue  # a file doesn't tell which weights these are: its notes say what it tells
        facts.append((word, f"{count:,} ({why})" if count else "0"))
    return [*facts, *(("note", note) for note in plan.notes)]


def show_json(value: Any) -> None:
    """Prints plain data as strict JSON, which has no number for infinity and for no number."""
    click.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def progress(*steps: str) -> Iterator[Callable[[], None]]:
    """Sends what Keras prints to standard error, with a bar below it where that is a terminal.

    What it yields is to be called when a step is done. The bar is written to a copy of standard
    error, so that it shows while the other one is silenced.
    """
    with contextlib.redirect_stdout(sys.stderr):
        if not sys.stderr.isatty():
            yield lambda: None
            return
        from rich import progress as bars
        from rich.console import Console

        with (
            os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8") as stream,
            bars.Progress(
                bars.TextColumn("{task.description}", markup=False),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TimeElapsedColumn(),
                console=Console(file=stream),
                transient=True,
            ) as bar,
        ):
            task = bar.add_task(steps[0], total=len(steps))
            left = iter(steps[1:])
            yield lambda: bar.update(task, advance=1, description=next(left, steps[-1]))
