"""Drawings: a serialized model's graph as boxes and lines, with repeated blocks folded.

A layer with a kernel and what follows it in a line (normalization, activation) make one chunk, a
box. Where all paths of a graph meet, it is cut, so that a drawing is a sequence of small pictures
that flow into columns. Equal blocks in a row become one, drawn once, with a count.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphwd.graph import comparison, wiring
from graphwd.plans.edits import Edit as Decision
from graphwd.plans.layout import HEIGHT, LEAD, WIDTH, lay_out, rows_of
from graphwd.plans.repeats import common_name, spans
from graphwd.policy import regularizers

if TYPE_CHECKING:
    import networkx as nx

_FOLD_ABOVE = 36  # chunks: below, every one is worth its own box
_MERGE_ABOVE = 90  # chunks of one block
_COLUMN = 400  # pixels: lower columns are harder to read on from
_PANELS = 120  # before equal ones are folded
_PIPS = 10
_TAIL_ROLES = ("gamma", "beta", "alpha", "activity")

Mark = Callable[[Decision], str]
"""Gives a decision's CSS classes: what its slot gets."""


@dataclass
class Box:
    """A chunk, or several alike, as a rectangle.

    Attributes:
        x: Its left edge.
        y: Its upper edge.
        name: What stands in it: the first layer's name, `*` for numbers that differ.
        kind: The class names, beneath.
        times: How many chunks it stands for.
        marks: CSS classes: what the chunk gets.
        pips: The CSS classes of each slot.
        lines: Lines of text about it.
        slot: The number of its first slot among the plan's decisions, or `None`.
        panel: The number of the panel that draws what is inside, or `None`.
    """

    x: float
    y: float
    name: str
    kind: str
    times: int
    marks: str
    pips: list[str]
    lines: list[str]
    slot: int | None
    panel: int | None


@dataclass
class Picture:
    """A few boxes and the lines between them.

    Attributes:
        width: In pixels.
        height: In pixels.
        boxes: The `Box`es.
        lines: The `d` attributes of SVG paths.
    """

    width: float
    height: float
    boxes: list[Box]
    lines: list[str]


@dataclass
class Repeat:
    """Pictures that stand for several equal sequences of blocks.

    Attributes:
        times: How many.
        pictures: The `Picture`s of one of them.
    """

    times: int
    pictures: list[Picture]


@dataclass
class Panel:
    """One model of the graph: the outer one, or those nested in it that look the same.

    Attributes:
        path: Its path; empty for the outer one. With `*` for what differs where it stands for
            several.
        layers: The number of its layers.
        repeats: Its drawing.
        times: How many nested models it stands for.
    """

    path: str
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
    """A call of a layer.

    Attributes:
        name: The layer's name.
        kind: Its class name.
        decisions: Numbers and `Decision`s of the slots within it.
        inner: The graph of a nested model, or `None`.
        path: Its path.
    """

    name: str
    kind: str
    decisions: list[tuple[int, Decision]]
    inner: nx.MultiDiGraph[Any] | None = None
    path: str = ""

    @property
    def is_head(self) -> bool:
        """Whether it begins a chunk."""
        return self.inner is not None or any(
            decision.slot.role not in _TAIL_ROLES for _, decision in self.decisions
        )


@dataclass
class _Chunk:
    layers: list[_Layer] = field(default_factory=list)


_Item = tuple[list[int], int | None, int | None]  # chunks; the cut above and the one below


def draw(serialized: Mapping[str, Any], decisions: Sequence[Decision], mark: Mark) -> list[Panel]:
    """Draws a model.

    Args:
        serialized: The serialized model.
        decisions: A `Decision` for every slot.
        mark: Gives a decision's CSS classes.

    Returns:
        A `Panel` for the model and for each model nested in it, outer ones first. A model whose
        config tells no graph has its layers without lines.

    Raises:
        ModelError: when the config is damaged.
    """
    within: dict[str, list[tuple[int, Decision]]] = {}
    for number, decision in enumerate(decisions):
        path = decision.slot.path
        for place, letter in enumerate(path):
            if letter == "/":
                within.setdefault(path[:place], []).append((number, decision))
    if wiring.model_kind(wiring.as_object(serialized)) == "opaque":
        return [_plain_panel(within, mark)]
    panels: list[Panel] = []
    pending = [("", comparison.build(serialized))]
    while pending and len(panels) < _PANELS:
        path, level = pending.pop(0)
        known = len(panels) + 1 + len(pending)
        numbers: dict[str, int] = {}
        layers = {}
        for node, data in level.nodes(data=True):
            if node in (wiring.INPUTS, wiring.OUTPUTS):
                continue
            name = str(data["layer"])
            own = f"{path}/{name}" if path else name
            inner = data["model"]
            layers[node] = _Layer(name, str(data["class_name"]), within.get(own, []), inner, own)
            if inner is not None and own not in numbers and known + len(numbers) < _PANELS:
                numbers[own] = known + len(numbers)
                pending.append((own, inner))
        repeats = _draw_level(level, layers, mark, numbers)
        panels.append(Panel(path, len({layer.path for layer in layers.values()}), repeats))
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


def _plain_panel(within: Mapping[str, list[tuple[int, Decision]]], mark: Mark) -> Panel:
    """A model whose config tells no graph: its outer layers, without lines."""
    chunks = [
        _Chunk([_Layer(path, found[0][1].slot.layers[0], found, None, path)])
        for path, found in within.items()
        if "/" not in path
    ]
    items: list[_Item] = [([number], None, None) for number in range(len(chunks))]
    edges: dict[int, set[int]] = {number: set() for number in range(len(chunks))}
    return Panel("", len(chunks), _fold(items, chunks, edges, mark, {}))


def _draw_level(
    level: nx.MultiDiGraph[Any],
    layers: Mapping[Any, _Layer],
    mark: Mark,
    panels: Mapping[str, int],
) -> list[Repeat]:
    import networkx as nx

    simple: nx.DiGraph[Any] = nx.DiGraph()
    simple.add_nodes_from(layers)
    simple.add_edges_from((a, b) for a, b in level.edges() if a in layers and b in layers)
    position = {node: number for number, node in enumerate(layers)}
    chunks: list[_Chunk] = []
    chunk_of: dict[Any, int] = {}
    for node in nx.lexicographical_topological_sort(simple, key=position.__getitem__):
        before = list(simple.predecessors(node))
        if (
            len(before) == 1
            and simple.out_degree(before[0]) == 1
            and not layers[node].is_head
            and layers[before[0]].inner is None
        ):
            chunk_of[node] = chunk_of[before[0]]
        else:
            chunk_of[node] = len(chunks)
            chunks.append(_Chunk())
        chunks[chunk_of[node]].layers.append(layers[node])
    edges: dict[int, set[int]] = {number: set() for number in range(len(chunks))}
    for a, b in simple.edges():
        if chunk_of[a] != chunk_of[b]:
            edges[chunk_of[a]].add(chunk_of[b])
    return _fold(_cut(edges), chunks, edges, mark, panels)


def _cut(edges: Mapping[int, set[int]]) -> list[_Item]:
    """Cuts a graph, numbered in topological order, where no line passes by a chunk."""
    roots = set(edges) - {taker for takers in edges.values() for taker in takers}
    reach = max(roots) + 1 if len(roots) > 1 else -1
    items: list[_Item] = []
    inside: list[int] = []
    above: int | None = None
    for number in sorted(edges):
        if reach <= number:
            if inside:
                items.append((inside, above, number))
            items.append(([number], None, None))
            inside, above = [], number
        else:
            inside.append(number)
        reach = max(reach, *edges[number], -1)
    if inside:
        items.append((inside, above, None))
    return items


def _fold(
    items: Sequence[_Item],
    chunks: Sequence[_Chunk],
    edges: Mapping[int, set[int]],
    mark: Mark,
    panels: Mapping[str, int],
) -> list[Repeat]:
    """Draws items, equal sequences of them once."""
    signatures = [_signature(item, chunks, edges, mark) for item in items]
    known: dict[Hashable, int] = {}
    keys = [known.setdefault(signature, len(known)) for signature in signatures]
    found = spans(keys) if len(chunks) > _FOLD_ABOVE else [(0, len(items), 1)]
    repeats = []
    for start, period, times in found:
        pictures = []
        for offset in range(period):
            alike = [items[start + offset + period * turn] for turn in range(times)]
            last = start + offset + period * (times - 1) == len(items) - 1
            pictures.append(_picture(alike, chunks, edges, mark, panels, last))
        repeats.append(Repeat(times, pictures))
    return repeats


def _signature(
    item: _Item, chunks: Sequence[_Chunk], edges: Mapping[int, set[int]], mark: Mark
) -> Hashable:
    """Equal for items that look the same but for names and sizes."""
    numbers, above, below = item
    local = {number: place for place, number in enumerate(numbers)}
    if above is not None:
        local[above] = -1
    if below is not None:
        local[below] = -2
    return (
        tuple(_looks(chunks[number], mark) for number in numbers),
        tuple(
            (local[a], place)
            for a in local
            for place in sorted(local[b] for b in edges[a] if b in local)
        ),
    )


def _looks(chunk: _Chunk, mark: Mark) -> Hashable:
    """Equal for chunks that look the same; layers without weights behind the first don't count."""
    return tuple(
        (layer.kind, tuple((d.slot.role, mark(d)) for _, d in layer.decisions))
        for place, layer in enumerate(chunk.layers)
        if layer.decisions or not place
    )


def _picture(
    alike: Sequence[_Item],
    chunks: Sequence[_Chunk],
    edges: Mapping[int, set[int]],
    mark: Mark,
    panels: Mapping[str, int],
    last: bool,
) -> Picture:
    """Draws one item, which stands for all that are alike."""
    numbers, above, below = alike[0]
    if len(numbers) == 1 and above is None and below is None:
        box = _box([chunks[item[0][0]] for item in alike], mark, panels)
        box.times = 1  # the count stands beside the whole repeat
        height = HEIGHT + (LEAD if edges[numbers[0]] and not last else 0)
        lines = [] if height == HEIGHT else [f"M{WIDTH / 2:g} {HEIGHT}V{height}"]
        return Picture(WIDTH, height, [box], lines)
    members = {
        number: [chunks[item[0][place]] for item in alike] for place, number in enumerate(numbers)
    }
    links = {
        (a, b)
        for a in (*([] if above is None else [above]), *numbers)
        for b in edges[a]
        if b in members or b == below
    }
    standing = dict.fromkeys(numbers, 1)
    if len(numbers) > _MERGE_ABOVE:
        links, members, standing = _joined(links, members, mark)
    layout = lay_out(links, members, above, below)
    boxes = []
    for number, (x, y) in layout.places.items():
        box = _box(members[number], mark, panels)
        box.x, box.y, box.times = x, y, standing[number]
        boxes.append(box)
    return Picture(layout.width, layout.height, boxes, layout.lines)


def _joined(
    links: set[tuple[int, int]], members: Mapping[int, list[_Chunk]], mark: Mark
) -> tuple[set[tuple[int, int]], dict[int, list[_Chunk]], dict[int, int]]:
    """Makes one of all chunks of a row that look the same."""
    rows = rows_of(links, members)
    first: dict[Hashable, int] = {}
    target: dict[int, int] = {}
    for number, chunks in members.items():
        key = (rows[number], _looks(chunks[0], mark))
        target[number] = first.setdefault(key, number)
    merged: dict[int, list[_Chunk]] = {}
    standing: dict[int, int] = {}
    for number, chunks in members.items():
        merged.setdefault(target[number], []).extend(chunks)
        standing[target[number]] = standing.get(target[number], 0) + 1
    return {(target.get(a, a), target.get(b, b)) for a, b in links}, merged, standing


def _box(chunks: Sequence[_Chunk], mark: Mark, panels: Mapping[str, int]) -> Box:
    """The box of a chunk, which stands for all that look the same."""
    first = chunks[0]
    found = [pair for layer in first.layers for pair in layer.decisions]
    kinds = list(dict.fromkeys(layer.kind for layer in first.layers))
    lines = [", ".join(layer.name for layer in first.layers)]
    if len(chunks) > 1:
        lines.append(
            f"and {len(chunks) - 1} more like it: " + _some([c.layers[0].name for c in chunks[1:]])
        )
    lines += [_about(decision) for _, decision in found[:_PIPS]]
    if len(found) > _PIPS:
        lines.append(f"and {len(found) - _PIPS} more slots")
    head = first.layers[0]
    return Box(
        x=0,
        y=0,
        name=common_name([chunk.layers[0].name for chunk in chunks]),
        kind=" + ".join(kinds),
        times=len(chunks),
        marks=_main(found, mark),
        pips=[mark(decision) for _, decision in found],
        lines=lines,
        slot=found[0][0] if found else None,
        panel=panels.get(head.path) if head.inner is not None else None,
    )


def _main(found: Sequence[tuple[int, Decision]], mark: Mark) -> str:
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


def _about(decision: Decision) -> str:
    now, after = map(regularizers.describe, (decision.slot.regularizer, decision.after))
    words = [now if now == after else f"{now} \N{RIGHTWARDS ARROW} {after}"]
    words += [w for w in ("dormant", "carried", "unreached") if getattr(decision, w)]
    return f"{decision.slot.path}: {', '.join(words)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
