"""Stored weights: the value of the penalty on each slot of a saved model, without Keras."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphwd.errors import ArchiveError
from graphwd.plans.plan import Edit, Value
from graphwd.policy import regularizers
from graphwd.saved.folders import open_saved

if TYPE_CHECKING:  # at run time h5py and what needs it are imported for HDF5 only
    from graphwd.saved.weights import Array

_UNTOLD = "the file doesn't tell which of its arrays it is on; --live loads the model"
_NO_FORMULA = "only Keras can compute {}; --live loads the model"


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a saved model, to compute the values of penalties on them when asked for.

    Attributes:
        path: The file's path.
    """

    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.path.abspath(self.path))

    def __call__(self, edits: Sequence[Edit]) -> list[Value]:
        """Reads the arrays that have a penalty, in pieces of bounded size, and adds them up."""
        values: list[Value] = [None] * len(edits)
        with open_saved(self.path) as archive:
            slots = archive.slots()
            if [slot.path for slot in slots] != [edit.path for edit in edits]:
                raise ArchiveError(f"{self.path!r} holds another model than before.")
            with archive.reach(slots) as reach:
                for place, edit in enumerate(edits):
                    if edit.penalised:
                        both = (edit.before, edit.after)
                        factors = [_factors(regularizer) for regularizer in both]
                        arrays = reach.arrays[place]
                        reason = _unknown(both, factors, arrays)
                        values[place] = reason or _values(factors, arrays)
        return values


def _factors(serialized: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """The factors of the sum of the values' sizes and of their squares."""
    if serialized is None:
        return 0.0, 0.0
    kind, *factors = regularizers.normalize(serialized)
    if kind != "l1l2" or not all(isinstance(factor, (int, float)) for factor in factors):
        return None
    return float(factors[0]), float(factors[1])


def _unknown(both: Any, factors: Any, arrays: tuple[Array, ...]) -> str:
    if not arrays:
        return _UNTOLD
    for serialized, known in zip(both, factors, strict=True):
        if known is None:
            return _NO_FORMULA.format(regularizers.describe(serialized))
    for array in arrays:
        if array.unreadable():
            return array.unreadable()
        if array.dtype != "bfloat16" and array.stored.kind != "f":
            return f"it is on numbers of type {array.dtype}"
    return ""


def _values(factors: list[Any], arrays: tuple[Array, ...]) -> tuple[float, float]:
    import numpy as np

    size, square = [], []
    for array in arrays:
        for piece in array.content():
            if array.dtype == "bfloat16":  # the upper half of a float32
                halves = np.frombuffer(piece, "<u2").astype("<u4") << 16
                numbers = halves.view("<f4").astype("float64")
            else:
                numbers = np.frombuffer(piece, array.stored).astype("float64")
            square.append(float(numbers @ numbers))
            if any(l1 for l1, _ in factors):
                size.append(float(np.abs(numbers).sum()))
    sums = math.fsum(size), math.fsum(square)
    now, planned = (l1 * sums[0] + l2 * sums[1] for l1, l2 in factors)
    return now, planned
