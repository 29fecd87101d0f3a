"""L2SP: the penalty on how far a weight has gone from where it started."""

from __future__ import annotations

from typing import Any

import keras

from graphwd.errors import GraphwdError

_Regularizer: Any = keras.regularizers.Regularizer


@keras.saving.register_keras_serializable(package="graphwd")
class L2SP(_Regularizer):  # type: ignore[misc] # Keras has no types
    """Penalises the distance of a weight from its start: `strength * sum((w - start) ** 2)`.

    For a pretrained model, plain L2 pulls the weights towards zero, away from what was learned.
    L2-SP (Li, Grandvalet, Davoine 2018, https://arxiv.org/abs/1802.01483) pulls them back to where
    fine-tuning began. The unit is that of `keras.regularizers.L2`: the paper's alpha is
    `2 * strength`, and `graphwd.weight_decay`'s factor of two applies.

    The start is the value that a weight has when `graphwd.rewrite` gives it this penalty. It stays
    with the layer: through a `.keras` file, which has it once more beside the weights, through
    nesting and transfer learning, `clone_model`, and further rewrites that leave the penalty as it
    is. It is none of `model.weights`, so weight files are what they would be without it. To start
    anew, take the penalty off with `graphwd.Rule(None)` first. A file needs `import graphwd`.
    In `graphwd.decouple` it is the same without a penalty: decay towards the start.

    Args:
        strength: Float of at least 0, in the unit of `keras.regularizers.L2`.

    Raises:
        GraphwdError: when the penalty is computed on a weight that has no recorded start: of a
            layer that was made with it rather than rewritten, or of an `.h5` file, which has no
            place for a start.

    Example:

    ```python
    policy = graphwd.Policy([
        graphwd.Rule(graphwd.L2SP(1e-2), paths="backbone/*", roles="kernel"),
        graphwd.Rule(keras.regularizers.L2(1e-2), paths="head/*", roles="kernel"),
    ])
    ```
    """

    def __init__(self, strength: float = 0.01) -> None:
        if isinstance(strength, bool) or not isinstance(strength, (int, float)) or strength < 0:
            raise GraphwdError(f"L2SP needs a strength of at least 0, not {strength!r}.")
        self.strength = float(strength)
        self.start: Any = None
        self._kept: Any = None

    def __call__(self, x: Any) -> Any:
        """The penalty on a weight's value."""
        if self.start is None or not self._kept.complete:
            raise GraphwdError(
                "An L2SP penalty is on a weight that has no recorded start; let graphwd.rewrite "
                "give it to a model that has its pretrained weights, and save that as .keras."
            )
        start = keras.ops.cast(self.start.value, x.dtype)
        return self.strength * keras.ops.sum(keras.ops.square(x - start))

    def started(self, start: Any, kept: Any) -> L2SP:
        """The same penalty on one weight, whose start is known.

        Args:
            start: A `keras.Variable`.
            kept: What knows whether the start has its value yet.

        Returns:
            Another `L2SP`.
        """
        made = type(self)(self.strength)
        made.start, made._kept = start, kept
        return made

    def get_config(self) -> dict[str, float]:
        """The strength; starts are kept by the layers."""
        return {"strength": self.strength}
