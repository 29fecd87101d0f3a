"""The only package that uses private names of Keras: why each, and what happens without it.

| name | why | when it is missing |
| --- | --- | --- |
| `serialize_with_public_class` | a class's name as Keras writes it, without an instance | import error that says which Keras versions work |
| `Functional`, `functional_like_constructor` | tell a graph of layers from other models | import error that says which Keras versions work |
| `serialize_node`, `make_node_key`, `Functional._nodes`, `._inputs_struct`, `._outputs_struct`, `Sequential._functional` | a model's config without a deep copy of it for each nested model | the same |
| `Layer._trainable`, `._trainable_variables`, `._non_trainable_variables`, `._seed_generators`, `._layers`, `._metrics` | the only view that keeps who owns which variable and in which order; state that JAX's steps see and files don't | the same |
| `Optimizer._iterations`, `._use_weight_decay`, `Muon._should_use_adamw` | the step that learning-rate schedules count, and what decays | AttributeError in `inspect` and `StrengthScheduler` |
| `Variable._layout` | a copy is laid out over JAX's devices as its original | Keras lays it out by its name |
| `Variable._shape`, `._dtype` | a shape that is a plain tuple, and a dtype, without asking the backend | `shape` and `dtype` are asked |
| `Layer._inbound_nodes`, `Node`, `KerasTensor._keras_history` | write a layer's call into the new graph without computing its output's shape again | the layer is called, which is slower |
| `Function._nodes` and the like | put the calls of a shared layer back into their order | the calls keep the order of the traversal |
| `global_state`: `object_name_uids`, `uninitialized_variables` | layers that are made for a look at them leave no trace | import error that says which Keras versions work |
| `Trainer._compile_config`, `Optimizer._trainable_variables`, `._learning_rate` | compile arguments as the user gave them, serializable or not | what Keras can serialize is carried |

What Keras's own methods are replaced with while layers are made is in `making`.
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
    return Functional(graph._inputs_struct, graph._outputs_struct, name=graph.name)


def lasting(original: Any) -> dict[str, Any]:
    """The attributes of an object without calls and compiled steps, which are made again."""
    attributes = dict(vars(original))
    if not isinstance(original, keras.Operation):
        return attributes
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


def key_of(variable: Any) -> Any:
    """What an optimizer knows a variable by, which on TensorFlow is not its id."""
    return getattr(variable._value, "_unique_id", id(variable))


def modes(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """How two layers compute, which is in no config; what Keras is yet to decide is left out."""
    found = {}
    for name in ("run_eagerly", "jit_compile", "remat_mode"):
        pair = (vars(one).get(f"_{name}"), vars(other).get(f"_{name}"))
        if name != "jit_compile" or None not in pair:
            found[name] = pair
    return found


def decays(optimizer: Any, variable: Any) -> bool:
    """Whether an optimizer with a weight decay applies it to a variable; leaves no trace in it."""
    remembered = getattr(optimizer, "_exclude_from_weight_decay_cache", None)
    optimizer._exclude_from_weight_decay_cache = {}
    try:
        return bool(optimizer._use_weight_decay(variable))
    finally:
        if remembered is None:
            del optimizer._exclude_from_weight_decay_cache
        else:
            optimizer._exclude_from_weight_decay_cache = remembered


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


def optimized_variables(optimizer: Any) -> list[Any]:
    """The variables that an optimizer was built for, in its order."""
    return list(getattr(optimizer, "_trainable_variables", ()))


def learning_rate_of(optimizer: Any) -> Any:
    """The learning rate as it was given: a variable, a schedule or a callable."""
    return getattr(optimizer, "_learning_rate", None)


def steps_of(optimizer: Any) -> Any:
    """The variable that counts an optimizer's steps, those of accumulation included."""
    return optimizer._iterations


def decay_of(optimizer: Any, variable: Any) -> float:
    """The coefficient by which an optimizer decays a variable; 0 for one that it leaves out.

    Args:
        optimizer: A plain optimizer, whose variables' decay is not left to others inside it.
        variable: A variable.

    Returns:
        The coefficient before the learning rate.
    """
    decay = vars(optimizer).get("weight_decay")
    if hasattr(optimizer, "adam_weight_decay") and optimizer._should_use_adamw(variable):
        decay = vars(optimizer)["adam_weight_decay"]
    return float(decay) if decay and optimizer._use_weight_decay(variable) else 0.0


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


def excluded_from_decay(optimizer: Any) -> tuple[set[Any], str]:
    """What an optimizer was told to leave out: keys of variables, and a pattern of names."""
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    listed = getattr(optimizer, "_exclude_from_weight_decay", None)
    return set(listed or ()), "" if pattern is None else str(pattern.pattern)


def is_listed(optimizer: Any, variable: Any) -> bool:
    """Whether a variable itself is among what an optimizer was told to leave out."""
    return optimizer._var_key(variable) in excluded_from_decay(optimizer)[0]


def optimizer_map(optimizer: Any) -> dict[str, Any] | None:
    """The optimizers by the patterns for which a `MultiOptimizer` has them; `None` elsewhere."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    mapped: Any = getattr(optimizer, "_optimizer_map", None)
    return dict(mapped) if hasattr(mapped, "items") else None


def optimizer_of(optimizer: Any, inside: Sequence[Any], variable: Any) -> Any:
    """Which optimizer updates a variable; `None` where that can't be told before it is built."""
    for each in inside:
        if each.built and any(variable is own for own in optimized_variables(each)):
            return each
    if len(inside) == 1:
        return None if inside[0].built and optimized_variables(inside[0]) else inside[0]
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    mapped: Any = getattr(optimizer, "_optimizer_map", None)
    return mapped[variable.path] if hasattr(mapped, "items") else None
