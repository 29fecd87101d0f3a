"""Every keras-hub backbone family and task: class kept, all weights penalised, saved and reloaded.

`BACKBONES` and `TASKS` in hub_models.py say which can be built without a download.
"""

import gc

import keras
import numpy as np
import pytest

import graphwd
from tests import oracle

hub = pytest.importorskip("tests.hub_models", reason="keras-hub is not installed")

POLICY = graphwd.Rule({"class_name": "L2", "config": {"l2": 1e-3}})


@pytest.fixture(autouse=True)
def fresh():
    yield
    keras.backend.clear_session()
    gc.collect()


def outputs(model, inputs):
    return [keras.ops.convert_to_numpy(t) for t in keras.tree.flatten(model(inputs))]


def floats(variables):
    return [
        v for v in variables if "float" in str(v.dtype) and not v.overwrite_with_gradient
    ]


def assert_rewritten(model, rewritten):
    assert isinstance(rewritten, type(model))
    assert type(rewritten).__name__ == type(model).__name__
    assert [v.path for v in floats(rewritten.trainable_variables) if v.regularizer is None] == []
    assert len(rewritten.losses) == len(floats(rewritten.trainable_variables)) > 0
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


@pytest.mark.parametrize("name", sorted(hub.BACKBONES))
def test_backbone(name, tmp_path):
    model = hub.BACKBONES[name]()
    rewritten = graphwd.rewrite(model, POLICY)
    assert_rewritten(model, rewritten)
    assert_reloads(name, rewritten, tmp_path / "model.keras")
    if name in hub.NOT_CALLABLE or name in hub.CALLS_CHANGE_WEIGHTS:
        return
    inputs = hub.inputs_for(model)
    for expected, actual in zip(outputs(model, inputs), outputs(rewritten, inputs), strict=True):
        np.testing.assert_array_equal(actual, expected)


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
    if name in hub.NOT_CALLABLE or name in hub.CALLS_CHANGE_WEIGHTS:
        return
    inputs = hub.inputs_for(model)
    for expected, actual in zip(outputs(model, inputs), outputs(rewritten, inputs), strict=True):
        np.testing.assert_array_equal(actual, expected)
