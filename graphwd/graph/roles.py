"""Roles: which one a weight has by its name, the order of a layer's weights, and their ranks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

ORDER = (
    "depthwise",
    "pointwise",
    "kernel",
    "embeddings",
    "recurrent",
    "gamma",
    "beta",
    "alpha",
    "bias",
)
"""The roles in the order in which every layer of Keras's own creates their weights."""

_FLAT = ("Dense", "Embedding", "ReversibleEmbedding")
_RECURRENT = re.compile(r"(SimpleRNN|LSTM|GRU)(Cell)?")
_CONVOLUTION = re.compile(r"(?:Depthwise|Separable)?Conv(?:LSTM)?([123])D(?:Transpose|Cell)?")
MATRICES = ("kernel", "depthwise", "pointwise", "recurrent", "embeddings")
"""The roles whose weights have two or more dimensions."""


def prefix_for(name: str, prefixes: Iterable[str]) -> str | None:
    """The role among `prefixes` that Keras's names give to a variable, if one is its own."""
    prefixes = set(prefixes)
    if name in prefixes:
        return name
    for prefix in prefixes:
        if name.startswith(f"{prefix}_"):
            return prefix
    if name == "kernel" and "depthwise" in prefixes and "pointwise" not in prefixes:
        return "depthwise"
    return None


def known_ndim(class_name: str, config: Mapping[str, Any], role: str) -> int | None:
    """The number of dimensions that a weight of Keras's own layers has, whatever its inputs."""
    convolution = _CONVOLUTION.fullmatch(class_name)
    recurrent = _RECURRENT.fullmatch(class_name)
    if role in MATRICES:
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
