"""Pairing: which layer of one model is which of another one, by names or by structure."""

import copy

import pytest

from graphwd.graph import equivalence
from tests.support.serialized import (
    chain,
    entry,
    functional,
    layer,
    parsed,
    renamed,
    sequential,
    tensor,
)


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
    entry(other, "new_conv1")["config"]["strides"] = [1, 1]
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
