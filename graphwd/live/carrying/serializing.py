"""A live model as Keras serializes it, layer by layer and without what graphwd carries in it."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import keras

from graphwd.graph.slots import strip_carried
from graphwd.live import _keras, walk
from graphwd.live.carrying import carrier

_PLAIN = frozenset((str, int, float, bool, type(None)))


def serialize_layer(layer: Any, *, calls: bool = True) -> dict[str, Any]:
    """A layer as Keras serializes it, but for how it is compiled and what graphwd carries."""
    # Compile state may hold what can't be serialized, and a rewrite does not need it.
    with warnings.catch_warnings(), carrier.untold():
        warnings.simplefilter("ignore")  # Keras warns of every lambda, which is not at issue here
        return _serialized(layer, calls)


def _serialized(layer: Any, calls: bool) -> dict[str, Any]:
    if not isinstance(layer, keras.Layer):  # an operation of keras.ops
        return dict(keras.saving.serialize_keras_object(layer))
    cls = carrier.base_class(type(layer))
    serialized = _keras.identity(cls)
    try:
        if _keras.is_graph(layer):
            serialized["config"] = _graph_config(layer, calls)
        else:
            serialized["config"] = _as_data(carrier.plain_config(layer))
        build_config = layer.get_build_config()
        if build_config is not None:
            serialized["build_config"] = _as_data(build_config)
    except Exception:  # noqa: BLE001 # a get_config may raise anything, and is not needed
        # A layer that can't tell its config is compared as an object.
        return {**_keras.identity(cls), "config": {"name": layer.name}}
    if not _keras.is_graph(layer) and _holds_carrier(layer):
        return strip_carried(serialized)
    return serialized


def _as_data(value: Any) -> Any:
    """A value as Keras serializes it, which is asked only for what is not plain: it takes long."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {key: _as_data(item) for key, item in value.items()}
    if kind is list:
        return value if _PLAIN.issuperset(map(type, value)) else [_as_data(item) for item in value]
    return keras.saving.serialize_keras_object(value)


def _graph_config(model: Any, calls: bool) -> dict[str, Any]:
    def members(member: Any) -> dict[str, Any]:
        serialized = _serialized(member, calls)
        # An optimizer that can't tell its config does not matter.
        with contextlib.suppress(Exception):
            if (
                isinstance(member, keras.Model)
                and (config := member.get_compile_config()) is not None
            ):
                serialized["compile_config"] = _as_data(config)
        return serialized

    try:
        return _keras.graph_config(model, members, calls=calls)
    except Exception:  # noqa: BLE001 # a call may have arguments that can't be serialized
        # The graph is compared as an object.
        return _keras.graph_config(model, members, calls=False)


def _holds_carrier(layer: Any) -> bool:
    return bool(_keras.sublayers(layer)) and any(
        carrier.is_carrier(inner) for _, _, inner in walk.layers_within(layer)
    )
