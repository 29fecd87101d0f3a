"""Pairing: two models' layers matched by names or by structure, held to each other, explained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

from graphwd.graph import values
from graphwd.graph.entries import Entries, Task
from graphwd.graph.values import Label, contrast, keys_text, show
from graphwd.graph.wiring import (
    INPUTS,
    OUTPUTS,
    Call,
    Level,
    Position,
    model_kind,
)

if TYPE_CHECKING:
    import networkx as nx

Links: TypeAlias = dict[Position, tuple[Call, dict[str, Any]]]


class Pair(Entries):
    """Compares two models as graphs, with the calls of their layers matched in one way."""

    def __init__(
        self,
        levels: tuple[Level, Level],
        graphs: tuple[nx.MultiDiGraph[Call], nx.MultiDiGraph[Call]],
        task: Task,
        named: bool,
        walked: bool,
    ) -> None:
        super().__init__(task, named)
        self.one, self.other = levels
        self.graph, self.other_graph = graphs
        self.layers: dict[str, str] = {}
        self.calls: dict[Call, Call] = {}
        # Layers of equal names are matched, and their calls in the order of their numbers or as a
        # walk meets them; without names the walk matches the layers, too.
        if walked:
            self._walk()
        elif named:
            self.calls = {call: call for call in self.graph if call in self.other_graph}

    def same(self) -> bool:
        """Whether the graphs, labels included, are one and the same to networkx."""
        import networkx as nx
        from networkx.utils import graphs_equal

        if not len(self.calls) == len(self.graph) == len(self.other_graph):
            return False
        self._label(self.one, self.graph)
        self._label(self.other, self.other_graph)
        relabelled = self.other_graph
        if any(call != counterpart for call, counterpart in self.calls.items()):
            names = {counterpart: call for call, counterpart in self.calls.items()}
            relabelled = nx.relabel_nodes(relabelled, names)
        # The layers are compared here, each once, as networkx asks whether their labels are equal.
        return bool(graphs_equal(_plain(self.graph), _plain(relabelled)))

    def _label(self, level: Level, graph: nx.MultiDiGraph[Call]) -> None:
        graph.graph["model"] = _Part(self, "")
        labels = {name: _Part(self, name) for name in level.layers}
        for call, data in graph.nodes(data=True):
            data.clear()
            if call[1] >= 0:
                data["layer"] = labels[call[0]]
            if call in level.constants:
                data["constants"] = Label(level.constants[call])

    def same_part(self, name: str, counterpart: str) -> bool:
        """Whether a layer is the same as another one; without a name, the models themselves."""
        if name in self.layers:
            return self.layers[name] == counterpart
        if name:
            self.layers[name] = counterpart
            self._compare_layer(name, counterpart)
        else:
            self.compare_models()
        return not self.problems and not self.recorded

    def explained(self) -> Pair:
        """Finds the words for all that differs."""
        self.compare_models()
        self._match_layers()
        for name, counterpart in self.layers.items():
            self._compare_layer(name, counterpart)
        for calls in self.calls.items():
            self._compare_tensors(*calls)
            self._compare_constants(*calls)
        if not self.problems:
            self._report_unmatched()
        if not self.problems and not self.recorded:
            title = self.task.owner.title
            self.problems.append(f"{title}: its layers are shared in another way")
        return self

    def _walk(self) -> None:
        """Walks both graphs at once, from their ends, argument by argument."""
        # The outputs stand in an order, and so do the arguments of every call, so that there is
        # one counterpart for each call, and no search.
        forth: dict[Call, Call] = {INPUTS: INPUTS, OUTPUTS: OUTPUTS}
        back = dict(forth)
        layers: dict[str, str] = {}
        owners: dict[str, str] = {}
        complete = True
        pending = [INPUTS, OUTPUTS]
        while pending:
            call = pending.pop()
            other_links = _links(self.other_graph, forth[call])
            for position, (maker, _) in _links(self.graph, call).items():
                if position not in other_links:
                    complete = False
                    continue
                counterpart = other_links[position][0]
                if maker in forth or counterpart in back:
                    complete = complete and forth.get(maker) == counterpart
                    continue
                name, other_name = maker[0], counterpart[0]
                if self.named:
                    fits = name == other_name
                elif name in layers or other_name in owners:
                    fits = layers.get(name) == other_name
                else:
                    fits = _class_of(self.one, name) == _class_of(self.other, other_name)
                if fits:
                    layers[name], owners[other_name] = other_name, name
                    forth[maker], back[counterpart] = counterpart, maker
                    pending.append(maker)
                else:
                    complete = False
        self.calls = forth
        # What neither outputs nor inputs lead to, no model has; then names or the order decide.
        rest = [call for call in self.one.nodes() if call not in forth]
        spare = {call: None for call in self.other.nodes() if call not in back}
        if self.named:
            self.calls.update((call, call) for call in rest if call in spare)
        elif complete:
            self.calls.update(zip(rest, spare, strict=False))

    def _match_layers(self) -> None:
        if not self.named:
            for (name, number), (counterpart, _) in self.calls.items():
                if number >= 0:
                    self.layers.setdefault(name, counterpart)
            return
        sides = ((self.one, self.other, "missing in"), (self.other, self.one, "in"))
        for (level, against, where), end in zip(sides, ("", " only"), strict=True):
            for name in level.layers:
                if name in against.layers:
                    self.layers[name] = name
                    continue
                title = self.task.owner.inner("layer", name, name).title
                self.problems.append(f"{title} is {where} the rewritten model{end}")

    def _compare_layer(self, name: str, counterpart: str) -> None:
        one, other, task = self.one, self.other, self.task
        entry, other_entry = one.layers[name], other.layers[counterpart]
        nested = model_kind(entry) != "opaque" and model_kind(other_entry) != "opaque"
        owner = task.owner.inner("model" if nested else "layer", name, counterpart)
        self.names.setdefault(owner.path, owner.counterpart)
        count, other_count = one.calls[name], other.calls[counterpart]
        if count != other_count:
            self.problems.append(
                f"{owner.title} is called {_times(count)} in the original and "
                f"{_times(other_count)} in the rewritten model"
            )
        offsets, other_offsets = one.offsets.get(name), other.offsets.get(counterpart)
        if offsets != other_offsets:
            what = f"{owner.title}: the first number of its calls"
            self.problems.append(contrast(what, offsets or (0, 0), other_offsets or (0, 0)))
        if nested:
            self.pending.append(
                Task(entry, other_entry, owner, self.named, task.regularized, entry=True)
            )
        else:
            self.compare(entry, other_entry, owner, {}, True)

    def _compare_tensors(self, call: Call, counterpart: Call) -> None:
        links, other_links = _links(self.graph, call), _links(self.other_graph, counterpart)
        for position in {**links, **other_links}:
            here, there = links.get(position), other_links.get(position)
            if here and there and self.calls.get(here[0]) == there[0]:
                data, other_data = here[1], there[1]
                if data["tensor"] == other_data["tensor"]:
                    recorded = [
                        each.get("recorded", Label({})).value for each in (data, other_data)
                    ]
                    for each in values.differences(*recorded):
                        what = f"{self._where(call, position)}.{keys_text(each.path)}"
                        self.recorded.append(contrast(what, each.original, each.rewritten))
                    continue
            where = self._where(call, position)
            maker, other_maker = _show(here, self.one), _show(there, self.other)
            if maker == other_maker:
                self.problems.append(
                    f"{where} is {maker} in both models, which are not each other's counterparts"
                )
            else:
                self.problems.append(
                    f"{where} is {maker} in the original and {other_maker} in the rewritten model"
                )

    def _compare_constants(self, call: Call, counterpart: Call) -> None:
        constants = self.one.constants.get(call, {})
        other_constants = self.other.constants.get(counterpart, {})
        tensors = {*_links(self.graph, call), *_links(self.other_graph, counterpart)}
        told = set()
        for each in values.differences(constants, other_constants):
            position = each.path[0]
            if position in tensors or position[:2] in told:
                continue  # a tensor on one side, or one more item of the same constant
            told.add(position[:2])
            where = self._where(call, (*position, *each.path[1:]))
            self.problems.append(contrast(where, each.original, each.rewritten))

    def _where(self, call: Call, position: Position) -> str:
        owner = self.task.owner
        if call[1] >= 0:
            owner = owner.inner("layer", call[0], self.layers.get(call[0], call[0]))
        where = f"{owner.title}: {keys_text(position)}"
        if call[1] >= 0 and self.one.calls[call[0]] > 1:
            where += f" of call {call[1]}"
        return where

    def _report_unmatched(self) -> None:
        for level, found, here in (
            (self.one, set(self.calls), "rewritten model"),
            (self.other, set(self.calls.values()), "original"),
        ):
            for call in level.nodes():
                if call not in found:
                    owner = self.task.owner.inner("layer", call[0], call[0])
                    self.problems.append(f"{owner.title} has no counterpart in the {here}")


class _Part:
    """A layer as the label of its calls: equal to another one if its pair says so."""

    __slots__ = ("name", "pair")
    __hash__ = None  # type: ignore[assignment] # what is compared strictly isn't looked up

    def __init__(self, pair: Pair, name: str) -> None:
        self.pair = pair
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Part) and self.pair.same_part(self.name, other.name)


def _plain(graph: nx.MultiDiGraph[Call]) -> Any:
    """A graph's content in plain dictionaries: C compares them ten times as fast as views."""
    nodes, adjacency = dict(graph.nodes(data=True)), dict(graph.adjacency())
    return SimpleNamespace(adj=adjacency, nodes=nodes, graph=graph.graph)


def _links(graph: nx.MultiDiGraph[Call], call: Call) -> Links:
    """What a call takes, by position; what the inputs node gives."""
    if call == INPUTS:
        given = graph.out_edges(call, keys=True, data=True)
        return {position: (taker, data) for _, taker, position, data in given}
    taken = graph.in_edges(call, keys=True, data=True)
    return {key: (maker, data) for maker, _, key, data in taken if maker != INPUTS}


def _show(link: tuple[Call, dict[str, Any]] | None, level: Level) -> str:
    if link is None:
        return "missing"
    (name, number), data = link
    if number < 0:
        return f"the model's {name}"
    text = show(name)
    if level.calls[name] > 1:
        text += f" (call {number})"
    if data["tensor"]:
        text += f" (output {data['tensor']})"
    return text


def _class_of(level: Level, name: str) -> tuple[Any, Any]:
    entry = level.layers[name]
    return entry.get("module"), entry.get("class_name")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
