"""Files that Keras can't load are refused; every form in which it saves a regularizer is seen."""

import copy
import json
import struct
import zipfile

import keras
import numpy as np
import pytest

import graphwd
from graphwd.errors import ArchiveError
from graphwd.graph.slots import find_slots
from graphwd.policy.policies import Policy, Rule
from graphwd.policy.regularizers import l2
from graphwd.saved.configs import parse_object
from tests.support.saved_models import (
    POLICY,
    dense,
    model_config,
    refused,
    regularized,
    write_h5,
    write_keras,
)


@pytest.fixture(scope="module")
def functional(tmp_path_factory):
    """A functional model that Keras saved, and its config."""
    one = keras.Input((4,), name="in")
    shared = keras.layers.Dense(4, name="shared", kernel_regularizer="l2")
    inner = keras.Model(one, shared(shared(one)), name="inner")
    outer = keras.Input((4,), name="outer")
    model = keras.Model(outer, keras.layers.Dense(2, name="head")(inner(outer, training=False)))
    path = tmp_path_factory.mktemp("functional") / "a.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        return path, json.loads(archive.read("config.json"))


def with_config(source, config, target):
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for info in before.infolist():
            text = json.dumps(config) if info.filename == "config.json" else before.read(info)
            after.writestr(info, text)
    return target


def layers_of(config):
    return {layer["config"]["name"]: layer for layer in config["config"]["layers"]}


def delete(key, of):
    def damage(config):
        del of(config)[key]

    return damage


def put(value, key, of):
    def damage(config):
        of(config)[key] = value

    return damage


def head(config):
    return layers_of(config)["head"]


def shared(config):
    return layers_of(layers_of(config)["inner"])["shared"]


def call(config):
    return head(config)["inbound_nodes"][0]


DAMAGES = {
    "no inbound_nodes": delete("inbound_nodes", head),
    "no inbound_nodes within": delete("inbound_nodes", shared),
    "inbound_nodes is null": put(None, "inbound_nodes", head),
    "no kwargs": delete("kwargs", call),
    "no args": delete("args", call),
    "kwargs is a list": put([], "kwargs", call),
    "no name": delete("name", head),
    "no class": delete("class_name", head),
    "no outputs": delete("output_layers", lambda config: config["config"]),
    "no inputs": delete("input_layers", lambda config: config["config"]),
    "an input that isn't there": put([["nope", 0, 0]], "input_layers", lambda c: c["config"]),
    **{
        f"a regularizer that is {value!r}": put(
            value, "kernel_regularizer", lambda config: shared(config)["config"]
        )
        for value in (
            1, 0.5, True, [], {}, "nope",
            {**l2(1), "class_name": "L3"}, {**l2(1), "config": {"l2": -1.0}},
            {**l2(1), "config": {"l2": float("nan")}}, {**l2(1), "config": {"l2": "1"}},
            {**l2(1), "config": {"l2": 10**400}}, {**l2(1), "config": {"l3": 1}},
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_keras_can_not_load_is_refused(functional, name, tmp_path):
    source, config = functional
    config = copy.deepcopy(config)
    DAMAGES[name](config)
    path = with_config(source, config, tmp_path / "b.keras")
    with pytest.raises(Exception):  # noqa: B017, PT011 # whatever Keras raises
        keras.saving.load_model(path)
    for act in (
        graphwd.inspect,
        lambda p: graphwd.verify(source, p),
        lambda p: graphwd.verify(p, p),
        lambda p: graphwd.rewrite_file(p, tmp_path / "c.keras", POLICY),
    ):
        with pytest.raises(ArchiveError) as told:
            act(path)
        assert str(told.value).endswith(".")
        assert "report" not in str(told.value)
    assert not (tmp_path / "c.keras").exists()


def test_what_is_no_regularizer_is_shown_in_short(tmp_path):
    long = {f"a long key with the number {n}": [{"key": "value" * 9}] * 7 for n in range(7)}
    layer = dense("one", kernel_regularizer=long)
    path = write_keras(tmp_path / "a.keras", model_config(layer))
    with pytest.raises(ArchiveError, match="which is no regularizer") as told:
        graphwd.inspect(path)
    assert len(str(told.value)) < 400 + len(str(path))


def test_what_others_keep_under_these_names_is_theirs(tmp_path):
    for value in (1e-4, True, [1], {}, "strong", {"class_name": "function", "config": "mine"}):
        layer = dense("own", module="mine", class_name="Own", kernel_regularizer=value)
        path = write_keras(tmp_path / "a.keras", model_config(layer, regularized("two")))
        assert graphwd.rewrite_file(
            path, path, Policy([Rule(l2(1), paths="two/*")]), overwrite=True
        )


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("both", [False, True])
def test_a_wrong_checksum_of_the_weights(tmp_path, method, both):
    path = write_keras(tmp_path / "a.keras", method=method)
    data = bytearray(path.read_bytes())
    record = data.rindex(b"model.weights.h5") - 46
    data[record + 16] ^= 1
    if both:
        data[data.index(b"model.weights.h5") - 30 + 14] ^= 1
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive, pytest.raises(zipfile.BadZipFile):
        archive.read("model.weights.h5")
    for act in (
        lambda: graphwd.rewrite_file(path, tmp_path / "b.keras", POLICY),
        lambda: graphwd.verify(path, path),
        lambda: graphwd.verify(write_keras(tmp_path / "c.keras", method=method), path),
    ):
        with pytest.raises(ArchiveError, match="checksum"):
            act()
    assert not (tmp_path / "b.keras").exists()


def test_what_is_not_compared_is_said(tmp_path):
    one, two = write_keras(tmp_path / "a.keras"), write_keras(tmp_path / "b.keras")
    with zipfile.ZipFile(two, "a") as archive:
        assert archive.read("metadata.json")
    data = two.read_bytes().replace(b"3.15.1", b"3.14.0")
    crc = struct.pack("<L", zipfile.crc32(json.dumps({"keras_version": "3.15.1"}).encode()))
    new = struct.pack("<L", zipfile.crc32(json.dumps({"keras_version": "3.14.0"}).encode()))
    two.write_bytes(data.replace(crc, new))
    report = graphwd.verify(one, two)
    assert report.ok
    assert "not compared: when, by which Keras and with which backend" in str(report)
    assert report.to_dict()["not_compared"]
    assert "planned" not in str(report)
    assert str(report).startswith("equal apart from regularizers; compared: ")
    assert str(graphwd.verify(one, two, Policy([Rule(None)]))).startswith("equal but for the plan")


# Every form in which Keras saves a regularizer


@keras.saving.register_keras_serializable("loadable_tests")
def halved(weights):
    return keras.ops.sum(weights) / 2


@keras.saving.register_keras_serializable("loadable_tests")
class Cubed(keras.regularizers.Regularizer):
    def __call__(self, weights):
        return keras.ops.sum(weights**3)

    def get_config(self):
        return {}


FORMS = {
    "object": keras.regularizers.L2(0.1),
    "array": keras.regularizers.L2(np.float32(0.1).item()),
    "identifier": "l1",
    "both": "l1l2",
    "class": keras.regularizers.L2,
    "orthogonal": keras.regularizers.OrthogonalRegularizer(0.1),
    "registered class": Cubed(),
    "registered function": halved,
    "lambda": lambda weights: keras.ops.sum(weights),
}


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_regularizer_is_seen_and_removed(form, suffix, tmp_path):
    path, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    layer = keras.layers.Dense(3, kernel_regularizer=FORMS[form], name="one")
    try:
        keras.Sequential([keras.Input((3,)), layer]).save(path)
    except Exception as error:  # noqa: BLE001 # functions are regularizers from Keras 3.15 on
        pytest.skip(f"this Keras can't: {error}")
    plan = graphwd.inspect(path)
    assert [edit.path for edit in plan.slots if edit.after is not None] == ["one/kernel"]
    assert str(plan)
    assert json.dumps(plan.to_dict())
    plan.save_html(tmp_path / "page.html")
    remove = Policy([Rule(None)])
    assert not graphwd.verify(path, path, remove).ok
    assert [edit.path for edit in graphwd.rewrite_file(path, target, remove)] == ["one/kernel"]
    assert graphwd.verify(path, target, remove).ok
    assert keras.saving.load_model(target).losses == []


def test_a_function_is_named_by_what_it_is_registered_as():
    value = {"module": "m", "class_name": "function", "config": "f", "registered_name": "P>f"}
    config = model_config(dense("one", kernel_regularizer=value))
    (slot,) = find_slots(config)
    assert slot.regularizer == value
    legacy = model_config(dense("one", kernel_regularizer="halved"))
    assert find_slots(legacy)[0].regularizer == {"class_name": "halved", "config": {}}


# Bounded memory


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("{}", "names no class"),
        ('{"class_name": "A"}', "names no class"),
        ('{"class_name": 3, "config": {}}', "names no class"),
        (b"\xff\xfe{\0}\0", "not JSON"),
        ("1" * 10_000, "not JSON"),
        ("[" * 100_000 + "]" * 100_000, "nested"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested"),
        ("[" * 100_000, "nested"),
        ('"' + '\\"' * 1_000_000, "not JSON"),
        ('{"class_name": "A", "config": {"a": [' + "[]," * 3_000_000 + "1]}}", "2,000,000"),
    ],
)
def test_configs_that_are_none(tmp_path, text, words):
    refused(write_keras(tmp_path / "a.keras", text=text), "a.keras", words)
    if isinstance(text, str) and text:
        refused(write_h5(tmp_path / "a.h5", text=text), words, target=tmp_path / "b.h5")


@pytest.mark.parametrize("item", ['""', "1.5", "null", '{"a": 1}'])
def test_more_values_than_a_model_has_are_not_read(item, tmp_path):
    text = '{"class_name": "A", "config": {"a": [' + f"{item}," * 4_100_000 + "1]}}"
    for write, name in ((write_keras, "a.keras"), (write_h5, "a.h5")):
        if write is write_h5 and len(text) > 1 << 24:
            continue
        with pytest.raises(ArchiveError, match="holds more than 2,000,000 values"):
            graphwd.inspect(write(tmp_path / name, text=text))


def test_values_within_strings_are_not_counted():
    text = json.dumps({"a": ',[{"' * 2_100_000}).encode()
    assert len(parse_object(text, "it")["a"]) == 8_400_000


@pytest.mark.parametrize("pattern", ["*a" * (1 << 19), "a" * 1001, "*" * 40])
def test_patterns_have_a_length(pattern, tmp_path):
    with pytest.raises(graphwd.PolicyError, match=r"characters and .* stars; make it") as told:
        Rule(None, paths=pattern)
    assert len(str(told.value)) < 200
    with pytest.raises(graphwd.PolicyError, match="Rule 1"):
        Policy.from_dict({"rules": [{"paths": pattern, "l2": 1}]})


def test_a_warning_does_not_repeat_a_long_rule(tmp_path):
    path = write_keras(tmp_path / "a.keras")
    policy = Policy([Rule(None, paths=["x" * 1000] * 1000)])
    with pytest.warns(graphwd.UnmatchedRuleWarning) as told:
        graphwd.plan(path, policy)
    assert len(str(told[0].message)) < 1000
