"""The only package that uses private names of Keras: why each, and what happens without it.

| name | why | when it is missing |
| --- | --- | --- |
| `serialize_with_public_class` | a class's name as Keras writes it, without an instance | import error that says which Keras versions work |
| `Functional`, `functional_like_constructor` | tell a graph of layers from other models | import error that says which Keras versions work |
| `serialize_node`, `make_node_key`, `Functional._nodes`, `._inputs_struct`, `._outputs_struct`, `Sequential._functional` | a model's config without a deep copy of it for each nested model | the same |
| `Layer._trainable`, `._trainable_variables`, `._non_trainable_variables`, `._seed_generators`, `._layers`, `._metrics` | the only view that keeps who owns which variable and in which order | the same |
| `Variable._layout` | a copy is laid out over JAX's devices as its original | Keras lays it out by its name |
| `Variable._shape`, `._dtype` | a shape that is a plain tuple, and a dtype, without asking the backend | `shape` and `dtype` are asked |
| `Layer._inbound_nodes`, `Node`, `KerasTensor._keras_history` | write a layer's call into the new graph without computing its output's shape again | the layer is called, which is slower |
| `Function._nodes` and the like | put the calls of a shared layer back into their order | the calls keep the order of the traversal |
| `Trainer._compile_config`, `Optimizer._trainable_variables`, `._learning_rate` | compile arguments as the user gave them, serializable or not | what Keras can serialize is carried |

What Keras's own methods are replaced with while layers are made is in `making`.
"""  # noqa: E501 # a table row can't be broken

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from graphwd.errors import GraphwdError

try:
    from keras.src.models.functional import (
        Functional,
        functional_like_constructor,
        serialize_node,
    )
    from keras.src.ops.function import make_node_key, map_graph
    from keras.src.ops.node import KerasHistory, Node
    from keras.src.saving.serialization_lib import serialize_with_public_class
except ImportError as error:
    raise GraphwdError(
        f"Keras {keras.__version__} is laid out in a way that graphwd does not know ({error}); "
        "graphwd is tested with Keras 3.13 and 3.15."
    ) from error

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
    state = [generator.state for generator in layer._seed_generators]
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


def set_own_trainable(layer: Any, value: bool) -> None:
    """Sets a layer's trainable flag alone; Keras's setter sets those of all sublayers, too."""
    layer._trainable = value


def keep_path(source: Any, variable: Any) -> None:
    """Gives a variable the path of another: a layer that is rebuilt alone loses those around it.

    Paths are what users match variables by: to exclude them from decay, to lay them out on devices.
    """
    if variable.path != source.path and hasattr(variable, "_path"):
        variable._path = source.path


def keep_layout(source: Any, variable: Any) -> None:
    """Lays a variable out over the devices as another is, whatever the name says by which."""
    if hasattr(variable, "_layout"):
        variable._layout = source._layout


def maker(tensor: Any) -> Any:
    """The layer whose call made a symbolic tensor."""
    return tensor._keras_history.operation


def order_of_visit(model: Any) -> dict[int, int]:
    """Maps the id of each node of a Functional model to its place in `clone_model`'s walk."""
    by_depth = model._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return {id(node): place for place, node in enumerate(nodes)}


def node_of_call(
    layer: Any, arguments: Sequence[Any], origin: dict[int, Any], visit: dict[int, int]
) -> Any:
    """The node of a source layer whose call had these arguments.

    Args:
        layer: The source layer.
        arguments: The flat arguments of the call in the new graph.
        origin: Maps the id of a tensor of the new graph to its source tensor.
        visit: The places of the source model's nodes in the walk. Of several calls with the
            same arguments the first is meant, which is then taken out.

    Returns:
        The source node, or `None` when no node fits.
    """
    wanted = [origin.get(id(argument), argument) for argument in arguments]
    fitting = []
    for node in layer._inbound_nodes:
        flat = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
        if len(flat) == len(wanted) and all(a is b for a, b in zip(flat, wanted, strict=True)):
            fitting.append(node)
    if len(fitting) > 1:
        fitting = sorted((n for n in fitting if id(n) in visit), key=lambda n: visit[id(n)])
        for node in fitting[:1]:
            del visit[id(node)]
    return fitting[0] if fitting else None


def replay(layer: Any, node: Any, args: Any, kwargs: Any) -> list[Any]:
    """Writes a source node's call into the new graph, with outputs of the same specification.

    Args:
        layer: The clone that is called.
        node: The source node.
        args: The positional arguments of the call in the new graph.
        kwargs: Its keyword arguments.

    Returns:
        The flat list of output tensors.
    """
    outputs = []
    for tensor in node.outputs:
        output = _like(tensor)
        mask = getattr(tensor, "_keras_mask", None)
        if mask is not None:
            output._keras_mask = _like(mask)
        outputs.append(output)
    Node(operation=layer, call_args=args, call_kwargs=kwargs, outputs=outputs)
    return outputs


def _like(tensor: Any) -> Any:
    options = {"shape": tensor.shape, "dtype": tensor.dtype, "sparse": tensor.sparse}
    if getattr(tensor, "ragged", False):
        options["ragged"] = True
    return keras.KerasTensor(**options)


def restore_call_order(model: Any, order: dict[int, int]) -> None:
    """Puts the calls of shared layers into the order in which the source made them.

    `clone_model` walks the graph by depth, so a layer that is called twice may get its calls in
    the other order; a saved model refers to calls by number.

    Args:
        model: A cloned Functional model.
        order: Maps the id of a new node to the position of its source node.
    """
    moved = False
    for operation in model.operations:
        nodes = operation._inbound_nodes
        positions = [order[id(node)] for node in nodes if id(node) in order]
        if len(positions) < max(2, len(nodes)) or positions == sorted(positions):
            continue
        nodes = sorted(nodes, key=lambda node: order[id(node)])
        operation._inbound_nodes = nodes  # a model's is a list that TensorFlow tracks, without sort
        for index, node in enumerate(nodes):
            for tensor_index, tensor in enumerate(node.outputs):
                tensor._keras_history = KerasHistory(operation, index, tensor_index)
        moved = True
    if moved:
        nodes, by_depth, operations, operations_by_depth = map_graph(model.inputs, model.outputs)
        model._nodes = nodes
        model._nodes_by_depth = by_depth
        model._operations = operations
        model._operations_by_depth = operations_by_depth


def nodes_of(layer: Any) -> list[Any]:
    """The calls of a layer, in the order in which they were made."""
    return list(layer._inbound_nodes)


def wiring(model: Any) -> list[tuple[str, list[Any]]]:
    """The calls of a Functional model in their order: class name, and flat arguments.

    A tensor of the graph is told by its place: the number of the operation that made it, of the
    call, and of the output.
    """
    number = {id(operation): index for index, operation in enumerate(model.operations)}

    def told(argument: Any) -> Any:
        if isinstance(argument, keras.KerasTensor):
            operation, node, index = argument._keras_history
            return (number.get(id(operation)), node, index)
        return argument

    return [
        (
            type(operation).__name__,
            [told(a) for a in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))],
        )
        for operation in model.operations
        for node in operation._inbound_nodes
    ]


def uncompiled(model: Any) -> Any:
    """A plain Functional model over the same layers and tensors, without compile state."""
    return Functional(model.input, model.output, name=model.name)


def compile_arguments(model: Any) -> dict[str, Any] | None:
    """The arguments of `compile` as the user gave them; `None` when they are not recorded."""
    recorded = getattr(model, "_compile_config", None)
    config = getattr(recorded, "config", None)
    return dict(config) if isinstance(config, dict) else None


def optimized_variables(optimizer: Any) -> list[Any]:
    """The variables that an optimizer was built for, in its order."""
    return list(getattr(optimizer, "_trainable_variables", ()))


def learning_rate_of(optimizer: Any) -> Any:
    """The learning rate as it was given: a variable, a schedule or a callable."""
    return getattr(optimizer, "_learning_rate", None)


def call_lambda_constructor(layer: Any, config: dict[str, Any]) -> Any:
    """Rebuilds a `Lambda` layer around the function that it already holds."""
    config = {k: v for k, v in config.items() if k not in ("function", "output_shape", "mask")}
    config["arguments"] = dict(layer.arguments)
    return type(layer)(layer.function, output_shape=layer._output_shape, mask=layer.mask, **config)


def track_again(layer: Any) -> None:
    """Tells PyTorch's module of a layer about its parameters, which have been exchanged."""
    if hasattr(layer, "_torch_params"):
        layer._track_variables()
