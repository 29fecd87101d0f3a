"""PenaltyLogger: a Keras callback that logs how much of the loss is penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from graphwd.errors import PolicyError
from graphwd.live import backends
from graphwd.live.checks import unused_penalties
from graphwd.live.penalties import planned_by_weight
from graphwd.policy.policies import Policy
from graphwd.training.scaled import Scaled

_PRECISE = ("float32", "float64")

_Callback: Any = keras.callbacks.Callback


class PenaltyLogger(_Callback):  # type: ignore[misc] # Keras has no types
    """Logs the penalty on the weights, and the loss without it, for each epoch.

    Adds to the logs of an epoch:

    - `penalty`: the sum of the regularization terms of the trainable weights, as they are when the
      epoch ends. This is what Keras adds to the loss. Penalties on activations are no penalties on
      weights: they stay part of the loss, and are not counted.
    - `loss_without_penalty`: `loss` less the penalty. Keras averages `loss` over the epoch while
      the weights change, so the mean of the penalty before and after is subtracted: off by no more
      than half of the penalty's change in the epoch where that goes one way.
    - `val_loss_without_penalty`: `val_loss` less the penalty, which is exact, since the weights
      don't change while Keras validates.
    - with a policy, `penalty/rule_1`, `penalty/rule_2`, ...: the part of the penalty on the weights
      which that rule decides on, and `penalty/no_rule` for penalties that no rule decides on.

    The progress bar and History come after all callbacks, so they show these. CSVLogger,
    TensorBoard, EarlyStopping and ModelCheckpoint see them when they come **after** this one in
    the list of callbacks; the latter two need `mode="min"`, which Keras guesses only for metrics
    that it knows. In `evaluate`, the progress bar shows `penalty` and `loss_without_penalty`.

    It reads each penalised weight twice an epoch, in one compiled function, in float32 or better
    also where the weights are half precision. While a `StrengthScheduler` is on, the penalties are
    those with its factor; put it first in the list of callbacks.

    A model whose own `train_step`, `test_step` or `compute_loss` leaves `self.losses` out has no
    penalty in its loss; no loss without it is logged then.

    Args:
        policy: As for `graphwd.rewrite`: whose rules to log the parts of. The model is not changed
            by it: what is logged are the penalties that the model has.
        per_rule: Whether to log the part of each rule. Defaults to whether there is a policy.

    Raises:
        PolicyError: when the policy is not valid, or is missing though `per_rule` is set.

    Example:

    ```python
    history = model.fit(
        x, y, callbacks=[graphwd.PenaltyLogger(), keras.callbacks.CSVLogger("log.csv")]
    )
    history.history["penalty"]
    ```
    """

    def __init__(self, policy: Any = None, per_rule: bool | None = None) -> None:
        super().__init__()
        if per_rule and policy is None:
            raise PolicyError(
                "PenaltyLogger needs a policy to log the penalty of each of its rules."
            )
        wanted = policy is not None and per_rule is not False
        self._policy = Policy.coerce(policy) if wanted else None
        self._parts: dict[str, list[int]] = {}
        self._compute: Callable[[], Any] | None = None
        self._known: list[tuple[Any, Any]] = []
        self._before: float | None = None
        self._fitting = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Looks which weights have penalties, and compiles their sum."""
        self._fitting = True
        self._before = None
        if self.model.built:
            self._prepare()
            self._penalties()  # compiles it now rather than in an epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Computes the penalty before the epoch."""
        # not the value of the last epoch's end: callbacks may have changed weights since
        self._before = self._penalties()["penalty"] if self._compute is not None else None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the penalties to the logs."""
        if logs is None:
            return
        if self._compute is None:  # the model was not built until the first batch
            self._prepare()
        penalties = self._penalties()
        after = penalties["penalty"]
        before = after if self._before is None else self._before
        self._subtract(logs, "loss", (before + after) / 2)
        self._subtract(logs, "val_loss", after)
        logs.update(penalties)

    def on_train_end(self, logs: Any = None) -> None:
        """Ends what `on_train_begin` began."""
        self._fitting = False

    def on_test_end(self, logs: Any = None) -> None:
        """Adds the penalties to the logs of `evaluate`, but not of validation within `fit`."""
        if self._fitting or logs is None:
            return
        self._prepare()
        penalties = self._penalties()
        self._subtract(logs, "loss", penalties["penalty"])
        logs.update(penalties)

    def _penalties(self) -> dict[str, float]:
        assert self._compute is not None
        terms = [
            float(term) * _factor(variable.regularizer)
            for term, (variable, _) in zip(self._compute(), self._known, strict=True)
        ]
        return {name: sum(terms[place] for place in part) for name, part in self._parts.items()}

    def _prepare(self) -> None:
        """Finds the penalised weights; compiles again only when they are others than before."""
        known = [
            (variable, _unscaled(variable.regularizer))
            for variable in self.model.trainable_variables
            if variable.regularizer is not None
        ]
        if self._compute is not None and [(id(v), id(r)) for v, r in known] == [
            (id(v), id(r)) for v, r in self._known
        ]:
            return
        self._known = known
        self._parts = {"penalty": list(range(len(known)))}
        if self._policy is not None:
            self._parts.update(self._rules([variable for variable, _ in known]))
        self._compute = backends.compiled(
            _terms([regularizer for _, regularizer in known]),
            [variable for variable, _ in known],
        )

    def _subtract(self, logs: Any, name: str, penalty: float) -> None:
        """Logs a loss without the penalty, if the model's own step has put it in."""
        fitted = name == "loss" and self._fitting
        if name in logs and not unused_penalties(
            self.model, "train_step" if fitted else "test_step"
        ):
            logs[f"{name}_without_penalty"] = float(logs[name]) - penalty

    def _rules(self, variables: list[Any]) -> dict[str, list[int]]:
        """Maps the name of each rule's part to the places of its weights in a list."""
        assert self._policy is not None
        _, edits = planned_by_weight(self.model, self._policy)
        rule_of = {id(weight.variable): edit.rule for weight, edit in edits}
        parts: dict[str, list[int]] = {
            f"penalty/rule_{number}": [] for number in range(1, len(self._policy) + 1)
        }
        for index, variable in enumerate(variables):
            rule = rule_of.get(id(variable))
            name = "penalty/no_rule" if rule is None else f"penalty/rule_{rule + 1}"
            parts.setdefault(name, []).append(index)
        return parts


def _terms(regularizers: list[Any]) -> Callable[[Any], Any]:
    """A function that gives the penalty of each regularizer on a given value."""

    def terms(values: Any) -> Any:
        found = []
        for value, regularizer in zip(values, regularizers, strict=True):
            if keras.backend.standardize_dtype(value.dtype) not in _PRECISE:
                value = keras.ops.cast(value, "float32")
            term = keras.ops.sum(regularizer(value))  # Keras sums what is not a scalar, too
            found.append(keras.ops.cast(term, "float32"))
        return keras.ops.stack(found) if found else keras.ops.zeros((0,), "float32")

    return terms


def _unscaled(regularizer: Any) -> Any:
    while isinstance(regularizer, Scaled):
        regularizer = regularizer.unscaled
    return regularizer


def _factor(regularizer: Any) -> float:
    """By what schedules multiply a penalty at this moment."""
    product = 1.0
    while isinstance(regularizer, Scaled):
        product *= float(keras.ops.convert_to_numpy(regularizer.factor()))
        regularizer = regularizer.unscaled
    return product
