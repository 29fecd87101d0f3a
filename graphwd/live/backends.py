"""What differs between TensorFlow, JAX and PyTorch: values copied, compared, placed, compiled.

TensorFlow shares a buffer between two variables until one of them is written, so its copies are
free. JAX's training step donates its buffers and PyTorch writes in place, so there every value
is copied: sharing would let training one model destroy or train the other.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import keras
import numpy as np

from graphwd.live import _keras

_GRADIENTS = {"tensorflow": "trainable", "torch": "requires_grad"}
_PIECE = 1 << 22
"""How many bytes of two variables are compared at a time."""


def give_value(source: Any, target: Any) -> None:
    """Gives a new variable without a value that of another, without a trip through numpy."""
    value = _keras.value_of(source)
    backend = keras.backend.backend()
    if value is None:
        _keras.set_value(target, None)
    elif backend == "tensorflow":
        with _name_scope_of(value, target.name):
            # A tape doesn't watch what was made untrainable, also once its layer is unfrozen.
            _keras.initialize(target, _tensorflow_value(value), value.trainable)
        _copy_replicas(value, _keras.value_of(target))
    elif backend == "jax":
        _keras.set_value(target, _copied_jax(value))
    elif backend == "torch":
        _keras.set_value(target, _copied_torch(value))
    else:
        _keras.set_value(target, keras.ops.copy(value))


def assign_value(source: Any, target: Any) -> None:
    """Gives a variable that has a value the one of another of the same shape and dtype."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        target.value.assign(_tensorflow_value(source.value))
    elif backend == "jax":
        _keras.keep_layout(source, target)
        _keras.set_value(target, _copied_jax(source.value))
    else:
        target.assign(source)


def _copy_replicas(source: Any, target: Any) -> None:
    """Each replica of a mirrored variable has moving statistics of its own."""
    ours, theirs = _replicas(source), _replicas(target)
    if len(ours) == len(theirs) > 1:
        for one, other in zip(ours, theirs, strict=True):
            other.assign(_tensorflow_value(one))


def _name_scope_of(variable: Any, name: str) -> Any:
    """The scope in which a variable of TensorFlow's gets the full name of another."""
    import tensorflow as tf

    # TensorFlow keeps a kernel of some 35 KB for each full name and shape. One that is there
    # already costs no memory, and a quarter of the time.
    outer, _, own = variable.name.removesuffix(":0").rpartition("/")
    return tf.name_scope(f"{outer}/") if outer and own == name else contextlib.nullcontext()


def _replicas(variable: Any) -> tuple[Any, ...]:
    """TensorFlow's variables behind one, each on a device of its own."""
    return tuple(getattr(variable, "values", (variable,)))


def _tensorflow_value(variable: Any) -> Any:
    import tensorflow as tf

    if isinstance(variable, tf.distribute.DistributedValues):
        return variable.read_value()
    # read_value() goes through an identity op, which takes twice the time
    return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)


def _copied_jax(value: Any) -> Any:
    """An array of its own memory, of which each process copies the shards that it holds."""
    import jax

    # jnp.copy would be compiled for each shape, and take twice the memory.
    if value.is_fully_addressable:
        return jax.device_put(value, may_alias=False)
    shards = [jax.device_put(shard.data, may_alias=False) for shard in value.addressable_shards]
    return jax.make_array_from_single_device_arrays(value.shape, value.sharding, shards)


def _copied_torch(value: Any) -> Any:
    import torch

    copy = value.detach().clone()
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(copy, requires_grad=value.requires_grad)
    return copy.requires_grad_(value.requires_grad)


def give_attributes(source: Any, target: Any, copy: Callable[[Any], Any]) -> None:
    """Gives a tensor of PyTorch's copies of what hangs on another: hooks, and attributes."""
    if keras.backend.backend() == "torch" and hasattr(source, "requires_grad"):
        _keras.give_hooks(source, target, copy)
        vars(target).update({name: copy(value) for name, value in vars(source).items()})


def same_bits(one: Any, other: Any) -> bool:
    """Whether two variables have the same value, bit for bit, also where it is not a number."""
    if _keras.shape_of(one) != _keras.shape_of(other) or (
        _keras.dtype_of(one) != _keras.dtype_of(other)
    ):
        return False
    backend: str = keras.backend.backend()
    if backend == "jax":
        return all(_same_arrays(a, b) for a, b in _shards(one.value, other.value))
    if backend == "torch":
        import torch

        a, b = (v.value.detach().contiguous().reshape(-1).view(torch.uint8) for v in (one, other))
        return bool(torch.equal(a, b))
    if backend == "tensorflow":
        return _same_arrays(_tensorflow_array(one.value), _tensorflow_array(other.value))
    return _same_arrays(np.asarray(one.value), np.asarray(other.value))


def same_gradients(one: Any, other: Any) -> bool:
    """Whether the backend computes gradients for both of two variables or for neither."""
    flag = _GRADIENTS.get(keras.backend.backend(), "")
    return bool(getattr(one.value, flag, None) == getattr(other.value, flag, None))


def same_place(one: Any, other: Any) -> bool:
    """Whether the values of two variables lie on the same devices in the same parts."""
    if keras.backend.backend() != "jax":
        return True  # a model of TensorFlow's joins the strategy in whose scope it is rewritten
    ours, theirs = one.value, other.value
    return bool(ours.sharding.is_equivalent_to(theirs.sharding, len(ours.shape)))


def _shards(one: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs the parts of two of JAX's arrays as numpy arrays over the memory where they are."""
    if one.sharding.is_equivalent_to(other.sharding, one.ndim):
        for ours, theirs in zip(one.addressable_shards, other.addressable_shards, strict=True):
            yield np.asarray(ours.data), np.asarray(theirs.data)
        return
    for ours in one.addressable_shards:
        for theirs in other.addressable_shards:
            if ours.replica_id == theirs.replica_id == 0:
                parts = [
                    _overlap(a.indices(size)[:2], b.indices(size)[:2])
                    for a, b, size in zip(ours.index, theirs.index, one.shape, strict=True)
                ]
                a, b = (tuple(part[side] for part in parts) for side in (0, 1))
                yield np.asarray(ours.data)[a], np.asarray(theirs.data)[b]


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> tuple[slice, slice]:
    """What two ranges have in common, counted from the beginning of each."""
    start, stop = max(one[0], other[0]), min(one[1], other[1])
    stop = max(start, stop)
    return slice(start - one[0], stop - one[0]), slice(start - other[0], stop - other[0])


def _same_arrays(one: Any, other: Any) -> bool:
    if one.size == 0:
        return bool(one.shape == other.shape)
    if one.__array_interface__["data"][0] == other.__array_interface__["data"][0]:
        return True  # what shares its memory is not read
    a, b = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, other))
    if a.size != b.size:
        return False
    return all(  # piece by piece, for a comparison takes a byte of memory for each byte
        np.array_equal(a[start : start + _PIECE], b[start : start + _PIECE])
        for start in range(0, a.size, _PIECE)
    )


def _tensorflow_array(variable: Any) -> Any:
    """A variable's value as an array over TensorFlow's own memory, where that can be had."""
    tensor = _tensorflow_value(variable)
    try:
        return np.frombuffer(memoryview(tensor), np.uint8)
    except (TypeError, ValueError, BufferError):  # types without a buffer format, such as bfloat16
        return tensor.numpy()


def is_tracing() -> bool:
    """Whether the backend is recording a function at the moment instead of computing."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    if backend == "jax":
        import jax

        return isinstance(jax.numpy.zeros(()), jax.core.Tracer)
    return False


def restores(layer: Any) -> list[Callable[[], Any]]:
    """What gives the buffers of PyTorch's own modules in a layer their values back."""
    if keras.backend.backend() != "torch":
        return []
    return [functools.partial(buffer.data.copy_, buffer.clone()) for buffer in layer.buffers()]


def module_state(value: Any) -> dict[str, Any] | None:
    """The parameters and buffers of one of PyTorch's own modules; `None` for other objects."""
    if keras.backend.backend() != "torch":
        return None
    import torch

    if not isinstance(value, torch.nn.Module):
        return None
    return {**dict(value.named_parameters()), **dict(value.named_buffers())}


def has_values(array: Any) -> bool:
    """Whether an array holds numbers, which PyTorch's on no device, for shapes alone, don't."""
    return str(getattr(array, "device", "")) != "meta"


@functools.cache
def state_types() -> tuple[type, ...]:
    """The backend's own classes of what a training step changes."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tables = tf.lookup.experimental
        return (tf.Variable, tables.MutableHashTable, tables.DenseHashTable)
    if backend == "torch":
        import torch

        return (torch.nn.Parameter, torch.nn.Module)
    return ()


@functools.cache
def unchanging_types() -> tuple[type, ...]:
    """The backend's classes of what can't change, and so can be shared."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return (
            *(tf.Tensor, tf.RaggedTensor, tf.SparseTensor, tf.IndexedSlices, tf.TypeSpec, tf.DType),
            *(tf.TensorShape, tf.Graph, tf.Operation, tf.data.Dataset),
            tf.distribute.Strategy.__base__,
            *(tf.lookup.StaticHashTable, tf.lookup.StaticVocabularyTable),
        )
    if backend == "jax":
        import jax

        return (
            *(jax.Array, jax.core.Tracer),
            *(jax.sharding.Sharding, jax.sharding.Mesh, jax.Device),
        )
    if backend == "torch":
        import torch

        return (torch.dtype, torch.device, torch.Size)
    return ()


@functools.cache
def traced_types() -> tuple[type, ...]:
    """The backend's classes of functions that were recorded with the variables they use."""
    if keras.backend.backend() != "tensorflow":
        return ()
    import tensorflow as tf

    return (tf.types.experimental.ConcreteFunction,)


def copy_rule(cls: type, copy: Callable[[Any], Any]) -> Callable[[Any], Any] | None:
    """How objects of a backend's own class are copied."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if _keras.is_default_strategy(cls):  # a copy joins that of its scope
            return lambda strategy: tf.distribute.get_strategy()
        if issubclass(cls, (tf.Variable, tf.distribute.DistributedValues)):
            return lambda variable: deepcopy(variable, {})
        if issubclass(cls, tf.types.experimental.PolymorphicFunction):
            return lambda function: _copied_function(function, copy)
        if issubclass(cls, tf.lookup.experimental.MutableHashTable):
            return _copied_table
        if issubclass(cls, tf.saved_model.experimental.TrackableResource):
            return lambda resource: resource  # a copy would be another handle of the same
    if issubclass(cls, unchanging_types()):
        return lambda value: value
    if backend == "torch":
        import torch

        if issubclass(cls, torch.Tensor):
            return _copied_torch
        if issubclass(cls, torch.Generator):
            return lambda generator: generator.clone_state()
    return None


def _copied_function(function: Any, copy: Callable[[Any], Any]) -> Any:
    """A `tf.function` of the same options that is traced anew, if it holds something of a model."""
    python = copy(function.python_function)
    return function if python is function.python_function else _keras.traced_anew(function, python)


def _copied_table(table: Any) -> Any:
    keys, values = table.export()
    new = _keras.empty_table(table)
    new.insert(keys, values)
    return new


@contextlib.contextmanager
def build_scope(model: Any) -> Iterator[None]:
    """The scope in which copies are made, so that they come to lie where the originals do."""
    strategy = getattr(model, "distribute_strategy", None)
    distribution = keras.distribution.distribution()
    if strategy is not None:
        # TensorFlow's variables are created for the strategy of their scope.
        with strategy.scope():
            yield
    elif distribution is not None:
        # On JAX Keras lays out new variables by their names, which are not yet the final ones.
        # Each variable gets the layout of its original instead.
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(distribution)
    else:
        yield


def join_scope(model: Any) -> None:
    """Lets a copied model train under the strategy in whose scope it is made, if there is one."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.distribute.has_strategy():
            _keras.set_strategy(model, tf.distribute.get_strategy())


def compiled(
    function: Callable[[Sequence[Any]], Any], variables: Sequence[Any]
) -> Callable[[], Any]:
    """Makes one call of a function of variables: compiled, but on PyTorch, where it takes long."""
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


def update_each(update: Callable[[Any, Any], None], pairs: Sequence[tuple[Any, Any]]) -> None:
    """Calls a function in a training step for pairs of a variable to be changed and another one."""
    if keras.backend.backend() != "tensorflow":
        for variable, other in pairs:
            update(variable, other)
        return
    import tensorflow as tf

    def everywhere(strategy: Any) -> None:
        for variable, other in pairs:
            strategy.extended.update(variable.value, update, args=(other.value,), group=False)

    if tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context():
        tf.distribute.get_replica_context().merge_call(everywhere)
    else:
        everywhere(tf.distribute.get_strategy())
