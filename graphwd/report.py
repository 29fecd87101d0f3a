"""Reports in a terminal: tables in colour, and a progress bar for work that takes its time."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from graphwd.plans import Plan
from graphwd.summary import count_parameters
from graphwd.tables import Table, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_PATIENCE = 1.0  # seconds without a word before the progress bar shows


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
        box=box.SIMPLE_HEAD, header_style="bold cyan", pad_edge=False, padding=(0, 1, 0, 0)
    )
    # Long texts get lines of their own where the window is narrow: a path in a column of a few
    # letters can't be read. A number on two lines reads as two numbers, so none is folded.
    rest, long = table.fit(console.width)
    above = [column for column in long if column is table.columns[0]]
    below = [column for column in long if column is not table.columns[0]]
    if not long:
        for column in table.columns:
            drawn.add_column(
                column.header,
                justify="right" if column.right else "left",
                overflow="fold",
                no_wrap=column.right,
            )
        for row in table.rows:
            drawn.add_row(*(Text(cell, style=_style(cell)) for cell in row))
        console.print(drawn)
        return
    indent = 2 if above else 0
    for column in above:
        console.print(Text(column.header, style="bold cyan"))
    console.print(_line(rest, [column.header for column in rest.columns], indent, "bold cyan"))
    console.print(Text("\N{BOX DRAWINGS LIGHT HORIZONTAL}" * console.width))
    for number, row in enumerate(rest.rows):
        for column in above:
            console.print(Text(column.cells[number]), overflow="fold")
        console.print(_line(rest, row, indent, None), overflow="fold")
        for column in below:
            label = f"{column.header}: "
            gap = indent + 2 + len(label)
            width = max(console.width - gap, 20)
            if column.items:  # paths have no words to fold at
                items = column.items[number]
                lines = [item[i : i + width] for item in items for i in range(0, len(item), width)]
            else:
                lines = textwrap.wrap(column.cells[number], width)
            for place, line in enumerate(lines):
                text = Text(" " * (indent + 2)).append(label if not place else " " * len(label))
                text.stylize("cyan")
                console.print(text.append(line, style="default"), overflow="fold")


def _line(table: Table, cells: Sequence[str], indent: int, style: str | None) -> Text:
    """Cells on one line, under each other from line to line."""
    from rich.text import Text

    line = Text(" " * indent)
    for cell, column in zip(cells, table.columns, strict=True):
        padded = cell.rjust(column.width) if column.right else cell.ljust(column.width)
        line.append(padded + "  ", style=_style(cell) if style is None else style)
    line.rstrip()
    return line


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
    edits = [decision for decision in plan.decisions if decision.changes]
    roles: dict[str, int] = {}
    for decision in edits:
        roles[decision.slot.role] = roles.get(decision.slot.role, 0) + 1
    by_role = ", ".join(f"{count:,} {role}" for role, count in roles.items())
    lines = [f"edited     {len(edits):,} of {len(plan.decisions):,} slots"]
    if by_role:
        lines[0] += f": {by_role}"
    penalised = [decision for decision in plan.decisions if decision.after is not None]
    line = f"penalised  {len(penalised):,} slot{'' if len(penalised) == 1 else 's'}"
    parameters, total = count_parameters(penalised), count_parameters(plan.decisions)
    if parameters is not None and total:
        line += f", {parameters:,} parameters ({parameters / total:.1%} of those that can be)"
    lines.append(line)
    reasons = {
        "dormant": "frozen: Keras skips these penalties until the weights are trainable",
        "carried": "no config holds these: import graphwd before loading the file",
        "unreached": "no config reaches these weights, and no rule selects them",
    }
    for word, why in reasons.items():
        count = sum(getattr(decision, word) for decision in plan.decisions)
        if word == "unreached" and not count and plan.notes:
            continue  # a file doesn't tell which weights these are: its notes say what it tells
        lines.append(f"{word:<9}  {count:,}" + (f" ({why})" if count else ""))
    lines += [f"note       {note}" for note in plan.notes]
    return [printable(line) for line in lines]


class Progress:
    """A bar on standard error, for work that takes more than a second, if that is a terminal.

    It writes to a copy of the standard error, so that it shows while the other one is silenced.

    Args:
        step: What is being done, in a word or two.

    Example:
    ```python
    with Progress("loading") as progress:
        model = keras.saving.load_model(path)
        progress.step("rewriting")
    ```
    """

    def __init__(self, step: str) -> None:
        self._step = step
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._stream: IO[str] | None = None
        self._bar: Any = None

    def step(self, step: str) -> None:
        """Says what is being done now."""
        with self._lock:
            self._step = step
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], description=step)

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")
            self._timer = threading.Timer(_PATIENCE, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def _show(self) -> None:
        from rich import progress
        from rich.console import Console

        with self._lock:
            if self._timer is None:
                return
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.TimeElapsedColumn(),
                console=Console(file=self._stream),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.add_task(self._step, total=None)
            self._bar.start()

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._timer = None
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
