"""Penalties and decays that are multiplied inside a compiled step while a schedule is on.

On TensorFlow and PyTorch a step reads variables as they are. A step of JAX sees only variables that
are the model's or the optimizer's, so there the factor, or the number of the step, is put among
these while the schedule is on, where neither weights nor files show it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from graphwd.live import _keras
from graphwd.training.optimizers import alike, leaves

_FACTORS = "_graphwd_factors"
_COEFFICIENTS = ("weight_decay", "adam_weight_decay")
_classes: dict[type, type] = {}


class Scaled:
    """A regularizer whose penalty is multiplied by a factor, and what else happens then."""

    def __init__(
        self, unscaled: Any, factor: Callable[[], Any], tick: Callable[[], None] | None
    ) -> None:
        self.unscaled = unscaled
        self.factor = factor
        self.tick = tick

    def __call__(self, value: Any) -> Any:
        """The penalty on a weight."""
        penalty = keras.ops.convert_to_tensor(self.unscaled(value))
        penalty = penalty * keras.ops.cast(self.factor(), penalty.dtype)
        if self.tick is not None:
            self.tick()
        return penalty


class State:
    """One variable of a schedule's, shown to JAX's steps as the state of a seed generator is."""

    def __init__(self, name: str, dtype: str) -> None:
        self.state = keras.Variable(0, trainable=False, dtype=dtype, name=name)

    def read(self, _: Any = None) -> Any:
        """The value, in the compiled step or outside of it."""
        return self.state.value


class _Scheduled:
    """Mixed into an optimizer's class while a schedule is on; files and configs know nothing."""

    def _own(self, call: Callable[[], Any]) -> Any:
        with own_classes(self):
            return call()

    def get_config(self) -> Any:
        """The config, with the coefficients that the optimizer was made with."""
        return self._own(lambda: self.get_config())

    def save_own_variables(self, store: Any) -> None:
        """Saves the optimizer's own variables alone."""
        self._own(lambda: self.save_own_variables(store))

    def load_own_variables(self, store: Any) -> None:
        """Loads the optimizer's own variables alone."""
        self._own(lambda: self.load_own_variables(store))

    def set_weights(self, weights: Any) -> None:
        """Sets the optimizer's own variables alone."""
        self._own(lambda: self.set_weights(weights))


def chain(optimizer: Any) -> list[Any]:
    """An optimizer and all inside it, outer ones first."""
    found, inner = [optimizer], optimizer
    while isinstance(inner, keras.optimizers.LossScaleOptimizer):
        inner = inner.inner_optimizer
        found.append(inner)
    found.extend(leaf for leaf in leaves(inner) if leaf is not inner)
    return found


@contextlib.contextmanager
def own_classes(optimizer: Any) -> Iterator[None]:
    """A scope in which an optimizer and all inside it are what they are without schedules."""
    swapped = [(each, type(each)) for each in chain(optimizer) if isinstance(each, _Scheduled)]
    for each, cls in swapped:
        each.__class__ = cls.__mro__[2]
    try:
        yield
    finally:
        for each, cls in swapped:
            each.__class__ = cls


def steps_of(optimizer: Any) -> Any:
    """The variable that counts an optimizer's steps, as learning-rate schedules see it."""
    return _keras.iterations_of(leaves(optimizer)[0])


def scale_decay(
    optimizer: Any, leaf: Any, factor: Callable[[Any], Any], state: State | None
) -> None:
    """Multiplies the decay of one inside an optimizer, by what JAX has to see the state of."""
    for each in chain(optimizer):
        if not isinstance(each, _Scheduled):
            each.__class__ = _scheduled_class(each)
    vars(leaf).setdefault(_FACTORS, []).append((factor, state))


def unscale_decay(optimizer: Any) -> None:
    """Ends all schedules of an optimizer's decay."""
    for each in chain(optimizer):
        if isinstance(each, _Scheduled):
            each.__class__ = type(each).__mro__[2]
            vars(each).pop(_FACTORS, None)


def decay_factor(leaf: Any) -> Any:
    """The product of all factors that schedules multiply an optimizer's decay by."""
    product: Any = 1.0
    for factor, _ in vars(leaf).get(_FACTORS, ()):
        product = factor(leaf) * product
    return product


def _scheduled_class(optimizer: Any) -> type:
    cls = type(optimizer)
    if cls not in _classes:
        namespace: dict[str, Any] = {
            name: _coefficient(name) for name in _COEFFICIENTS if name in vars(optimizer)
        }
        if keras.backend.backend() == "jax":
            namespace["variables"] = property(_variables)
        _classes[cls] = alike(cls, _Scheduled, namespace)  # for a file saved in the meantime
    return _classes[cls]


def _coefficient(name: str) -> property:
    def scaled(self: Any) -> Any:
        base = vars(self)[name]
        return base if not base or _FACTORS not in vars(self) else decay_factor(self) * base

    return property(scaled, lambda self, value: vars(self).__setitem__(name, value))


def _variables(self: Any) -> list[Any]:
    made: Any = _classes[type(self).__mro__[2]]
    own = super(made, self).variables
    return [*own, *(state.state for _, state in vars(self).get(_FACTORS, ()) if state is not None)]


def scale_penalties(
    variables: Iterable[Any], factor: Callable[[], Any], tick: Callable[[], None] | None
) -> None:
    """Multiplies the penalties on variables; the last one of them ticks."""
    variables = list(variables)
    for variable in variables:
        last = variable is variables[-1]
        variable.regularizer = Scaled(variable.regularizer, factor, tick if last else None)


def unscale_penalties(variables: Iterable[Any]) -> None:
    """Ends all schedules of the penalties on variables."""
    for variable in variables:
        while isinstance(variable.regularizer, Scaled):
            variable.regularizer = variable.regularizer.unscaled
