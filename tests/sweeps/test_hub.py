"""Every keras-hub backbone family and task: class kept, all weights penalised, saved and reloaded.

`BACKBONES`, `VARIANTS` and `TASKS` in hub_models.py are those that can be built without a download;
a family that keras-hub adds is a failing test.
"""

import gc
import json
import warnings
import weakref

import keras
import numpy as np
import pytest

import graphwd
from graphwd.live.carrying import carrier
from tests.support import oracle
from tests.support.processes import run

hub = pytest.importorskip("tests.support.hub_models", reason="keras-hub is not installed")

POLICY = graphwd.Rule({"class_name": "L2", "config": {"l2": 1e-3}})


# keras-hub can't load their files, rewritten or not: a get_config leaves an argument out, or a
# graph holds the first values of a weight as a constant.
NOT_LOADABLE = {"LlamaBackbone of tied embeddings", "Gemma3nCausalLM"}


# keras-hub can't load their presets, rewritten or not: it takes its backbone's dtype for a config.
WITHOUT_PRESET = {"MoonshineAudioToText"}


@pytest.fixture(scope="module", autouse=True)
def modules_are_not_garbage():
    """Most objects are those of imported modules, which the collector would look at every time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def fresh(modules_are_not_garbage):
    yield
    keras.backend.clear_session()
    gc.collect()


def outputs(model, inputs):
    return [keras.ops.convert_to_numpy(t) for t in keras.tree.flatten(model(inputs))]


def floats(variables):
    return [v for v in variables if "float" in str(v.dtype) and not v.overwrite_with_gradient]


def assert_penalised(model):
    assert [v.path for v in floats(model.trainable_variables) if v.regularizer is None] == []
    assert len(model.losses) == len(floats(model.trainable_variables)) > 0


def assert_rewritten(model, rewritten):
    assert isinstance(rewritten, type(model))
    assert type(rewritten).__name__ == type(model).__name__
    assert_penalised(rewritten)
    assert len(model.losses) == 0
    assert [oracle.bits(v) for v in model.weights] == [oracle.bits(v) for v in rewritten.weights]


def assert_reloads(name, rewritten, path, inputs=None):
    if name in hub.NOT_RELOADABLE or name in NOT_LOADABLE:
        return
    rewritten.save(path)
    loaded = keras.saving.load_model(path)
    assert isinstance(loaded, type(rewritten).__mro__[2])
    assert [float(x) for x in loaded.losses] == pytest.approx(
        [float(x) for x in rewritten.losses], rel=1e-6
    )
    assert [oracle.bits(v) for v in loaded.weights] == [oracle.bits(v) for v in rewritten.weights]


def assert_preset(name, rewritten, folder):
    """A preset names the class of what is in it, and that class loads it."""
    if name in hub.NOT_RELOADABLE or name in WITHOUT_PRESET or name in NOT_LOADABLE:
        return
    cls = carrier.base_class(type(rewritten))
    rewritten.save_to_preset(str(folder))
    loaded = cls.from_preset(str(folder))
    assert isinstance(loaded, cls)
    assert [float(x) for x in loaded.losses] == pytest.approx(
        [float(x) for x in rewritten.losses], rel=1e-6
    )
    assert [oracle.bits(v) for v in loaded.weights] == [oracle.bits(v) for v in rewritten.weights]


def assert_same_outputs(name, model, rewritten):
    if name in hub.NOT_CALLABLE or name in hub.CALLS_CHANGE_WEIGHTS:
        return
    inputs = hub.inputs_for(model)
    for expected, actual in zip(outputs(model, inputs), outputs(rewritten, inputs), strict=True):
        np.testing.assert_array_equal(actual, expected)


def assert_backbone(name, model, path):
    rewritten = graphwd.rewrite(model, POLICY)
    assert_rewritten(model, rewritten)
    assert_reloads(name, rewritten, path)
    assert_preset(name, rewritten, path.parent / "copied")
    assert_same_outputs(name, model, rewritten)


@pytest.mark.parametrize("name", sorted(hub.BACKBONES))
def test_backbone(name, tmp_path):
    assert_backbone(name, hub.BACKBONES[name](), tmp_path / "model.keras")


@pytest.mark.parametrize("name", sorted(hub.VARIANTS))
def test_variant(name, tmp_path):
    assert_backbone(name, hub.VARIANTS[name](), tmp_path / "model.keras")


@pytest.mark.parametrize("name", sorted(hub.TASKS))
def test_task(name, tmp_path):
    model = hub.TASKS[name]()
    rewritten = graphwd.rewrite(model, POLICY)
    assert_rewritten(model, rewritten)
    if getattr(model, "preprocessor", None) is not None:
        assert rewritten.preprocessor is not None
        tokenizer = getattr(model.preprocessor, "tokenizer", None)
        if tokenizer is not None:
            copy = rewritten.preprocessor.tokenizer
            assert copy is not tokenizer
            assert copy.get_vocabulary() == tokenizer.get_vocabulary()
    assert_reloads(name, rewritten, tmp_path / "model.keras")
    assert_same_outputs(name, model, rewritten)
    assert_preset(name, graphwd.rewrite(model, POLICY, in_place=True), tmp_path / "in_place")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({**hub.BACKBONES, **hub.VARIANTS, **hub.TASKS}))
def test_presets_of_the_other_way(name, tmp_path):
    """The tests above keep copies of backbones, and tasks that were edited in place."""
    model = {**hub.BACKBONES, **hub.VARIANTS, **hub.TASKS}[name]()
    assert_preset(name, graphwd.rewrite(model, POLICY, in_place=name not in hub.TASKS), tmp_path)


def test_a_rewritten_backbone_in_a_task(tmp_path):
    """A task is made of a backbone, so the penalties of its layers go with it and into its file."""
    backbone = graphwd.rewrite(hub.BACKBONES["BertBackbone"](), POLICY)
    task = hub.find_class("BertTextClassifier")(
        backbone=backbone,
        preprocessor=hub.build_preprocessor(hub.find_class("BertTextClassifierPreprocessor")),
        num_classes=3,
    )
    assert len(task.losses) == len(backbone.losses) == len(floats(backbone.trainable_variables))
    assert task.preprocessor is not None
    task.save(tmp_path / "task.keras")
    loaded = keras.saving.load_model(tmp_path / "task.keras")
    assert type(loaded) is type(task)
    assert [float(x) for x in loaded.losses] == [float(x) for x in task.losses]
    assert_rewritten(hub.BACKBONES["BertBackbone"](), loaded.backbone)
    whole = graphwd.rewrite(task, POLICY)
    assert_penalised(whole)


PRESETS = """
import sys
import {first}
import {second}
import keras, keras_hub
folder = sys.argv[1]
losses = lambda model: [sorted(float(x) for x in model.losses), type(model).__mro__[2].__name__]
print(losses(keras_hub.models.Backbone.from_preset(str(folder))))
print(losses(keras_hub.models.BertBackbone.from_preset(str(folder))))
print(losses(keras_hub.models.TextClassifier.from_preset(str(folder))))
print(losses(keras_hub.models.BertTextClassifier.from_preset(str(folder))))
"""


@pytest.mark.parametrize("first", ["keras_hub", "graphwd"])
def test_presets_in_a_process_that_imports_in_any_order(first, tmp_path):
    task = graphwd.rewrite(hub.TASKS["BertTextClassifier"](), POLICY, in_place=True)
    task.save_to_preset(str(tmp_path))
    second = {"graphwd": "keras_hub", "keras_hub": "graphwd"}[first]
    printed = run(PRESETS.format(first=first, second=second), tmp_path)
    expected = [
        [sorted(float(x) for x in model.losses), carrier.base_class(type(model)).__name__]
        for model in (task.backbone, task.backbone, task, task)
    ]
    lines = [json.loads(line.replace("'", '"')) for line in printed.strip().splitlines()[-4:]]
    assert [name for _, name in lines] == [name for _, name in expected]
    for (losses, _), (wanted, _) in zip(lines, expected, strict=True):
        assert losses == pytest.approx(wanted, rel=1e-6)


def test_presets_of_classes_that_a_user_has_written(tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class OwnBackbone(hub.find_class("BertBackbone")):
        pass

    @keras.saving.register_keras_serializable(package="tests")
    class OwnClassifier(hub.find_class("BertTextClassifier")):
        backbone_cls = OwnBackbone

    backbone = OwnBackbone.from_config(hub.BACKBONES["BertBackbone"]().get_config())
    task = OwnClassifier(backbone=backbone, preprocessor=None, num_classes=3)
    task = graphwd.rewrite(task, POLICY)
    task.save_to_preset(str(tmp_path))
    for loaded, cls in (
        (OwnBackbone.from_preset(str(tmp_path)), OwnBackbone),
        (OwnClassifier.from_preset(str(tmp_path)), OwnClassifier),
    ):
        assert isinstance(loaded, cls)
        assert_penalised(loaded)
    with pytest.raises(ValueError, match="not a subclass"):
        hub.find_class("GPT2Backbone").from_preset(str(tmp_path))


def test_a_task_of_keras_hub_is_found_among_its_own_classes(tmp_path):
    """keras-hub looks for tasks in Keras's registry, where no carrier may stand for one."""
    before = hub.TASKS["BertTextClassifier"]()
    before.save_to_preset(str(tmp_path))
    alive = graphwd.rewrite(before, POLICY)
    loaded = hub.find_class("TextClassifier").from_preset(str(tmp_path))
    assert type(loaded) is type(before)
    assert isinstance(alive, type(before))
    assert [oracle.bits(v) for v in loaded.weights] == [oracle.bits(v) for v in before.weights]


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_a_quantized_backbone(mode, tmp_path):
    backbone = graphwd.rewrite(hub.BACKBONES["BertBackbone"](), POLICY, in_place=True)
    kernels = [weakref.ref(v) for v in backbone.trainable_variables if v.name == "kernel"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers that have nothing to quantize
        backbone.quantize(mode)
    gc.collect()
    if mode != "float8":  # which keeps the kernels
        assert not any(reference() for reference in kernels)
    backbone.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    # in float8 the order of a layer's weights is another one when it is loaded
    assert held(loaded) == held(backbone)
    assert any(factor != "None" for _, factor in held(loaded))


def held(model):
    """The values of a model's weights and what penalises them, in an order of no meaning."""
    return sorted((oracle.bits(v), str(v.regularizer and v.regularizer.l2)) for v in model.weights)


def test_lora_in_a_backbone(tmp_path):
    backbone = graphwd.rewrite(hub.BACKBONES["BertBackbone"](), POLICY, in_place=True)
    penalties = len(backbone.losses)
    backbone.enable_lora(2)
    for number, way in enumerate(("before", "after")):
        folder = tmp_path / way
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the factors' own penalties are not saved
            backbone.save_to_preset(str(folder))
        loaded = hub.find_class("BertBackbone").from_preset(str(folder))
        assert len(loaded.losses) == penalties
        if not number:
            backbone = graphwd.rewrite(backbone, POLICY, in_place=True)


def test_every_public_family_is_here():
    assert hub.public_classes("Backbone") <= {*hub.BACKBONES, *hub.NOT_BUILDABLE}
    assert hub.public_classes("Task") <= {*hub.TASKS, *hub.NOT_BUILDABLE}
