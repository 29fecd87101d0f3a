"""Graphs of layers to compare, random ones and Keras's own, and what networkx says of two."""

import networkx as nx
from hypothesis import strategies as st

from graphwd.graph import wiring
from tests.support.serialized import functional, layer, tensor


def read(config):
    graph = nx.MultiDiGraph()
    return wiring.read(wiring.as_object(config), graph), graph


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
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)
