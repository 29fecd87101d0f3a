"""What the optimizer of a live model decays, weight by weight."""

from __future__ import annotations

from typing import Any

import keras

from graphwd.live import _keras
from graphwd.live.survey import Survey
from graphwd.plans.decays import TOWARDS_START, Decay, Decays, Optimizer
from graphwd.training.optimizers import decay_start_of, leaves


def decays(found: Survey) -> Decays | None:
    """What the optimizer of a live model decays, weight by weight; `None` without an optimizer."""
    model = found.model
    optimizer = getattr(model, "optimizer", None)
    optimizers = leaves(optimizer)
    if not optimizers:
        return None
    described = {id(each): _described(each, _pattern(optimizer, each)) for each in optimizers}
    trained = {id(variable) for variable in model.trainable_variables}
    weights = []
    for unit in found.units:
        for index, place in unit.governs.items():
            variable, slot = unit.weights[index].variable, found.slots[place]
            frozen = id(variable) not in trained
            leaf = _keras.optimizer_of(optimizer, optimizers, variable)
            decay, reason = 0.0, "frozen" if frozen else "the optimizer decays nothing"
            start = None if leaf is None else decay_start_of(leaf, variable)
            if not frozen and leaf is not None:
                decay = _keras.decay_of(leaf, variable)
                reason = _reason(leaf, variable, decay, several=len(optimizers) > 1)
                reason = reason if start is None else TOWARDS_START
            weights.append(
                Decay(
                    slot.path,
                    slot.role,
                    variable.path,
                    slot.regularizer if variable.regularizer is not None else None,
                    frozen,
                    decay,
                    reason,
                    None if start is None else _distance(variable, start),
                )
            )
    return Decays(tuple(described.values()), tuple(weights))


def _described(leaf: Any, pattern: str) -> Optimizer:
    listed, named = _keras.excluded_from_decay(leaf)
    vector = vars(leaf).get("adam_weight_decay")
    return Optimizer(
        type(leaf).__name__,
        float(vars(leaf).get("weight_decay") or 0.0),
        None if vector is None else float(vector),
        pattern,
        named,
        bool(listed or named),
    )


def _distance(variable: Any, start: Any) -> float:
    ops = keras.ops
    apart = ops.norm(ops.cast(variable, "float32") - ops.cast(start, "float32"))
    return float(ops.convert_to_numpy(apart))


def _pattern(optimizer: Any, leaf: Any) -> str:
    mapped = _keras.optimizer_map(optimizer)
    return next((key for key, each in (mapped or {}).items() if each is leaf), "")


def _reason(leaf: Any, variable: Any, decay: float, *, several: bool) -> str:
    if decay:
        return "its optimizer's" if several else ""
    listed, named = _keras.excluded_from_decay(leaf)
    if not vars(leaf).get("weight_decay"):
        return "the other weights' optimizer" if several else "no weight_decay"
    if named and _keras.is_listed(leaf, variable) is False:
        return f"excluded by the pattern {named!r}"
    return "excluded as a variable" if listed else ""
