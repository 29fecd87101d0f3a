"""Wiring: which tensor goes where, in both dialects, and what is damaged in a config."""

import copy

import pytest

from graphwd.errors import ModelError
from graphwd.graph import equivalence, wiring
from tests.support.graphs import build_nested, read
from tests.support.serialized import chain, deep, entry, parsed


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
