"""Equivalence: whether two serialized models are the same graph, as networkx says, and a report."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from graphwd.graph import collector
from graphwd.graph.entries import Entries, Findings, Owner, Task
from graphwd.graph.pairing import Pair
from graphwd.graph.wiring import Call, Level, as_object, model_kind, read

_MOST_LINES = 200

Match: TypeAlias = Literal["auto", "names", "structure"]


@dataclass(frozen=True)
class Report:
    """What a verification found.

    Attributes:
        problems: One line for each difference: which layer, weight or slot, and what differs.
        compared: What was compared, and how many: `{"layer calls": 92, "variables": 137, ...}`.
        not_compared: What was left out on purpose.
        planned: Whether there was a policy, so that regularizers were held against it.
        names: The path of each layer of the original, and of the one that stands for it in the
            rewritten model. Complete if there are no problems.
    """

    problems: tuple[str, ...]
    compared: Mapping[str, int] = field(default_factory=dict)
    not_compared: tuple[str, ...] = ()
    planned: bool = True
    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {what}" for what, count in self.compared.items())
        if self.not_compared:
            counts += f"; not compared: {', '.join(self.not_compared)}"
        if self.ok:
            aside = "but for the planned edits" if self.planned else "apart from regularizers"
            return f"equal {aside}; compared: {counts}"
        lines = [f"{len(self.problems)} differences; compared: {counts}"]
        lines += [f"- {problem}" for problem in self.problems[:_MOST_LINES]]
        if len(self.problems) > _MOST_LINES:
            lines.append(f"- and {len(self.problems) - _MOST_LINES} more")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON.

        Returns:
            A dict with the keys `ok`, `problems`, `compared` and `not_compared`.
        """
        return {
            "ok": self.ok,
            "problems": list(self.problems),
            "compared": dict(self.compared),
            "not_compared": list(self.not_compared),
        }

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(p)}</li>" for p in self.problems[:_MOST_LINES])
        return f"<p>{html.escape(str(self).splitlines()[0])}</p><ul>{items}</ul>"


def compare(
    expected: Mapping[str, Any],
    actual: Mapping[str, Any],
    *,
    regularizers_too: bool = True,
    match: Match = "auto",
) -> Report:
    """Compares two serialized models: the same layers, wired the same way, or where they differ.

    Compared are every layer's class and config, the tensors that it takes and their order, its
    other call arguments, which layers are shared, the model's inputs and outputs with their
    order and structure, and the same inside nested models. Regularizers are compared by what they
    mean, or not at all. Whether initializers and the like are one shared object or several equal
    ones isn't compared (they hold no weights), nor how calls of a shared layer are numbered.

    Layers are matched by their names (`"names"`), or all names are left out (`"structure"`), or
    each model's and nested model's names decide (`"auto"`): then its own name doesn't count.
    """
    # Each model becomes a networkx.MultiDiGraph whose labels compare as strictly as their JSON, and
    # networkx.utils.graphs_equal decides. What differs is looked for only when it says no. Three
    # things networkx doesn't do in linear time, or at all: (1) where names differ, a walk finds the
    # one way to relabel the other graph (see Pair), since networkx's isomorphisms are searches and
    # its Weisfeiler-Lehman hashes no proof; (2) models nested in the graph, as deep as they may
    # be, are graphs of their own, compared one after the other; (3) which layers several of these
    # models share is compared at the end.
    owner = Owner("the model", "", "", 0)
    named = match == "names"
    task = Task(as_object(expected), as_object(actual), owner, named, regularizers_too)
    with collector.paused():
        return _Comparer(match, regularizers_too).run(task)


class _Comparer(Findings):
    """Compares two models, and the models that it finds in them, one after the other."""

    def __init__(self, match: Match, planned: bool) -> None:
        super().__init__()
        self.match = match
        self.planned = planned
        self.nodes = 0
        self.edges = 0

    def run(self, task: Task) -> Report:
        self.pending.append(task)
        while self.pending:
            task = self.pending.pop()
            before = len(self.pending)
            self._compare(task)
            # What a model holds comes in its order, before what stands beside it.
            self.pending[before:] = reversed(self.pending[before:])
        self._compare_sharing()
        problems = list(self.problems)
        if problems and len(self.recorded) > 1:
            problems.append(
                f"{len(self.recorded)} recorded shapes differ, too, as they do after such a "
                f"difference; the first: {self.recorded[0]}"
            )
        else:
            problems += self.recorded
        compared = {"layer calls": self.nodes, "tensors": self.edges}
        return Report(tuple(problems), compared, planned=self.planned, names=self.names)

    def _compare(self, task: Task) -> None:
        kinds = model_kind(task.original), model_kind(task.rewritten)
        if kinds[0] != kinds[1] or kinds[0] == "opaque":
            # There is no graph to compare, and networkx needn't be waited for.
            self._count(read(task.original))
            read(task.rewritten)
            alone = Entries(task, task.named)
            alone.compare_models()
            self.add(alone)
            return
        import networkx as nx

        graphs: tuple[nx.MultiDiGraph[Call], nx.MultiDiGraph[Call]]
        graphs = nx.MultiDiGraph(), nx.MultiDiGraph()
        levels = read(task.original, graphs[0]), read(task.rewritten, graphs[1])
        self._count(levels[0])
        same_names = levels[0].layers.keys() == levels[1].layers.keys()
        named = self.match == "names" or (self.match == "auto" and same_names)
        ways = [(named, not named)]
        if named and any(count > 1 for count in levels[0].calls.values()):
            ways.append((True, True))  # calls may be numbered in another order, which a walk tells
        for way in ways:
            pair = Pair(levels, graphs, task, *way)
            if pair.same():
                self.add(pair)
                # Labels and pair hold each other; this way no collector has to look for them.
                for graph in graphs:
                    graph.clear()
                return
        explained = [Pair(levels, graphs, task, *way).explained() for way in ways]
        fewest = min(explained, key=lambda pair: len(pair.problems))
        common = levels[0].layers.keys() & levels[1].layers.keys()
        most = 2 * len(common) >= min(len(level.layers) for level in levels)
        if fewest.problems and self.match == "auto" and not same_names and most:
            # Neither way fits. Where most names are the same they tell the fault best.
            fewest = Pair(levels, graphs, task, True, False).explained()
        self.add(fewest)

    def _count(self, level: Level) -> None:
        self.nodes += sum(level.calls.values())
        self.edges += level.tensors

    def _compare_sharing(self) -> None:
        """Compares which layers, in whatever nested models they stand, are one object."""
        for side in (0, 1):
            groups: dict[int, list[tuple[int | None, int | None, Owner]]] = {}
            for triple in self.shared:
                number = triple[side]
                if isinstance(number, int):
                    groups.setdefault(number, []).append(triple)
            here, there = ("original", "rewritten model")[:: 1 - 2 * side]
            for (*counterparts, owner), *others in groups.values():
                for triple in others:
                    if counterparts[1 - side] is None or triple[1 - side] != counterparts[1 - side]:
                        self.problems.append(
                            f"{owner.title} and {triple[2].title} are one shared layer in the "
                            f"{here} and two layers in the {there}"
                        )
                        break
