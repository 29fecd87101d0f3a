"""Layouts: where a graph is cut, what repeats itself, and where boxes and lines stand."""

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
_PERIOD = 60  # of repeats


@dataclass(frozen=True)
class Item:
    """The chunks between two cuts, and those above and below, to which lines lead."""

    chunks: list[int]
    above: int | None = None
    below: int | None = None

    @property
    def is_single(self) -> bool:
        """Whether it is one chunk alone, with nothing beside it."""
        return len(self.chunks) == 1 and self.above is None and self.below is None

    def block(self, graph: nx.DiGraph[int]) -> nx.DiGraph[int]:
        """The part of a graph that it is, with the lines from above and to below."""
        import networkx as nx

        inside = {*self.chunks, self.below}
        block: nx.DiGraph[int] = nx.DiGraph()
        block.add_nodes_from(self.chunks)
        for a in self.chunks if self.above is None else (self.above, *self.chunks):
            block.add_edges_from((a, b) for b in graph[a] if b in inside)
        return block


@dataclass(frozen=True)
class Layout:
    """Where everything in a block is: boxes' left and upper edges, lines as `d` of SVG paths."""

    width: float
    height: float
    places: Mapping[int, tuple[float, float]]
    lines: list[str]


def cut(graph: nx.DiGraph[int]) -> list[Item]:
    """Cuts a graph, numbered in topological order, where no line passes by a node."""
    roots = [number for number, lines in graph.in_degree() if not lines]
    reach = max(roots) + 1 if len(roots) > 1 else -1
    items: list[Item] = []
    inside: list[int] = []
    above: int | None = None
    for number in sorted(graph):
        if reach <= number:
            if inside:
                items.append(Item(inside, above, number))
            items.append(Item([number]))
            inside, above = [], number
        else:
            inside.append(number)
        reach = max(reach, *graph[number], -1)
    if inside:
        items.append(Item(inside, above))
    return items


def spans(keys: Sequence[int]) -> list[tuple[int, int, int]]:
    """Splits a sequence into repeats: where each starts, its length, and how often it stands."""
    gaps = [(0, len(keys))]
    found: list[tuple[int, int, int]] = []
    # Short sequences are found first, so that a stage of equal blocks is folded block by block.
    for period in range(1, min(_PERIOD, len(keys) // 2) + 1):
        left = []
        for low, high in gaps:
            start = low
            while start + 2 * period <= high:
                end = start
                while end + period < high and keys[end] == keys[end + period]:
                    end += 1
                times = (end - start) // period + 1
                if (times - 1) * period < 2:
                    start = end + 1
                    continue
                found.append((start, period, times))
                left.append((low, start))
                low = start = start + period * times
            left.append((low, high))
        gaps = left
    split: list[tuple[int, int, int]] = []
    place = 0
    for start, period, times in [*sorted(found), (len(keys), 0, 0)]:
        if place < start:
            split.append((place, start - place, 1))
        if times:
            split.append((start, period, times))
        place = start + period * times
    return split


def lay_out(
    block: nx.DiGraph[int], members: Iterable[int], above: int | None, below: int | None
) -> Layout:
    """Lays a block out in rows: lines that pass rows get places there, and few lines cross."""
    row_of: dict[Hashable, int] = dict(rows_of(block, members).items())
    height = max(row_of.values()) + 1
    rows: list[list[Hashable]] = [[] for _ in range(height)]
    for number, row in row_of.items():
        rows[row].append(number)
    if above is not None:
        row_of[above] = -1
    if below is not None:
        row_of[below] = height
    length = sum(row_of[b] - row_of[a] for a, b in block.edges)
    chains: list[list[Hashable]] = []
    for a, b in sorted(block.edges):
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


def rows_of(block: nx.DiGraph[int], members: Iterable[int]) -> dict[int, int]:
    """The row of each member: the length of the longest way to it within the block."""
    import networkx as nx

    generations = nx.topological_generations(block.subgraph(members))
    return {number: row for row, numbers in enumerate(generations) for number in numbers}


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
