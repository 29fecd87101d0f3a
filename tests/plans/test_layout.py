"""Layouts: where a graph is cut, what repeats itself, and that lines keep to their rows."""

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphwd.plans import layout


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([], []),
        ([1, 1], [(0, 2, 1)]),
        ([1, 1, 1], [(0, 1, 3)]),
        ([0, 1, 2, 1, 2, 3], [(0, 1, 1), (1, 2, 2), (5, 1, 1)]),
        ([1, 2, 1, 2, 9, 1, 2, 1, 2, 9], [(0, 2, 2), (4, 1, 1), (5, 2, 2), (9, 1, 1)]),
    ],
)
def test_spans(keys, expected):
    assert layout.spans(keys) == expected


@given(st.lists(st.integers(0, 2), max_size=60))
def test_spans_cover_a_sequence_and_repeat_what_they_say(keys):
    place = 0
    for start, period, times in layout.spans(keys):
        assert start == place
        first = keys[start : start + period]
        assert keys[start : start + period * times] == first * times
        place += period * times
    assert place == len(keys)


@st.composite
def graphs(draw):
    """A graph of chunks, numbered in topological order."""
    size = draw(st.integers(1, 12))
    graph = nx.DiGraph()
    graph.add_nodes_from(range(size))
    for number in range(1, size):
        before = st.lists(st.integers(max(0, number - 4), number - 1), unique=True, max_size=3)
        graph.add_edges_from((other, number) for other in draw(before))
    return graph


@given(graphs())
def test_a_cut_is_where_every_line_ends(graph):
    items = layout.cut(graph)
    assert [number for item in items for number in item.chunks] == sorted(graph)
    roots = [number for number in graph if not graph.in_degree(number)]
    for item in items:
        first, last = min(item.chunks), max(item.chunks)
        passing = {(a, b) for a, b in graph.edges if a < first and b > last}
        assert passing <= {(item.above, item.below)}, "a line passes by within a block alone"
        if item.is_single:
            assert not passing
            assert len(roots) == 1 or last >= max(roots)
        block = item.block(graph)
        outside = {item.above, item.below} - {None}
        assert set(block) - set(item.chunks) <= outside


@given(graphs())
def test_boxes_stand_in_rows_without_touching_and_lines_go_down(graph):
    made = layout.lay_out(graph, graph.nodes, None, None)
    rows = layout.rows_of(graph, graph.nodes)
    assert set(made.places) == set(graph)
    for number, row in rows.items():
        x, y = made.places[number]
        assert 0 <= x <= made.width - layout.WIDTH
        assert 0 <= y <= made.height - layout.HEIGHT
        beside = [made.places[n][0] for n in graph if rows[n] == row and n != number]
        assert all(abs(x - other) > layout.WIDTH for other in beside)
        assert all(made.places[below][1] > y + layout.HEIGHT for below in graph[number])
    assert len(made.lines) == graph.number_of_edges()
    starts = sorted(tuple(map(float, line[1:].split("C")[0].split())) for line in made.lines)
    edges = [made.places[a] for a, _ in graph.edges]
    assert starts == sorted((x + layout.WIDTH / 2, y + layout.HEIGHT) for x, y in edges)
