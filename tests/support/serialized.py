"""Serialized models, written without Keras: layers, calls, and graphs of any size."""

import copy
import json
import math


def thing(class_name, module="keras.layers", registered_name=None, **config):
    """What Keras writes of any object: what it is, and its config."""
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": registered_name,
    }


def tensor(layer, call=0, output=0):
    history = [layer, call, output]
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None, 4], "dtype": "float32", "keras_history": history},
    }


def layer(class_name, name, *calls, **config):
    return {
        **thing(class_name, name=name, trainable=True, **config),
        "build_config": {"input_shape": [None, 4]},
        "name": name,
        "inbound_nodes": [{"args": list(call), "kwargs": {}} for call in calls],
    }


def functional(layers, inputs, outputs, name="model"):
    ends = {"input_layers": inputs, "output_layers": outputs}
    config = {"name": name, "trainable": True, "layers": layers, **ends}
    return thing("Functional", "keras", "Functional", **config)


def sequential(name, *layers):
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def parsed(config):
    return json.loads(json.dumps(config))


def entry(config, name):
    return next(each for each in config["config"]["layers"] if each["config"]["name"] == name)


def renamed(config, prefix="new_"):
    """A flat functional model with every layer under another name."""
    result = copy.deepcopy(config)
    for each in result["config"]["layers"]:
        each["name"] = each["config"]["name"] = prefix + each["name"]
    pending = [result["config"]]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "keras_history" in value:
                value["keras_history"][0] = prefix + value["keras_history"][0]
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    for key in ("input_layers", "output_layers"):
        for reference in result["config"][key]:
            reference[0] = prefix + reference[0]
    return result


def l2(factor, **more):
    return {"class_name": "L2", "config": {"l2": factor}, **more}


def shared_models(first, second, third=None):
    def inner(name, number, initializer):
        kernel = {"class_name": "Zeros", "config": {}, "shared_object_id": initializer}
        dense = layer("Dense", "dense", initializer=kernel)
        if number is not None:
            dense["shared_object_id"] = number
        return sequential(name, dense)

    return sequential(
        "s", inner("one", first, 1), inner("two", second, third or 1), inner("three", 99, 5)
    )


def deep(value, depth, key="nested"):
    for number in range(depth):
        value = {key: value} if number % 2 else [value]
    return value


def chain(count, prefix):
    layers, last = [layer("InputLayer", f"{prefix}in")], f"{prefix}in"
    for number in range(count):
        layers.append(layer("Dense", f"{prefix}{number}", [tensor(last)], units=4))
        last = f"{prefix}{number}"
    return functional(layers, [[f"{prefix}in", 0, 0]], [[last, 0, 0]])


def branches(count, prefix):
    """Identical branches: any pairing would do for a search that forgets the arguments' order."""
    layers = [layer("InputLayer", f"{prefix}in")]
    names = [f"{prefix}{number}" for number in range(count)]
    layers += [layer("Dense", name, [tensor(f"{prefix}in")], units=4) for name in names]
    layers.append(layer("Concatenate", f"{prefix}out", [[tensor(name) for name in names]]))
    return functional(layers, [[f"{prefix}in", 0, 0]], [[f"{prefix}out", 0, 0]])


def ladder(count, prefix):
    """Two to the power of its length ways lead through it."""
    layers, left, right = [layer("InputLayer", f"{prefix}in")], f"{prefix}in", f"{prefix}in"
    for number in range(count // 2):
        one, other = f"{prefix}l{number}", f"{prefix}r{number}"
        layers.append(layer("Add", one, [[tensor(left), tensor(right)]]))
        layers.append(layer("Add", other, [[tensor(right), tensor(left)]]))
        left, right = one, other
    return functional(layers, [[f"{prefix}in", 0, 0]], [[left, 0, 0], [right, 0, 0]])


def grid(count, prefix):
    side = math.isqrt(count)
    layers = [layer("InputLayer", f"{prefix}in")]
    for row in range(side):
        for column in range(side):
            above = f"{prefix}{row - 1}_{column}" if row else f"{prefix}in"
            before = f"{prefix}{row}_{column - 1}" if column else f"{prefix}in"
            both = [tensor(above), tensor(before)]
            layers.append(layer("Add", f"{prefix}{row}_{column}", [both]))
    last = f"{prefix}{side - 1}_{side - 1}"
    return functional(layers, [[f"{prefix}in", 0, 0]], [[last, 0, 0]])
