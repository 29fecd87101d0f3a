"""Ranks: the number of dimensions that the weights of Keras's own layers have in any model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_FLAT = ("Dense", "Embedding", "ReversibleEmbedding")
_RECURRENT = re.compile(r"(SimpleRNN|LSTM|GRU)(Cell)?")
_CONVOLUTION = re.compile(r"(?:Depthwise|Separable)?Conv(?:LSTM)?([123])D(?:Transpose|Cell)?")
_MATRICES = ("kernel", "depthwise", "pointwise", "recurrent", "embeddings")


def known_ndim(class_name: str, config: Mapping[str, Any], role: str) -> int | None:
    """The number of dimensions of a weight, whatever the shape of the layer's inputs.

    Args:
        class_name: The name of a class of Keras's own.
        config: The layer's config.
        role: The weight's role.

    Returns:
        An integer, or `None` when the inputs decide on it, or it is not known.
    """
    convolution = _CONVOLUTION.fullmatch(class_name)
    recurrent = _RECURRENT.fullmatch(class_name)
    if role in _MATRICES:
        if convolution:
            return int(convolution[1]) + 2
        if class_name == "EinsumDense":
            return _einsum_ndim(config.get("equation"))
        return 2 if recurrent or class_name in _FLAT else None
    if role == "bias" and (convolution or recurrent or class_name == "Dense"):
        two = class_name.startswith("GRU") and config.get("reset_after", True)
        return 2 if two else 1
    if role in ("gamma", "beta") and class_name in ("BatchNormalization", "GroupNormalization"):
        return 1
    return None


def _einsum_ndim(equation: Any) -> int | None:
    """The dimensions of the second operand of an equation such as `"abc,cd->abd"`."""
    found = re.fullmatch(r"[^,]*,\s*([A-Za-z]+)\s*->.*", equation) if equation else None
    return len(found[1]) if found else None
