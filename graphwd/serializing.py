"""A live model as Keras serializes it, layer by layer and without what graphwd carries in it."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from graphwd import _keras, carrier, walk
from graphwd._keras import making
from graphwd.errors import ModelError
from graphwd.slots import strip_carried


def serialize(
    layer: Any, *, as_far_as_possible: bool = False, calls: bool = True
) -> dict[str, Any]:
    """A layer or model as Keras serializes it, but for compile state and what graphwd carries.

    Compile state may hold what can't be serialized, and a rewrite does not need it.

    Args:
        layer: A live layer or model.
        as_far_as_possible: Whether a layer that can't tell its config stands there with its
            class and its name alone.
        calls: Whether a graph tells the calls of its layers, too.

    Returns:
        The serialized layer.

    Raises:
        ModelError: when a layer can't tell its config; the message names it.
    """
    with making.quickened(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of every lambda, which is not at issue here
        serialized = _serialized(layer, as_far_as_possible, calls)
    serialized.pop("compile_config", None)
    return serialized


def _serialized(layer: Any, as_far_as_possible: bool, calls: bool) -> dict[str, Any]:
    if not isinstance(layer, keras.Layer):  # an operation of keras.ops
        return dict(keras.saving.serialize_keras_object(layer))
    cls = carrier.base_class(type(layer))
    serialized = _keras.identity(cls)
    try:
        if _keras.is_graph(layer):
            serialized["config"] = _keras.graph_config(
                layer, lambda member: _serialized(member, as_far_as_possible, calls), calls=calls
            )
        else:
            serialized["config"] = making.serialized(carrier.plain_config(layer))
        for key in ("build_config", "compile_config"):
            config = getattr(layer, f"get_{key}", lambda: None)()
            if config is not None:
                serialized[key] = making.serialized(config)
    except ModelError:
        raise
    except Exception as error:  # a get_config may raise anything
        if as_far_as_possible:
            return {**_keras.identity(cls), "config": {"name": layer.name}}
        reason = str(error).strip().split("\n\n")[0].replace("\n", " ")
        raise ModelError(
            f"Layer {layer.name!r} ({cls.__name__}), or a layer inside it, can't tell its "
            f"config ({reason}); give it a get_config that returns all arguments of __init__, "
            "or use in_place=True."
        ) from error
    if not _keras.is_graph(layer) and _holds_carrier(layer):
        return strip_carried(serialized)
    return serialized


def _holds_carrier(layer: Any) -> bool:
    return bool(_keras.sublayers(layer)) and any(
        carrier.is_carrier(inner) for _, _, inner in walk.layers_within(layer)
    )
