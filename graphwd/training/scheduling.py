"""StrengthScheduler: a Keras callback that changes how strong penalties and decays are."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from graphwd.errors import GraphwdError, PolicyError
from graphwd.live import _keras, backends, walk
from graphwd.live.penalties import planned_by_weight
from graphwd.policy.policies import Policy
from graphwd.training import scaled
from graphwd.training.optimizers import leaves

_Callback: Any = keras.callbacks.Callback
_SCHEDULERS = "_graphwd_schedulers"  # the attribute of a model by which those that are on meet
_Schedule: Any = keras.optimizers.schedules.LearningRateSchedule


class StrengthScheduler(_Callback):  # type: ignore[misc] # Keras has no types
    """Multiplies the strength of penalties, and of the optimizer's decay, as training goes on.

    What the schedule gives is a **factor**: a penalty of `L2(a)` is one of `L2(factor * a)` in
    that step, and a `weight_decay` of `d` one of `factor * d`. So `L2(0.5)`, or a decay of 1.0,
    makes the schedule's values those of the weight decay itself. The factors take effect inside the
    compiled step, where Keras has the strengths as constants.

    What is saved while it is on is the model with its base strengths and nothing else: a file that
    is loaded, `initial_epoch` and `BackupAndRestore` go on where the schedule was, since it knows
    the epoch, or counts steps as learning-rate schedules do, by the optimizer's `iterations`.
    When `fit` is interrupted by an error, the factors of that moment stay on the model until the
    next `StrengthScheduler` begins or `on_train_end()` is called. The model compiles its step
    anew when `fit` begins and ends.

    The logs of each epoch get the factor as `strength`, and `PenaltyLogger` logs the penalties
    as they are with it. Several schedulers for the rules of one model multiply where they overlap;
    give each a `name` for the logs.

    Args:
        schedule: A function that takes the epoch, an integer from 0, and if it has two arguments
            the current factor, and returns the factor as a float. Or a
            `keras.optimizers.schedules.LearningRateSchedule`, which is asked in each step.
        rules: The rules, in any form that `graphwd.rewrite` takes, whose weights to scale: those
            that some rule selects, whatever regularizer it names. Defaults to all weights.
        every: `"epoch"` or `"step"`: what the schedule counts. Defaults to `"step"` for a
            `LearningRateSchedule` and `"epoch"` for a function. A function that counts steps is
            called for all of them before training begins, so the number of steps must be known.
        name: What the logs call the factor.

    Raises:
        GraphwdError: when training begins and there is neither a penalty nor a decay to scale,
            when an optimizer decays weights that the rules select together with others, or when
            the schedule gives something else than a finite number of at least 0.

    Example:

    ```python
    cosine = keras.optimizers.schedules.CosineDecay(0.04, 1000, warmup_target=0.4)
    off = graphwd.StrengthScheduler(lambda epoch: 1.0 if epoch < 5 else 0.0)
    model.fit(x, y, epochs=10, callbacks=[off])
    ```
    """

    def __init__(
        self,
        schedule: Any,
        rules: Any = None,
        *,
        every: str | None = None,
        name: str = "strength",
    ) -> None:
        super().__init__()
        if not callable(schedule):
            raise GraphwdError(
                f"StrengthScheduler needs a function or a LearningRateSchedule, not {schedule!r}."
            )
        if every is None:
            every = "step" if isinstance(schedule, _Schedule) else "epoch"
        if every not in ("epoch", "step"):
            raise GraphwdError(f'every={every!r} is neither "epoch" nor "step".')
        self.schedule = schedule
        self.every = every
        self.name = name
        self._policy = None if rules is None else Policy.coerce(rules)
        self._pair = every == "epoch" and _takes_two(schedule)
        self._factor = 1.0
        self._steps: Any = None  # the optimizer's
        self._table: Any = None
        self._first = 0
        self._states: dict[str, scaled.State] = {}
        self._variables: list[Any] = []

    @property
    def factor(self) -> float:
        """The factor of this moment; for a schedule by steps, that of the step that comes next."""
        if self.every == "epoch" or self._steps is None:
            return self._factor
        return float(keras.ops.convert_to_numpy(self._at(self._steps.value)))

    def on_train_begin(self, logs: Any = None) -> None:
        """Puts the factor into the penalties and the optimizer, and has the step compiled anew."""
        model = self.model
        if not model.built:
            raise GraphwdError(
                f"Model {model.name!r} is not built, so it has no weights for StrengthScheduler to "
                "scale; call model.build(input_shape), or the model on a batch, first."
            )
        others = vars(model).get(_SCHEDULERS, [])
        if not others or any(other.params is not self.params for other in others):
            _end(model)  # what an interrupted fit has left
        if model.optimizer is None:
            raise GraphwdError(
                f"Model {model.name!r} has no optimizer, whose steps StrengthScheduler counts; "
                "compile it with one."
            )
        selected = self._selected()
        decaying = self._decaying(selected)
        self._variables = [
            variable
            for variable in model.trainable_variables
            if variable.regularizer is not None and (selected is None or id(variable) in selected)
        ]
        if not self._variables and not decaying:
            where = "" if self._policy is None else " on the weights that its rules select"
            raise GraphwdError(
                f"Model {model.name!r} has no penalty and its optimizer no decay{where}, so there "
                "is nothing for StrengthScheduler to scale; take graphwd.rewrite or "
                "graphwd.decouple first."
            )
        model.__dict__.setdefault(_SCHEDULERS, []).append(self)  # past Keras, which would track it
        self._steps = scaled.steps_of(model.optimizer)
        with backends.build_scope(model):
            self._tabulate()
            self._install(decaying)
        _recompile(model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Asks the schedule for the factor of the epoch."""
        if self.every == "epoch":
            value = self.schedule(epoch, self._factor) if self._pair else self.schedule(epoch)
            self._factor = _checked(value, f"epoch {epoch}")
        self._show()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the factor to the logs."""
        if logs is not None:
            logs[self.name] = self.factor

    def on_test_begin(self, logs: Any = None) -> None:
        """Lets validation count no steps."""
        if "advance" in self._states:
            self._states["advance"].state.assign(0)
            self._show()

    def on_test_end(self, logs: Any = None) -> None:
        """Lets training count steps again."""
        if "advance" in self._states:
            self._states["advance"].state.assign(1)

    def on_train_end(self, logs: Any = None) -> None:
        """Gives penalties and optimizer their base strengths back."""
        if self in vars(self.model).get(_SCHEDULERS, []):
            _end(self.model)
        self._states = {}

    def _selected(self) -> set[int] | None:
        """The ids of the weights to scale; `None` for all."""
        if self._policy is None:
            return None
        _, edits = planned_by_weight(self.model, self._policy)
        return {id(weight.variable) for weight, each in edits if each.rule is not None}

    def _decaying(self, selected: set[int] | None) -> list[Any]:
        """The optimizers whose decay is to be scaled."""
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        found = []
        for leaf in leaves(optimizer):
            decayed = [
                variable
                for variable in _keras.optimized_variables(leaf)
                if _keras.decay_of(leaf, variable)
            ]
            inside = [v for v in decayed if selected is None or id(v) in selected]
            if inside and len(inside) < len(decayed):
                other = next(v for v in decayed if not any(v is each for each in inside))
                raise GraphwdError(
                    f"The optimizer {type(leaf).__name__} decays {inside[0].path}, which the rules "
                    f"of StrengthScheduler select, together with {other.path}, which they don't; "
                    "give the rules other strengths in graphwd.decouple, or select both."
                )
            if inside:
                found.append(leaf)
        return found

    def _tabulate(self) -> None:
        """Asks a function for the factors of all steps, to be looked up in the compiled step."""
        self._table = None
        if self.every == "epoch" or isinstance(self.schedule, _Schedule):
            return
        steps = (self.params or {}).get("steps")
        if not steps:
            raise GraphwdError(
                "StrengthScheduler can't tell how many steps its function is for; pass "
                "steps_per_epoch to fit, or write it as a LearningRateSchedule."
            )
        self._first = int(keras.ops.convert_to_numpy(self._steps.value))
        numbers = range(self._first, self._first + steps * self.params["epochs"])
        factors = [_checked(self.schedule(step), f"step {step}") for step in numbers]
        self._table = np.asarray(factors, "float32")

    def _at(self, step: Any) -> Any:
        """The factor in a step, in the compiled step or outside of it."""
        ops = keras.ops
        if self._table is None:
            return ops.cast(self.schedule(step), "float32")
        place = ops.clip(ops.cast(step, "int32") - self._first, 0, len(self._table) - 1)
        return ops.take(ops.convert_to_tensor(self._table), place, axis=0)

    def _install(self, decaying: list[Any]) -> None:
        jax = keras.backend.backend() == "jax"
        self._states = {}
        if self.every == "epoch":
            self._states["factor"] = scaled.State("strength", "float32")
            if decaying and jax:  # what one step gives away twice must not be one variable
                for number, leaf in enumerate(decaying):
                    state = scaled.State("strength", "float32")
                    self._states[f"decay{number}"] = state
                    scaled.scale_decay(self.model.optimizer, leaf, state.read, state)
        elif jax and self._variables:
            self._states["step"] = scaled.State("step", "int32")
            self._states["advance"] = scaled.State("advance", "int32")
            self._states["advance"].state.assign(1)
        if not (jax and self.every == "epoch"):
            for leaf in decaying:
                scaled.scale_decay(self.model.optimizer, leaf, self._decay_factor, None)
        self._show()
        if self._variables:
            tick = self._tick if "step" in self._states else None
            scaled.scale_penalties(self._variables, self._penalty_factor, tick)
            if jax:
                for name in ("factor", "step", "advance"):
                    if name in self._states:
                        _keras.show_state(self.model, self._states[name])

    def _decay_factor(self, leaf: Any) -> Any:
        if self.every == "epoch":
            return self._states["factor"].state.value
        return self._at(_keras.iterations_of(leaf).value)

    def _penalty_factor(self) -> Any:
        if self.every == "epoch":
            return self._states["factor"].state.value
        step = self._states["step"].state if "step" in self._states else self._steps
        return self._at(step.value)

    def _tick(self) -> None:
        step, advance = self._states["step"].state, self._states["advance"].state
        step.assign(step.value + advance.value)

    def _show(self) -> None:
        """Writes the epoch's factor, or the number of the step, where the steps read it."""
        for name, held in self._states.items():
            if name == "step":
                # by way of the host, for a step of JAX gives each buffer away, and only once
                held.state.assign(int(keras.ops.convert_to_numpy(self._steps.value)))
            elif name != "advance":
                held.state.assign(self._factor)


def _end(model: Any) -> None:
    """Ends all schedules of a model."""
    scaled.unscale_penalties(weight.variable for weight in walk.weights(model))
    if model.optimizer is not None:
        scaled.unscale_decay(model.optimizer)
    _keras.hide_states(model, scaled.State)
    model.__dict__.pop(_SCHEDULERS, None)
    _recompile(model)


def _recompile(model: Any) -> None:
    """Has the compiled steps made anew, which hold the strengths of before."""
    model.make_train_function(force=True)
    model.make_test_function(force=True)


def _takes_two(schedule: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(schedule).parameters.values()
    except (TypeError, ValueError):  # a builtin may not tell
        return False
    required = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    return len(required) == 2


def _checked(value: Any, when: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise PolicyError(
            f"The schedule of StrengthScheduler gives {value!r} for {when}; let it return a finite "
            "number of at least 0, by which to multiply the strengths."
        )
    return number
