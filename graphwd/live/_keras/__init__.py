"""The only package that uses private names of Keras: why each, and what happens without it.

| name | why | when it is missing |
| --- | --- | --- |
| `serialize_with_public_class` | a class's name as Keras writes it, without an instance | import error that says which Keras versions work |
| `Functional`, `functional_like_constructor` | tell a graph of layers from other models | import error that says which Keras versions work |
| `serialize_node`, `make_node_key`, `Functional._nodes`, `._inputs_struct`, `._outputs_struct`, `Sequential._functional` | a model's config without a deep copy of it for each nested model | the same |
| `Function._inputs`, `._operations` and the like, `Layer._inbound_nodes`, `Node`, `KerasTensor._keras_history`, `map_graph` | give a copied model the graph that `clone_model` has walked, with its calls in their order | the same |
| `Layer._trainable_variables`, `._non_trainable_variables`, `._seed_generators`, `._layers`, `._metrics`, `Tracked*` | the only view that keeps who owns which variable and in which order | the same |
| `Variable._value`, `._initialize`, `._layout` | a copied variable of the same options that lies where its original does, without an initializer | attribute error |
| `Variable._shape`, `._dtype` | a shape that is a plain tuple, and a dtype, without asking the backend | `shape` and `dtype` are asked |
| `Optimizer._use_weight_decay`, `._exclude_from_weight_decay*`, `._var_key`, `._optimizer_map`, `._learning_rate` | which weights an optimizer decays, and by what | attribute error |
| `Layer._remat_mode`, `Trainer._run_eagerly`, `._jit_compile`, `._distribute_strategy` | how a layer computes, which no config tells | not compared |
| `global_state` | names' counters as they were before a rewrite | import error |
| TensorFlow's `Function._clone`, `MutableHashTable._default_value`, `_DictWrapper._update_snapshot`, `_self_unconditional_*` | a function, a table and a tracked dict of their own for a copy | attribute error |
"""  # noqa: E501 # a table row can't be broken

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from graphwd.errors import GraphwdError
from graphwd.live._keras.optimizers import decay_of as decay_of
from graphwd.live._keras.optimizers import decays as decays
from graphwd.live._keras.optimizers import excluded_from_decay as excluded_from_decay
from graphwd.live._keras.optimizers import is_listed as is_listed
from graphwd.live._keras.optimizers import key_of as key_of
from graphwd.live._keras.optimizers import learning_rate_of as learning_rate_of
from graphwd.live._keras.optimizers import optimized_variables as optimized_variables
from graphwd.live._keras.optimizers import optimizer_map as optimizer_map
from graphwd.live._keras.optimizers import optimizer_of as optimizer_of
from graphwd.live._keras.optimizers import steps_of as steps_of

try:
    from keras.src.backend.common import global_state
    from keras.src.models.functional import (
        Functional,
        functional_like_constructor,
        serialize_node,
    )
    from keras.src.ops.function import make_node_key, map_graph
    from keras.src.ops.node import KerasHistory
    from keras.src.ops.node import Node as Node
    from keras.src.saving.serialization_lib import serialize_with_public_class
    from keras.src.utils.tracking import TrackedDict, TrackedList, TrackedSet
except ImportError as error:
    raise GraphwdError(
        f"Keras {keras.__version__} is laid out in a way that graphwd does not know ({error}); "
        "graphwd is tested with Keras 3.13 and 3.15."
    ) from error

CALLS = ("_inbound_nodes", "_outbound_nodes")
"""Where an operation keeps its calls."""

GRAPH = (
    *("_inputs_struct", "_outputs_struct", "_inputs", "_outputs"),
    *("_nodes", "_nodes_by_depth", "_operations", "_operations_by_depth"),
)
"""Where a Functional model keeps its graph."""

HISTORY = "_keras_history"
"""Where a symbolic tensor keeps which call made it."""

VALUE = "_value"
"""Where a variable keeps the backend's."""

_COMPILED = (
    *("train_function", "test_function", "predict_function"),
    *("_eval_epoch_iterator", "_jax_state"),
)

TRACKED = (TrackedList, TrackedDict, TrackedSet)

LAYERS = "keras.src.layers."
"""Where Keras's own layers are; elsewhere a layer is taken for a third party's and probed."""


def identity(cls: type) -> dict[str, Any]:
    """What Keras writes about a class beside the config: module, class name, registered name."""
    serialized = serialize_with_public_class(cls, {})
    named = {key: serialized[key] for key in ("module", "class_name", "registered_name")}
    if named["module"] == "__main__":  # a notebook's class, which Keras finds by its name alone
        named["module"] = None
    return named


def is_functional(layer: Any) -> bool:
    """Whether a layer is a model made of a graph of layers."""
    return isinstance(layer, Functional)


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model that is nothing but its layers, to be cloned one by one.

    That is a `Sequential`, or a Functional model whose class adds neither a constructor nor a
    `get_config` of its own.
    """
    if type(layer) is keras.Sequential:
        return True
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
    """What the `get_config` of a graph model returns, without a deep copy of it at each level.

    Args:
        model: A graph model.
        serialize: Serializes a layer or operation.
        calls: Whether to tell the calls of the layers, or the layers alone.

    Returns:
        The config.
    """
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


def sublayers(layer: Any) -> list[Any]:
    """The layers that a layer tracks, in tracking order."""
    return list(layer._layers)


def own_variables(layer: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """A layer's own variables without its sublayers': weights, statistics and other state.

    Weights are what was created trainable, also while frozen; other state is that of seed
    generators and metrics.
    """
    state = [
        generator.state
        for generator in layer._seed_generators
        if not hasattr(generator, "graphwd_start")
    ]
    for metric in layer._metrics:
        state.extend(metric.variables)
    return list(layer._trainable_variables), list(layer._non_trainable_variables), state


def shape_of(variable: Any) -> tuple[int, ...]:
    """A variable's shape; TensorFlow's variables would make an object of their own for it."""
    shape = getattr(variable, "_shape", None)
    return shape if type(shape) is tuple else tuple(int(size) for size in variable.shape)


def dtype_of(variable: Any) -> str:
    """A variable's dtype; Keras's property looks for a scope that casts, which none has here."""
    dtype = getattr(variable, "_dtype", None)
    return dtype if type(dtype) is str else str(variable.dtype)


def value_of(variable: Any) -> Any:
    """The backend's variable or array behind a variable, whatever scope is active; or `None`."""
    return variable._value


def set_value(variable: Any, value: Any) -> None:
    """Puts the backend's variable or array behind a variable, as it is."""
    variable._value = value


def initialize(variable: Any, tensor: Any) -> None:
    """Makes the backend's variable behind one, with its options and a first value."""
    variable._initialize(tensor)


def traced_anew(function: Any, python_function: Any) -> Any:
    """A `tf.function` with the options of another."""
    return function._clone(python_function)


def empty_table(table: Any) -> Any:
    """A table of TensorFlow's of the same types and default."""
    return type(table)(table.key_dtype, table.value_dtype, table._default_value)


def changed_inside(wrapper: Any) -> None:
    """Lets TensorFlow's wrapper of a dict take what the dict now has for its own."""
    wrapper._update_snapshot()


def set_strategy(model: Any, strategy: Any) -> None:
    """Puts TensorFlow's strategy of a model in the place of another."""
    model._distribute_strategy = strategy


def keep_layout(source: Any, variable: Any) -> None:
    """Lays a variable out over the devices as another is, whatever the name says by which."""
    if hasattr(variable, "_layout"):
        variable._layout = source._layout


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


def lasting(original: Any) -> dict[str, Any]:
    """An operation's attributes without calls and compiled steps, which are made again."""
    attributes = dict(vars(original))
    for name in CALLS:
        if name in attributes:
            attributes[name] = []
    compiled = [name for name in _COMPILED if attributes.get(name) is not None]
    attributes.update(dict.fromkeys(compiled))
    compiled += CALLS
    references = attributes.get("_self_unconditional_checkpoint_dependencies")
    if references:  # TensorFlow's own list of the attributes of a model
        attributes["_self_unconditional_checkpoint_dependencies"] = [
            reference for reference in references if reference.name not in compiled
        ]
        names = attributes["_self_unconditional_dependency_names"]
        attributes["_self_unconditional_dependency_names"] = {
            name: value for name, value in names.items() if name not in compiled
        }
    return attributes


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
    """Puts the calls of shared layers into the order in which the originals were called.

    `clone_model` walks a graph by depth, so a layer that is called twice may get its calls in
    the other order; a saved model refers to calls by number.

    Args:
        calls: Pairs of calls, of the original graphs and their clones.
        graphs: The cloned graphs.
    """
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
    """The calls of a Functional model in their order: class name, and flat arguments.

    A tensor of the graph is told by its place: the number of the operation that made it, of the
    call, and of the output. Calls of the same layers outside of the model don't count.
    """
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


def modes(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """How two layers compute, which is in no config; what Keras is yet to decide is left out."""
    found = {}
    for name in ("run_eagerly", "jit_compile", "remat_mode"):
        pair = (vars(one).get(f"_{name}"), vars(other).get(f"_{name}"))
        if name != "jit_compile" or None not in pair:
            found[name] = pair
    return found


@contextlib.contextmanager
def unchanged_globals() -> Iterator[None]:
    """A scope that leaves names' counters, seeds and Keras's dtype policy as they were."""
    names = ("object_name_uids", "uninitialized_variables")
    before = {name: copy.copy(global_state.get_global_attribute(name)) for name in names}
    policy = keras.config.dtype_policy()
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        for name in names:
            global_state.set_global_attribute(name, before[name])
        if keras.config.dtype_policy() is not policy:
            keras.config.set_dtype_policy(policy)
        random.setstate(python)
        np.random.set_state(numpy)


def show_state(layer: Any, holder: Any) -> None:
    """Counts a variable among a layer's own without making it a weight, as a seed's state is.

    Args:
        layer: A layer, built or not.
        holder: An object whose `state` is the variable.
    """
    layer._seed_generators.append(holder)


def hide_states(layer: Any, cls: type) -> None:
    """Undoes `show_state` for all holders of a class."""
    generators = layer._seed_generators
    generators[:] = [each for each in generators if not isinstance(each, cls)]
