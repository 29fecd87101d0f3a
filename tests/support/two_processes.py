"""One of two processes that share a model's devices on JAX: `python -m tests.two_processes ADDRESS ID`.

It prints one line of JSON: for each kind of distribution, what went wrong in it.
"""  # noqa: E501 # the first line says what to run

import json
import os
import sys
import traceback

KINDS = ["data_parallel", "model_parallel"]


def distribution(kind):
    """Two processes of two devices each."""
    import keras

    devices = keras.distribution.list_devices()
    assert len(devices) == 4
    if kind == "data_parallel":
        return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*kernel"] = (None, "model")
    return keras.distribution.ModelParallel(
        layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False
    )


def local(value):
    """The parts of an array that this process holds, as plain lists."""
    import numpy as np

    return [np.asarray(shard.data).tolist() for shard in value.addressable_shards]


def run(kind):
    """Rewrites a model that no process has the whole of, and trains the copy."""
    import keras
    import numpy as np

    import graphwd

    keras.distribution.set_distribution(distribution(kind))
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2)]
    )
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.1), "mse")
    x, y = np.ones((8, 4), "float32"), np.zeros((8, 2), "float32")
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    policy = graphwd.Rule(keras.regularizers.L2(0.5), roles="kernel")
    assert len(graphwd.plan(model, policy).edits) == 2
    assert not any(edit.after for edit in graphwd.inspect(model).slots)
    before = [local(variable.value) for variable in model.variables]
    copy = graphwd.rewrite(model, policy)
    assert graphwd.verify(model, copy, policy).ok
    for ours, theirs in zip(model.variables, copy.variables, strict=True):
        assert local(ours.value) == local(theirs.value)
        assert ours.value.sharding.is_equivalent_to(theirs.value.sharding, ours.value.ndim)
    assert len(copy.losses) == 2
    copy.fit(x, y, batch_size=8, epochs=1, verbose=0)
    assert [local(variable.value) for variable in model.variables] == before
    trained = [local(variable.value) for variable in copy.variables]
    assert trained != before
    copy.get_layer("hidden").kernel.assign(copy.get_layer("hidden").kernel + 1)
    assert not graphwd.verify(model, copy, policy).ok
    graphwd.rewrite(model, policy, in_place=True)
    model.compile(model.optimizer, "mse")
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    assert [local(variable.value) for variable in model.trainable_variables] == trained[:4]


def main(address, number):
    """Joins the other process, and runs everything."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=int(number))
    problems = {}
    for kind in KINDS:
        try:
            run(kind)
            problems[kind] = ""
        except Exception:  # noqa: BLE001 # the other process is told of it
            problems[kind] = traceback.format_exc()
    print(json.dumps(problems), flush=True)


if __name__ == "__main__":  # only here: the tests import this file, and start other processes
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    main(*sys.argv[1:])
