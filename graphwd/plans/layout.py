"""Layouts: places for the boxes of one block, row by row, and ways for the lines between them."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx as nx

WIDTH, HEIGHT = 200, 42
"""The size of a box, in pixels."""

LEAD = 18
"""The length of a line that leads out of a block, in pixels."""

_GAP, _ROW, _DUMMY = 16, 30, 10
_DUMMIES = 20_000


@dataclass(frozen=True)
class Layout:
    """Where everything in a block is.

    Attributes:
        width: In pixels.
        height: In pixels.
        places: Maps boxes to their left and upper edges.
        lines: The `d` attributes of SVG paths.
    """

    width: float
    height: float
    places: Mapping[int, tuple[float, float]]
    lines: list[str]


def lay_out(
    links: set[tuple[int, int]], members: Iterable[int], above: int | None, below: int | None
) -> Layout:
    """Lays a block out in rows: lines that pass rows get places there, and few lines cross.

    Args:
        links: Pairs of boxes with a line from the first to the second.
        members: The boxes of the block.
        above: What is above the block, for lines that come in, or `None`.
        below: What is below it, for lines that go out, or `None`.

    Returns:
        A `Layout`.
    """
    row_of: dict[Hashable, int] = dict(rows_of(links, members).items())
    height = max(row_of.values()) + 1
    rows: list[list[Hashable]] = [[] for _ in range(height)]
    for number, row in row_of.items():
        rows[row].append(number)
    if above is not None:
        row_of[above] = -1
    if below is not None:
        row_of[below] = height
    length = sum(row_of[b] - row_of[a] for a, b in links)
    chains: list[list[Hashable]] = []
    for a, b in sorted(links):
        chain: list[Hashable] = [a]
        if length <= _DUMMIES:
            for row in range(row_of[a] + 1, row_of[b]):
                dummy = (a, b, row)
                row_of[dummy] = row
                rows[row].append(dummy)
                chain.append(dummy)
        chains.append([*chain, b])
    _order(rows, chains)
    return _place(rows, chains, above, below)


def rows_of(links: Iterable[tuple[int, int]], members: Iterable[int]) -> dict[int, int]:
    """The row of each box: the length of the longest way to it within the block.

    Args:
        links: Pairs of boxes with a line from the first to the second.
        members: The boxes of the block.

    Returns:
        Maps boxes to numbers.
    """
    import networkx as nx

    inner: nx.DiGraph[int] = nx.DiGraph()
    inner.add_nodes_from(members)
    inner.add_edges_from((a, b) for a, b in links if a in inner and b in inner)
    return {
        number: row
        for row, generation in enumerate(nx.topological_generations(inner))
        for number in generation
    }


def _order(rows: list[list[Hashable]], chains: Sequence[Sequence[Hashable]]) -> None:
    """Orders each row by the mean place of its neighbours, downwards and upwards in turn."""
    up: dict[Hashable, list[Hashable]] = {}
    down: dict[Hashable, list[Hashable]] = {}
    for chain in chains:
        for a, b in itertools.pairwise(chain):
            up.setdefault(b, []).append(a)
            down.setdefault(a, []).append(b)
    for turn in range(6):
        neighbours, sequence = (up, rows) if turn % 2 == 0 else (down, rows[::-1])
        place = {node: (number + 0.5) / len(row) for row in rows for number, node in enumerate(row)}

        def mean(
            node: Hashable,
            neighbours: dict[Hashable, list[Hashable]] = neighbours,
            place: dict[Hashable, float] = place,
        ) -> float:
            near = [place.get(other, 0.5) for other in neighbours.get(node, ())]
            return sum(near) / len(near) if near else place[node]

        for row in sequence:
            row.sort(key=mean)
            for number, node in enumerate(row):
                place[node] = (number + 0.5) / len(row)


def _place(
    rows: Sequence[Sequence[Hashable]],
    chains: Sequence[Sequence[Hashable]],
    above: int | None,
    below: int | None,
) -> Layout:
    """Gives every box its place, and every line its way."""

    def width(node: Hashable) -> int:
        return WIDTH if isinstance(node, int) else _DUMMY

    widths = [sum(map(width, row)) + _GAP * (len(row) - 1) for row in rows]
    total = max(*widths, WIDTH)
    top = 0 if above is None else LEAD
    places: dict[int, tuple[float, float]] = {}
    middle: dict[Hashable, tuple[float, float, float]] = {}
    for number, row in enumerate(rows):
        x = (total - widths[number]) / 2
        y = top + number * (HEIGHT + _ROW)
        for node in row:
            middle[node] = (x + width(node) / 2, y, y + HEIGHT)
            if isinstance(node, int):
                places[node] = (x, y)
            x += width(node) + _GAP
    bottom = top + len(rows) * (HEIGHT + _ROW) - _ROW
    height = bottom if below is None else bottom + LEAD
    if above is not None:
        middle[above] = (total / 2, 0, 0)
    if below is not None:
        middle[below] = (total / 2, height, height)
    lines = [_line([middle[node] for node in chain]) for chain in chains]
    return Layout(total, height, places, lines)


def _line(points: Sequence[tuple[float, float, float]]) -> str:
    """A smooth line through the middles of rows."""
    x, _, y = points[0]
    text = f"M{x:g} {y:g}"
    for place, (next_x, upper, lower) in enumerate(points[1:], 2):
        middle = (y + upper) / 2
        text += f"C{x:g} {middle:g} {next_x:g} {middle:g} {next_x:g} {upper:g}"
        if place < len(points):
            text += f"V{lower:g}"
        x, y = next_x, lower
    return text
