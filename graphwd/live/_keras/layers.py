"""What only private attributes tell of layers and variables, and how Keras's globals are kept."""

from __future__ import annotations

import contextlib
import copy
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.saving.serialization_lib import serialize_with_public_class
from keras.src.utils import tracking
from keras.src.utils.tracking import Tracker as Tracker

from graphwd.live._keras.graphs import CALLS, is_functional

VALUE = "_value"
"""Where a variable keeps the backend's."""

_COMPILED = (
    *("train_function", "test_function", "predict_function"),
    *("_eval_epoch_iterator", "_jax_state"),
)

TRACKED = tuple(  # of Keras 3.13 there are fewer
    getattr(tracking, f"Tracked{kind}")
    for kind in ("List", "Dict", "OrderedDict", "Set")
    if hasattr(tracking, f"Tracked{kind}")
)
"""The containers that tell a layer what is put into them."""


def stores(tracker: Any) -> list[Any]:
    """The lists in which a layer's tracker keeps what the layer tracks."""
    return [store for _, store in tracker.config.values()]


LOSSES = ("_losses", "_loss_ids")
"""Where a layer keeps the losses of its last call."""

SAVING = ("keras.src.saving.", "keras.src.legacy.saving.")
"""Where Keras asks for the config of what it saves."""

HDF5 = "keras.src.legacy.saving.saving_utils"
"""Where it asks for that of a model which it saves as HDF5."""

LAYERS = "keras.src.layers."
"""Where Keras's own layers are; elsewhere a layer is taken for a third party's and probed."""


def identity(cls: type) -> dict[str, Any]:
    """What Keras writes about a class beside the config: module, class name, registered name."""
    serialized = serialize_with_public_class(cls, {})
    named = {key: serialized[key] for key in ("module", "class_name", "registered_name")}
    if named["module"] == "__main__":  # a notebook's class, which Keras finds by its name alone
        named["module"] = None
    return named


def sublayers(layer: Any) -> list[Any]:
    """The layers that a layer tracks, in tracking order; a weak proxy of one is that one."""
    return [
        each.__repr__.__self__ if type(each) in weakref.ProxyTypes else each
        for each in layer._layers
    ]


def own_variables(layer: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """A layer's own variables without its sublayers': weights, statistics and other state."""
    state = [
        generator.state
        for generator in layer._seed_generators
        if not hasattr(generator, "graphwd_start")
    ]
    for metric in layer._metrics:
        state.extend(metric.variables)
    # Weights are what was created trainable, also while frozen.
    return list(layer._trainable_variables), list(layer._non_trainable_variables), state


def was_called(layer: Any) -> bool:
    """Whether a layer was called, as far as it tells, or is made of calls."""
    return is_functional(layer) or bool(vars(layer).get("_called", True))


def shape_of(variable: Any) -> tuple[int, ...]:
    """A variable's shape; TensorFlow's variables would make an object of their own for it."""
    shape = getattr(variable, "_shape", None)
    return shape if type(shape) is tuple else tuple(int(size) for size in variable.shape)


def dtype_of(variable: Any) -> str:
    """A variable's dtype; Keras's property looks for a scope that casts, which none has here."""
    dtype = getattr(variable, "_dtype", None)
    return dtype if type(dtype) is str else str(variable.dtype)


def value_of(variable: Any) -> Any:
    """The backend's variable or array behind a variable, whatever scope is active; or `None`."""
    return variable._value


def set_value(variable: Any, value: Any) -> None:
    """Puts the backend's variable or array behind a variable, as it is."""
    variable._value = value


def initialize(variable: Any, tensor: Any, trainable: bool) -> None:
    """Makes TensorFlow's variable behind one, with its options and a first value."""
    now, variable._trainable = variable._trainable, trainable  # which layers change afterwards
    variable._initialize(tensor)
    variable._trainable = now


def give_hooks(source: Any, target: Any, copy: Callable[[Any], Any]) -> None:
    """Registers copies of the hooks on a tensor of PyTorch's, such as one that masks gradients."""
    for hooks, register in (
        ("_backward_hooks", "register_hook"),
        ("_post_accumulate_grad_hooks", "register_post_accumulate_grad_hook"),
    ):
        for hook in (getattr(source, hooks, None) or {}).values():
            getattr(target, register)(copy(hook))


def traced_anew(function: Any, python_function: Any) -> Any:
    """A `tf.function` with the options of another."""
    return function._clone(python_function)


def empty_table(table: Any) -> Any:
    """A table of TensorFlow's of the same types and default."""
    return type(table)(table.key_dtype, table.value_dtype, table._default_value)


def is_default_strategy(cls: type) -> bool:
    """Whether a strategy's class is that of TensorFlow outside of all scopes."""
    return cls.__name__ == "_DefaultDistributionStrategy"


def changed_inside(wrapper: Any) -> None:
    """Lets TensorFlow's wrapper of a dict take what the dict now has for its own."""
    wrapper._update_snapshot()


def set_strategy(model: Any, strategy: Any) -> None:
    """Puts TensorFlow's strategy of a model in the place of another."""
    model._distribute_strategy = strategy


def keep_layout(source: Any, variable: Any) -> None:
    """Lays a variable out over the devices as another is, whatever the name says by which."""
    if hasattr(variable, "_layout"):
        variable._layout = source._layout


def lasting(original: Any) -> dict[str, Any]:
    """An operation's attributes without calls and compiled steps, which are made again."""
    attributes = dict(vars(original))
    for name in CALLS:
        if name in attributes:
            attributes[name] = []
    compiled = [name for name in _COMPILED if attributes.get(name) is not None]
    attributes.update(dict.fromkeys(compiled))
    compiled += CALLS
    references = attributes.get("_self_unconditional_checkpoint_dependencies")
    if references:  # TensorFlow's own list of the attributes of a model
        attributes["_self_unconditional_checkpoint_dependencies"] = [
            reference for reference in references if reference.name not in compiled
        ]
        names = attributes["_self_unconditional_dependency_names"]
        attributes["_self_unconditional_dependency_names"] = {
            name: value for name, value in names.items() if name not in compiled
        }
    return attributes


def modes(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """How two layers compute, which is in no config; what Keras is yet to decide is left out."""
    found = {}
    for name in ("run_eagerly", "jit_compile", "remat_mode"):
        pair = (vars(one).get(f"_{name}"), vars(other).get(f"_{name}"))
        if name != "jit_compile" or None not in pair:
            found[name] = pair
    return found


@contextlib.contextmanager
def unchanged_globals() -> Iterator[None]:
    """A scope that leaves names' counters, seeds and Keras's dtype policy as they were."""
    names = ("object_name_uids", "uninitialized_variables")
    before = {name: copy.copy(global_state.get_global_attribute(name)) for name in names}
    policy = keras.config.dtype_policy()
    generator = global_state.get_global_attribute("global_seed_generator")
    drawn = None if generator is None else keras.ops.copy(generator.state)
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        for name in names:
            global_state.set_global_attribute(name, before[name])
        if keras.config.dtype_policy() is not policy:
            keras.config.set_dtype_policy(policy)
        global_state.set_global_attribute("global_seed_generator", generator)
        if generator is not None:
            generator.state.assign(drawn)
        random.setstate(python)
        np.random.set_state(numpy)


def states(layer: Any) -> list[Any]:
    """What holds a layer's own state beside weights: its seed generators, and what is shown."""
    return list(layer._seed_generators)


def show_state(layer: Any, holder: Any) -> None:
    """Counts a variable among a layer's own without making it a weight, as a seed's state is."""
    layer._seed_generators.append(holder)


def hide_states(layer: Any, cls: type) -> None:
    """Undoes `show_state` for all holders of a class."""
    generators = layer._seed_generators
    generators[:] = [each for each in generators if not isinstance(each, cls)]
