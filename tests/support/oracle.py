"""What tests know of models on their own: choices, penalties and state, without graphwd's code."""

import copy
import fnmatch
import json

import keras
import numpy as np

PREFIXES = {
    "kernel": ("kernel", "depthwise"),
    "recurrent_kernel": ("recurrent",),
    "depthwise_kernel": ("depthwise",),
    "pointwise_kernel": ("pointwise",),
}


def array(variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)


def bits(variable) -> tuple:
    value = array(variable)
    return str(variable.dtype), value.shape, value.tobytes()


def plain(config):
    """A config as it stands in a file: keys sorted, tuples as lists."""
    return json.loads(json.dumps(config, default=keras.saving.serialize_keras_object))


def all_layers(model) -> list:
    return [model, *model._flatten_layers(include_self=False)]


def owned(layer) -> list:
    """A layer's own weights that were created trainable, without its sublayers'."""
    return list(layer._trainable_variables)


# ---------------------------------------------------------------- what a policy chooses


def _matches(rule: dict, slot) -> bool:
    words = {"roles": [slot.role], "layers": slot.layers, "paths": [slot.path]}
    return all(
        any(fnmatch.fnmatchcase(word, pattern) for word in words[key] for pattern in rule[key])
        for key in words
        if key in rule
    )


def _regularizer(rule: dict):
    """The `(class_name, config)` that a rule asks for, or None."""
    if "l1" in rule:
        return "L1", {"l1": rule["l1"]}
    if "l2" in rule:
        return "L2", {"l2": rule["l2"]}
    if "weight_decay" in rule:
        return "L2", {"l2": rule["weight_decay"] / 2}
    return _pair(rule["regularizer"])


def _pair(serialized):
    return None if serialized is None else (serialized["class_name"], dict(serialized["config"]))


def choices(slots, policy: dict) -> dict:
    """Maps each slot's path to what it holds under a policy: the last rule that matches wins."""
    chosen = {}
    for slot in slots:
        value = _pair(slot.regularizer)
        for rule in policy["rules"]:
            if _matches(rule, slot):
                value = _regularizer(rule)
        chosen.setdefault(slot.path, []).append(value)
    assert all(len(set(map(repr, values))) == 1 for values in chosen.values())
    return {path: values[0] for path, values in chosen.items()}


def governed(model, paths) -> dict[int, str]:
    """Maps the id of every weight to the path, among the given ones, that names it.

    A weight belongs to the innermost layer around it that has a path for its role, or, where
    none has, to the path that ends in its own name.
    """
    found: dict[int, str] = {}
    stack = [(model, ())]
    while stack:
        layer, names = stack.pop()
        for variable in owned(layer):
            roles = (*PREFIXES.get(variable.name, ()), variable.name)
            candidates = [
                "/".join((*names[:length], role))
                for length in range(len(names), -1, -1)
                for role in roles
            ]
            for candidate in candidates:
                if candidate in paths:
                    found.setdefault(id(variable), candidate)
                    break
        for inner in layer._flatten_layers(include_self=False, recursive=False):
            stack.append((inner, (*names, inner.name)))
            if isinstance(layer, keras.layers.Bidirectional):
                _, _, given = inner.name.partition("_")  # forward_lstm, backward_lstm
                stack.append((inner, (*names, given)))
    return found


def wanted(model, slots, policy: dict) -> dict[int, tuple]:
    """Maps the id of every weight of a model to the regularizer that a policy gives it."""
    chosen = choices(slots, policy)
    paths = governed(model, chosen)
    return {
        id(variable): (
            chosen[paths[id(variable)]]
            if id(variable) in paths
            else _pair(keras.regularizers.serialize(variable.regularizer))
            if variable.regularizer is not None
            else None
        )
        for layer in all_layers(model)
        for variable in owned(layer)
    }


# ---------------------------------------------------------------- what a penalty is worth


def penalty(regularizer, value: np.ndarray) -> float:
    """A regularizer's penalty in float64, from its definition."""
    if regularizer is None:
        return 0.0
    class_name, config = regularizer
    value = np.asarray(value, dtype="float64")
    if class_name == "OrthogonalRegularizer":
        rows = value if config["mode"] == "rows" else value.T
        rows = rows / np.sqrt(np.maximum((rows**2).sum(axis=1, keepdims=True), 1e-12))
        products = np.abs(rows @ rows.T)
        count = len(rows)
        pairs = count * (count - 1) / 2
        return config["factor"] * 0.5 * (products.sum() - np.trace(products)) / max(pairs, 1.0)
    total = 0.0
    if config.get("l1"):
        total += config["l1"] * np.abs(value).sum()
    if config.get("l2"):
        total += config["l2"] * (value**2).sum()
    return float(total)


def penalty_sum(model, regularizers: dict[int, tuple]) -> float:
    """The sum over the trainable weights of a model, each once."""
    trainable = {id(variable): variable for variable in model.trainable_weights}
    return sum(
        penalty(regularizers.get(key), array(variable)) for key, variable in trainable.items()
    )


def losses_sum(model) -> float:
    return float(sum(float(loss) for loss in model.losses))


def variable_regularizers(model) -> list:
    """What is on the variables, in the order of the layers."""
    return [
        _pair(keras.regularizers.serialize(v.regularizer)) if v.regularizer is not None else None
        for layer in all_layers(model)
        for v in owned(layer)
    ]


# ---------------------------------------------------------------- what a model is


def state(model) -> dict:
    """Everything about a model that a rewrite must leave alone, comparable with `==`."""
    layers = all_layers(model)
    optimizer = model.optimizer if model.compiled else None
    return {
        "config": copy.deepcopy(plain(model.get_config())),
        "layers": [(id(layer), type(layer), layer.name, layer.trainable) for layer in layers],
        "attributes": [{key: id(value) for key, value in vars(layer).items()} for layer in layers],
        "variables": [
            (id(v), v.path, v.trainable, id(v.regularizer), bits(v)) for v in model.variables
        ],
        "losses": [float(loss) for loss in model.losses],
        "calls": [
            (len(operation._inbound_nodes), len(operation._outbound_nodes))
            for layer in layers
            for operation in [layer, *getattr(layer, "operations", ())]
        ],
        "compiled": model.compiled,
        "optimizer": None
        if optimizer is None
        else (id(optimizer), [(id(v), bits(v)) for v in optimizer.variables]),
    }


def outputs(model, inputs) -> list[np.ndarray]:
    return [array(tensor) for tensor in keras.tree.flatten(model(inputs, training=False))]


def config_differences(one, other, *, regularizers: bool = True) -> list[str]:
    """Where two configs differ, as paths; without `*_regularizer` keys on request."""
    found, stack = [], [("", plain(one), plain(other))]
    while stack:
        path, ours, theirs = stack.pop()
        if isinstance(ours, dict) and isinstance(theirs, dict):
            keys = {**ours, **theirs}
            stack += [
                (f"{path}/{key}", ours.get(key, "missing"), theirs.get(key, "missing"))
                for key in keys
                if regularizers or not key.endswith("_regularizer")
            ]
        elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
            stack += [
                (f"{path}/{index}", *pair)
                for index, pair in enumerate(zip(ours, theirs, strict=True))
            ]
        elif ours != theirs and not (ours != ours and theirs != theirs):
            found.append(f"{path}: {ours!r} and {theirs!r}")
    return found
