"""Every keras-hub backbone family and task: class kept, all weights penalised, saved and reloaded.

`BACKBONES`, `VARIANTS` and `TASKS` in hub_models.py are those that can be built without a download;
a family that keras-hub adds is a failing test.
"""

import gc

import keras
import numpy as np
import pytest

import graphwd
from tests import oracle

hub = pytest.importorskip("tests.hub_models", reason="keras-hub is not installed")

POLICY = graphwd.Rule({"class_name": "L2", "config": {"l2": 1e-3}})


# Their get_config leaves an argument out, so no copy can be built; they are edited in place.
LACKING = {"LlamaBackbone of tied embeddings": "token_embedding"}

# Their graphs hold the first values of a weight as a constant, so that a model that its class
# builds again is another one; keras-hub itself can't reload them. They are edited in place.
CONSTANTS = {"Gemma3nCausalLM"}


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
    if name in hub.NOT_RELOADABLE:
        return
    rewritten.save(path)
    loaded = keras.saving.load_model(path)
    assert isinstance(loaded, type(rewritten).__mro__[2])
    assert [float(x) for x in loaded.losses] == pytest.approx(
        [float(x) for x in rewritten.losses], rel=1e-6
    )
    assert [oracle.bits(v) for v in loaded.weights] == [oracle.bits(v) for v in rewritten.weights]


def assert_refused(model, message):
    """What can't be rebuilt is refused in a clear error, and edited in place."""
    with pytest.raises(graphwd.GraphwdError, match=message):
        graphwd.rewrite(model, POLICY)
    assert model.losses == []
    assert_penalised(graphwd.rewrite(model, POLICY, in_place=True))


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
    assert_same_outputs(name, model, rewritten)


@pytest.mark.parametrize("name", sorted(hub.BACKBONES))
def test_backbone(name, tmp_path):
    assert_backbone(name, hub.BACKBONES[name](), tmp_path / "model.keras")


@pytest.mark.parametrize("name", sorted(hub.VARIANTS))
def test_variant(name, tmp_path):
    model = hub.VARIANTS[name]()
    if name in LACKING:
        assert_refused(model, LACKING[name])
    else:
        assert_backbone(name, model, tmp_path / "model.keras")


@pytest.mark.parametrize("name", sorted(hub.TASKS))
def test_task(name, tmp_path):
    model = hub.TASKS[name]()
    if name in CONSTANTS:
        assert_refused(model, "other arguments")
        return
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


def test_every_public_family_is_here():
    assert hub.public_classes("Backbone") <= {*hub.BACKBONES, *hub.NOT_BUILDABLE}
    assert hub.public_classes("Task") <= {*hub.TASKS, *hub.NOT_BUILDABLE}
