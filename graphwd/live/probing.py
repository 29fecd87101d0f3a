"""Asks a layer which of its arguments sets which weight's regularizer: by making one like it.

The arguments of Keras's own layers are known by their names. What a composite layer does with its
`kernel_regularizer` only its code knows, so one like it is made from its config, without values
for its variables, with another factor in each argument; the variables tell which one they got.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from graphwd.graph.slots import Pointer, set_regularizers
from graphwd.live import _keras, walk
from graphwd.live.carrying import carrier
from graphwd.policy import regularizers


def governed(
    layer: Any, serialized: Mapping[str, Any], candidates: list[Pointer]
) -> dict[int, Pointer] | None:
    """Maps places of weights to the slots that set them; `None` if no layer like it can be made."""
    numbered = dict(enumerate(candidates, start=1))
    marks = {pointer: regularizers.l2(float(number)) for number, pointer in numbered.items()}
    try:
        twin = _twin(layer, set_regularizers(serialized, marks))
        pairs = walk.pair_variables(walk.pair_layers(layer, twin))
    except Exception:  # noqa: BLE001 # third-party constructors raise anything
        return None
    mark_of = {id(ours): getattr(theirs.regularizer, "l2", 0) for ours, theirs in pairs}
    found = {}
    for index, weight in enumerate(walk.weights(layer)):
        number = int(mark_of[id(weight.variable)])
        if number in numbered:
            found[index] = numbered[number]
    return found


def _twin(layer: Any, serialized: Mapping[str, Any]) -> Any:
    """A layer of the same class made from a config, whose variables have no values."""
    objects: dict[str, Any] = {}
    for _, _, inner in walk.layers_within(layer):
        _name(objects, carrier.base_class(type(inner)))
        for value in vars(inner).values():
            if isinstance(value, types.FunctionType):
                _name(objects, value)
            elif hasattr(value, "get_config"):
                _name(objects, type(value))
    cls = carrier.base_class(type(layer))
    with (
        _keras.unchanged_globals(),
        keras.StatelessScope(initialize_variables=False),
        keras.saving.custom_object_scope(objects),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        if type(layer.dtype_policy) is keras.DTypePolicy:  # what its sublayers took, too
            keras.config.set_dtype_policy(layer.dtype_policy)
        twin = cls.from_config(dict(serialized["config"]))
        if layer.built and not twin.built and serialized.get("build_config"):
            twin.build_from_config(serialized["build_config"])
    return twin


def _name(objects: dict[str, Any], value: Any) -> None:
    if not str(value.__module__).startswith("keras."):  # one that `exec` made has no module
        objects[keras.saving.get_registered_name(value)] = value
        objects.setdefault(value.__name__, value)
