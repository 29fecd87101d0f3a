"""What differs between TensorFlow, JAX and PyTorch: how a variable's value is copied.

TensorFlow shares a buffer between two variables until one of them is written, so its copies are
free. JAX's training step donates its buffers and PyTorch writes in place, so there every value
is copied: sharing would let training one model destroy or train the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from graphwd import _keras, walk


def copy_variable(source: Any, target: Any) -> None:
    """Gives one variable the value of another, without a trip through numpy.

    Args:
        source: A `keras.Variable`.
        target: Another one of the same shape and dtype, with or without a value yet.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        _copy_tensorflow(source, target)
    elif backend == "jax":
        _copy_jax(source, target)
    elif backend == "torch":
        _copy_torch(source, target)
    elif _keras.is_initialized(target):
        target.assign(source)
    else:
        _keras.initialize(target, keras.ops.copy(source.value))


def _copy_tensorflow(source: Any, target: Any) -> None:
    tensor = _tensorflow_value(source.value)
    if _keras.is_initialized(target):
        target.value.assign(tensor)
    else:
        _keras.initialize(target, tensor)


def _tensorflow_value(variable: Any) -> Any:
    import tensorflow as tf

    if isinstance(variable, tf.distribute.DistributedValues):
        return variable.read_value()
    # read_value() goes through an identity op, which takes twice the time
    return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)


def _copy_jax(source: Any, target: Any) -> None:
    import jax.numpy as jnp

    value = jnp.copy(source.value)
    if _keras.is_initialized(target):
        target.assign(value)
    else:
        _keras.initialize(target, value)


def _copy_torch(source: Any, target: Any) -> None:
    import torch

    value = source.value.detach()
    with torch.no_grad():
        if has_value(target):
            target.value.copy_(value)
        else:
            _keras.initialize(target, value.clone())


def has_value(variable: Any) -> bool:
    """Whether a variable holds a value, not nothing or a stand-in."""
    if not _keras.is_initialized(variable):
        return False
    return bool(keras.backend.backend() != "torch" or variable.value.device.type != "meta")


def same_bits(one: Any, other: Any) -> bool:
    """Whether two variables have the same value, bit for bit, also where it is not a number.

    Args:
        one: A `keras.Variable`.
        other: Another one.

    Returns:
        A bool. Values that share their memory are equal without being read; sharded values are
        compared shard by shard, where they are.
    """
    if tuple(one.shape) != tuple(other.shape) or one.dtype != other.dtype:
        return False
    backend: str = keras.backend.backend()
    if backend == "jax":
        ours, theirs = one.value, other.value
        if ours.sharding != theirs.sharding:
            return False
        shards = zip(ours.addressable_shards, theirs.addressable_shards, strict=True)
        return all(_same_arrays(np.asarray(a.data), np.asarray(b.data)) for a, b in shards)
    if backend == "torch":
        import torch

        a, b = (v.value.detach().contiguous().reshape(-1).view(torch.uint8) for v in (one, other))
        return bool(torch.equal(a, b))
    if backend == "tensorflow":
        return _same_arrays(_tensorflow_array(one), _tensorflow_array(other))
    return _same_arrays(np.asarray(one.value), np.asarray(other.value))


def _same_arrays(one: Any, other: Any) -> bool:
    if one.size == 0:
        return bool(one.shape == other.shape)
    if one.__array_interface__["data"][0] == other.__array_interface__["data"][0]:
        return True
    a, b = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, other))
    return bool(np.array_equal(a, b))


def _tensorflow_array(variable: Any) -> Any:
    """A variable's value as an array over TensorFlow's own memory, where that can be had."""
    tensor = _tensorflow_value(variable.value)
    try:
        return np.frombuffer(memoryview(tensor), np.uint8)
    except (TypeError, ValueError, BufferError):  # types without a buffer format, such as bfloat16
        return tensor.numpy()


def placeholder(variable: Any) -> Any:
    """What stands in for a value that is yet to come; `None` where the backend needs nothing."""
    if keras.backend.backend() != "torch":
        return None
    import torch

    tensor = torch.empty(
        tuple(variable.shape), dtype=getattr(torch, str(variable.dtype)), device="meta"
    )
    return torch.nn.Parameter(tensor, requires_grad=False)


@contextlib.contextmanager
def build_scope(model: Any) -> Iterator[None]:
    """The scope in which the original's variables were created, for TensorFlow's strategies."""
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is None:
        yield
        return
    with strategy.scope():
        yield


def finish(model: Any) -> None:
    """Lets a backend's own bookkeeping know of the variables' values."""
    if keras.backend.backend() == "torch":
        for _, _, layer in walk.layers_within(model):
            _keras.track_again(layer)


def compiled(
    function: Callable[[Sequence[Any]], Any], variables: Sequence[Any]
) -> Callable[[], Any]:
    """Makes one call of the backend out of a function of variables.

    Args:
        function: Computes a tensor from a list of variables, or of their values, with
            `keras.ops`.
        variables: A list of `keras.Variable`.

    Returns:
        A function without arguments that computes the tensor from the values of the moment, as
        a numpy array. It is compiled when it is called first, but on PyTorch, where compiling
        takes longer than all calls will.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        traced = tf.function(lambda: function(variables))
        return lambda: traced().numpy()
    if backend == "jax":
        import jax

        jitted = jax.jit(function)
        return lambda: np.asarray(jitted([variable.value for variable in variables]))
    if backend == "torch":
        import torch

        def eager() -> Any:
            with torch.no_grad():
                return function([variable.value for variable in variables]).cpu().numpy()

        return eager
    return lambda: keras.ops.convert_to_numpy(function(variables))
