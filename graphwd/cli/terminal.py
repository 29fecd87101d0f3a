"""Reports in a terminal: tables in colour, and a progress bar for work that takes its time."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from graphwd.plans.plan import Plan
from graphwd.plans.summary import count_parameters
from graphwd.plans.tables import Table, printable

if TYPE_CHECKING:
    from rich.console import Console

_NARROWEST = 10  # of a column of texts; what doesn't fit goes on below


def show_plan(plan: Plan) -> None:
    """Prints a plan on standard output, with colours where that is a terminal.

    Args:
        plan: A `Plan`.
    """
    if sys.stdout.isatty():
        _show(plan.title, *plan.shown())
    else:
        print(plan)  # a pipe gets lines as wide as they are, and saves the import


def show_table(table: Table) -> None:
    """Prints a table on standard output, with colours where that is a terminal.

    Args:
        table: A `Table`.
    """
    if sys.stdout.isatty():
        _show("", [table], ())
    else:
        print(table.text())


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


def summary_lines(plan: Plan) -> list[str]:
    """What a rewrite did, a line each: what was edited, and what a user should know of it.

    Args:
        plan: The `Plan` that was carried out.

    Returns:
        A list of strings.
    """
    roles: dict[str, int] = {}
    for edit in plan:
        roles[edit.role] = roles.get(edit.role, 0) + 1
    by_role = ", ".join(f"{count:,} {role}" for role, count in roles.items())
    lines = [f"edited     {len(plan):,} of {len(plan.slots):,} slots"]
    if by_role:
        lines[0] += f": {by_role}"
    penalised = [edit for edit in plan.slots if edit.after is not None]
    line = f"penalised  {len(penalised):,} slot{'' if len(penalised) == 1 else 's'}"
    parameters, total = count_parameters(penalised), count_parameters(plan.slots)
    if parameters is not None and total:
        line += f", {parameters:,} parameters ({parameters / total:.1%} of those that can be)"
    lines.append(line)
    reasons = {
        "dormant": "frozen: Keras skips these penalties until the weights are trainable",
        "carried": "no config holds these: import graphwd before loading the file",
        "unreached": "no config reaches these weights, and no rule selects them",
    }
    for word, why in reasons.items():
        count = sum(getattr(edit, word) for edit in plan.slots)
        if word == "unreached" and not count and plan.notes:
            continue  # a file doesn't tell which weights these are: its notes say what it tells
        lines.append(f"{word:<9}  {count:,}" + (f" ({why})" if count else ""))
    lines += [f"note       {note}" for note in plan.notes]
    return [printable(line) for line in lines]


@contextlib.contextmanager
def progress(*steps: str) -> Iterator[Callable[[], None]]:
    """A bar on standard error for long work, if that is a terminal.

    It writes to a copy of the standard error, so that it shows while the other one is silenced.

    Args:
        *steps: What is done one after the other, each in a word or two.

    Yields:
        What is to be called when a step is done.

    Example:
    ```python
    with progress("loading", "rewriting") as next_step:
        model = keras.saving.load_model(path)
        next_step()
    ```
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = bars.TextColumn("{task.description}", markup=False), bars.BarColumn()
    more = bars.MofNCompleteColumn(), bars.TimeElapsedColumn()
    with (
        os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8") as stream,
        bars.Progress(
            *columns,
            *more,
            console=Console(file=stream),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as bar,
    ):
        task = bar.add_task(steps[0], total=len(steps))
        left = iter(steps[1:])
        yield lambda: bar.update(task, advance=1, description=next(left, steps[-1]))
