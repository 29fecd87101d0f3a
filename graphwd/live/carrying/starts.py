"""Starts: values of weights that penalties are measured from, kept by the layer beside its weights.

A regularizer wants a start when it has an attribute `start` and a method `started`. The start is a
variable of the layer's that owns the weight, counted as the state of a seed generator is: JAX's
steps get it as an argument, and neither `weights` nor a weight file has it.
"""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from graphwd.live import _keras, backends, walk

_FILE = "graphwd_starts.npz"
_known: weakref.WeakValueDictionary[str, Kept] = weakref.WeakValueDictionary()


class Start:
    """The start of one weight, as a layer holds it."""

    graphwd_start = True

    def __init__(self, weight: Any) -> None:
        self.state = keras.Variable(
            keras.ops.zeros((), weight.dtype) if not weight.shape else np.zeros(weight.shape),
            dtype=weight.dtype,
            trainable=False,
            name=f"{weight.name}_start",
        )


class Kept:
    """The starts of one layer's weights, by the places of these among `walk.weights(layer)`."""

    def __init__(self, key: str, indices: Iterable[int]) -> None:
        self.key = key  # what a config has, by which a clone finds them; a file has them as assets
        self.indices = list(indices)
        self.variables: dict[int, Any] = {}
        self.complete = False

    def to_config(self) -> dict[str, Any]:
        """What a config has for the starts."""
        return {"key": self.key, "indices": list(self.variables or self.indices)}

    def save(self, folder: str) -> None:
        """Writes the starts as they are, bit for bit."""
        arrays = {
            str(index): np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
            for index, variable in self.variables.items()
        }
        flat = {name: array.reshape(-1).view(np.uint8) for name, array in arrays.items()}
        np.savez(os.path.join(folder, _FILE), **flat)  # type: ignore[arg-type] # names are arrays

    def load(self, folder: str) -> None:
        """Reads what `save` has written."""
        with np.load(os.path.join(folder, _FILE)) as stored:
            for index, variable in self.variables.items():
                like = keras.ops.convert_to_numpy(variable)
                variable.assign(stored[str(index)].view(like.dtype).reshape(like.shape))
        self.complete = True


def wanted(regularizer: Any) -> bool:
    """Whether a regularizer is measured from a start."""
    return hasattr(regularizer, "started")


def bind(layer: Any, kept: Kept) -> None:
    """Gives the weights of a built layer their starts, of which the values may come later."""
    unbind(layer)
    weights = walk.weights(layer)
    source = _known.get(kept.key)
    for index in kept.indices:
        weight = weights[index]
        variable = weight.variable
        if not wanted(variable.regularizer):  # taken off in the file
            continue
        start = Start(variable)
        backends.assign_value(variable, start.state)
        _keras.show_state(weight.owner, start)
        kept.variables[index] = start.state
        variable.regularizer = variable.regularizer.started(start.state, kept)
    if source is None or not source.complete:
        _known[kept.key] = kept
    elif kept.variables.keys() <= source.variables.keys():
        for index, variable in kept.variables.items():
            backends.assign_value(source.variables[index], variable)
        kept.complete = True


def unbind(layer: Any) -> None:
    """Takes the starts of a layer's weights away."""
    for _, _, inner in walk.layers_within(layer):
        _keras.hide_states(inner, Start)


def shown(layer: Any) -> list[Start]:
    """The starts that a layer itself holds."""
    return [each for each in _keras.states(layer) if isinstance(each, Start)]


def show(layer: Any, starts: Iterable[Start]) -> None:
    """Lets a layer hold these starts, in the place of those that it holds."""
    _keras.hide_states(layer, Start)
    for start in starts:
        _keras.show_state(layer, start)


def found(layer: Any) -> dict[int, Any]:
    """The starts of a layer's weights, by the places of the weights among `walk.weights`."""
    starts = {}
    for index, weight in enumerate(walk.weights(layer)):
        start = start_of(weight.variable)
        if start is not None:
            starts[index] = start
    return starts


def start_of(variable: Any) -> Any:
    """The start of a weight, or `None`."""
    regularizer = variable.regularizer
    while hasattr(regularizer, "unscaled"):  # while a schedule is on
        regularizer = regularizer.unscaled
    return getattr(regularizer, "start", None)


def indices_with_start(layer: Any) -> list[int]:
    """The places of those of a layer's weights whose penalties want a start."""
    return [
        n for n, weight in enumerate(walk.weights(layer)) if wanted(weight.variable.regularizer)
    ]


def new(indices: Iterable[int]) -> Kept:
    """Starts for weights at given places, without values yet."""
    return Kept(secrets.token_hex(8), indices)
