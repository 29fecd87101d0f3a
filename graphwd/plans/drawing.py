"""Drawings: a serialized model's graph as boxes and lines, with repeated blocks folded.

A layer with a kernel and what follows it in a line (normalization, activation) make one chunk, a
box. Where all paths of a graph meet, it is cut, so that a drawing is a sequence of small pictures
that flow into columns. Equal blocks in a row become one, drawn once, with a count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphwd.errors import ModelError
from graphwd.graph import wiring
from graphwd.plans.edits import Edit
from graphwd.plans.layout import HEIGHT, LEAD, WIDTH, Item, cut, lay_out, rows_of, spans
from graphwd.policy import regularizers

if TYPE_CHECKING:
    import networkx as nx

_FOLD_ABOVE = 36  # chunks: below, every one is worth its own box
_MERGE_ABOVE = 90  # chunks of one block
_COLUMN = 400  # pixels: lower columns are harder to read on from
_PANELS = 120  # before equal ones are folded
_PIPS = 10
_SHORTEST = 3  # letters that names must begin with for these to say something
_NUMBER = re.compile(r"(\d+)")
_TAIL_ROLES = ("gamma", "beta", "alpha", "activity")

Mark = Callable[[Edit], str]
"""Gives an edit's CSS classes: what its slot gets."""


@dataclass
class Box:
    """A chunk, or several alike, as a rectangle."""

    name: str  # the first layer's, `*` for numbers that differ
    kind: str  # the class names, beneath
    times: int  # how many chunks it stands for
    marks: str  # CSS classes: what the chunk gets
    pips: list[str]  # the CSS classes of each slot
    lines: list[str]  # of text about it
    slot: int | None  # the number of its first slot among `plan.slots`
    panel: int | None  # the number of the panel that draws what is inside
    x: float = 0
    y: float = 0


@dataclass
class Picture:
    """A few boxes and the lines between them, which are the `d` attributes of SVG paths."""

    width: float
    height: float
    boxes: list[Box]
    lines: list[str]


@dataclass
class Repeat:
    """Pictures that stand for several equal sequences of blocks."""

    times: int
    pictures: list[Picture]


@dataclass
class Panel:
    """One model of the graph: the outer one, or those nested in it that look the same."""

    path: str  # empty for the outer one, with `*` for what differs where it stands for several
    layers: int
    repeats: list[Repeat]
    times: int = 1

    @property
    def boxes(self) -> list[Box]:
        """All its boxes."""
        pictures = [picture for repeat in self.repeats for picture in repeat.pictures]
        return [box for picture in pictures for box in picture.boxes]

    @property
    def width(self) -> float:
        """The width of its widest picture."""
        return max((p.width for r in self.repeats for p in r.pictures), default=WIDTH)

    @property
    def columns(self) -> int:
        """Into how many columns it may flow, if the window is wide enough."""
        height = sum(picture.height for repeat in self.repeats for picture in repeat.pictures)
        return max(1, round(height / _COLUMN))


@dataclass
class _Layer:
    """A call of a layer: what its slots get, and, of a model, what is nested in it."""

    name: str
    kind: str
    path: str
    edits: list[tuple[int, Edit]]
    inner: Mapping[str, Any] | None = None

    @property
    def is_head(self) -> bool:
        """Whether it begins a chunk."""
        return self.inner is not None or any(edit.role not in _TAIL_ROLES for _, edit in self.edits)


def draw(serialized: Mapping[str, Any], edits: Sequence[Edit], mark: Mark) -> list[Panel]:
    """Draws a model: a panel for it and for each model nested in it, outer ones first.

    A model whose config tells no graph has its layers without lines.
    """
    import networkx as nx  # takes longer than planning most models

    within: dict[str, list[tuple[int, Edit]]] = {}
    for number, edit in enumerate(edits):
        path = edit.path
        for place, letter in enumerate(path):
            if letter == "/":
                within.setdefault(path[:place], []).append((number, edit))
    outermost = wiring.as_object(serialized)
    if wiring.model_kind(outermost) == "opaque":
        return [_plain_panel(within, mark)]
    panels: list[Panel] = []
    pending = [("", outermost)]
    while pending and len(panels) < _PANELS:
        path, model = pending.pop(0)
        if path.count("/") > wiring.DEEPEST_LAYER:
            raise wiring.too_deep()
        graph: nx.MultiDiGraph[wiring.Call] = nx.MultiDiGraph()
        level = wiring.read(model, graph)
        if not nx.is_directed_acyclic_graph(graph):
            raise ModelError(f"The layers of {level.title} form a loop; the config is damaged.")
        known = len(panels) + 1 + len(pending)
        numbers: dict[str, int] = {}
        layers = {}
        for name, entry in level.layers.items():
            own = f"{path}/{name}" if path else name
            inner = entry if wiring.model_kind(entry) != "opaque" else None
            kind = str(entry.get("class_name"))
            layers[name] = _Layer(name, kind, own, within.get(own, []), inner)
            if inner is not None and known + len(numbers) < _PANELS:
                numbers[own] = known + len(numbers)
                pending.append((own, inner))
        graph.remove_nodes_from((wiring.INPUTS, wiring.OUTPUTS))
        chunks = _chunks(graph, layers)
        repeats = _Drawer(chunks, mark, numbers).repeats(cut(chunks))
        panels.append(Panel(path, len(layers), repeats))
    return _folded(panels)


def _folded(panels: Sequence[Panel]) -> list[Panel]:
    """Makes one panel of all that look the same, as the blocks of a transformer do."""
    kinds: dict[Hashable, int] = {}
    kind_of: dict[int, int] = {}
    alike: dict[int, list[int]] = {}
    for number in reversed(range(len(panels))):  # what is nested in a panel comes behind it
        kind = kinds.setdefault(_appearance(panels[number], kind_of), len(kinds))
        kind_of[number] = kind
        alike.setdefault(kind, []).insert(0, number)
    kept = sorted(members[0] for members in alike.values())
    place = {kind: kept.index(members[0]) for kind, members in alike.items()}
    folded = []
    for number in kept:
        members = [panels[other] for other in alike[kind_of[number]]]
        for boxes in zip(*(panel.boxes for panel in members), strict=True):
            box = boxes[0]
            box.name = common_name([other.name for other in boxes])
            if box.panel is not None:
                box.panel = place[kind_of[box.panel]]
            if len(boxes) > 1:
                box.lines.append(f"and in {len(boxes) - 1} other models like this one")
        path = common_name([panel.path for panel in members])
        folded.append(Panel(path, members[0].layers, members[0].repeats, len(members)))
    return folded


def _appearance(panel: Panel, kind_of: Mapping[int, int]) -> Hashable:
    """Equal for panels that look the same but for names."""
    return (
        panel.path == "",
        panel.layers,
        tuple(
            (
                repeat.times,
                tuple(
                    (
                        tuple(picture.lines),
                        tuple(
                            (b.x, b.y, b.kind, b.times, b.marks, tuple(b.pips))
                            + (() if b.panel is None else (kind_of[b.panel],))
                            for b in picture.boxes
                        ),
                    )
                    for picture in repeat.pictures
                ),
            )
            for repeat in panel.repeats
        ),
    )


def _plain_panel(within: Mapping[str, list[tuple[int, Edit]]], mark: Mark) -> Panel:
    """A model whose config tells no graph: its outer layers, without lines."""
    import networkx as nx

    chunks: nx.DiGraph[int] = nx.DiGraph()
    for path, found in within.items():
        if "/" not in path:
            layer = _Layer(path, found[0][1].slot.layers[0], path, found)
            chunks.add_node(len(chunks), layers=[layer])
    items = [Item([number]) for number in chunks]
    return Panel("", len(chunks), _Drawer(chunks, mark, {}).repeats(items))


def _chunks(graph: nx.MultiDiGraph[wiring.Call], layers: Mapping[str, _Layer]) -> nx.DiGraph[int]:
    """Makes a graph of chunks, numbered in topological order, of a graph of calls."""
    import networkx as nx

    chunks: nx.DiGraph[int] = nx.DiGraph()
    chunk_of: dict[wiring.Call, int] = {}
    position = {call: number for number, call in enumerate(graph)}
    for call in nx.lexicographical_topological_sort(graph, key=position.__getitem__):
        layer, before = layers[call[0]], list(graph.predecessors(call))
        if (
            len(before) == 1
            and len(graph[before[0]]) == 1
            and not layer.is_head
            and layers[before[0][0]].inner is None
        ):
            chunk_of[call] = chunk_of[before[0]]
            chunks.nodes[chunk_of[call]]["layers"].append(layer)
        else:
            chunk_of[call] = len(chunks)
            chunks.add_node(len(chunks), layers=[layer])
            chunks.add_edges_from((chunk_of[maker], chunk_of[call]) for maker in before)
    return chunks


class _Drawer:
    """Draws the chunks of one model."""

    def __init__(self, chunks: nx.DiGraph[int], mark: Mark, panels: Mapping[str, int]) -> None:
        self.chunks = chunks
        self.layers: dict[int, list[_Layer]] = {
            n: data["layers"] for n, data in chunks.nodes.items()
        }
        self.mark = mark
        self.panels = panels

    def repeats(self, items: Sequence[Item]) -> list[Repeat]:
        """Draws items, equal sequences of them once."""
        known: dict[Hashable, int] = {}
        keys = [known.setdefault(self._signature(item), len(known)) for item in items]
        found = spans(keys) if len(self.chunks) > _FOLD_ABOVE else [(0, len(items), 1)]
        repeats = []
        for start, period, times in found:
            pictures = []
            for offset in range(period):
                alike = [items[start + offset + period * turn] for turn in range(times)]
                last = start + offset + period * (times - 1) == len(items) - 1
                pictures.append(self._picture(alike, last))
            repeats.append(Repeat(times, pictures))
        return repeats

    def _signature(self, item: Item) -> Hashable:
        """Equal for items that look the same but for names and sizes."""
        local = {number: place for place, number in enumerate(item.chunks)}
        if item.above is not None:
            local[item.above] = -1
        if item.below is not None:
            local[item.below] = -2
        return (
            tuple(self._looks(number) for number in item.chunks),
            tuple(
                (local[a], place)
                for a in local
                for place in sorted(local[b] for b in self.chunks[a] if b in local)
            ),
        )

    def _looks(self, number: int) -> Hashable:
        """Equal for chunks that look the same; what is weightless behind the first isn't seen."""
        return tuple(
            (layer.kind, tuple((d.role, self.mark(d)) for _, d in layer.edits))
            for place, layer in enumerate(self.layers[number])
            if layer.edits or not place
        )

    def _picture(self, alike: Sequence[Item], last: bool) -> Picture:
        """Draws one item, which stands for all that are alike."""
        first = alike[0]
        if first.is_single:
            (number,) = first.chunks
            box = self._box([item.chunks[0] for item in alike])
            box.times = 1  # the count stands beside the whole repeat
            height = HEIGHT + (LEAD if self.chunks[number] and not last else 0)
            lines = [] if height == HEIGHT else [f"M{WIDTH / 2:g} {HEIGHT}V{height}"]
            return Picture(WIDTH, height, [box], lines)
        block = first.block(self.chunks)
        members = {
            number: [item.chunks[place] for item in alike]
            for place, number in enumerate(first.chunks)
        }
        standing = dict.fromkeys(members, 1)
        if len(members) > _MERGE_ABOVE:
            block, members, standing = self._joined(block, members)
        layout = lay_out(block, members, first.above, first.below)
        boxes = []
        for number, (x, y) in layout.places.items():
            box = self._box(members[number])
            box.x, box.y, box.times = x, y, standing[number]
            boxes.append(box)
        return Picture(layout.width, layout.height, boxes, layout.lines)

    def _joined(
        self, block: nx.DiGraph[int], members: Mapping[int, list[int]]
    ) -> tuple[nx.DiGraph[int], dict[int, list[int]], dict[int, int]]:
        """Makes one of all chunks of a row that look the same."""
        import networkx as nx

        rows = rows_of(block, members)
        first: dict[Hashable, int] = {}
        target = {n: first.setdefault((rows[n], self._looks(n)), n) for n in members}
        merged: dict[int, list[int]] = {}
        standing: dict[int, int] = {}
        for number, chunks in members.items():
            merged.setdefault(target[number], []).extend(chunks)
            standing[target[number]] = standing.get(target[number], 0) + 1
        return nx.relabel_nodes(block, target), merged, standing

    def _box(self, numbers: Iterable[int]) -> Box:
        """The box of a chunk, which stands for all that look the same."""
        chunks = [self.layers[number] for number in numbers]
        first = chunks[0]
        found = [pair for layer in first for pair in layer.edits]
        lines = [", ".join(layer.name for layer in first)]
        names = [chunk[0].name for chunk in chunks]
        if len(chunks) > 1:
            lines.append(f"and {len(chunks) - 1} more like it: {_some(names[1:])}")
        lines += [_about(edit) for _, edit in found[:_PIPS]]
        if len(found) > _PIPS:
            lines.append(f"and {len(found) - _PIPS} more slots")
        return Box(
            name=common_name(names),
            kind=" + ".join(dict.fromkeys(layer.kind for layer in first)),
            times=len(chunks),
            marks=_main(found, self.mark),
            pips=[self.mark(edit) for _, edit in found],
            lines=lines,
            slot=found[0][0] if found else None,
            panel=self.panels.get(first[0].path) if first[0].inner is not None else None,
        )


def _main(found: Sequence[tuple[int, Edit]], mark: Mark) -> str:
    """What a chunk gets: what its first penalised slot gets, or else its first edited one."""
    for chosen in (
        [d for _, d in found if d.after is not None and d.slot.role not in _TAIL_ROLES],
        [d for _, d in found if d.after is not None],
        [d for _, d in found if d.changes],
        [d for _, d in found if d.slot.role not in _TAIL_ROLES],
    ):
        if chosen:
            return mark(chosen[0])
    return "nothing" if found else "weightless"


def _about(edit: Edit) -> str:
    now, after = map(regularizers.describe, (edit.before, edit.after))
    words = [now if now == after else f"{now} \N{RIGHTWARDS ARROW} {after}"]
    words += [w for w in ("dormant", "carried", "unreached") if getattr(edit, w)]
    return f"{edit.path}: {', '.join(words)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def common_name(names: Sequence[str]) -> str:
    """One name for several layers, such as `conv_*_bn`, with `*` for what differs."""
    pieces = [_NUMBER.split(name) for name in names]
    if len({len(piece) for piece in pieces}) == 1:
        texts = [set(column) for column in zip(*pieces, strict=True)]
        if all(len(text) == 1 for text in texts[::2]):
            return "".join(text.pop() if len(text) == 1 else "*" for text in texts)
    shortest = min(names, key=len)
    for end in range(len(shortest), _SHORTEST - 1, -1):
        if all(name.startswith(shortest[:end]) for name in names):
            return shortest[:end] + ("" if end == len(shortest) == max(map(len, names)) else "*")
    # Of names with nothing in common a `*` would say nothing: the first one stands for all.
    return f"{names[0]}, \N{HORIZONTAL ELLIPSIS}"
