"""Archives: rewritten without Keras and in bounded memory, and loaded by Keras alone."""

import importlib.util
import json
import textwrap
import zipfile

import numpy as np
import pytest

from graphwd.policy.policies import Policy, Rule
from graphwd.policy.regularizers import l2
from graphwd.saved.rewriting import rewrite_file
from tests.support.processes import run
from tests.support.saved_models import (
    POLICY,
    compare_weights,
    dense,
    model_config,
    regularized,
    sparse_archive,
    unreached,
    write_h5,
    write_keras,
)

BLOCKER = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("keras", "tf_keras", "tensorflow", "jax", "torch", "custom"):
                raise ImportError("blocked: " + name)

    sys.meta_path.insert(0, Blocker())
"""


def test_nothing_of_keras_is_imported(tmp_path):
    config = model_config(
        regularized("one"),
        dense("two", module="custom.module", class_name="Layer", kernel_regularizer=None),
    )
    source = write_keras(tmp_path / "a.keras", config)
    legacy = write_h5(tmp_path / "a.h5", config)
    code = textwrap.dedent(BLOCKER) + textwrap.dedent("""
        import graphwd.saved.rewriting
        assert not {"h5py", "numpy", "networkx"} & set(sys.modules), "slow to start"
        from graphwd.saved.rewriting import *
        from tests.support.saved_models import POLICY, compare_weights
        for source in sys.argv[1:]:
            plan = rewrite_file(source, source + sys.argv[1][-6:].replace(".keras", "") +
                                (".keras" if source.endswith("s") else ".h5"), POLICY)
            assert len(plan) == 2
            assert "as planned" in str(plan)
            assert not compare_weights(source, source + (".keras" if source[-1] == "s" else ".h5"))
        print("done")
        """)
    assert run(code, source, legacy) == "done\n"


def test_memory_does_not_depend_on_the_weights(tmp_path):
    source = sparse_archive(tmp_path / "a.keras", 1 << 28)
    small = write_keras(tmp_path / "small.keras")
    code = """
        import resource, sys
        import h5py
        from graphwd.saved.rewriting import rewrite_file
        from tests.support.saved_models import POLICY
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rewrite_file(sys.argv[2], sys.argv[2] + ".keras", POLICY)
        before = peak()
        rewrite_file(sys.argv[1], sys.argv[1] + ".keras", POLICY)
        print(peak() - before)
    """
    assert int(run(code, source, small)) < 64 << 10  # kilobytes


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Models that Keras saved, a `.keras` and a `.h5` file of each, by name."""
    import keras

    folder = tmp_path_factory.mktemp("saved")

    @keras.saving.register_keras_serializable("archive_tests")
    class Scale(keras.layers.Layer):
        def __init__(self, kernel_regularizer=None, **options):
            super().__init__(**options)
            self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

        def build(self, shape):
            self.kernel = self.add_weight(shape=shape[-1:], regularizer=self.kernel_regularizer)
            self.built = True

        def call(self, inputs):
            return inputs * self.kernel

        def get_config(self):
            penalty = keras.regularizers.serialize(self.kernel_regularizer)
            return {**super().get_config(), "kernel_regularizer": penalty}

    layers = keras.layers
    mobile = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=3)
    inner = keras.Sequential([keras.Input((5, 4)), layers.Dense(3, name="d")], name="inner")
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, name="embed")(tokens)
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True, name="lstm"), name="bi")(x)
    x = layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)], return_sequences=True)(x)
    x = layers.Dropout(0.2)(inner(x))
    recurrent = keras.Model(tokens, layers.Dense(2, kernel_regularizer="l1", name="out")(x))
    recurrent.compile("adam", keras.losses.MeanSquaredError())  # Keras can't load "mse" from .h5
    recurrent.fit(np.ones((4, 5), "int32"), np.ones((4, 5, 2)), verbose=0)
    custom = keras.Sequential([keras.Input((3,)), layers.Dense(3), Scale(name="scale")])
    found = {}
    for name, model in {"mobile": mobile, "recurrent": recurrent, "custom": custom}.items():
        for suffix in ("keras", "h5"):
            found[f"{name}.{suffix}"] = folder / f"{name}.{suffix}"
            model.save(folder / f"{name}.{suffix}")
    return found


LOAD = """
    import json, os, sys
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    {imports}
    import numpy as np
    found = {{}}
    for path in sys.argv[1:]:
        model = load(path)
        kernels = [w for layer in model._flatten_layers() for w in layer.weights]
        seen, expected = set(), 0.0
        for w in kernels:
            if id(w) not in seen and w.{name}.split("/")[-1].split(":")[0] == "kernel":
                seen.add(id(w))
                expected += 1e-4 * float(np.sum(np.square(np.asarray(w, "float64"))))
        optimizer = getattr(model, "optimizer", None)
        optimizer = optimizer and int(np.asarray(optimizer.iterations))
        found[path] = [float(sum(model.losses)), expected, optimizer]
    assert "graphwd" not in sys.modules
    print(json.dumps(found))
"""


def test_stock_keras_loads_what_was_written(saved, tmp_path):
    written = {}
    for name, source in saved.items():
        if not name.startswith("custom"):
            written[name] = tmp_path / name
            rule = Rule(l2(1e-4), roles=["kernel", "depthwise"])  # both variables are a `kernel`
            plan = rewrite_file(source, tmp_path / name, Policy([rule]))
            assert len(plan) > 3
            assert compare_weights(source, tmp_path / name) == []
    code = LOAD.format(imports="import keras; load = keras.saving.load_model", name="path")
    results = json.loads(run(code, *written.values()).splitlines()[-1])
    for name, path in written.items():
        penalty, expected, steps = results[str(path)]
        assert penalty == pytest.approx(expected, rel=1e-4)
        assert penalty > 0
        assert steps == (1 if name.startswith("recurrent") else None)


def test_a_class_that_can_not_be_imported_is_no_obstacle(saved, tmp_path):
    for name in ("custom.keras", "custom.h5"):
        code = textwrap.dedent(BLOCKER) + textwrap.dedent("""
            from graphwd.saved.rewriting import rewrite_file
            from tests.support.saved_models import POLICY
            print([edit.path for edit in rewrite_file(*sys.argv[1:], POLICY)])
            """)
        assert "'scale/kernel'" in run(code, saved[name], tmp_path / name)
        import keras

        model = keras.saving.load_model(tmp_path / name)  # the class is registered here
        assert len(model.losses) == 2


def test_every_member_of_a_real_archive_is_untouched(saved, tmp_path):
    target = tmp_path / "b.keras"
    rewrite_file(saved["recurrent.keras"], target, POLICY)
    with zipfile.ZipFile(saved["recurrent.keras"]) as before, zipfile.ZipFile(target) as after:
        assert before.namelist() == after.namelist()
        for name in before.namelist():
            assert (before.read(name) == after.read(name)) == (name != "config.json")
        config = json.loads(before.read("config.json"))
        assert json.dumps(config) == before.read("config.json").decode()


MAKE_LEGACY = """
    import os, sys
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tf_keras as keras
    from tf_keras import layers
    inner = keras.Sequential([layers.Dense(3, input_shape=(4,), name="d")], name="inner")
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, kernel_regularizer=keras.regularizers.l2(0.5), name="conv")(inputs)
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3)(x))
    x = inner(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    model.compile("sgd", "mse")
    model.save(sys.argv[1])
"""


def test_tf_keras_loads_what_was_written(tmp_path):
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("needs tf_keras")
    source, target = tmp_path / "a.h5", tmp_path / "b.h5"
    run(MAKE_LEGACY, source)
    plan = rewrite_file(source, target, POLICY)
    assert sorted(edit.path for edit in plan) == ["conv/kernel", "inner/d/kernel", "out/kernel"]
    assert compare_weights(source, target) == []
    assert unreached(source) == []
    code = LOAD.format(imports="import tf_keras; load = tf_keras.models.load_model", name="name")
    penalty, expected, _ = json.loads(run(code, target).splitlines()[-1])[str(target)]
    assert penalty == pytest.approx(expected, rel=1e-4)
