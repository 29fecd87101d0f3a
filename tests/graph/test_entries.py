"""Entries: layers compared key by key, by their paths, and regularizers by their meaning."""

import numpy as np
import pytest

from graphwd.errors import ModelError
from graphwd.graph import equivalence
from tests.support.graphs import build_wrapped
from tests.support.serialized import (
    functional,
    l2,
    layer,
    parsed,
    sequential,
    shared_models,
    tensor,
)


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


def test_another_class_is_one_problem():
    one = sequential("s", layer("Dense", "d", units=3))
    other = sequential("s", layer("Conv1D", "d", filters=3, kernel_size=[1]))
    assert equivalence.compare(one, other).problems == (
        'layer "d": class_name is "Dense" in the original and "Conv1D" in the rewritten model',
    )


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
