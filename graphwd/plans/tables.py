"""Tables: plain text for a pipe and for `print`, HTML for a notebook; no Keras, no colours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Cell: TypeAlias = str | int | float | tuple[str, ...] | None
"""What a column may be made of; nothing is an empty cell, several texts are a list."""

_HTML = """<table><caption style="text-align: left">{{ table.title }}</caption><thead><tr>
{%- for column in table.columns -%}
<th style="text-align: {{ 'right' if column.right else 'left' }}">{{ column.header }}</th>
{%- endfor -%}
</tr></thead><tbody>
{%- for row in table.lines -%}
<tr>
{%- for lines in row -%}
<td style="text-align: {{ 'right' if table.columns[loop.index0].right else 'left' }}">
{%- for line in lines %}{{ line }}{% if not loop.last %}<br>{% endif %}{% endfor -%}
</td>
{%- endfor -%}
</tr>
{%- endfor -%}
</tbody></table>"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: what stands above it, and the parts of each cell, from the top."""

    header: str
    parts: tuple[tuple[str, ...], ...]
    right: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        """Its texts; the parts of a list are one."""
        return tuple(map(", ".join, self.parts))

    @property
    def width(self) -> int:
        """The length of its longest text."""
        return max(map(len, (self.header, *self.cells)))


@dataclass(frozen=True, slots=True)
class Table:
    """A table, with nothing in it that a terminal would take for a command."""

    title: str
    columns: tuple[Column, ...]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells, row by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))

    @property
    def lines(self) -> list[tuple[tuple[str, ...], ...]]:
        """The lines of each cell, row by row: one, or one for each part of a list."""
        return list(zip(*(column.parts for column in self.columns), strict=True))

    def text(self) -> str:
        """The table for a file, as wide as its content."""
        widths = [column.width for column in self.columns]
        lines = [self.title]
        for cells in (tuple(column.header for column in self.columns), *self.rows):
            padded = [
                cell.rjust(width) if column.right else cell.ljust(width)
                for cell, width, column in zip(cells, widths, self.columns, strict=True)
            ]
            lines.append("  " + "  ".join(padded).rstrip())
        return "\n".join(lines)

    def html(self) -> str:
        """The table for a notebook."""
        import jinja2  # here, since most tables are text

        template = jinja2.Environment(autoescape=True).from_string(_HTML)
        return template.render(table=self)


def make_table(title: str, columns: Mapping[str, Iterable[Cell]]) -> Table:
    """Makes a table of the columns that say something, with numbers on the right."""
    made = []
    for header, given in columns.items():
        cells = list(given)
        column = Column(header, tuple(map(_parts, cells)), all(map(_is_number, cells)))
        if any(column.cells):
            made.append(column)
    return Table(title, tuple(made))


def _parts(cell: Cell) -> tuple[str, ...]:
    if cell is None:
        return ()
    if isinstance(cell, float):
        return (f"{cell:.4g}",)
    if isinstance(cell, int):
        return (f"{cell:,}",)
    return tuple(map(printable, (cell,) if isinstance(cell, str) else cell))


def _is_number(cell: Cell) -> bool:
    if isinstance(cell, str):
        return cell in ("", "?") or re.fullmatch(r"<?[\d.]+%", cell) is not None
    return not isinstance(cell, tuple)


def printable(text: str) -> str:
    """A text on one line, with escapes for what would not show, or would steer a terminal.

    The names of layers may come from a file that nobody vouches for.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
