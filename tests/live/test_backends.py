"""TensorFlow, JAX and PyTorch: training one model never touches the other, files load on all."""

import keras
import numpy as np
import pytest

import graphwd
from graphwd.live import backends
from tests.support import oracle
from tests.support.processes import ENVIRONMENT, run, script
from tests.support.strategies import inputs_for, sample_models

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
POLICY = graphwd.Policy(
    [graphwd.Rule({"class_name": "L2", "config": {"l2": 1e-3}}, roles=["!activity", "!bias"])]
)
NAMES = [name for name in sample_models() if name != "sequential_unbuilt"]


def installed(backend):
    return script(f"import {BACKENDS[backend]}").returncode == 0


def train(model):
    inputs = inputs_for(model)
    targets = keras.tree.map_structure(lambda t: np.zeros(tuple(t.shape), "float32"), model(inputs))
    losses = keras.tree.map_structure(lambda _: "mse", targets)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss=losses)
    model.fit(inputs, targets, epochs=2, verbose=0)


def bits(model):
    return [oracle.bits(variable) for variable in model.variables]


@pytest.mark.parametrize("name", NAMES)
def test_training_one_never_touches_the_other(name):
    if name == "transformer" and keras.backend.backend() == "torch":
        pytest.skip("Keras itself can't train this model twice on PyTorch, rewritten or not")
    model = sample_models()[name]()
    rewritten = graphwd.rewrite(model, POLICY)
    original, copied = bits(model), bits(rewritten)
    assert copied == original
    train(rewritten)
    assert bits(model) == original
    trained = bits(rewritten)
    assert trained != copied
    train(model)
    assert bits(rewritten) == trained
    assert bits(model) != original


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_penalty(name):
    model = sample_models()[name]()
    rewritten = graphwd.rewrite(model, POLICY)
    inputs = inputs_for(model)
    for one, two in zip(
        oracle.outputs(model, inputs), oracle.outputs(rewritten, inputs), strict=True
    ):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)
    assert len(rewritten.losses) >= len(model.losses)


@pytest.mark.parametrize("name", NAMES)
def test_tensorflows_own_names_are_those_of_the_original(name):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Only TensorFlow's variables have names of their own")
    model = sample_models()[name]()
    names = [variable.value.name for variable in model.variables]
    rewritten = graphwd.rewrite(model, POLICY)
    assert [variable.value.name for variable in rewritten.variables] == names


def test_copies_have_memory_of_their_own():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow shares a buffer until one side writes, which is safe there")
    model = sample_models()["siamese"]()
    rewritten = graphwd.rewrite(model, POLICY)
    for one, two in zip(model.variables, rewritten.variables, strict=True):
        addresses = {
            v.value.unsafe_buffer_pointer()
            if keras.backend.backend() == "jax"
            else v.value.data_ptr()
            for v in (one, two)
        }
        assert len(addresses) == 2, one.path


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_has_the_same_penalty_on_every_backend(backend, tmp_path):
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")
    model = sample_models()["transformer"]()
    inputs = keras.Input((4, 3))
    carried = keras.Model(inputs, keras.layers.RMSNormalization()(keras.layers.Dense(3)(inputs)))
    paths = []
    for index, each in enumerate((model, carried)):
        rewritten = graphwd.rewrite(each, POLICY)
        paths.append(tmp_path / f"{index}.keras")
        rewritten.save(paths[-1])
        paths.append(sum(float(loss) for loss in rewritten.losses))
    code = """
        import sys, graphwd, keras
        for path in sys.argv[1:]:
            print(sum(float(loss) for loss in keras.saving.load_model(path).losses))
    """
    printed = run(code, paths[0], paths[2], env={**ENVIRONMENT, "KERAS_BACKEND": backend})
    sums = [float(line) for line in printed.split()[-2:]]
    assert sums == pytest.approx([paths[1], paths[3]], rel=1e-5)


@pytest.mark.parametrize("place", [None, 0, 1_500_000, 2_999_999])
def test_large_values_are_compared_to_the_last_byte(place):
    values = np.zeros(3_000_000, "float32")
    one = keras.Variable(values.copy())  # JAX may keep an array's own memory
    if place is not None:
        values[place] = np.nextafter(np.float32(0), np.float32(1))
    assert backends.same_bits(one, keras.Variable(values)) == (place is None)
