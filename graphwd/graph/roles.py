"""Roles: which one a weight has by its name, and in which order a layer creates its weights."""

from __future__ import annotations

from collections.abc import Iterable

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


def prefix_for(name: str, prefixes: Iterable[str]) -> str | None:
    """The role among `prefixes` that Keras's names give to a variable of this name.

    Args:
        name: A variable's name: `kernel`, `recurrent_kernel`, ...
        prefixes: Roles.

    Returns:
        A role, or `None` when none of them is the variable's.
    """
    prefixes = set(prefixes)
    if name in prefixes:
        return name
    for prefix in prefixes:
        if name.startswith(f"{prefix}_"):
            return prefix
    if name == "kernel" and "depthwise" in prefixes and "pointwise" not in prefixes:
        return "depthwise"
    return None
