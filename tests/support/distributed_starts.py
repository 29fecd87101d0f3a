"""Starts on more than one device: `python -m tests.support.distributed_starts NAME`.

NAME is one of the programs of distributed_programs.py. It prints one line of JSON for each check.
"""

import os
import sys
import tempfile
from pathlib import Path

from tests.support import distributed_programs as programs

STRENGTH = 1e-2


def policy():
    import graphwd

    return graphwd.Rule(graphwd.L2SP(STRENGTH), roles="kernel")


def kernels(model):
    return [v for v in model.trainable_variables if v.name == "kernel"]


def array(variable):
    import keras

    return keras.ops.convert_to_numpy(variable).copy()


def started(model):
    """The kernels with where they started, as the layers or the optimizer keep it."""
    from graphwd.live.carrying import starts
    from graphwd.training import optimizers

    pairs = []
    for variable in kernels(model):
        start = starts.start_of(variable) if variable.regularizer is not None else None
        for leaf in optimizers.leaves(model.optimizer) if start is None else ():
            if any(variable is each for each in leaf._trainable_variables):
                start = optimizers.decay_start_of(leaf, variable)
        pairs.append((variable, start))
    return pairs


def penalised(scope, model):
    import graphwd

    with scope():
        return programs.compiled(graphwd.rewrite(model, policy()))


def decoupled(scope, model):
    import keras

    import graphwd

    with scope():
        optimizer = graphwd.decouple(model, policy(), keras.optimizers.SGD(0.05, momentum=0.9))
        model.compile(optimizer, "mse")
        optimizer.build(model.trainable_variables)
    return model


def assert_beside(model):
    """Each start lies on the devices, and in the parts, that its weight lies on."""
    import keras

    pairs = started(model)
    assert len(pairs) == 4
    for variable, start in pairs:
        assert start is not None, variable.path
        assert len(programs.pieces(start)) > 1
        assert [piece[:2] for piece in programs.pieces(start)] == [
            piece[:2] for piece in programs.pieces(variable)
        ], (variable.path, programs.layout(variable), programs.layout(start))
    if keras.backend.backend() == "jax":
        assert all(s.value.sharding == v.value.sharding for v, s in pairs)
        return any(not s.value.sharding.is_fully_replicated for _, s in pairs)
    return False


def by_hand(scope, penalty):
    """The same training without graphwd; the start is a constant of each regularizer or step."""
    import keras

    with scope():
        model = programs.compiled(programs.network())
    if not penalty:
        rate, x, y = 0.05, *programs.data()
        start = [array(v) for v in kernels(model)]
        for step in range(2):
            rows = slice(16 * step, 16 * step + 16)
            before = [array(v) for v in kernels(model)]
            with scope():
                model.fit(x[rows], y[rows], batch_size=16, shuffle=False, verbose=0)
            for variable, old, first in zip(kernels(model), before, start, strict=True):
                pulled = rate * 2 * STRENGTH * (old - first)
                variable.assign(array(variable) - pulled)
        return model
    for variable in kernels(model):
        start = array(variable)
        variable.regularizer = lambda w, start=start: (
            STRENGTH * keras.ops.sum(keras.ops.square(w - start))
        )
    with scope():
        return programs.fit(model)


def assert_trained_alike(one, other):
    import numpy as np

    for ours, theirs in zip(one.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_allclose(
            array(ours), array(theirs), rtol=1e-4, atol=1e-6, err_msg=ours.path
        )


def check(scope, way, penalty):
    """Starts lie as their weights do, train as written by hand, and come through a file."""
    import keras
    import numpy as np

    with scope():
        model = programs.network()
    model = way(scope, model)
    assert len(model.trainable_variables) > 4
    sharded = assert_beside(model)
    parallel = type(getattr(scope, "distribution", None)).__name__
    assert sharded == (parallel == "ModelParallel")  # the test has teeth
    hand = by_hand(scope, penalty)
    with scope():
        programs.fit(model)
    assert assert_beside(model) == sharded
    assert_trained_alike(hand, model)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        with scope():
            loaded = keras.saving.load_model(Path(folder) / "model.keras")
    assert assert_beside(loaded) == sharded
    for (weight, start), (other, same) in zip(started(model), started(loaded), strict=True):
        np.testing.assert_array_equal(array(start), array(same))
        np.testing.assert_array_equal(array(weight), array(other))
        assert np.abs(array(weight) - array(start)).max() > 1e-4
    with scope():
        programs.fit(loaded)


def penalty(scope):
    check(scope, penalised, penalty=True)


def decay(scope):
    check(scope, decoupled, penalty=False)


CHECKS = [penalty, decay]


if __name__ == "__main__":
    programs.CHECKS[sys.argv[1]] = CHECKS
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    programs.main(sys.argv[1])
