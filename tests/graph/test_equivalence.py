"""The comparison of serialized models: faults, names, structure, dialects, hostility, growth."""

import copy
import functools
import json
import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphwd.errors import ModelError
from graphwd.graph import equivalence, values, wiring


def tensor(layer, call=0, output=0):
    history = [layer, call, output]
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None, 4], "dtype": "float32", "keras_history": history},
    }


def layer(class_name, name, *calls, **config):
    return {
        "module": "keras.layers",
        "class_name": class_name,
        "config": {"name": name, "trainable": True, **config},
        "registered_name": None,
        "build_config": {"input_shape": [None, 4]},
        "name": name,
        "inbound_nodes": [{"args": list(call), "kwargs": {}} for call in calls],
    }


def functional(layers, inputs, outputs, name="model"):
    return {
        "module": "keras",
        "class_name": "Functional",
        "config": {
            "name": name,
            "trainable": True,
            "layers": layers,
            "input_layers": inputs,
            "output_layers": outputs,
        },
        "registered_name": "Functional",
    }


def sequential(name, *layers):
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def read(config):
    graph = nx.MultiDiGraph()
    return wiring.read(wiring.as_object(config), graph), graph


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


# Random models, small enough for networkx's own search for an isomorphism -----------------------


@st.composite
def drawn_models(draw):
    """A model without names: layers, calls in an order that can be made, outputs.

    Every call is `(layer, tensors taken, way to give them, constant)`; a tensor is
    `(call, output)`. Whatever nobody takes is an output.
    """
    inputs = draw(st.integers(1, 2))
    layers = [("InputLayer", 0)] * inputs
    calls = [(number, (), "none", None) for number in range(inputs)]
    for _ in range(draw(st.integers(1, 6))):
        shared = list(range(inputs, len(layers)))
        if shared and draw(st.integers(0, 3)) == 0:
            own = draw(st.sampled_from(shared))
        else:
            own = len(layers)
            layers.append((draw(st.sampled_from(["Dense", "Add"])), draw(st.integers(1, 2))))
        taken = draw(
            st.lists(
                st.tuples(st.integers(0, len(calls) - 1), st.integers(0, 1)),
                min_size=1,
                max_size=3,
            )
        )
        way = draw(st.sampled_from(["list", "arguments", "keyword"]))
        calls.append((own, tuple(taken), way, draw(st.sampled_from([None, 0, 0.0]))))
    used = {number for _, taken, _, _ in calls for number, _ in taken}
    ends = [(number, 0) for number in range(len(calls)) if number not in used]
    ends += draw(st.lists(st.tuples(st.integers(0, len(calls) - 1), st.integers(0, 1)), max_size=2))
    return layers, calls, draw(st.permutations(ends))


def written(model, names, order, numbering):
    """Writes a drawn model as Keras 3 does: with these names, in this order, calls numbered so."""
    layers, calls, ends = model
    numbers = {}
    for number in numbering:
        own = calls[number][0]
        numbers[number] = sum(calls[other][0] == own for other in numbers)

    def refer(number, output):
        return [names[calls[number][0]], numbers[number], output]

    entries = []
    for own in order:
        class_name, units = layers[own]
        given_calls = []
        mine = [number for number in range(len(calls)) if calls[number][0] == own]
        for number in sorted(mine, key=numbers.get):
            _, taken, way, constant = calls[number]
            tensors = [tensor(*refer(*each)) for each in taken]
            if way == "none":
                continue
            args = {"list": [tensors], "arguments": tensors, "keyword": tensors[:1]}[way]
            kwargs = {"others": tensors[1:]} if way == "keyword" else {}
            given_calls.append({"args": args, "kwargs": {**kwargs, "constant": constant}})
        each = layer(class_name, names[own], units=units)
        each["inbound_nodes"] = given_calls
        entries.append(each)
    inputs = [names[own] for own in range(len(layers)) if layers[own][0] == "InputLayer"]
    return functional(
        entries, [[name, 0, 0] for name in inputs], [refer(*each) for each in ends], name=names[-1]
    )


def plainly(model, prefix="layer"):
    layers, calls, _ = model
    names = [f"{prefix}{number}" for number in range(len(layers) + 1)]
    return written(model, names, range(len(layers)), range(len(calls)))


def networkx_says_same(one, other):
    """Asks networkx's search, with a node for every layer so that sharing counts."""
    graphs = []
    for config in (one, other):
        level, built = read(config)
        labels = nx.MultiDiGraph()
        labels.add_nodes_from((end, {"label": end}) for end in (wiring.INPUTS, wiring.OUTPUTS))
        for node in level.nodes():
            entry = level.layers[node[0]]
            plain = {key: value for key, value in entry["config"].items() if key != "name"}
            constants = level.constants.get(node, {}).items()
            constants = sorted((str(key), repr(value)) for key, value in constants)
            labels.add_node(node, label=(entry["class_name"], str(plain), str(constants)))
            labels.add_node(("layer", node[0], "tie"), label="layer")
            labels.add_edge(("layer", node[0], "tie"), node, "tie", tensor=None)
        for maker, taker, key, data in built.edges(keys=True, data=True):
            labels.add_edge(maker, taker, key, tensor=data["tensor"])
        graphs.append(labels)

    def same_edges(one, other):
        return {key: data["tensor"] for key, data in one.items()} == {
            key: data["tensor"] for key, data in other.items()
        }

    return nx.is_isomorphic(*graphs, lambda one, other: one == other, same_edges)


@given(drawn_models(), st.data())
def test_another_writing_of_the_same_model_is_accepted(model, data):
    layers, calls, _ = model
    order = data.draw(st.permutations(range(len(layers))))
    numbering = data.draw(st.permutations(range(len(calls))))
    original = plainly(model)
    same_names = [f"layer{number}" for number in range(len(layers) + 1)]
    for match in ("names", "auto"):
        found = equivalence.compare(
            original, written(model, same_names, order, numbering), match=match
        )
        assert found.problems == ()
        assert found.names == {name: name for name in same_names[:-1]}
    other = written(model, [f"n{number}" for number in reversed(range(9))], order, numbering)
    for match in ("structure", "auto"):
        found = equivalence.compare(original, other, match=match)
        assert found.problems == ()
        assert found.names == {f"layer{number}": f"n{8 - number}" for number in range(len(layers))}
        assert found.nodes == len(calls)
        assert found.edges == sum(len(taken) for _, taken, _, _ in calls)
    assert networkx_says_same(original, other)


@given(drawn_models(), st.data())
def test_structure_agrees_with_networkx_on_single_changes(model, data):
    layers, calls, ends = model
    changed_layers, changed_calls, changed_ends = list(layers), list(calls), list(ends)
    what = data.draw(st.sampled_from(["layer", "call", "ends", "swap"]))
    drawn = data.draw(drawn_models())
    inner = [number for number, call in enumerate(calls) if call[1]]
    if what == "layer":
        chosen = data.draw(st.sampled_from([own for own, each in enumerate(layers) if each[1]]))
        changed_layers[chosen] = (layers[chosen][0], 3 - layers[chosen][1])
    elif what == "ends":
        changed_ends = data.draw(st.permutations(ends))
    else:
        chosen = data.draw(st.sampled_from(inner))
        own, taken, way, constant = calls[chosen]
        if what == "swap":
            taken = data.draw(st.permutations(taken))
        else:
            taken = data.draw(
                st.lists(
                    st.tuples(st.integers(0, chosen - 1), st.integers(0, 1)),
                    min_size=1,
                    max_size=3,
                )
            )
            constant = data.draw(st.sampled_from([None, 0, 0.0]))
        changed_calls[chosen] = (own, tuple(taken), way, constant)
    used = {number for _, taken, _, _ in changed_calls for number, _ in taken}
    changed_ends += [
        (number, 0)
        for number in range(len(calls))
        if number not in used and number not in {each for each, _ in changed_ends}
    ]
    changed = (changed_layers, changed_calls, changed_ends)
    for other in (changed, drawn):
        one, two = plainly(model), plainly(other, "new")
        found = equivalence.compare(one, two, match="structure")
        assert found.ok == networkx_says_same(one, two)
        named = equivalence.compare(one, plainly(other), match="names")
        # By their texts, since Python takes the constants 0 and 0.0 for one.
        assert named.ok == (repr(plainly(model)) == repr(plainly(other)))
        assert all("\n" not in problem for problem in found.problems + named.problems)


# Single faults in a real model ------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def sound(keras):
    """A model with a shared layer, two outputs of an operation, and a call argument."""
    layers = keras.layers
    one, other = keras.Input((8, 8, 3), name="one"), keras.Input((8, 8, 3), name="other")
    shared = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv1")
    difference = layers.Subtract(name="subtract")([shared(one), shared(other)])
    halves = keras.ops.split(difference, 2, axis=-1)
    left = layers.Dense(4, activation="relu", name="left")(halves[0])
    right = layers.Dense(4, name="right")(halves[1])
    left = layers.Dropout(0.5, name="dropout")(left, training=False)
    joined = layers.Concatenate(name="joined")([left, right])
    model = keras.Model([one, other], [joined, difference], name="sound")
    return parsed(keras.saving.serialize_keras_object(model))


FAULTS = {}


def fault(*words):
    def register(function):
        FAULTS[function.__name__] = (function, words)
        return function

    return register


@fault('layer "conv1"', "strides is [2, 2] in the original and [1, 1] in the rewritten model")
def stride(config, prefix):
    entry(config, f"{prefix}conv1")["config"]["strides"] = [1, 1]


@fault('layer "conv1"', 'activation is "relu" in the original and "tanh"')
def activation(config, prefix):
    entry(config, f"{prefix}conv1")["config"]["activation"] = "tanh"


@fault('layer "left"', 'dtype.config.name is "float32" in the original and "mixed_float16"')
def dtype_policy(config, prefix):
    entry(config, f"{prefix}left")["config"]["dtype"]["config"]["name"] = "mixed_float16"


@fault('layer "right"', "trainable is True in the original and False")
def frozen(config, prefix):
    entry(config, f"{prefix}right")["config"]["trainable"] = False


@fault('layer "right"', "units is 4 in the original and 4.0")
def number_type(config, prefix):
    entry(config, f"{prefix}right")["config"]["units"] = 4.0


@fault('layer "joined"', 'args[0][0] is "dropout" in the original and "', 'args[0][1] is "right"')
def swapped_inputs(config, prefix):
    entry(config, f"{prefix}joined")["inbound_nodes"][0]["args"][0].reverse()


@fault('layer "subtract"', 'args[0][0] is "conv1" (call 0) in the original and "conv1" (call 1)')
def swapped_calls_of_a_shared_layer(config, prefix):
    entry(config, f"{prefix}subtract")["inbound_nodes"][0]["args"][0].reverse()


@fault('layer "conv1"', "is called 2 times in the original and once")
def unshared_layer(config, prefix):
    shared = entry(config, f"{prefix}conv1")
    unshared = copy.deepcopy(shared)
    unshared["name"] = unshared["config"]["name"] = f"{prefix}conv1_copy"
    shared["inbound_nodes"].pop()
    del unshared["inbound_nodes"][0]
    config["config"]["layers"].append(unshared)
    history = entry(config, f"{prefix}subtract")["inbound_nodes"][0]["args"][0][1]["config"]
    history["keras_history"] = [f"{prefix}conv1_copy", 0, 0]


@fault("the model", 'outputs[0] is "joined" in the original and')
def output_order(config, prefix):
    config["config"]["output_layers"].reverse()


@fault("the model", 'outputs is missing in the original and "', 'outputs[1] is "subtract"')
def output_structure(config, prefix):
    config["config"]["output_layers"] = config["config"]["output_layers"][0]


@fault("the model", 'inputs[0] is "one"')
def input_order(config, prefix):
    config["config"]["input_layers"].reverse()


@fault('layer "dropout"', "kwargs.training is False in the original and True")
def call_argument(config, prefix):
    entry(config, f"{prefix}dropout")["inbound_nodes"][0]["kwargs"]["training"] = True


@fault('layer "dropout"', "kwargs.training is False in the original and missing")
def missing_argument(config, prefix):
    del entry(config, f"{prefix}dropout")["inbound_nodes"][0]["kwargs"]["training"]


@fault('layer "left"', 'args[0] is "split" in the original and', "(output 1)")
def tensor_index(config, prefix):
    taken = entry(config, f"{prefix}left")["inbound_nodes"][0]["args"][0]["config"]
    taken["keras_history"][2] = 1


@fault('layer "joined"', 'args[0][1] is "right" in the original and')
def missing_layer(config, prefix):
    config["config"]["layers"].remove(entry(config, f"{prefix}right"))
    taken = entry(config, f"{prefix}joined")["inbound_nodes"][0]["args"][0][1]["config"]
    taken["keras_history"] = [f"{prefix}split", 0, 1]


@fault('layer "right"')
def other_class(config, prefix):
    entry(config, f"{prefix}right")["class_name"] = "EinsumDense"


@fault("the model", "trainable is True in the original and False")
def model_setting(config, prefix):
    config["config"]["trainable"] = False


@fault('layer "left"', "build_config.input_shape is [None, 4, 4, 2] in the original and")
def recorded_shape(config, prefix):
    entry(config, f"{prefix}left")["build_config"]["input_shape"] = [None, 4, 4, 3]


@fault('layer "left"', "args[0].shape is [None, 4, 4, 2] in the original and")
def tensor_shape(config, prefix):
    taken = entry(config, f"{prefix}left")["inbound_nodes"][0]["args"][0]["config"]
    taken["shape"] = [None, 4, 4, 3]


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("match", ["names", "structure", "auto"])
def test_a_single_fault_is_refused_and_named(sound, name, match):
    function, words = FAULTS[name]
    prefix = "new_" if match == "structure" else ""
    other = renamed(sound, prefix)
    assert equivalence.compare(sound, other, match=match).ok
    function(other, prefix)
    found = equivalence.compare(sound, other, match=match)
    assert not found.ok
    text = "\n".join(found.problems)
    assert "layer " in text or "the model: " in text
    for word in words:
        # Without names, a fault shows where its consequences first contradict each other.
        if match != "structure" or name not in ("other_class", "swapped_calls_of_a_shared_layer"):
            assert word in text
    if name == "other_class":
        assert '"right"' in text
    assert len(found.problems) <= 6


def constant_model(constant, prefix=""):
    dense = layer("Add", prefix + "d", [tensor(prefix + "x"), constant])
    layers = [layer("InputLayer", prefix + "x"), dense]
    return functional(layers, [[prefix + "x", 0, 0]], [[prefix + "d", 0, 0]])


@pytest.mark.parametrize("prefix", ["", "new_"])
def test_the_type_of_a_constant_counts(prefix):
    """It decides the type of the tensor that it is added to."""
    assert equivalence.compare(constant_model(1), constant_model(1, prefix)).ok
    (problem,) = equivalence.compare(constant_model(1), constant_model(1.0, prefix)).problems
    assert "args[1] is 1 in the original and 1.0 in the rewritten model" in problem


def sharing_model(pattern, prefix=""):
    """A chain of calls; equal letters are one layer."""
    last, layers = [prefix + "x", 0], {}
    for name in pattern:
        dense = layers.setdefault(name, layer("Dense", prefix + name, units=4))
        dense["inbound_nodes"].append({"args": [tensor(*last)], "kwargs": {}})
        last = [prefix + name, len(dense["inbound_nodes"]) - 1]
    entries = [layer("InputLayer", prefix + "x"), *layers.values()]
    return functional(entries, [[prefix + "x", 0, 0]], [[*last, 0]])


@pytest.mark.parametrize("prefix", ["", "new_"])
def test_which_calls_share_a_layer_counts(prefix):
    """The numbers of layers, of calls and of calls of each layer are the same in both."""
    assert equivalence.compare(sharing_model("abab"), sharing_model("abab", prefix)).ok
    found = equivalence.compare(sharing_model("abab"), sharing_model("aabb", prefix))
    assert 'layer "b"' in found.problems[0] or 'layer "a"' in found.problems[0]
    assert equivalence.compare(sharing_model("abab"), sharing_model("baba", "new_")).names == {
        "x": "new_x",
        "a": "new_b",
        "b": "new_a",
    }


def test_a_fault_in_a_model_with_few_names_in_common_is_told_by_structure(sound):
    other = renamed(sound)
    stride(other, "new_")
    assert equivalence.compare(sound, other).problems == (
        'layer "conv1" ("new_conv1" in the rewritten model): strides is [2, 2] in the original '
        "and [1, 1] in the rewritten model",
    )


def test_equal_names_in_other_places_are_a_fault_by_names(sound):
    """Weights go by name, so the names must not merely be the same set."""
    other = copy.deepcopy(sound)
    swap = {"left": "right", "right": "left"}
    for each in other["config"]["layers"]:
        name = each["config"]["name"]
        each["name"] = each["config"]["name"] = swap.get(name, name)
    assert not equivalence.compare(sound, other).ok


# Real models ------------------------------------------------------------------------------------


def build_mobile_net(keras):
    return keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=3)


def build_nested(keras):
    inside = keras.Input((4,))
    inner = keras.Model(inside, [keras.layers.Dense(4)(inside), inside])
    one, other = keras.Input((4,)), keras.Input((4,))
    first, _ = inner(one)
    second, same = inner(other)
    third, _ = inner(first)
    stack = keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.5)])
    outputs = {"first": stack(third + same), "others": [third, second], "part": second[:, 1:3]}
    return keras.Model({"one": one, "other": other}, outputs)


def build_wrapped(keras):
    layers = keras.layers
    tokens = keras.Input((6,), dtype="int32")
    embedded = layers.Embedding(9, 4, mask_zero=True)(tokens)
    inside = keras.Input((4,))
    inner = keras.Model(inside, layers.Dense(4)(inside))
    timed = layers.TimeDistributed(inner)(embedded)
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(timed)
    cells = layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)], return_sequences=True)(both)
    attended = layers.MultiHeadAttention(2, 2)(cells, cells, use_causal_mask=True)
    return keras.Model(tokens, attended)


BUILDERS = {"mobile_net": build_mobile_net, "nested": build_nested, "wrapped": build_wrapped}


@pytest.fixture(scope="module", params=BUILDERS)
def twins(request, keras):
    """The same model built twice, so that Keras gives its layers other names."""
    models = [BUILDERS[request.param](keras) for _ in range(2)]
    return [keras.saving.serialize_keras_object(model) for model in models], models


def test_real_models_equal_their_twins_and_their_files(twins):
    (one, other), (model, _) = twins
    assert equivalence.compare(one, parsed(one), match="names").problems == ()
    assert equivalence.compare(one, one, match="structure").problems == ()
    found = equivalence.compare(one, parsed(other))
    assert found.problems == ()
    assert found.names != {name: name for name in found.names}
    live = equivalence.compare(model.get_config(), one["config"], match="names")
    assert (live.nodes, live.edges) == (found.nodes, found.edges)
    assert live.problems == ()
    assert read(one)[1].number_of_nodes() == len(one["config"]["layers"]) + 2 + (
        2 if len(found.names) == 11 else 0  # the nested model is called three times
    )


def test_every_value_of_real_configs_counts(twins):
    """Changes each plain value of a config in turn: none is left out of the comparison."""
    (one, _), _ = twins
    one = parsed(one)
    pending = [((), one)]
    places = []
    while pending:
        place, value = pending.pop()
        if isinstance(value, dict):
            pending.extend(((*place, key), each) for key, each in value.items())
        elif isinstance(value, list):
            pending.extend(((*place, key), each) for key, each in enumerate(value))
        else:
            places.append((place, value))
    assert len(places) > 200
    for place, value in places[:: max(1, len(places) // 150)]:
        holder = one
        for key in place[:-1]:
            holder = holder[key]
        before = copy.copy(value)
        other = copy.deepcopy(one)
        changed = other
        for key in place[:-1]:
            changed = changed[key]
        changed[place[-1]] = [before, "changed"]
        try:
            assert not equivalence.compare(one, other, match="names").ok, place
        except ModelError:
            assert (
                place[-2] in ("keras_history", "inbound_nodes")
                or "name" in place
                or ({"output_layers", "input_layers"} & set(place))
            ), place


def test_wrapped_layers_are_named_by_their_path(keras):
    models = [build_wrapped(keras) for _ in range(2)]
    one, other = (parsed(keras.saving.serialize_keras_object(model)) for model in models)
    pairs = equivalence.compare(one, other).names
    assert {path.count("/") for path in pairs} == {0, 1, 2}
    bidirectional = next(
        each for each in other["config"]["layers"] if each["class_name"] == "Bidirectional"
    )
    bidirectional["config"]["layer"]["config"]["units"] = 5
    timed = next(
        each for each in other["config"]["layers"] if each["class_name"] == "TimeDistributed"
    )
    timed["config"]["layer"]["config"]["layers"][1]["config"]["units"] = 5
    problems = equivalence.compare(one, other).problems
    assert len(problems) == 2
    for class_name in ("bidirectional", "time_distributed"):
        problem = next(each for each in problems if f'"{class_name}' in each)
        assert problem.count("/") in (2, 4)
        assert problem.endswith("in the original and 5 in the rewritten model")


def test_a_nested_models_calls_are_counted_from_one_among_outputs(keras):
    config = parsed(build_nested(keras).get_config())
    level, built = read(config)
    models = {n: e for n, e in level.layers.items() if wiring.model_kind(e) == "functional"}
    ((name, nested),) = models.items()
    assert read(nested)[1].number_of_nodes() == 4
    assert level.calls[name] == 3
    taken = {key: maker for maker, _, key in built.in_edges(wiring.OUTPUTS, keys=True)}
    assert taken["outputs", "others", 0] == (name, 2)
    assert taken["outputs", "others", 1] == (name, 1)
    other = copy.deepcopy(config)
    other["output_layers"]["others"][0][1] -= 1
    problems = equivalence.compare(config, other).problems
    assert problems == (
        f'the model: outputs.others[0] is "{name}" (call 2) in the original and "{name}" '
        "(call 1) in the rewritten model",
    )
    other["output_layers"]["others"][0][1] = 0
    with pytest.raises(ModelError, match="takes a tensor of call 0"):
        equivalence.compare(config, other)


# The legacy dialect -----------------------------------------------------------------------------


def legacy(shift=1):
    """A model as Keras 2 writes it; the calls of its nested model count from `shift`."""

    def write(class_name, name, *nodes, **config):
        return {
            "class_name": class_name,
            "config": {"name": name, **config},
            "name": name,
            "inbound_nodes": list(nodes),
        }

    inner = write(
        "Functional",
        "inner",
        [["a", 0, 0, {}]],
        [["b", 0, 0, {}]],
        layers=[
            write("InputLayer", "x"),
            write("Dense", "d", [["x", 0, 0, {}]], units=4),
        ],
        input_layers=[["x", 0, 0]],
        output_layers=[["d", 0, 0]],
    )
    layers = [
        write("InputLayer", "a"),
        write("InputLayer", "b"),
        inner,
        write("Subtract", "s", [["inner", shift, 0, {}], ["inner", shift + 1, 0, {}]]),
        write("TFOpLambda", "add", ["s", 0, 0, {"y": 1.0, "name": None}]),
        write("TFOpLambda", "minus", ["_CONSTANT_VALUE", -1, 2.0, {"y": ["add", 0, 0]}]),
        write("Attention", "m", [["s", 0, 0, {"value": ["minus", 0, 0], "mask": False}]]),
    ]
    return {
        "class_name": "Functional",
        "config": {
            "name": "model",
            "layers": layers,
            "input_layers": {"a": ["a", 0, 0], "b": ["b", 0, 0]},
            "output_layers": [["m", 0, 0], ["inner", shift + 1, 0]],
        },
    }


def test_the_legacy_dialect_is_read():
    level, built = read(legacy())
    edges = {(maker, taker, key) for maker, taker, key in built.edges(keys=True)}
    assert edges == {
        (wiring.INPUTS, ("a", 0), ("inputs", "a")),
        (wiring.INPUTS, ("b", 0), ("inputs", "b")),
        (("a", 0), ("inner", 0), ("args", 0)),
        (("b", 0), ("inner", 1), ("args", 0)),
        (("inner", 0), ("s", 0), ("args", 0)),
        (("inner", 1), ("s", 0), ("args", 1)),
        (("s", 0), ("add", 0), ("args",)),
        (("add", 0), ("minus", 0), ("args", "kwargs", "y")),
        (("s", 0), ("m", 0), ("args", 0)),
        (("minus", 0), ("m", 0), ("args", 0, "kwargs", "value")),
        (("m", 0), wiring.OUTPUTS, ("outputs", 0)),
        (("inner", 1), wiring.OUTPUTS, ("outputs", 1)),
    }
    assert level.constants["minus", 0] == {("args",): 2.0}
    assert level.constants["m", 0] == {("args", 0, "kwargs", "mask"): False}


def change_subtract(config):
    entry(config, "s")["inbound_nodes"][0].reverse()


def change_constant(config):
    entry(config, "minus")["inbound_nodes"][0][2] = 3.0


def change_keyword(config):
    entry(config, "m")["inbound_nodes"][0][0][3]["mask"] = True


def change_keyword_tensor(config):
    entry(config, "m")["inbound_nodes"][0][0][3]["value"] = ["add", 0, 0]


def change_nested(config):
    entry(config, "inner")["config"]["layers"][1]["config"]["units"] = 5


def change_nested_call(config):
    config["config"]["output_layers"][1][1] = 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_subtract, 'layer "s": args[0] is "inner" (call 0) in the original'),
        (change_constant, 'layer "minus": args is 2.0 in the original and 3.0'),
        (change_keyword, 'layer "m": args[0].kwargs.mask is False in the original and True'),
        (change_keyword_tensor, 'layer "m": args[0].kwargs.value is "minus" in the original'),
        (change_nested, 'layer "inner/d": units is 4 in the original and 5'),
        (change_nested_call, 'outputs[1] is "inner" (call 1) in the original and "inner" (call 0)'),
    ],
)
@pytest.mark.parametrize("match", ["names", "structure"])
def test_a_fault_in_the_legacy_dialect_is_refused(change, words, match):
    other = parsed(legacy())
    assert equivalence.compare(legacy(), other, match=match).problems == ()
    change(other)
    problems = "\n".join(equivalence.compare(legacy(), other, match=match).problems)
    assert '"' in problems
    # Without names, a fault shows where its consequences first contradict each other.
    if match == "names" or change not in (change_keyword_tensor, change_nested_call):
        assert words in problems


def test_calls_counted_from_another_number_are_told():
    problems = equivalence.compare(legacy(1), legacy(0), match="names").problems
    assert problems == (
        'model "inner": the first number of its calls is [1, 1] in the original and [0, 0] in '
        "the rewritten model",
    )


@pytest.mark.parametrize(
    ("calls", "numbers", "others", "offset"),
    [(1, {0}, (), 0), (1, {1}, (), 1), (2, {1}, {0}, 0), (2, {1}, {1}, 1), (3, {1, 2}, (), 1)],
)
def test_the_first_number_of_calls_is_found(calls, numbers, others, offset):
    if calls == 3:
        numbers = {1, 2, 3}
    assert wiring._offset(calls, numbers, set(others)) == offset


# What is not compared, and sharing --------------------------------------------------------------


def l2(factor, **more):
    return {"class_name": "L2", "config": {"l2": factor}, **more}


@pytest.mark.parametrize("prefix", ["", "new_"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"kernel_regularizer": None}, {}),
        ({}, {"kernel_regularizer": None}),
        ({"kernel_regularizer": l2(0.1)}, {"kernel_regularizer": l2(float(np.float32(0.1)))}),
        ({"kernel_regularizer": l2(0.1)}, {"kernel_regularizer": l2(0.1, module="keras")}),
        ({"kernel_regularizer": "L2"}, {"kernel_regularizer": {"class_name": "L2", "config": {}}}),
    ],
)
def test_regularizers_are_compared_by_meaning(prefix, one, other):
    def make(prefix, config):
        dense = layer("Dense", prefix + "d", [tensor(prefix + "x")], **config)
        layers = [layer("InputLayer", prefix + "x"), dense]
        return functional(layers, [[prefix + "x", 0, 0]], [[prefix + "d", 0, 0]])

    assert equivalence.compare(make("", one), make(prefix, other)).ok
    changed = make(prefix, {"kernel_regularizer": l2(0.2), "bias_regularizer": l2(0.3)})
    found = equivalence.compare(make("", {}), changed)
    assert found.problems == tuple(
        f"d/{role}: the config has L2({factor}) instead of the planned none"
        for role, factor in (("kernel", 0.2), ("bias", 0.3))
    )
    assert equivalence.compare(make("", one), changed, regularizers_too=False).ok


@pytest.mark.parametrize(
    "config",
    [
        {"kernel_regularizer": [None, "more"]},  # no regularizer
        {"kernel_regularizer": 3},
        {"bias_regularizer": l2(0.1), "use_bias": False},  # governs no weight
    ],
)
def test_what_is_no_slot_is_compared_to_the_letter(config):
    one = layer("Dense", "d", **{**dict.fromkeys(config), "use_bias": False})
    other = layer("Dense", "d", **{"use_bias": False, **config})
    for too in (True, False):
        (problem,) = equivalence.compare(one, other, regularizers_too=too).problems
        assert f"{next(iter(config))} is None in the original and" in problem


def test_slots_of_nested_models_and_wrappers_are_named_by_their_path():
    def make(units, factor):
        cell = layer("GRUCell", "cell", units=units, kernel_regularizer=l2(factor))
        rnn = layer("RNN", "rnn", [tensor("x")], cell=cell)
        inner = functional(
            [layer("InputLayer", "x"), rnn], [["x", 0, 0]], [["rnn", 0, 0]], name="inner"
        )
        return sequential("s", layer("Dropout", "drop"), inner)

    assert equivalence.compare(make(3, 0.1), make(3, 0.2)).problems == (
        "inner/rnn/cell/kernel: the config has L2(0.2) instead of the planned L2(0.1)",
    )
    assert equivalence.compare(make(3, 0.1), make(3, 0.2), regularizers_too=False).ok
    assert equivalence.compare(make(3, 0.1), make(4, 0.2), regularizers_too=False).problems == (
        'layer "inner/rnn/cell": units is 3 in the original and 4 in the rewritten model',
    )


def test_it_is_networkx_that_decides(sound, monkeypatch):
    monkeypatch.setattr(nx.utils, "graphs_equal", lambda one, other: False)
    for other in (sound, renamed(sound)):
        assert not equivalence.compare(sound, other).ok


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


def test_a_layer_shared_by_nested_models_stays_shared():
    shared, unshared = shared_models(7, 7), shared_models(7, 8)
    assert equivalence.compare(shared, shared_models(123, 123, third=2)).ok
    assert equivalence.compare(shared_models(None, None), unshared).ok
    assert equivalence.compare(shared, unshared).problems == (
        'layer "one/dense" and layer "two/dense" are one shared layer in the original and two '
        "layers in the rewritten model",
    )
    for other in (unshared, shared_models(None, None)):
        assert equivalence.compare(other, shared).problems == (
            'layer "one/dense" and layer "two/dense" are one shared layer in the rewritten '
            "model and two layers in the original",
        )


def test_the_models_own_name_counts_by_names_only():
    one, other = shared_models(1, 2), shared_models(1, 2)
    other["config"]["name"] = "t"
    assert equivalence.compare(one, other).ok
    assert equivalence.compare(one, other, match="names").problems == (
        'the model: name is "s" in the original and "t" in the rewritten model',
    )


def test_an_optimizers_name_is_a_name():
    def make(name):
        adam = {"module": "keras.optimizers", "class_name": "Adam", "config": {"name": name}}
        return {**shared_models(1, 2), "compile_config": {"optimizer": adam}}

    assert equivalence.compare(make("adam"), make("adam_1")).ok
    assert not equivalence.compare(make("adam"), make("adam_1"), match="names").ok


def test_a_model_of_another_kind_is_refused(sound):
    assert (
        'the model: class_name is "Functional" in the original and "Sequential" in the '
        "rewritten model"
    ) in equivalence.compare(sound, shared_models(1, 2)).problems
    assert not equivalence.compare(sound["config"], shared_models(1, 2)["config"]).ok


def test_another_class_is_one_problem():
    one = sequential("s", layer("Dense", "d", units=3))
    other = sequential("s", layer("Conv1D", "d", filters=3, kernel_size=[1]))
    assert equivalence.compare(one, other).problems == (
        'layer "d": class_name is "Dense" in the original and "Conv1D" in the rewritten model',
    )


def test_the_order_of_a_sequential_model_counts():
    layers = [layer("Dense", "a", units=3), layer("Dense", "b", units=3), layer("ReLU", "c")]
    one, other = sequential("s", *layers), sequential("s", layers[1], layers[0], layers[2])
    assert 'layer "a": args[0] is missing in the original and "b"' in "\n".join(
        equivalence.compare(one, other).problems
    )
    assert equivalence.compare(one, other, match="structure").names == {
        "a": "b",
        "b": "a",
        "c": "c",
    }


def test_recorded_shapes_after_a_difference_are_summed_up():
    one = chain(20, "d")
    other = parsed(one)
    entry(other, "d3")["config"]["units"] = 9
    for number in range(4, 20):
        entry(other, f"d{number}")["build_config"]["input_shape"] = [None, 9]
    problems = equivalence.compare(one, other).problems
    assert len(problems) == 2
    assert problems[0].startswith('layer "d3": units is 4')
    assert problems[1].startswith("16 recorded shapes differ, too")


# Values -----------------------------------------------------------------------------------------


class Plain:
    def __init__(self, value):
        self.value = value
        self.me = self


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Refusing:
    def __eq__(self, other):
        raise RuntimeError("don't ask")

    __hash__ = None


class Configured:
    def __init__(self, value):
        self.value = value
        self.unique = object()

    def get_config(self):
        return {"value": self.value}


def some_function(value):
    return value


def endless():
    inner = []
    inner.append(inner)
    return Plain(inner)


EQUAL = [
    (endless(), endless()),
    ((1, [2, (3,)]), [1, (2, [3])]),
    (math.nan, float("nan")),
    ([math.nan], [float("nan")]),
    (np.float32(0.5), 0.5),
    (np.int64(3), 3),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.array([1.0, math.nan]), np.array([1.0, math.nan])),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    (Plain([1, 2]), Plain([1, 2])),
    (Slotted(1), Slotted(1)),
    (Refusing(), Refusing()),
    (Configured(1), Configured(1)),
    (some_function, some_function),
    (functools.partial(some_function, 1), functools.partial(some_function, 1)),
    ({1, 2}, {2, 1}),
]

DIFFERENT = [
    (1, True),
    (1, 1.0),
    (0, False),
    (0, None),
    ("1", 1),
    (math.nan, 0.0),
    ([math.nan], [0.0]),
    ([1], [1, 2]),
    ([], {}),
    ({"a": None}, {}),
    ({}, {"a": None}),
    (np.float32(0.1), 0.1),
    (np.array([1]), np.array([1.0])),
    (np.array([1]), np.array([[1]])),
    (np.array([1]), [1]),
    (np.array([1], "int32"), np.array([1], "int64")),
    (Plain([1, 2]), Plain([1, 3])),
    (Slotted(1), Slotted(2)),
    (Plain(1), Slotted(1)),
    (Configured(1), Configured(2)),
    (some_function, lambda value: value),
    (functools.partial(some_function, 1), functools.partial(some_function, 2)),
    (int, float),
    ({1, 2}, {1, 3}),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_values(one, other):
    for pair in ((one, other), (other, one)):
        assert values.differences(*pair) == []
        assert equivalence.compare({"value": pair[0]}, {"value": pair[1]}).ok


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_values(one, other):
    for pair in ((one, other), (other, one)):
        assert len(values.differences(*pair)) == 1
        (problem,) = equivalence.compare({"value": pair[0]}, {"value": pair[1]}).problems
        assert problem.startswith("the model: value")
        assert "\n" not in problem
        assert len(problem) < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)


@given(json_values, json_values)
def test_values_compare_as_their_json_does(one, other):
    def canonical(value):
        # -0.0 and 0.0 are one number, as in Python.
        return json.dumps(value, sort_keys=True).replace("-0.0", "0.0")

    assert bool(values.differences(one, other)) == (canonical(one) != canonical(other))
    assert values.differences(one, copy.deepcopy(one)) == []
    assert "\n" not in values.show(one)
    assert len(values.show([one] * 99)) < 4000


# Damaged and hostile configs --------------------------------------------------------------------


def damage(change):
    config = parsed(chain(3, "d"))
    change(config["config"])
    return config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config["layers"].append(7), "Layer number 4 .* has no name"),
        (lambda config: config["layers"].append({"config": []}), "Layer number 4 .* has no name"),
        (lambda config: config["layers"].append(config["layers"][1]), 'are called "d0"'),
        (lambda config: config["layers"].pop(1), '"d1" .* of layer "d0", which isn\'t there'),
        (lambda config: config["layers"][1].update(inbound_nodes=7), '"d0" is no list'),
        (lambda config: config["layers"][1].update(inbound_nodes=[["x"]]), None),
        (lambda config: config.update(output_layers=[["d2", 4, 0]]), 'call 4 of layer "d2"'),
        (lambda config: config.update(output_layers=["d2", -1, 0]), "call -1"),
        (lambda config: config.update(output_layers=["d2", "0", 0]), "is written as"),
        (lambda config: config.update(output_layers=["d2", True, 0]), "is written as"),
        (lambda config: config.update(output_layers=[[["d9", 0, 0]]]), "d9"),
        (lambda config: config.update(layers={}), None),
        (lambda config: config.update(layers=None), None),
    ],
)
def test_a_damaged_config_is_told_in_a_line(change, words):
    sound, damaged = chain(3, "d"), damage(change)
    if words is None:
        assert not equivalence.compare(sound, damaged).ok
        return
    for pair in ((sound, damaged), (damaged, sound)):
        with pytest.raises(ModelError, match=words) as caught:
            equivalence.compare(*pair)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=words):
        wiring.read(damaged)


@pytest.mark.parametrize("config", [None, 3, [], "model"])
def test_what_is_no_dictionary_is_told(config):
    with pytest.raises(ModelError, match="is a dictionary"):
        equivalence.compare(config, chain(1, "d"))


def test_what_no_output_leads_to_is_compared():
    def make(prefix, units):
        layers = [
            layer("InputLayer", prefix + "x"),
            layer("Dense", prefix + "d", [tensor(prefix + "x")]),
        ]
        layers.append(layer("Dense", prefix + "lost", [tensor(prefix + "x")], units=units))
        return functional(layers, [[prefix + "x", 0, 0]], [[prefix + "d", 0, 0]])

    assert equivalence.compare(make("", 3), make("new_", 3)).ok
    assert 'layer "lost"' in equivalence.compare(make("", 3), make("new_", 4)).problems[0]
    more = make("new_", 3)
    more["config"]["layers"].append(layer("Dense", "more", [tensor("new_x")]))
    assert equivalence.compare(make("", 3), more).problems == (
        'layer "more" has no counterpart in the original',
    )


def deep(value, depth, key="nested"):
    for number in range(depth):
        value = {key: value} if number % 2 else [value]
    return value


def test_a_config_nested_100000_deep_is_walked():
    one, other, third = (deep(each, 100_000) for each in (1, 1, 2))
    assert equivalence.compare({"value": one}, {"value": other}).ok
    (problem,) = equivalence.compare({"value": one}, {"value": third}).problems
    assert problem.endswith("is [1] in the original and [2] in the rewritten model")
    assert len(problem) < 400
    (problem,) = equivalence.compare({"value": one}, {"value": 3}).problems
    assert len(problem) < 400


def test_arguments_nested_100000_deep_are_refused():
    for key in ("inbound_nodes", "legacy", "output_layers"):
        config = parsed(chain(2, "d"))
        if key == "output_layers":
            config["config"][key] = deep(["d1", 0, 0], 100_000)
        elif key == "legacy":
            entry(config, "d1")["inbound_nodes"] = [deep(1, 100_001)]
        else:
            entry(config, "d1")["inbound_nodes"][0]["args"] = deep(1, 100_001)
        with pytest.raises(ModelError, match="nested more than 100 deep"):
            equivalence.compare(config, config)


@pytest.mark.parametrize("wrapper", ["Sequential", "TimeDistributed"])
def test_layers_nested_100000_deep_are_refused(wrapper):
    for depth, refused in ((300, False), (100_000, True)):
        configs = []
        for _ in range(2):
            config = layer("Dense", "d", units=3)
            for _ in range(depth):
                if wrapper == "Sequential":
                    config = sequential("s", config)
                else:
                    config = layer(wrapper, "t", layer=config)
            configs.append(config)
        if refused:
            with pytest.raises(ModelError, match="nested more than 1,000 deep"):
                equivalence.compare(*configs)
        else:
            assert len(equivalence.compare(*configs).names) == depth


@given(json_values, st.data())
def test_any_json_in_place_of_a_part_is_compared_or_told(value, data):
    """Whatever a file says, the answer is a comparison or a ModelError."""
    config = parsed(chain(2, "d"))
    place = config
    while True:
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        inner = place[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.integers(0, 3)) == 0:
            break
        place = inner
    before, place[key] = place[key], value
    for pair in ((chain(2, "d"), config), (config, chain(2, "e"))):
        try:
            found = equivalence.compare(*pair)
        except ModelError as error:
            message = str(error)
        else:
            message = " ".join(found.problems[:1])
            same = not values.differences(before, value)
            assert found.ok == same or pair[0] is config or key == "name"
        assert "\n" not in message


# Growth -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("shape", [chain, branches, ladder, grid])
@pytest.mark.parametrize("prefix", ["d", "e"])
def test_thousands_of_layers_are_no_matter(shape, prefix):
    one, other = shape(3000, "d"), shape(3000, prefix)
    found = equivalence.compare(one, other)
    assert found.problems == ()
    assert found.names == {name: prefix + name[1:] for name in found.names}
    assert len(found.names) == len(one["config"]["layers"])
    # A difference at the far end of the walk is found, and is the only one.
    victim = other["config"]["layers"][1]
    victim["config"]["trainable"] = False
    (problem,) = equivalence.compare(one, other).problems
    assert victim["name"][1:] in problem
    assert "trainable is True in the original and False" in problem


def test_the_work_grows_with_the_size(monkeypatch):
    """Counts comparisons of values, which time on a busy machine can't do."""
    counts = {}
    differences = values.differences

    def counted(*arguments, **keywords):
        counts[size] = counts.get(size, 0) + 1
        return differences(*arguments, **keywords)

    monkeypatch.setattr(values, "differences", counted)
    for shape in (chain, ladder, grid):
        for prefix in ("d", "e"):
            counts.clear()
            for size in (100, 400):
                assert equivalence.compare(shape(size, "d"), shape(size, prefix)).ok
            assert counts[400] < 4.5 * counts[100]
