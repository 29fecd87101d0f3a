"""Programs for more than one device, each a process of its own: `python -m tests.support.distributed_programs NAME`.

A program sets up its devices, which can't be undone in a process, and runs the checks of this file
that are meant for it. It prints one line of JSON for each: the check's name and what went wrong.
"""  # noqa: E501 # the first line says what to run

import functools
import gc
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FACTOR = 1e-2
DEVICES = 8
LARGE = (2048, 8192)  # 64 MiB
CHECKS = {"mirrored": [], "data_parallel": [], "model_parallel": []}


def check(*programs):
    """Marks a function as a check of these programs."""

    def mark(function):
        for program in programs:
            CHECKS[program].append(function)
        return function

    return mark


on_jax = check("data_parallel", "model_parallel")
everywhere = check("mirrored", "data_parallel", "model_parallel")


@functools.cache
def classes():
    """The classes of the model, defined once Keras may be imported."""
    import keras

    @keras.saving.register_keras_serializable("tests")
    class Block(keras.layers.Layer):
        """A composite layer whose config reaches none of its weights."""

        def __init__(self, units, inner_regularizer_of_test=None, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            penalty = {"kernel_regularizer": inner_regularizer_of_test}
            self.first = keras.layers.Dense(units, "relu", name="first", **penalty)
            self.second = keras.layers.Dense(units, name="second", **penalty)
            self.dropout = keras.layers.Dropout(0.1, seed=5)

        def build(self, shape):
            self.first.build(shape)
            self.second.build((*shape[:-1], self.units))

        def call(self, inputs, training=None):
            return inputs + self.second(self.dropout(self.first(inputs), training=training))

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    return Block


def network(penalty=None, *, seed=0):
    """A nested backbone with a composite layer, statistics, seeds and a head.

    Args:
        penalty: The regularizer of all kernels, as one would write it by hand.
        seed: Decides on the weights.
    """
    import keras

    keras.utils.set_random_seed(seed)
    inner = keras.Input((16,))
    x = keras.layers.Dense(32, name="hidden", kernel_regularizer=penalty)(inner)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = classes()(32, penalty, name="block")(x)
    backbone = keras.Model(inner, x, name="backbone")
    inputs = keras.Input((16,))
    x = keras.layers.Dropout(0.1, seed=7)(backbone(inputs))
    head = keras.layers.Dense(8, name="head", kernel_regularizer=penalty)
    return keras.Model(inputs, head(x), name="network")


def data(steps=2):
    import numpy as np

    rng = np.random.default_rng(1)
    return (
        rng.normal(size=(16 * steps, 16)).astype("float32"),
        rng.normal(size=(16 * steps, 8)).astype("float32"),
    )


def compiled(model):
    import keras

    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def fit(model):
    model.fit(*data(), batch_size=16, shuffle=False, verbose=0)
    return model


def trained(scope):
    """A model whose statistics, seeds and momentum are under way."""
    with scope():
        model = compiled(network())
        return fit(model)


def rule(**selectors):
    import keras

    import graphwd

    return graphwd.Rule(keras.regularizers.L2(FACTOR), roles="kernel", **selectors)


def all_variables(model):
    optimizer = getattr(model, "optimizer", None)
    return [*model.variables, *(optimizer.variables if optimizer is not None else ())]


def pieces(variable):
    """Where a variable's value lies and what each device has: the device, the index, the bits."""
    import keras
    import numpy as np

    value = variable.value
    if keras.backend.backend() == "tensorflow":
        held = getattr(value, "values", (value,))
        return [(v.device, None, v.numpy().tobytes()) for v in held]
    return [
        (str(shard.device), str(shard.index), np.asarray(shard.data).tobytes())
        for shard in value.addressable_shards
    ]


def layout(variable):
    """Where a variable's value lies."""
    import keras

    value = variable.value
    if keras.backend.backend() == "tensorflow":
        return type(value).__name__, [v.device for v in getattr(value, "values", (value,))]
    laid_out = getattr(variable, "_layout", None)
    return value.sharding, getattr(laid_out, "backend_layout", laid_out)


def assert_alike(model, rewritten):
    """The same variables on the same devices, bit for bit, but none of them shared."""
    ours, theirs = all_variables(model), all_variables(rewritten)
    assert [v.path for v in ours] == [v.path for v in theirs]
    for one, two in zip(ours, theirs, strict=True):
        assert one is not two
        assert layout(one) == layout(two), (one.path, layout(one), layout(two))
        assert pieces(one) == pieces(two), one.path


def assert_same_outputs(model, rewritten):
    import numpy as np

    x, _ = data()
    np.testing.assert_array_equal(rewritten.predict(x, verbose=0), model.predict(x, verbose=0))


def assert_trained_alike(one, other):
    import numpy as np

    for ours, theirs in zip(all_variables(one), all_variables(other), strict=True):
        assert layout(ours) == layout(theirs), ours.path
        np.testing.assert_allclose(
            np.asarray(theirs), np.asarray(ours), rtol=1e-4, atol=1e-6, err_msg=ours.path
        )


def assert_spread(model):
    """The model is really on several devices, and not by accident on one."""
    assert all(len(pieces(v)) > 1 for v in model.weights), "the model is on one device only"


def by_hand(scope, weights_of):
    """The model with its penalties in its constructor, and the weights and seeds of another."""
    import keras

    with scope():
        model = compiled(network(keras.regularizers.L2(FACTOR)))
        model.optimizer.build(model.trainable_variables)
    for ours, theirs in zip(all_variables(weights_of), all_variables(model), strict=True):
        theirs.assign(keras.ops.convert_to_numpy(ours))
    return model


@everywhere
def inside_the_scope(scope):
    import graphwd

    model = trained(scope)
    assert_spread(model)
    with scope():
        rewritten = graphwd.rewrite(model, rule())
    assert_alike(model, rewritten)
    assert len(rewritten.losses) == 4
    assert model.losses == []
    assert_same_outputs(model, rewritten)
    report = graphwd.verify(model, rewritten, rule())
    assert report.ok, str(report)


@everywhere
def outside_the_scope(scope):
    import graphwd

    model = trained(scope)
    rewritten = graphwd.rewrite(model, rule())
    assert_alike(model, rewritten)
    assert_same_outputs(model, rewritten)
    report = graphwd.verify(model, rewritten, rule())
    assert report.ok, str(report)


@everywhere
def not_compiled(scope):
    import graphwd

    with scope():
        model = network()
        rewritten = graphwd.rewrite(model, rule(), verify="outputs")
    assert_spread(rewritten)
    assert_alike(model, rewritten)


@everywhere
def training_has_the_penalty(scope):
    import graphwd

    model = trained(scope)
    rewritten = graphwd.rewrite(model, rule())
    hand = by_hand(scope, model)
    plain = [p for v in all_variables(model) for p in pieces(v)]
    with scope():
        fit(rewritten)
        assert [p for v in all_variables(model) for p in pieces(v)] == plain
        fit(hand)
        assert_trained_alike(hand, rewritten)
        fit(model)
    try:
        assert_trained_alike(model, rewritten)
    except AssertionError:
        return
    raise AssertionError("the penalty makes no difference, so the comparison shows nothing")


@everywhere
def in_place(scope):
    import graphwd

    model = trained(scope)
    hand = by_hand(scope, model)
    before = [(v, layout(v), pieces(v)) for v in all_variables(model)]
    with scope():
        assert graphwd.rewrite(model, rule(), in_place=True) is model
    for (variable, where, what), now in zip(before, all_variables(model), strict=True):
        assert variable is now
        assert (layout(now), pieces(now)) == (where, what), now.path
    with scope():
        state = [v.value for v in model.optimizer.variables]
        compiled(model)
        model.optimizer.build(model.trainable_variables)
        for variable, value in zip(model.optimizer.variables, state, strict=True):
            variable.assign(value)
        fit(model)
        fit(hand)
    assert_trained_alike(hand, model)


@everywhere
def saving_and_loading(scope):
    import keras

    import graphwd

    rewritten = graphwd.rewrite(trained(scope), rule())
    losses = [float(loss) for loss in rewritten.losses]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        rewritten.save(path)
        with scope():
            loaded = keras.saving.load_model(path)
            assert_spread(loaded)
            report = graphwd.verify(path, loaded)
            assert report.ok, str(report)
            assert [float(loss) for loss in loaded.losses] == losses
            fit(loaded)


@everywhere
def the_proof_sees_a_difference(scope):
    import graphwd

    model = trained(scope)
    rewritten = graphwd.rewrite(model, rule())
    kernel = rewritten.get_layer("head").kernel
    kernel.assign(kernel.value * 1.5)
    report = graphwd.verify(model, rewritten, rule())
    assert [p for p in report.problems if "head" in p], str(report)


@check("mirrored")
def built_outside_and_rewritten_inside(scope):
    import graphwd

    model = compiled(network())
    with scope():
        rewritten = graphwd.rewrite(model, rule())
    assert_spread(rewritten)
    assert [pieces(v)[0][2] for v in model.variables] == [
        pieces(v)[0][2] for v in rewritten.variables
    ]
    with scope():
        fit(rewritten)
    fit(model)


@on_jax
def another_distribution_is_active(scope):
    """A copy lies where the original lies, not where new variables would."""
    import keras

    import graphwd

    single = network()
    with scope():
        copied = graphwd.rewrite(single, rule())
        assert keras.distribution.distribution() is scope.distribution
    assert_alike(single, copied)
    assert all(len(pieces(v)) == 1 for v in copied.variables)


@check("model_parallel")
def layouts_by_path(scope):
    """What this file's LayoutMap says of nested layers is what they have: the tests have teeth."""
    model = trained(scope)
    sharded = {v.path: v for v in model.weights if not v.value.sharding.is_fully_replicated}
    assert set(sharded) == {"hidden/kernel", "block/first/kernel", "block/second/kernel"}, sharded
    for variable in sharded.values():
        assert variable.value.addressable_shards[0].data.size == variable.value.size // 4
    momentum = [v for v in model.optimizer.variables if not v.value.sharding.is_fully_replicated]
    assert len(momentum) == 3


def large(scope):
    """A model of one large kernel in a composite layer and one in a layer of Keras's own."""
    import keras

    keras.utils.set_random_seed(0)
    with scope():
        inputs = keras.Input((LARGE[0],))
        x = keras.layers.Dense(LARGE[1], name="hidden", use_bias=False)(inputs)
        return keras.Model(inputs, x, name="large")


@check("model_parallel")
def nothing_is_gathered(scope):
    """No sharded array becomes one array: neither on a device nor on the host."""
    import jax
    from jax._src.array import ArrayImpl

    import graphwd
    from graphwd.live import backends

    model = trained(scope)
    shapes = {v.value.shape for v in model.weights if not v.value.sharding.is_fully_replicated}
    seen = []
    others = jax.live_arrays()  # of other models; held, so that their ids stay theirs
    known = {id(array) for array in others}
    value = ArrayImpl._value

    def read(array):
        if array.shape in shapes:
            seen.append(("read", array.shape))
        return value.__get__(array)

    def look():
        seen.extend(
            ("made", array.shape)
            for array in jax.live_arrays()
            if id(array) not in known
            and array.shape in shapes
            and array.sharding.is_fully_replicated
        )

    def looking(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            look()
            result = function(*args, **kwargs)
            look()
            return result

        return wrapper

    originals = backends.give_value, backends.same_bits, jax.device_put
    ArrayImpl._value = property(read)
    backends.give_value, backends.same_bits = map(looking, originals[:2])
    jax.device_put = looking(originals[2])
    try:
        rewritten = graphwd.rewrite(model, rule())
        graphwd.rewrite(rewritten, graphwd.Rule(None), in_place=True)
        assert graphwd.verify(model, rewritten).ok
    finally:
        ArrayImpl._value = value
        backends.give_value, backends.same_bits, jax.device_put = originals
    assert seen == [], seen


def high_water(reset=False):
    """The most memory that this process has held, in bytes; on request counted anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("this system does not say how much memory a process has held")


@check("model_parallel")
def a_copy_takes_the_memory_of_the_shards(scope):
    """All devices are this one machine: a copy takes its shards once, and in place nothing."""
    import graphwd

    if not Path("/proc/self/clear_refs").exists():
        return
    model = large(scope)
    (kernel,) = model.weights
    assert not kernel.value.sharding.is_fully_replicated
    size = sum(shard.data.nbytes for shard in kernel.value.addressable_shards)
    warm = graphwd.rewrite(model, rule())  # what is loaded and compiled at the first time
    del warm
    gc.collect()
    before = high_water(reset=True)
    rewritten = graphwd.rewrite(model, rule())
    after = high_water()
    assert after - before < 1.25 * size, (after - before) / size
    del rewritten
    gc.collect()
    before = high_water(reset=True)
    graphwd.rewrite(model, rule(), in_place=True)
    after = high_water()
    assert after - before < 0.1 * size, (after - before) / size


def mirrored():
    """Two logical CPUs under a MirroredStrategy."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]).scope


class Scope:
    """The scope of a distribution of Keras's."""

    def __init__(self, distribution):
        self.distribution = distribution

    def __call__(self):
        return self.distribution.scope()


def host_devices():
    os.environ["KERAS_BACKEND"] = "jax"
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={DEVICES}"
    import jax

    assert len(jax.devices()) == DEVICES


def data_parallel():
    """Eight devices of the host, each with all weights and a part of each batch."""
    host_devices()
    import keras

    return Scope(keras.distribution.DataParallel(devices=keras.distribution.list_devices()))


def model_parallel():
    """Eight devices of the host: two parts of a batch, four parts of each large weight."""
    host_devices()
    import keras

    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((2, 4), ("batch", "model"), devices)
    layouts = keras.distribution.LayoutMap(mesh)
    # Names from around the layer on purpose: one that is rebuilt alone doesn't have them.
    layouts["^hidden/kernel"] = (None, "model")
    layouts["^block/first/kernel"] = (None, "model")
    layouts["^block/second/kernel"] = ("model", None)
    return Scope(keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch"))


PROGRAMS = {"mirrored": mirrored, "data_parallel": data_parallel, "model_parallel": model_parallel}


def main(name):
    """Runs the checks of a program, each on models of its own."""
    scope = PROGRAMS[name]()
    import keras

    for function in CHECKS[name]:
        problem = ""
        try:
            function(scope)
        except Exception:  # noqa: BLE001 # whatever it is, it is the result of the check
            problem = traceback.format_exc()
        print(json.dumps({"check": function.__name__, "problem": problem}), flush=True)
        keras.backend.clear_session()
        gc.collect()


if __name__ == "__main__":
    main(sys.argv[1])
