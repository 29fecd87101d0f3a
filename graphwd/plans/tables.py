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
    """One column of a table.

    Attributes:
        header: What stands above it.
        cells: Its texts, from the top.
        right: Whether it is aligned to the right, as numbers are.
        items: The parts of each text, where these are lists; each may have a line of its own.
    """

    header: str
    cells: tuple[str, ...]
    right: bool = False
    items: tuple[tuple[str, ...], ...] = ()

    @property
    def width(self) -> int:
        """The length of its longest text."""
        return max(map(len, (self.header, *self.cells)))


@dataclass(frozen=True, slots=True)
class Table:
    """A table, with nothing in it that a terminal would take for a command.

    Attributes:
        title: One line.
        columns: The `Column`s, all of the same length.
    """

    title: str
    columns: tuple[Column, ...]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells, row by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))

    @property
    def lines(self) -> list[tuple[tuple[str, ...], ...]]:
        """The lines of each cell, row by row: one, or one for each part of a list."""
        columns = (c.items or tuple((cell,) for cell in c.cells) for c in self.columns)
        return list(zip(*columns, strict=True))

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
    """Makes a table of the columns that say something.

    Args:
        title: One line.
        columns: Maps headers to cells. Numbers stand on the right, whole ones with commas at the
            thousands, others with four digits; a column whose cells are all empty is left out.

    Returns:
        A `Table`.

    Example:
    ```python
    print(make_table("Roles", {"role": ["kernel", "bias"], "weights": [15, 1]}).text())
    ```
    """
    made = []
    for header, given in columns.items():
        cells = list(given)
        texts = tuple(_text(cell) for cell in cells)
        if any(texts):
            right = all(_is_number(cell) for cell in cells)
            lists = any(isinstance(cell, tuple) for cell in cells)
            items = tuple(_items(cell) for cell in cells) if lists else ()
            made.append(Column(header, texts, right, items))
    return Table(title, tuple(made))


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return ", ".join(_items(cell))


def _items(cell: Cell) -> tuple[str, ...]:
    parts = cell if isinstance(cell, tuple) else () if cell is None else (str(cell),)
    return tuple(map(printable, parts))


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
