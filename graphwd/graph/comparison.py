"""The graph of a serialized model, with networkx, and a proof that two of them are the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from graphwd.errors import ModelError
from graphwd.graph import collector, values
from graphwd.graph.pairing import Findings, Owner, Pair, Task
from graphwd.graph.wiring import (
    DEEPEST_LAYER,
    Call,
    Level,
    as_object,
    model_kind,
    name_of,
    read,
    too_deep,
)
from graphwd.graph.wiring import INPUTS as INPUTS  # part of this module's interface
from graphwd.graph.wiring import OUTPUTS as OUTPUTS

if TYPE_CHECKING:
    import networkx as nx

Match: TypeAlias = Literal["auto", "names", "structure"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison of two serialized models found.

    Attributes:
        problems: One line each: the layer, and what differs; empty if the models are the same.
        names: The layer paths of the original, and those of the rewritten model that stand for
            them. Complete if there are no problems.
        nodes: How many layer calls the original has, those of nested models included.
        edges: How many tensors go from one call to another in it.
    """

    problems: tuple[str, ...]
    names: dict[str, str]
    nodes: int
    edges: int

    @property
    def ok(self) -> bool:
        """Whether the models are the same."""
        return not self.problems


def build(config: Mapping[str, Any]) -> nx.MultiDiGraph[Call]:
    """Builds the graph of a serialized model.

    There is a node for every call of a layer, `(layer name, number of the call)`: the calls of
    a shared layer share its name. An edge goes from the call that makes a tensor to the call
    that takes it; its key is the argument's position, such as `("args", 0, 1)`, and its
    attribute `tensor` says which output of the maker it is. Two more nodes, `INPUTS` and
    `OUTPUTS`, hold the model's own inputs and outputs in their order.

    Both dialects are read: Keras 3's, and Keras 2's (legacy `.h5` files).

    Args:
        config: A model as `keras.saving.serialize_keras_object` gives it, as its `get_config()`
            does, or as parsed from a file. A model that is neither functional nor sequential is
            one opaque node.

    Returns:
        The graph. A call's node has the attributes `layer` (its name), `class_name`, `module`,
        `config` (as given, not a copy), `constants` (the arguments that are not tensors, by
        position) and `model` (the graph of a nested model, or `None`).

    Raises:
        ModelError: The config is damaged: layers that lack a name or share one, tensors of
            layers that aren't there, or a loop.

    Example:

    >>> graph = build({"class_name": "Sequential", "config": {"name": "s", "layers": [
    ...     {"class_name": "Dense", "config": {"name": "dense", "units": 4}}]}})
    >>> sorted(graph.nodes)
    [('dense', 0), ('inputs', -1), ('outputs', -1)]
    """
    import networkx as nx  # only who asks for a graph waits for it

    top = read(as_object(config))
    pending = [(top, 0)]
    while pending:
        level, depth = pending.pop()
        if depth > DEEPEST_LAYER:
            raise too_deep()
        if not nx.is_directed_acyclic_graph(level.graph):
            raise ModelError(f"The layers of {level.title} form a loop; the config is damaged.")
        nested: dict[str, nx.MultiDiGraph[Call]] = {}
        for name, entry in level.layers.items():
            if entry is not config and model_kind(entry) != "opaque":
                inner = read(entry)
                nested[name] = inner.graph
                pending.append((inner, depth + 1))
        for node in level.nodes():
            entry = level.layers[node[0]]
            level.graph.nodes[node].update(
                layer=node[0],
                class_name=entry.get("class_name"),
                module=entry.get("module"),
                config=entry.get("config"),
                constants=level.constants.get(node, {}),
                model=nested.get(node[0]),
            )
    return top.graph


def compare(
    original: Mapping[str, Any],
    rewritten: Mapping[str, Any],
    *,
    ignore: Iterable[tuple[Any, ...]] = (),
    match: Match = "auto",
) -> Comparison:
    """Compares two serialized models: the same layers, wired the same way, or where they differ.

    Compared are every layer's class and config, the tensors that it takes and their order, its
    other call arguments, which layers are shared, the model's inputs and outputs with their
    order and structure, and the same inside nested models. The time is linear in the size of the
    models, and nothing recurses.

    Layers are matched by their names where both models have the same names, else by structure:
    the outputs stand in an order, and so do the arguments of every call, so that a walk from
    the outputs back to the inputs leaves one counterpart for each call, and no search.

    Not compared is whether initializers and the like are one shared object or several equal
    ones (they hold no weights), and how calls of a shared layer are numbered.

    Args:
        original: A serialized model, as for `build`.
        rewritten: The model that shall be the same.
        ignore: Pointers into `original`: what stands there, on both sides, isn't compared.
        match: `"names"` to insist on equal names of the layers and the model, `"structure"` to
            leave all names out of it, `"auto"` to decide for each model and nested model by
            its layers' names; then a model's own name doesn't count.

    Returns:
        A `Comparison`.

    Raises:
        ModelError: One of the configs is damaged, as for `build`.

    Example:

    >>> one = {"class_name": "Dense", "config": {"name": "dense", "units": 3}}
    >>> other = {"class_name": "Dense", "config": {"name": "dense", "units": 4}}
    >>> compare(one, other).problems
    ('the model: units is 3 in the original and 4 in the rewritten model',)
    """
    one, other = as_object(original), as_object(rewritten)
    mask = values.mask_of(ignore)
    if one is not original and mask is not None:
        mask = {"config": mask}
    comparer = _Comparer(match)
    comparer.pending.append(Task(one, other, Owner("the model", "", "", 0), mask, match == "names"))
    with collector.paused():
        comparer.run()
    return comparer.result()


class _Comparer(Findings):
    """Compares two models, and the models that it finds in them, one after the other."""

    def __init__(self, match: Match) -> None:
        super().__init__()
        self.match = match
        self.nodes = 0
        self.edges = 0

    def run(self) -> None:
        while self.pending:
            task = self.pending.pop()
            before = len(self.pending)
            self._compare(task)
            # What a model holds comes in its order, before what stands beside it.
            self.pending[before:] = reversed(self.pending[before:])
        self._compare_sharing()

    def result(self) -> Comparison:
        problems = list(self.problems)
        if problems and len(self.recorded) > 1:
            problems.append(
                f"{len(self.recorded)} recorded shapes differ, too, as they do after such a "
                f"difference; the first: {self.recorded[0]}"
            )
        else:
            problems += self.recorded
        return Comparison(tuple(problems), self.names, self.nodes, self.edges)

    def _compare(self, task: Task) -> None:
        one = read(task.original)
        self.nodes += sum(one.calls.values())
        # A model's inputs and outputs have an edge each, but are no call of a layer.
        self.edges += sum(maker[1] >= 0 <= taker[1] for maker, taker, _, _ in one.edges)
        other = _same_wiring(one, task.original, task.rewritten)
        wired = other is not None
        other = other or read(task.rewritten)
        if one.kind != other.kind or one.kind == "opaque":
            pair = Pair(one, other, task, task.named)
            pair.compare_objects(task.original, task.rewritten, task.owner, task.mask, task.entry)
            self.add(pair)
            return
        same_names = one.layers.keys() == other.layers.keys()
        named = self.match == "names" or (self.match == "auto" and same_names)
        pair = Pair(one, other, task, named)
        pair.compare_models(wired)
        if pair.problems and self.match == "auto" and not same_names:
            # Neither way fits. Where most names are the same they tell the fault best.
            common = one.layers.keys() & other.layers.keys()
            if 2 * len(common) >= min(len(one.layers), len(other.layers)):
                pair = Pair(one, other, task, True)
                pair.compare_models(wired=False)
        self.add(pair)

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


def _same_wiring(
    one: Level, original: Mapping[str, Any], rewritten: Mapping[str, Any]
) -> Level | None:
    """Reads a model that names the same layers in the same order, wired in the same words.

    Most rewritten models are like that, and then need no graph to be compared.

    Returns:
        The rewritten model, or `None` if it must be read by itself.
    """
    if one.kind != "functional" or model_kind(rewritten) != "functional":
        return None
    config, other_config = original["config"], rewritten["config"]
    entries = other_config["layers"]
    if len(entries) != len(one.layers):
        return None
    for key in ("input_layers", "output_layers"):
        if values.differences(config[key], other_config[key]):
            return None
    layers: dict[str, Mapping[str, Any]] = {}
    for (name, entry), other_entry in zip(one.layers.items(), entries, strict=True):
        if not isinstance(other_entry, Mapping) or name_of(other_entry) != name:
            return None
        inbound, other_inbound = entry.get("inbound_nodes"), other_entry.get("inbound_nodes")
        # Python's own comparison is quick, but takes a constant 1 for 1.0, and may not nest deep.
        plain = one.calls[name] == 1 and (name, 0) not in one.constants
        if not (plain and inbound == other_inbound) and values.differences(inbound, other_inbound):
            return None
        if model_kind(entry) != model_kind(other_entry):
            return None
        layers[name] = other_entry
    return replace(one, layers=layers)
