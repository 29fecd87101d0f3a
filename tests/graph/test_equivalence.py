"""Equivalence of serialized models: faults, names, structure, real models, growth."""

import copy

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphwd.errors import ModelError
from graphwd.graph import equivalence, values
from tests.support.graphs import (
    BUILDERS,
    drawn_models,
    json_values,
    networkx_says_same,
    plainly,
    read,
    written,
)
from tests.support.serialized import (
    branches,
    chain,
    entry,
    grid,
    ladder,
    parsed,
    renamed,
    shared_models,
)


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
        tensors = sum(len(taken) for _, taken, _, _ in calls)
        assert found.compared == {"layer calls": len(calls), "tensors": tensors}
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
    assert live.compared == found.compared
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


def test_it_is_networkx_that_decides(sound, monkeypatch):
    monkeypatch.setattr(nx.utils, "graphs_equal", lambda one, other: False)
    for other in (sound, renamed(sound)):
        assert not equivalence.compare(sound, other).ok


def test_a_model_of_another_kind_is_refused(sound):
    assert (
        'the model: class_name is "Functional" in the original and "Sequential" in the '
        "rewritten model"
    ) in equivalence.compare(sound, shared_models(1, 2)).problems
    assert not equivalence.compare(sound["config"], shared_models(1, 2)["config"]).ok


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
