"""Wiring: a serialized model read into a networkx graph of its calls and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from graphwd.errors import ModelError
from graphwd.graph.values import Label, is_mapping, show

if TYPE_CHECKING:
    import networkx as nx

Call: TypeAlias = tuple[str, int]
"""A node of the graph: a layer's name, and which of its calls."""

Position: TypeAlias = tuple[Any, ...]
"""The key of an edge: where an argument stands in a call, or a tensor in a model's ends."""

INPUTS: Call = ("inputs", -1)
"""The node that feeds the model's inputs, in their order."""

OUTPUTS: Call = ("outputs", -1)
"""The node that takes the model's outputs, in their order."""

DEEPEST_LAYER = 1000
_DEEPEST_ARGUMENT = 100
_ARGUMENTS = {"args": None, "kwargs": None}.keys()
_ATOMS = frozenset({str, int, float, bool, type(None)})


@dataclass(slots=True)
class Level:
    """One model, read; the models nested in it are not."""

    title: str  # how to call it in a message
    kind: Literal["functional", "sequential", "opaque"]
    layers: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # serialized, by name
    calls: dict[str, int] = field(default_factory=dict)  # how often each layer is called
    # The arguments of each call that are not tensors, by position.
    constants: dict[Call, dict[Position, Any]] = field(default_factory=dict)
    # From which number a layer's calls are counted, among call arguments and among the model's
    # inputs and outputs, where that isn't 0.
    offsets: dict[str, tuple[int, int]] = field(default_factory=dict)
    tensors: int = 0  # how many go from one call to another

    def nodes(self) -> Iterator[Call]:
        """Gives every call of every layer."""
        for name, count in self.calls.items():
            for number in range(count):
                yield name, number


_Edge: TypeAlias = tuple[Call, Call, Position, dict[str, Any]]
"""The call that makes a tensor, the call that takes it, and where; its output, shape and dtype."""

_Reference: TypeAlias = tuple[Call, Position, str, int, dict[str, Any]]
"""A tensor as a config names it: taker, position, layer, the number of its call, the edge."""


def too_deep() -> ModelError:
    """Makes the error for layers within layers within layers."""
    return ModelError(
        f"Layers are nested more than {DEEPEST_LAYER:,} deep, which Keras can't build; "
        "check what wrote this config."
    )


def as_object(config: Any) -> Mapping[str, Any]:
    """Gives a bare `get_config()` the form of a serialized object."""
    if not isinstance(config, Mapping):
        raise ModelError(
            f"A serialized model is a dictionary, and this is {show(config)}; give what "
            "keras.saving.serialize_keras_object(model) or model.get_config() returns."
        )
    if "class_name" in config and isinstance(config.get("config"), Mapping):
        return config
    return {"config": config}


def layer_name(entry: Mapping[str, Any]) -> str | None:
    """Gives a serialized layer's name; `None` if it has none."""
    name = entry.get("name")
    if not isinstance(name, str):
        config = entry.get("config")
        name = config.get("name") if is_mapping(config) else None
    return name if isinstance(name, str) else None


def model_kind(entry: Mapping[str, Any]) -> Literal["functional", "sequential", "opaque"]:
    """Tells by its config, not by its class, whether a serialized object is a graph of layers."""
    config = entry.get("config")
    if not is_mapping(config):
        return "opaque"
    layers = config.get("layers")
    if not isinstance(layers, (list, tuple)):
        return "opaque"
    if "input_layers" in config and "output_layers" in config:
        return "functional"
    names = set()
    for layer in layers:
        # A custom layer may keep whatever it likes under this key.
        if not isinstance(layer, Mapping) or "class_name" not in layer:
            return "opaque"
        name = layer_name(layer)
        if name is None or name in names:
            return "opaque"
        names.add(name)
    return "sequential" if layers or entry.get("class_name") == "Sequential" else "opaque"


def read(entry: Mapping[str, Any], graph: nx.MultiDiGraph[Call] | None = None) -> Level:
    """Reads one serialized model, but not those nested in it, into a graph if one is given."""
    name = layer_name(entry)
    title = "the model" if name is None else f"model {show(name)}"
    level = Level(title, model_kind(entry))
    edges: Iterable[_Edge] = ()
    if level.kind == "functional":
        functional = _FunctionalReader(level, entry["config"])
        functional.read()
        edges = functional.edges()
    elif level.kind == "sequential":
        level.layers.update((str(layer_name(layer)), layer) for layer in entry["config"]["layers"])
        level.calls.update(dict.fromkeys(level.layers, 1))
        edges = _sequential_edges(level)
    else:
        own = name or str(entry.get("class_name", "model"))
        level.layers[own] = entry
        level.calls[own] = 1
    if graph is not None:
        graph.add_nodes_from((INPUTS, OUTPUTS) if level.kind != "opaque" else ())
        graph.add_nodes_from(level.nodes())
    # Making the edges checks the config, which is done without a graph and networkx, too.
    for maker, taker, position, data in edges:
        if graph is not None:
            # The key is the position, such as `("args", 0, 1)`. Attributes: `tensor`, which output
            # of the maker it is, and `recorded`, its shape and dtype.
            graph.add_edge(maker, taker, position, **data)
        # A model's inputs and outputs have an edge each, but are no call of a layer.
        level.tensors += maker[1] >= 0 <= taker[1]
    return level


def _sequential_edges(level: Level) -> Iterator[_Edge]:
    maker = INPUTS
    position: Position = ("inputs",)
    for call in level.nodes():
        yield maker, call, position, {"tensor": 0}
        maker, position = call, ("args", 0)
    yield maker, OUTPUTS, ("outputs",), {"tensor": 0}


class _FunctionalReader:
    """Reads the config of a functional model into a level, in Keras 3's dialect or in Keras 2's."""

    def __init__(self, level: Level, config: Mapping[str, Any]) -> None:
        self.level = level
        self.config = config
        self.legacy = False
        self.inner: list[_Reference] = []
        self.ends: list[_Reference] = []

    def read(self) -> None:
        level = self.level
        for index, entry in enumerate(self.config["layers"]):
            self._read_layer(index, entry)
        for name, entry in level.layers.items():
            inbound = entry.get("inbound_nodes") or ((),)
            level.calls[name] = len(inbound)
            for number, node in enumerate(inbound):
                self._read_arguments((name, number), node)
        self._read_ends(INPUTS, "inputs", self.config["input_layers"])
        self._read_ends(OUTPUTS, "outputs", self.config["output_layers"])
        self._find_offsets()

    def _keep(self, call: Call, position: Position, value: Any) -> None:
        """Keeps an argument that is no tensor."""
        self.level.constants.setdefault(call, {})[position] = value

    def _read_layer(self, index: int, entry: Any) -> None:
        level = self.level
        name = layer_name(entry) if isinstance(entry, Mapping) else None
        if name is None:
            raise ModelError(
                f"Layer number {index} of {level.title} has no name; the config is damaged."
            )
        if name in level.layers:
            raise ModelError(
                f"Two layers of {level.title} are called {show(name)}; give each its own name."
            )
        if not isinstance(entry.get("inbound_nodes", []), (list, tuple, type(None))):
            raise ModelError(f'"inbound_nodes" of layer {show(name)} is no list; it is damaged.')
        level.layers[name] = entry

    def _read_arguments(self, call: Call, node: Any) -> None:
        if isinstance(node, dict) and node.keys() <= _ARGUMENTS:
            for key in _ARGUMENTS:
                if node.get(key):
                    self._walk(call, (key,), node[key])
        elif node:
            self.legacy = True
            self._walk_legacy(call, node)

    def _walk(self, call: Call, position: Position, value: Any) -> None:
        """Finds the tensors in Keras 3's call arguments."""
        pending = [(position, value)]
        while pending:
            position, value = pending.pop()
            if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
                config = value.get("config")
                history = config.get("keras_history") if isinstance(config, dict) else None
                if config is not None and history is not None:
                    recorded = {"shape": config.get("shape"), "dtype": config.get("dtype")}
                    data = {"recorded": Label(recorded)}
                    self._refer(self.inner, call, position, history, data)
                    continue
            if isinstance(value, (list, tuple)) and _is_plain(value):
                self._keep(call, position, value)
                continue
            pending += self._opened(call, position, value)

    def _opened(self, call: Call, position: Position, value: Any) -> list[tuple[Position, Any]]:
        """What a container holds, last first, since walks are stacks; all else is kept as it is."""
        items: Iterable[tuple[Any, Any]]
        if isinstance(value, Mapping):
            items = value.items()
        elif isinstance(value, (list, tuple)):
            items = enumerate(value)
        else:
            items = ()
        found = [((*position, key), each) for key, each in items][::-1]
        if not found:
            self._keep(call, position, value)
        elif len(position) > _DEEPEST_ARGUMENT:
            raise self._too_deep(call)
        return found

    def _walk_legacy(self, call: Call, node: Any) -> None:
        """Finds the tensors in Keras 2's: `[layer, call, tensor, keyword arguments]`, nested."""
        pending: list[tuple[Position, Any, bool]] = [(("args",), node, True)]
        while pending:
            position, value, first = pending.pop()
            if isinstance(value, (list, tuple)) and self._is_legacy(value, first):
                if value[0] == "_CONSTANT_VALUE" and first:
                    self._keep(call, position, value[2])
                else:
                    self._refer(self.inner, call, position, value[:3], {})
                if len(value) == 4 and value[3]:
                    pending.append(((*position, "kwargs"), value[3], False))
                continue
            pending += [(*one, first) for one in self._opened(call, position, value)]

    def _is_legacy(self, value: list[Any] | tuple[Any, ...], first: bool) -> bool:
        """Tells a legacy reference; among keyword arguments only the layer's name gives it away."""
        if len(value) not in ((3, 4) if first else (3,)) or not isinstance(value[0], str):
            return False
        if type(value[1]) is not int:
            return False
        if value[0] == "_CONSTANT_VALUE":
            return first
        return type(value[2]) is int and (first or value[0] in self.level.layers)

    def _read_ends(self, call: Call, word: str, value: Any) -> None:
        pending: list[tuple[Position, Any]] = [((word,), value)]
        while pending:
            position, value = pending.pop()
            is_list = isinstance(value, (list, tuple))
            if is_list and len(value) == 3 and isinstance(value[0], str):
                self._refer(self.ends, call, position, value, {})
                continue
            pending += self._opened(call, position, value)

    def _refer(
        self,
        references: list[_Reference],
        taker: Call,
        position: Position,
        history: Any,
        data: dict[str, Any],
    ) -> None:
        if (
            not isinstance(history, (list, tuple))
            or len(history) != 3
            or not isinstance(history[0], str)
            or type(history[1]) is not int
            or type(history[2]) is not int
        ):
            raise ModelError(
                f"{self._taker(taker)} takes a tensor that is written as {show(history)}, not as "
                "layer, call and output; the config is damaged."
            )
        layer, number, tensor = history
        if layer not in self.level.layers:
            raise ModelError(
                f"{self._taker(taker)} takes a tensor of layer {show(layer)}, which isn't there; "
                "the config is damaged."
            )
        data["tensor"] = tensor
        references.append((taker, position, layer, number, data))

    def _taker(self, taker: Call) -> str:
        if taker[1] < 0:
            return f"One of the {taker[0]} of {self.level.title}"
        return f"Layer {show(taker[0])} of {self.level.title}"

    def _too_deep(self, taker: Call) -> ModelError:
        return ModelError(
            f"{self._taker(taker)} has arguments nested more than {_DEEPEST_ARGUMENT} deep; "
            "the config is damaged."
        )

    def _find_offsets(self) -> None:
        """Finds from which number each layer's calls are counted."""
        # Keras 2 counts the calls of a nested model from 1, since call 0 ties its inputs to its
        # outputs; Keras 3 does among a model's outputs, not among call arguments. Where a config
        # doesn't show whether a class is a model, the numbers do: every call that is kept is used.
        inner: dict[str, set[int]] = {}
        ends: dict[str, set[int]] = {}
        for references, numbers in ((self.inner, inner), (self.ends, ends)):
            for _, _, layer, number, _ in references:
                if layer in numbers:
                    numbers[layer].add(number)
                else:
                    numbers[layer] = {number}
        level = self.level
        nothing: set[int] = set()
        for name in level.layers if self.legacy else ends:
            calls = level.calls[name]
            used, given = inner.get(name, nothing), ends.get(name, nothing)
            if self.legacy:
                offset = _offset(calls, used | given, nothing)
                offsets = (offset, offset)
            elif model_kind(level.layers[name]) == "functional":
                offsets = (0, 1)
            else:
                offsets = (0, _offset(calls, given, used))
            if offsets != (0, 0):
                level.offsets[name] = offsets

    def edges(self) -> Iterator[_Edge]:
        """Makes edges of references: finds the call that each means."""
        level = self.level
        for which, references in enumerate((self.inner, self.ends)):
            for taker, position, layer, stated, data in references:
                number = stated
                if layer in level.offsets:
                    number -= level.offsets[layer][which]
                if not 0 <= number < level.calls[layer]:
                    raise ModelError(
                        f"{self._taker(taker)} takes a tensor of call {stated} of layer "
                        f"{show(layer)}, which has no such call; the config is damaged."
                    )
                if taker == INPUTS:
                    yield INPUTS, (layer, number), position, data
                else:
                    yield (layer, number), taker, position, data


def _is_plain(value: list[Any] | tuple[Any, ...]) -> bool:
    """Whether all of a list is constant, so that it needs no position for each item."""
    if value and type(value[0]) not in _ATOMS:
        return False
    return all(type(each) in _ATOMS for each in value)


def _offset(calls: int, numbers: set[int], others: set[int]) -> int:
    """Tells whether calls are counted from 0 or 1, if `others` (counted from 0) are used, too."""
    if not numbers or 0 in numbers:
        return 0
    if calls in numbers:
        return 1
    if len(numbers | others) == calls:
        return 0
    return int(len({number - 1 for number in numbers} | others) == calls)
