"""State of a live layer that is neither config nor variable: assets, tables, plain attributes."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import keras

from graphwd import carrier
from graphwd.errors import ModelError

_TRACED = ("train_function", "test_function", "predict_function")


def carry(layer: Any, copy: Any) -> bool:
    """Gives a copy the state of a layer as Keras would by way of a file.

    Keras's own layers with LoRA or quantization override `load_own_variables` to merge their
    variables for a file; theirs are copied one by one and left out here.

    Args:
        layer: The original layer.
        copy: Its copy, with the same variables.

    Returns:
        Whether anything was carried, in which course the copy may have changed its variables.

    Raises:
        ModelError: when the layer's assets can't be carried in any way.
    """
    carried = _carry_assets(layer, copy)
    own = carrier.base_class(type(layer)).load_own_variables is not keras.Layer.load_own_variables
    if own and layer.built and not hasattr(layer, "enable_lora"):
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        if store:
            copy.load_own_variables(store)
            carried = True
    return carried


def _carry_assets(layer: Any, copy: Any) -> bool:
    if not hasattr(layer, "save_assets") or not hasattr(layer, "load_assets"):
        return False
    before = dict(vars(copy))
    with tempfile.TemporaryDirectory(prefix="graphwd-") as folder:
        try:
            layer.save_assets(folder)
            if not os.listdir(folder):
                return False
            copy.load_assets(folder)
        except Exception as error:  # third-party readers raise anything
            vars(copy).update(before)
            adopt(layer, copy)
            lacking = _lacking(layer, copy)
            if lacking:
                raise ModelError(
                    f"Layer {layer.name!r} ({type(layer).__name__}) can't save its assets and "
                    f"load them again ({type(error).__name__}: {error}), so its copy has no "
                    f"{lacking[0]}; mend its save_assets and load_assets, or use in_place=True."
                ) from error
    return True


def _lacking(layer: Any, copy: Any) -> list[str]:
    return [
        name
        for name, value in vars(layer).items()
        if value is not None and vars(copy).get(name) is None and name not in _TRACED
    ]


def adopt(layer: Any, copy: Any) -> None:
    """Gives a copy the plain attributes of a layer that it lacks, as they are.

    Args:
        layer: The original layer.
        copy: Its copy.
    """
    for name in _lacking(layer, copy):
        value = vars(layer)[name]
        if not any(isinstance(part, (keras.Layer, keras.Variable)) for part in _parts(value)):
            setattr(copy, name, value)


def _parts(value: Any) -> list[Any]:
    return list(keras.tree.flatten(value)) if isinstance(value, (dict, list, tuple)) else [value]
