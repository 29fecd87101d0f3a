"""What only private attributes tell of a graph: its layers, its calls, where a tensor is from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras.src.models.functional import Functional, functional_like_constructor, serialize_node
from keras.src.ops.function import make_node_key, map_graph
from keras.src.ops.node import KerasHistory
from keras.src.ops.node import Node as Node

CALLS = ("_inbound_nodes", "_outbound_nodes")
"""Where an operation keeps its calls."""

GRAPH = (
    *("_inputs_struct", "_outputs_struct", "_inputs", "_outputs"),
    *("_nodes", "_nodes_by_depth", "_operations", "_operations_by_depth"),
)
"""Where a Functional model keeps its graph."""

HISTORY = "_keras_history"
"""Where a symbolic tensor keeps which call made it."""


def is_functional(layer: Any) -> bool:
    """Whether a layer is a model made of a graph of layers."""
    return isinstance(layer, Functional)


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model that is nothing but its layers, to be cloned one by one."""
    if type(layer) is keras.Sequential:
        return True
    # Its class has Functional's `get_config`, and a constructor that takes the same arguments.
    return (
        is_functional(layer)
        and type(layer).get_config is Functional.get_config
        and bool(functional_like_constructor(type(layer)))
    )


def members(model: Any) -> list[Any]:
    """What stands in a graph model's config under `layers`, in that order."""
    if isinstance(model, keras.Sequential):
        return list(model._layers)
    return list(model.operations)


def graph_config(
    model: Any, serialize: Callable[[Any], dict[str, Any]], *, calls: bool = True
) -> dict[str, Any]:
    """What the `get_config` of a graph model returns, without a deep copy of it at each level."""
    if isinstance(model, keras.Sequential):
        config: dict[str, Any] = dict(keras.Model.get_config(model))
        config["name"] = model.name
        config["layers"] = [serialize(layer) for layer in model._layers]
        if model._functional is not None:
            config["build_input_shape"] = model._layers[0].batch_shape
        return config
    config = {"name": model.name, "trainable": model.trainable}
    if not calls:
        config["layers"] = [serialize(operation) for operation in model.operations]
        return config
    number: dict[str, int] = {}
    for operation in model.operations:
        count = int(is_functional(operation))  # a model's first call is the one it is made of
        for index in range(len(operation._inbound_nodes)):
            key = make_node_key(operation, index)
            if key in model._nodes:
                number[key] = count
                count += 1
    config["layers"] = []
    for operation in model.operations:
        nodes = [
            serialize_node(node, own_nodes=model._nodes)
            for index, node in enumerate(operation._inbound_nodes)
            if make_node_key(operation, index) in model._nodes
        ]
        entry = serialize(operation)
        entry["name"] = operation.name
        entry["inbound_nodes"] = [node for node in nodes if node is not None]
        config["layers"].append(entry)

    def place(tensor: Any) -> list[Any]:
        operation, index, output = tensor._keras_history
        return [operation.name, number[make_node_key(operation, index)], output]

    config["input_layers"] = keras.tree.map_structure(place, model._inputs_struct)
    config["output_layers"] = keras.tree.map_structure(place, model._outputs_struct)
    return config


def maker(tensor: Any) -> Any:
    """The layer whose call made a symbolic tensor."""
    return tensor._keras_history.operation


def inputs_of(graph: Any) -> Any:
    """The symbolic inputs of a graph in the structure that it is called with."""
    return graph._inputs_struct


def constants_of(graph: Any) -> list[Any]:
    """What the calls of a graph have for arguments beside its tensors: weights, arrays, options."""
    return [
        argument
        for nodes in graph._nodes_by_depth.values()
        for node in nodes
        for argument in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
        if not isinstance(argument, keras.KerasTensor)
    ]


def plain_graph(graph: Any) -> Any:
    """A Functional model over the same layers and tensors, of Keras's class, not compiled."""
    if type(graph) is Functional and not graph.compiled:
        return graph
    return Functional(graph._inputs_struct, graph._outputs_struct, name=graph.name)


def paired_calls(graph: Any, clone: Any) -> list[tuple[Any, Any]]:
    """Pairs the calls of a graph with those of its clone, from the outputs back to the inputs."""
    pairs = {}
    stack = list(zip(graph._outputs, clone._outputs, strict=True))
    while stack:
        ours, theirs = (
            tensor._keras_history.operation._inbound_nodes[tensor._keras_history.node_index]
            for tensor in stack.pop()
        )
        if id(ours) not in pairs:
            pairs[id(ours)] = ours, theirs
            stack.extend(zip(ours.input_tensors, theirs.input_tensors, strict=True))
    return list(pairs.values())


def order_calls(calls: Sequence[tuple[Any, Any]], graphs: Sequence[Any]) -> None:
    """Puts the calls of shared layers into the order in which the originals were called."""
    # `clone_model` walks a graph by depth, so a layer that is called twice may get its calls in
    # the other order; a saved model refers to calls by number.
    numbers: dict[int, dict[int, int]] = {}
    place: dict[int, int] = {}
    for ours, theirs in calls:
        if len(theirs.operation._inbound_nodes) > 1:
            if id(ours.operation) not in numbers:
                nodes = enumerate(ours.operation._inbound_nodes)
                numbers[id(ours.operation)] = {id(node): index for index, node in nodes}
            place[id(theirs)] = numbers[id(ours.operation)][id(ours)]
    moved = set()
    for operation in {id(theirs.operation): theirs.operation for _, theirs in calls}.values():
        nodes = operation._inbound_nodes
        if len(nodes) < 2 or not all(id(node) in place for node in nodes):
            continue
        if (places := [place[id(node)] for node in nodes]) == sorted(places):
            continue
        nodes[:] = sorted(nodes, key=lambda node: place[id(node)])
        for index, node in enumerate(nodes):
            for tensor_index, tensor in enumerate(node.outputs):
                tensor._keras_history = KerasHistory(operation, index, tensor_index)
        moved.add(id(operation))
    for graph in graphs:
        if moved and any(id(operation) in moved for operation in graph._operations):
            mapped = map_graph(graph._inputs, graph._outputs)
            vars(graph).update(
                zip(
                    ("_nodes", "_nodes_by_depth", "_operations", "_operations_by_depth"),
                    mapped,
                    strict=True,
                )
            )


def wiring(model: Any) -> list[tuple[str, list[Any]]]:
    """The calls of a Functional model in their order: class name, and flat arguments."""
    # Calls of the same layers outside of the model don't count.
    calls = {
        id(operation): [
            node
            for index, node in enumerate(operation._inbound_nodes)
            if make_node_key(operation, index) in model._nodes
        ]
        for operation in model.operations
    }
    number = {id(operation): index for index, operation in enumerate(model.operations)}

    def told(argument: Any) -> Any:
        if isinstance(argument, keras.KerasTensor):
            # A tensor is told by the numbers of its operation, of the call, and of the output.
            operation, node, index = argument._keras_history
            call = operation._inbound_nodes[node]
            own = calls.get(id(operation), [])
            return (number.get(id(operation)), own.index(call) if call in own else None, index)
        return argument

    return [
        (
            type(operation).__name__,
            [told(a) for a in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))],
        )
        for operation in model.operations
        for node in calls[id(operation)]
    ]
