"""Several optimizers as one: each decays its weights by its own coefficient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

KNOWN = hasattr(keras.optimizers, "MultiOptimizer")
"""Whether this Keras can have several optimizers in one: Keras 3.15 can."""

_Several: Any = getattr(keras.optimizers, "MultiOptimizer", object)


class _OneRate:
    """Lets callbacks that read and set `learning_rate` do so, since it is one for all."""

    optimizers: list[Any]

    @property
    def learning_rate(self) -> Any:
        """The learning rate, which all optimizers have alike."""
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        for optimizer in self.optimizers:
            optimizer.learning_rate = value


# Files call it by the name of Keras's class, which loads them, without graphwd, too.
_Plain: Any = type("MultiOptimizer", (_OneRate, _Several), {"__module__": "keras.optimizers"})


@keras.saving.register_keras_serializable(package="graphwd")
class GlobalClipping(_OneRate, _Several):  # type: ignore[misc] # Keras has no types
    """Several optimizers as one, which clips all gradients together before it hands them out.

    Args:
        optimizer_map: A `keras.optimizers.OptimizerMap`.
        global_clipnorm: Float, the norm that all gradients together are scaled down to.
        loss_scale_factor: As for `keras.optimizers.MultiOptimizer`.
        name: The optimizer's name.
    """

    def __init__(
        self,
        optimizer_map: Any,
        global_clipnorm: float,
        loss_scale_factor: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(optimizer_map, loss_scale_factor=loss_scale_factor, name=name)
        self.global_clipnorm = global_clipnorm

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Clips the gradients, and applies each with its variable's optimizer."""
        ops = keras.ops
        squares = [ops.sum(ops.square(g)) for g in grads if g is not None]
        limit = float(self.global_clipnorm) * (self.loss_scale_factor or 1.0)
        norm = ops.sqrt(ops.sum(ops.stack(squares)))
        scale = limit * ops.minimum(1.0 / norm, 1.0 / limit)
        scale = scale + (norm - norm)  # not a number where a gradient is none: as Keras has it
        clipped = [None if g is None else ops.multiply(g, ops.cast(scale, g.dtype)) for g in grads]
        super().apply(clipped, trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, serialized."""
        return {**super().get_config(), "global_clipnorm": self.global_clipnorm}


def several(
    optimizers: Mapping[str, Any],
    default: Any,
    *,
    loss_scale_factor: float | None,
    global_clipnorm: float | None,
) -> Any:
    """Several optimizers as one.

    Args:
        optimizers: Maps patterns of variables' paths to optimizers.
        default: The optimizer of variables that no pattern matches.
        loss_scale_factor: By which losses are multiplied before gradients are computed.
        global_clipnorm: The norm that all gradients together are scaled down to.

    Returns:
        A `keras.optimizers.MultiOptimizer`.
    """
    mapped = keras.optimizers.OptimizerMap(default, dict(optimizers))
    if global_clipnorm:
        return GlobalClipping(mapped, global_clipnorm, loss_scale_factor=loss_scale_factor)
    return _Plain(mapped, loss_scale_factor=loss_scale_factor)


def leaves(optimizer: Any) -> list[Any]:
    """The optimizers that update weights: those inside loss scaling, and each of several."""
    if optimizer is None:
        return []
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return leaves(optimizer.inner_optimizer)
    if KNOWN and isinstance(optimizer, _Several):
        return list(optimizer.optimizers)
    return [optimizer]
