"""One core, two ways: a rewritten file is what saving the rewritten model would have given."""

import json
import warnings
import zipfile

import h5py
import keras
import pytest
from hypothesis import HealthCheck, given, note, reject, settings
from hypothesis import strategies as st

import graphwd
from graphwd.policy import regularizers
from tests.support.strategies import build, policies, recipes, sample_models

POLICY = graphwd.Policy.from_dict(
    {
        "rules": [
            {"l2": 1e-3},
            {"roles": ["bias", "beta", "gamma", "activity"], "regularizer": None},
            {"layers": ["Embedding", "DepthwiseConv2D"], "l1": 1e-2},
        ]
    }
)


def config_of(path):
    """The config of a saved model, without what differs between two saves of one model."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    else:
        with h5py.File(path) as file:
            config = json.loads(file.attrs["model_config"])
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            value.pop("shared_object_id", None)  # an address in the memory of the saving process
            for key, item in value.items():
                if key.endswith("_regularizer") and isinstance(item, dict):
                    value[key] = regularizers.normalize(item)  # Keras rounds factors to float32
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return config


def compare_ways(model, policy, folder, suffix):
    """Rewrites a model both ways, without penalties that no config expresses."""
    original, live, rewritten = (folder / f"{name}{suffix}" for name in ("a", "live", "file"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(original)
        plan = graphwd.rewrite_file(original, rewritten, policy, overwrite=True)
        live_plan = graphwd.plan(model, policy)
        if not all(edit.portable for edit in live_plan):
            assert any("--live" in note for note in plan.notes), plan.notes
            return
        graphwd.rewrite(model, policy).save(live)
        report = graphwd.verify(original, rewritten, policy)
        assert [edit.path for edit in plan] == [edit.path for edit in live_plan]
    assert config_of(rewritten) == config_of(live)
    assert report.ok, str(report)
    assert graphwd.verify(live, rewritten).ok


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(recipe=recipes(), data=st.data())
def test_generated_models(tmp_path_factory, recipe, data):
    policy = graphwd.Policy.from_dict(data.draw(policies(recipe)))
    note(f"recipe = {recipe!r}")
    try:
        model = build(recipe)
    except TypeError:
        reject()  # a step that needs a size which Keras doesn't infer from a Reshape
    compare_ways(model, policy, tmp_path_factory.getbasetemp(), ".keras")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", sample_models())
def test_models_as_people_write_them(tmp_path, name, suffix):
    keras.utils.clear_session(free_memory=False)
    compare_ways(sample_models()[name](), POLICY, tmp_path, suffix)
