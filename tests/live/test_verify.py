"""verify refuses every single fault, in a line that names the layer."""

import copy
import json
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from keras import layers, regularizers

import graphwd
from tests.support import oracle
from tests.support.effort import examples
from tests.support.strategies import build, fill, recipes

POLICY = graphwd.Policy(
    [graphwd.Rule(regularizers.L2(0.125), roles="kernel"), graphwd.Rule(None, layers="Embedding")]
)


def small_model() -> keras.Model:
    """Something of everything that a fault can hit; not compiled."""
    picture = keras.Input((6, 6, 2), name="picture")
    extra = keras.Input((4,), name="extra")
    inner_input = keras.Input((6, 6, 2))
    inner = layers.Conv2D(3, 3, padding="same", name="conv")(inner_input)
    inner = layers.BatchNormalization(name="norm")(inner)
    backbone = keras.Model(inner_input, inner, name="backbone")
    x = layers.GlobalAveragePooling2D(name="pool")(backbone(picture, training=False))
    x = layers.Dense(4, name="project", kernel_regularizer="l1")(x)
    shared = layers.Dense(4, name="shared")
    difference = layers.Subtract(name="subtract")([shared(x), shared(extra)])
    x = layers.Dropout(0.5, name="drop", seed=5)(difference)
    first = layers.Dense(2, name="first")(x)
    second = layers.Dense(2, name="second")(x)
    model = keras.Model([picture, extra], [first, second], name="small")
    fill(model, 3)
    return model


@pytest.fixture(scope="module")
def original() -> keras.Model:
    return small_model()


@pytest.fixture(scope="module")
def compiled() -> keras.Model:
    model = small_model()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    for index, variable in enumerate(model.optimizer.variables[2:]):
        variable.assign(np.full(variable.shape, 0.5 + index, "float32"))
    return model


def change(variable, edit) -> None:
    value = oracle.array(variable).copy()
    edit(value)
    variable.assign(value)


def flip_bit(value, element: int = 0, bit: int = 0) -> None:
    raw = value.reshape(-1).view(np.uint8)
    raw[element * value.itemsize + bit // 8] ^= 1 << bit % 8


def layer(model, path: str):
    for name in path.split("/"):
        model = model.get_layer(name)
    return model


def set_first(value) -> None:
    value.flat[0] += 1


def weight(model):
    change(layer(model, "backbone/conv").kernel, set_first)


def lowest_bit(model):
    change(layer(model, "first").kernel, flip_bit)


def moving_statistic(model):
    change(layer(model, "backbone/norm").moving_variance, set_first)


def exchanged_weights(model):
    one, two = layer(model, "first").kernel, layer(model, "second").kernel
    ours, theirs = oracle.array(one), oracle.array(two)
    one.assign(theirs)
    two.assign(ours)


def seed_state(model):
    change(layer(model, "drop").seed_generator.state, set_first)


def coefficient_in_config_only(model):
    layer(model, "shared").kernel_regularizer = regularizers.L2(0.25)


def coefficient_on_variable_only(model):
    layer(model, "shared").kernel.regularizer = regularizers.L2(0.25)


def missing_on_variable(model):
    layer(model, "backbone/conv").kernel.regularizer = None


def missing_in_config(model):
    layer(model, "backbone/conv").kernel_regularizer = None


def another_class(model):
    layer(model, "first").kernel.regularizer = regularizers.L1(0.125)


def extra_on_variable(model):
    layer(model, "second").bias.regularizer = regularizers.L2(0.125)


def frozen_layer(model):
    layer(model, "shared").trainable = False


def frozen_variable(model):
    layer(model, "first").kernel.trainable = False


def dtype_policy(model):
    layer(model, "second").dtype_policy = keras.DTypePolicy("mixed_bfloat16")


def activation(model):
    layer(model, "second").activation = keras.activations.relu


def dropout_rate(model):
    layer(model, "drop").rate = 0.25


def epsilon(model):
    layer(model, "backbone/norm").epsilon = 1e-2


LIVE = {
    weight: "conv",
    lowest_bit: "first",
    moving_statistic: "norm",
    exchanged_weights: "first",
    seed_state: "drop",
    coefficient_in_config_only: "shared",
    coefficient_on_variable_only: "shared",
    missing_on_variable: "conv",
    missing_in_config: "conv",
    another_class: "first",
    extra_on_variable: "second",
    frozen_layer: "shared",
    frozen_variable: "first",
    dtype_policy: "second",
    activation: "second",
    dropout_rate: "drop",
    epsilon: "norm",
}


def assert_refused(report, name: str) -> None:
    assert not report.ok
    assert not report
    assert any(name in problem for problem in report.problems), str(report)
    assert all("\n" not in problem for problem in report.problems)
    assert report.to_dict()["problems"] == list(report.problems)


@pytest.mark.parametrize("fault", LIVE, ids=lambda fault: fault.__name__)
def test_a_fault_in_a_live_model(original, fault):
    rewritten = graphwd.rewrite(original, POLICY)
    assert graphwd.verify(original, rewritten, POLICY).ok
    fault(rewritten)
    assert_refused(graphwd.verify(original, rewritten, POLICY), LIVE[fault])
    # Without a policy, too: the variables must have what the config says.
    assert_refused(graphwd.verify(original, rewritten), LIVE[fault])


def test_a_coefficient_changed_in_both_places(original):
    """Consistent with itself, so only the policy can tell that it is wrong."""
    rewritten = graphwd.rewrite(original, POLICY)
    coefficient_in_config_only(rewritten)
    coefficient_on_variable_only(rewritten)
    assert graphwd.verify(original, rewritten).ok
    assert_refused(graphwd.verify(original, rewritten, POLICY), "shared")


def test_the_payload_of_a_nan_counts():
    model = small_model()
    kernel = model.get_layer("first").kernel
    change(kernel, lambda value: value.fill(np.nan))
    rewritten = graphwd.rewrite(model, POLICY)
    assert graphwd.verify(model, rewritten, POLICY).ok
    change(rewritten.get_layer("first").kernel, flip_bit)
    assert np.isnan(oracle.array(rewritten.get_layer("first").kernel)).all()
    assert_refused(graphwd.verify(model, rewritten, POLICY), "first")


def test_the_sign_of_zero_counts():
    model = small_model()
    change(model.get_layer("first").kernel, lambda value: value.fill(0.0))
    rewritten = graphwd.rewrite(model, POLICY)
    change(rewritten.get_layer("first").kernel, lambda value: flip_bit(value, bit=31))
    assert (oracle.array(rewritten.get_layer("first").kernel) == 0).all()
    assert_refused(graphwd.verify(model, rewritten, POLICY), "first")


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


# ---------------------------------------------------------------- state that no layer tracks


class Scale:
    """A plain object with a variable, which Keras does not track."""

    def __init__(self):
        self.factor = keras.Variable([2.0, 3.0])


class Scaled(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = Scale()

    def call(self, inputs):
        return inputs * self.scale.factor


def test_a_variable_of_a_plain_object_counts():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(2)(Scaled(name="scaled")(inputs)))
    rewritten = graphwd.rewrite(model, "l2")
    assert graphwd.verify(model, rewritten, "l2").ok
    change(rewritten.get_layer("scaled").scale.factor, set_first)
    assert_refused(graphwd.verify(model, rewritten, "l2"), "scaled")


def test_a_weight_among_the_arguments_of_a_call_counts():
    factor = keras.Variable([2.0, 3.0], name="factor")
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Multiply(name="product")([layers.Dense(2)(inputs), inputs]))
    model = keras.Model(inputs, keras.ops.multiply(model(inputs), factor))
    rewritten = graphwd.rewrite(model, "l2")
    assert graphwd.verify(model, rewritten, "l2").ok
    (constant,) = (
        argument
        for operation in rewritten.operations
        for node in operation._inbound_nodes
        for argument in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
        if isinstance(argument, keras.Variable)
    )
    assert constant is not factor
    change(constant, set_first)
    assert not graphwd.verify(model, rewritten, "l2").ok


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's own")
def test_the_state_of_a_module_of_pytorch_counts():
    import torch

    class Held(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.held = {"norm": torch.nn.BatchNorm1d(2)}

        def call(self, inputs):
            return inputs

    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(2)(Held(name="held")(inputs)))
    rewritten = graphwd.rewrite(model, "l2")
    assert graphwd.verify(model, rewritten, "l2").ok
    rewritten.get_layer("held").held["norm"].running_mean += 1
    assert_refused(graphwd.verify(model, rewritten, "l2"), "held")
