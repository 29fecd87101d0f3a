"""verify refuses every single fault, in a line that names the layer."""

import copy
import json
import zipfile

import keras
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from keras import regularizers

import graphwd
from tests.support import oracle
from tests.support.effort import examples
from tests.support.strategies import build, recipes
from tests.support.verified import POLICY, assert_refused, change, flip_bit, set_first, weight


# ---------------------------------------------------------------- compile state
def momentum(model):
    change(model.optimizer.variables[2], set_first)


def iterations(model):
    model.optimizer.iterations.assign(7)


def learning_rate(model):
    model.optimizer.learning_rate.assign(0.2)


def another_optimizer(model):
    model.compile(keras.optimizers.Adam(0.1), "mse")


def not_compiled(model):
    model.compiled = False


@pytest.mark.parametrize(
    "fault",
    [momentum, iterations, learning_rate, another_optimizer, not_compiled],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_in_compile_state(compiled, fault):
    rewritten = graphwd.rewrite(compiled, POLICY)
    assert graphwd.verify(compiled, rewritten, POLICY).ok
    fault(rewritten)
    for report in (
        graphwd.verify(compiled, rewritten, POLICY),
        graphwd.verify(compiled, rewritten),
    ):
        assert_refused(report, "compiled" if fault is not_compiled else "optimizer")


# ---------------------------------------------------------------- faults in the graph
def rebuilt(model, edit) -> keras.Model:
    """Another model from the edited config, with the same values where the variables fit."""
    config = copy.deepcopy(oracle.plain(model.get_config()))
    edit(config)
    other = keras.Model.from_config(config)
    if [v.shape for v in model.variables] == [v.shape for v in other.variables]:
        for ours, theirs in zip(model.variables, other.variables, strict=True):
            theirs.assign(ours)
    return other


def entry(config, path: str) -> dict:
    for name in path.split("/"):
        (found,) = [e for e in config["layers"] if e["config"]["name"] == name]
        config = found["config"]
    return found


def nothing(config):
    pass


def stride(config):
    entry(config, "backbone/conv")["config"].update(strides=[2, 2])


def padding(config):
    entry(config, "backbone/conv")["config"].update(padding="valid")


def momentum_of_statistics(config):
    entry(config, "backbone/norm")["config"].update(momentum=0.5)


def initializer(config):
    entry(config, "project")["config"]["kernel_initializer"]["class_name"] = "HeNormal"


def swapped_inputs(config):
    tensors = entry(config, "subtract")["inbound_nodes"][0]["args"][0]
    tensors.reverse()


def call_argument(config):
    entry(config, "backbone")["inbound_nodes"][0]["kwargs"]["training"] = True


def call_argument_left_out(config):
    del entry(config, "backbone")["inbound_nodes"][0]["kwargs"]["training"]


def unshared(config):
    shared = entry(config, "shared")
    twin = copy.deepcopy(shared)
    twin["name"] = twin["config"]["name"] = "twin"
    twin["inbound_nodes"] = [shared["inbound_nodes"].pop()]
    config["layers"].insert(config["layers"].index(shared) + 1, twin)
    history = entry(config, "subtract")["inbound_nodes"][0]["args"][0][1]["config"]
    history["keras_history"] = ["twin", 0, 0]


def other_tensor(config):
    call = entry(config, "second")["inbound_nodes"][0]["args"][0]
    call["config"]["keras_history"] = ["subtract", 0, 0]


def output_order(config):
    config["output_layers"].reverse()


def input_order(config):
    config["input_layers"].reverse()


def output_left_out(config):
    config["output_layers"] = config["output_layers"][:1]


def class_name(config):
    entry(config, "subtract")["class_name"] = "Add"


GRAPH = {
    stride: "conv",
    padding: "conv",
    momentum_of_statistics: "norm",
    initializer: "project",
    swapped_inputs: "subtract",
    call_argument: "backbone",
    call_argument_left_out: "backbone",
    unshared: "shared",
    other_tensor: "second",
    output_order: "first",
    input_order: "picture",
    output_left_out: "second",
    class_name: "subtract",
}


def test_an_unharmed_rebuilt_model_is_accepted(original):
    other = rebuilt(graphwd.rewrite(original, POLICY), nothing)
    report = graphwd.verify(original, other, POLICY)
    assert report.ok, str(report)


@pytest.mark.parametrize("fault", GRAPH, ids=lambda fault: fault.__name__)
def test_a_fault_in_the_graph(original, fault):
    other = rebuilt(graphwd.rewrite(original, POLICY), fault)
    for report in (graphwd.verify(original, other, POLICY), graphwd.verify(original, other)):
        assert_refused(report, GRAPH[fault])


def test_other_names_are_no_fault(original):
    def rename(config):
        text = json.dumps(config)
        for name in ("project", "shared", "first", "conv"):
            text = text.replace(f'"{name}"', f'"{name}_renamed"')
        config.update(json.loads(text))

    rewritten = graphwd.rewrite(original, POLICY)
    other = rebuilt(rewritten, rename)
    report = graphwd.verify(original, other, POLICY)
    assert report.ok, str(report)
    weight_of = other.get_layer("first_renamed").kernel
    change(weight_of, set_first)
    assert_refused(graphwd.verify(original, other, POLICY), "first")


# ---------------------------------------------------------------- faults in saved models
def test_faults_in_files(original, tmp_path):
    one, two = tmp_path / "one.keras", tmp_path / "two.keras"
    original.save(one)
    graphwd.rewrite_file(one, two, POLICY)
    assert graphwd.verify(one, two, POLICY).ok
    assert_refused(graphwd.verify(two, one, graphwd.Rule(None)), "project")
    rewritten = graphwd.rewrite(original, POLICY)
    weight(rewritten)
    rewritten.save(tmp_path / "three.keras")
    assert_refused(graphwd.verify(one, tmp_path / "three.keras", POLICY), "conv")
    with zipfile.ZipFile(two) as archive, zipfile.ZipFile(tmp_path / "four.keras", "w") as other:
        for member in archive.namelist():
            data = archive.read(member)
            if member == "config.json":
                data = data.replace(b'"same"', b'"valid"')
            other.writestr(member, data)
    assert_refused(graphwd.verify(one, tmp_path / "four.keras", POLICY), "conv")


def test_a_file_and_a_live_model(original, tmp_path):
    path = tmp_path / "model.keras"
    rewritten = graphwd.rewrite(original, POLICY)
    rewritten.save(path)
    report = graphwd.verify(original, path, POLICY)
    assert report.ok, str(report)
    weight(rewritten)
    rewritten.save(path)
    assert_refused(graphwd.verify(original, path, POLICY), "conv")


# ---------------------------------------------------------------- faults in generated models
@settings(max_examples=examples(15))
@given(recipe=recipes(unreachable=True, compiled=False, max_steps=5), data=st.data())
def test_one_flipped_bit_anywhere_is_found(recipe, data):
    note(f"recipe = {recipe!r}")
    model = build(recipe)
    rewritten = graphwd.rewrite(model, POLICY, verify=False)
    variables = [v for v in rewritten.variables if oracle.array(v).size]
    for _ in range(3 if variables else 0):
        variable = data.draw(st.sampled_from(variables), label="variable")
        value = oracle.array(variable)
        element = data.draw(st.integers(0, value.size - 1))
        bit = data.draw(st.integers(0, 8 * value.itemsize - 1))
        change(variable, lambda v, element=element, bit=bit: flip_bit(v, element, bit))
        report = graphwd.verify(model, rewritten, POLICY)
        assert_refused(report, variable.name)
        assert len(report.problems) == 1
        variable.assign(value)
    assert graphwd.verify(model, rewritten, POLICY).ok


@settings(max_examples=examples(15))
@given(recipe=recipes(unreachable=True, compiled=False, max_steps=5), data=st.data())
def test_one_wrong_regularizer_anywhere_is_found(recipe, data):
    note(f"recipe = {recipe!r}")
    model = build(recipe)
    rewritten = graphwd.rewrite(model, POLICY, verify=False)
    weights = [v for inner in oracle.all_layers(rewritten) for v in oracle.owned(inner)]
    for _ in range(3 if weights else 0):
        variable = data.draw(st.sampled_from(weights), label="weight")
        before = variable.regularizer
        variable.regularizer = None if before is not None else regularizers.L2(1e-4)
        report = graphwd.verify(model, rewritten, POLICY)
        assert not report.ok
        assert not graphwd.verify(model, rewritten).ok
        variable.regularizer = before
    assert graphwd.verify(model, rewritten, POLICY).ok


@settings(max_examples=examples(15))
@given(recipe=recipes(compiled=False, max_steps=5), data=st.data())
def test_one_frozen_layer_anywhere_is_found(recipe, data):
    note(f"recipe = {recipe!r}")
    model = build(recipe)
    rewritten = graphwd.rewrite(model, POLICY, verify=False)
    flagged = [inner for inner in oracle.all_layers(rewritten) if inner.trainable]
    if flagged:
        data.draw(st.sampled_from(flagged), label="layer").trainable = False
        assert not graphwd.verify(model, rewritten, POLICY).ok


def test_a_report_reads_well(original):
    rewritten = graphwd.rewrite(original, POLICY)
    report = graphwd.verify(original, rewritten, POLICY)
    assert str(report).startswith("equal")
    assert report.compared["variables"] == len(original.variables)
    weight(rewritten)
    text = str(graphwd.verify(original, rewritten, POLICY))
    assert text.startswith("1 difference")
    assert "conv" in text
