"""Slots: found in whatever holds a layer, set where they stand, and in no other place."""

import pytest

from graphwd.graph import slots
from graphwd.graph.slots import find_slots
from tests.support.serialized import l2, parsed, sequential, thing


@pytest.mark.parametrize(
    "around",
    [
        lambda layer: {"layer": layer},
        lambda layer: {"layers": [layer]},
        lambda layer: {"pairs": [[1, [layer]]], "units": 3},
        lambda layer: {"by_name": {"a": {"b": layer}}},
        lambda layer: {"by_name": {"kernel_regularizer": None, "b": layer}},
    ],
)
@pytest.mark.parametrize("regularizer", [None, {"class_name": "L2", "config": {"l2": 0.1}}, "l2"])
def test_a_slot_is_found_in_whatever_holds_its_layer(around, regularizer):
    layer = {"class_name": "Thing", "config": {"name": "t", "kernel_regularizer": regularizer}}
    model = {"class_name": "Model", "config": {"name": "m", **around(layer)}}
    (slot,) = find_slots(model)
    assert slot.path == "t/kernel"
    assert (slot.regularizer is None) is (regularizer is None)


def thing_of_slots():
    """A model with a slot that is set, one that is not, and two that govern no weight."""
    dense = thing("Dense", name="d", units=2, kernel_regularizer=l2(0.5), bias_regularizer=None)
    flat = thing("Dense", name="e", units=2, use_bias=False, bias_regularizer=None)
    norm = thing("BatchNormalization", name="n", scale=False, gamma_regularizer=None)
    return sequential("m", dense, flat, norm)


def test_only_what_governs_a_weight_is_a_slot():
    found = {slot.path: slot.regularizer for slot in find_slots(thing_of_slots())}
    assert found == {"d/kernel": l2(0.5), "d/bias": None}


def test_an_edit_changes_what_it_is_for_and_shares_the_rest():
    model = thing_of_slots()
    before = parsed(model)
    kernel, bias = (slot.pointers[0] for slot in find_slots(model))
    edited = slots.set_regularizers(model, {kernel: None, bias: l2(0.25)})
    assert model == before, "the original is as it was"
    expected = parsed(before)
    config = expected["config"]["layers"][0]["config"]
    config["kernel_regularizer"], config["bias_regularizer"] = None, l2(0.25)
    assert edited == expected
    ours, theirs = model["config"]["layers"], edited["config"]["layers"]
    assert [one is two for one, two in zip(ours, theirs, strict=True)] == [False, True, True]
    assert slots.set_regularizers(edited, {kernel: l2(0.5), bias: None}) == model


def test_a_class_is_keras_own_by_its_module_and_in_the_legacy_dialect_by_its_name():
    modules = {"keras.layers": True, "keras": True, "mine": False, "keras_hub.layers": False}
    for module, own in modules.items():
        assert slots.is_serialized_stock(thing("Dense", module, name="d")) == own, module
    assert slots.is_serialized_stock({"class_name": "Dense", "config": {}})
    assert not slots.is_serialized_stock({"class_name": "mine>Dense", "config": {}})
