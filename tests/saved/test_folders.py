"""Models that are folders: presets of keras-hub's and unzipped ones, as files and loaded."""

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import graphwd
from graphwd.cli import models
from graphwd.cli.commands import cli
from graphwd.errors import ArchiveError
from graphwd.policy.policies import Policy, Rule
from graphwd.policy.regularizers import l2

POLICY = Policy([Rule(l2(1e-3), roles="kernel")])


@pytest.fixture(scope="module")
def unzipped(tmp_path_factory):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="one")], name="model")
    model.compile("sgd", "mse")
    folder = tmp_path_factory.mktemp("unzipped") / "model"
    model.save(folder, zipped=False)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A preset of a task whose backbone is a model of Keras's own, so that its config has slots."""
    hub = pytest.importorskip("keras_hub")
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    backbone = keras.Model(inputs, outputs, name="features")
    model = hub.models.ImageClassifier(backbone=backbone, num_classes=3)
    folder = tmp_path_factory.mktemp("task") / "preset"
    model.save_to_preset(str(folder))
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(cli, [*map(str, arguments)], prog_name="graphwd")
    assert result.exit_code == code, result.output
    return result


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def test_an_unzipped_model_is_rewritten_as_a_folder(unzipped, tmp_path):
    before, target = content(unzipped), tmp_path / "out"
    plan = graphwd.rewrite_file(unzipped, target, POLICY)
    assert [edit.path for edit in plan] == ["one/kernel"]
    assert "as planned" in str(plan)
    assert content(unzipped) == before
    after = content(target)
    assert {name for name in after if after[name] != before.get(name)} == {"config.json"}
    assert graphwd.verify(unzipped, target, POLICY).ok
    assert not graphwd.verify(unzipped, target, Policy([Rule(None)])).ok
    model = keras.saving.load_model(target)
    assert len(model.losses) == 1
    with pytest.raises(ArchiveError, match=r"exists; .* overwrite=True\.$"):
        graphwd.rewrite_file(unzipped, target, POLICY)
    graphwd.rewrite_file(target, target, Policy([Rule(None)]), overwrite=True)
    assert keras.saving.load_model(target).losses == []
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_the_command_takes_folders(unzipped, tmp_path):
    target = tmp_path / "out"
    run("rewrite", unzipped, target, "--recipe", "no-bias")
    for live in ([], ["--live"]):
        assert "one/kernel" in run("inspect", target, *live).stdout
        assert "1 of the 2 slots" in run("plan", unzipped, "--recipe", "no-bias", *live).stdout
        run("verify", unzipped, target, "--recipe", "no-bias", *live)
        run("verify", unzipped, target, "--recipe", "vgg", *live, code=1)
    run("report", target, "-o", tmp_path / "page.html")
    run("rewrite", unzipped, tmp_path / "live", "--live", "--recipe", "no-bias")
    assert len(keras.saving.load_model(tmp_path / "live").losses) == 1
    run("rewrite", unzipped, tmp_path / "live.keras", "--live", "--recipe", "no-bias")
    assert len(keras.saving.load_model(tmp_path / "live.keras").losses) == 1
    assert (
        "a folder"
        in run("rewrite", unzipped, tmp_path / "a.keras", "--recipe", "vgg", code=2).stderr
    )


def test_a_presets_two_configs_are_edited_alike(task, tmp_path):
    hub = pytest.importorskip("keras_hub")
    target = tmp_path / "out"
    plan = graphwd.rewrite_file(task, target, POLICY)
    assert [edit.path for edit in plan] == ["features/conv/kernel"]
    assert "Penalty by role" in str(plan)
    assert graphwd.verify(task, target, POLICY).ok
    loaded = hub.models.ImageClassifier.from_preset(str(target))
    kernel = loaded.backbone.get_layer("conv").kernel
    np.testing.assert_allclose(kernel.regularizer.l2, 1e-3)
    config = json.loads((target / "config.json").read_text())
    (layer,) = [e for e in config["config"]["layers"] if e["name"] == "conv"]
    assert layer["config"]["kernel_regularizer"]["config"] == {"l2": 1e-3}
    layer["config"]["kernel_regularizer"] = None
    (target / "config.json").write_text(json.dumps(config))
    assert "different regularizers" in str(graphwd.verify(task, target, POLICY))
    layer["config"]["filters"] = 5
    (target / "config.json").write_text(json.dumps(config))
    assert "beyond their regularizers" in str(graphwd.verify(task, target, POLICY))


def test_a_preset_is_loaded_and_saved_as_one(task, tmp_path):
    hub = pytest.importorskip("keras_hub")
    target, policy = tmp_path / "out", tmp_path / "policy.toml"
    Policy([Rule(l2(1e-3), paths="features/*", roles="kernel")]).save(policy)
    run("rewrite", task, target, "--live", "--policy", policy)
    assert sorted(content(target)) == sorted(content(task))
    loaded = models.load(str(target))
    assert isinstance(loaded, hub.models.ImageClassifier)
    assert loaded.backbone.get_layer("conv").kernel_regularizer is not None
    run("verify", task, target, "--policy", policy, "--live")


def test_a_preset_of_carried_penalties_is_loaded(tmp_path):
    hub = pytest.importorskip("keras_hub")
    options = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    bert = hub.models.BertBackbone(vocabulary_size=9, max_sequence_length=6, **options)
    bert.save_to_preset(str(tmp_path / "bert"))
    run("rewrite", tmp_path / "bert", tmp_path / "out", "--live", "--recipe", "bert")
    assert hub.models.BertBackbone.from_preset(str(tmp_path / "out")).losses
    run("verify", tmp_path / "bert", tmp_path / "out", "--live", "--recipe", "bert")


def test_weights_that_no_config_of_a_preset_reaches(tmp_path):
    hub = pytest.importorskip("keras_hub")
    options = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    bert = hub.models.BertBackbone(vocabulary_size=9, max_sequence_length=6, **options)
    bert.save_to_preset(str(tmp_path / "bert"))
    notes = run("inspect", tmp_path / "bert").stdout
    assert "--live" in notes
    assert "BertBackbone" in notes
    planned = run("plan", tmp_path / "bert", "--live", "--recipe", "bert", "--json").stdout
    assert len(json.loads(planned)["edits"]) > 5


def test_what_is_no_model_is_told_what_it_is(unzipped, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
    (tmp_path / "empty").mkdir()
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "config.json").write_text('{"architectures": ["BertModel"]}')
    keras.saving.load_model(unzipped).save_weights(tmp_path / "a.weights.h5")
    shutil.copy(tmp_path / "a.weights.h5", tmp_path / "model_00001.weights.h5")
    for path, words in [
        (tmp_path / "saved", "SavedModel"),
        (tmp_path / "saved" / "saved_model.pb", "SavedModel"),
        (tmp_path / "empty", "save_to_preset"),
        (tmp_path / "torch", "Hugging Face"),
        (unzipped / "config.json", "give the folder"),
        (unzipped / "metadata.json", "give the folder"),
        (tmp_path / "a.weights.h5", "weights without a model"),
        (tmp_path / "model_00001.weights.h5", "one shard"),
    ]:
        with pytest.raises(ArchiveError, match=words) as told:
            graphwd.inspect(path)
        assert str(told.value).endswith(".")


def test_a_folder_that_is_damaged(unzipped, tmp_path):
    for name, text in [("config.json", "{"), ("config.json", "[]"), ("model.weights.h5", "x")]:
        folder = tmp_path / "a"
        shutil.copytree(unzipped, folder)
        (folder / name).write_text(text)
        with pytest.raises(ArchiveError):
            graphwd.rewrite_file(folder, tmp_path / "out", POLICY)
        shutil.rmtree(folder)
        assert os.listdir(tmp_path) == []
    target = tmp_path / "out"
    graphwd.rewrite_file(unzipped, target, POLICY)
    (target / "more").write_text("x")
    assert "only the second folder" in str(graphwd.verify(unzipped, target, POLICY))
