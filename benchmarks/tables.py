"""A table of results: as Markdown for a page, and in the terminal."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import rich.table

from benchmarks import harness


@dataclass(frozen=True)
class Table:
    """Columns, rows of text, and notes below.

    Attributes:
        title: What the terminal shows above it.
        columns: The heads; the first column is text, and the others are figures.
        rows: The cells.
        notes: Markdown lines below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The table as a page has it."""
        lines = [_line(self.columns), _line(["---", *["---:"] * (len(self.columns) - 1)])]
        lines += [_line(row) for row in self.rows]
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines)

    def rich(self) -> rich.table.Table:
        """The table as the terminal has it."""
        table = rich.table.Table(title=self.title, title_justify="left", title_style="bold")
        for number, column in enumerate(self.columns):
            table.add_column(_plain(column), justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*(_plain(cell) for cell in row))
        if self.notes:
            table.caption = "\n".join(_plain(note) for note in self.notes)
            table.caption_justify = "left"
        return table


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    for mark in ("**", "`", "<sup>", "</sup>"):
        text = text.replace(mark, "")
    return text


def ratio(each: Sequence[float]) -> str:
    """A median and its spread."""
    low, high = harness.spread(each)
    return f"{statistics.median(each):.2f} ({low:.2f} to {high:.2f})"


def relative(value: float) -> str:
    """A relative difference."""
    if value >= 0.01:
        return f"{value:.2f}"
    return f"{value:.0e}" if value else "0"


def seconds(value: float) -> str:
    """A time with its unit, three digits of it."""
    if value >= 100:
        return f"{value:.0f} s"
    if value >= 10:
        return f"{value:.1f} s"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1000:.0f} ms" if value >= 0.1 else f"{value * 1000:.1f} ms"
