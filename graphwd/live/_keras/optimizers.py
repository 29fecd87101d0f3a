"""What only an optimizer's private attributes tell: which weights it decays, and by what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class OwnDecay:
    """Mixed into an optimizer's class, whose own `decay_weights` decays where Keras would."""

    decay_weights: Any

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        # Keras calls it before the update, and only in steps that update.
        self.decay_weights(variables)


def key_of(variable: Any) -> Any:
    """What an optimizer knows a variable by, which on TensorFlow is not its id."""
    return getattr(variable._value, "_unique_id", id(variable))


def is_decayed(optimizer: Any, variable: Any) -> bool:
    """Whether an optimizer with a weight decay applies it to a variable; leaves no trace in it."""
    remembered = getattr(optimizer, "_exclude_from_weight_decay_cache", None)
    optimizer._exclude_from_weight_decay_cache = {}
    try:
        return bool(optimizer._use_weight_decay(variable))
    finally:
        if remembered is None:
            del optimizer._exclude_from_weight_decay_cache
        else:
            optimizer._exclude_from_weight_decay_cache = remembered


def learning_rate_of(optimizer: Any) -> Any:
    """The learning rate as it was given: a variable, a schedule or a callable."""
    return getattr(optimizer, "_learning_rate", None)


def optimized_variables(optimizer: Any) -> list[Any]:
    """The variables that an optimizer was built for, in its order."""
    return list(getattr(optimizer, "_trainable_variables", ()))


def index_of(optimizer: Any, variable: Any) -> int:
    """The place of a variable among those that an optimizer was built for."""
    return int(optimizer._get_variable_index(variable))


def track_variable(optimizer: Any, variable: Any) -> None:
    """Lets a variable be part of an optimizer's state."""
    optimizer._track_variable(variable)


def iterations_of(optimizer: Any) -> Any:
    """The variable that counts an optimizer's steps, those of accumulation included."""
    return optimizer._iterations


def decay_of(optimizer: Any, variable: Any) -> float:
    """The coefficient by which an optimizer decays a variable; 0 for one that it leaves out."""
    decay = vars(optimizer).get("weight_decay")
    if hasattr(optimizer, "adam_weight_decay") and optimizer._should_use_adamw(variable):
        decay = vars(optimizer)["adam_weight_decay"]
    return float(decay) if decay and optimizer._use_weight_decay(variable) else 0.0


def excluded_from_decay(optimizer: Any) -> tuple[set[Any], str]:
    """What an optimizer was told to leave out: keys of variables, and a pattern of names."""
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    listed = getattr(optimizer, "_exclude_from_weight_decay", None)
    return set(listed or ()), "" if pattern is None else str(pattern.pattern)


def is_listed(optimizer: Any, variable: Any) -> bool:
    """Whether a variable itself is among what an optimizer was told to leave out."""
    return optimizer._var_key(variable) in excluded_from_decay(optimizer)[0]


def optimizer_map(optimizer: Any) -> dict[str, Any] | None:
    """The optimizers by the patterns for which a `MultiOptimizer` has them; `None` elsewhere."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    mapped: Any = getattr(optimizer, "_optimizer_map", None)
    return dict(mapped) if hasattr(mapped, "items") else None


def optimizer_of(optimizer: Any, inside: Sequence[Any], variable: Any) -> Any:
    """Which optimizer updates a variable; `None` where that can't be told before it is built."""
    for each in inside:
        if each.built and any(variable is own for own in optimized_variables(each)):
            return each
    if len(inside) == 1:
        return None if inside[0].built and optimized_variables(inside[0]) else inside[0]
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    mapped: Any = getattr(optimizer, "_optimizer_map", None)
    return mapped[variable.path] if hasattr(mapped, "items") else None
