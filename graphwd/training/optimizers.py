"""Several optimizers as one: each decays its weights by its own coefficient, to 0 or to a start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from graphwd.errors import GraphwdError
from graphwd.live import _keras, backends

KNOWN = hasattr(keras.optimizers, "MultiOptimizer")
"""Whether this Keras can have several optimizers in one: Keras 3.15 can."""

_Several: Any = getattr(keras.optimizers, "MultiOptimizer", object)
_STARTS, _GIVEN, _COMPLETE = "_graphwd_starts", "_graphwd_given", "_graphwd_complete"
_PLAIN = "_graphwd_plain"
_towards_start: dict[type, type] = {}


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
    """Several optimizers as one, which clips all gradients together before it hands them out."""

    def __init__(
        self,
        optimizer_map: Any,
        global_clipnorm: float | None,
        loss_scale_factor: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(optimizer_map, loss_scale_factor=loss_scale_factor, name=name)
        self.global_clipnorm = global_clipnorm

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Clips the gradients, and applies each with its variable's optimizer."""
        if self.global_clipnorm:
            ops = keras.ops
            squares = [ops.sum(ops.square(g)) for g in grads if g is not None]
            limit = float(self.global_clipnorm) * (self.loss_scale_factor or 1.0)
            norm = ops.sqrt(ops.sum(ops.stack(squares)))
            scale = limit * ops.minimum(1.0 / norm, 1.0 / limit)
            scale = scale + (norm - norm)  # not a number where a gradient is none, as in Keras
            grads = [
                None if g is None else ops.multiply(g, ops.cast(scale, g.dtype)) for g in grads
            ]
        super().apply(grads, trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, serialized."""
        return {**super().get_config(), "global_clipnorm": self.global_clipnorm}


@keras.saving.register_keras_serializable(package="graphwd")
class StartDecay(GlobalClipping):
    """Several optimizers as one, of which those with given places decay towards starts."""

    def __init__(
        self,
        optimizer_map: Any,
        towards_start: Sequence[int],
        global_clipnorm: float | None = None,
        loss_scale_factor: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(optimizer_map, global_clipnorm, loss_scale_factor, name)
        self.__dict__["_towards_start"] = tuple(towards_start)  # nothing for Keras to track
        for leaf in self._starting():
            if type(leaf) not in _towards_start:
                _towards_start[type(leaf)] = alike(type(leaf), _TowardsStart, {})
            leaf.__class__ = _towards_start[type(leaf)]

    def _starting(self) -> list[Any]:
        return [self.optimizers[place] for place in self.__dict__["_towards_start"]]

    def load_own_variables(self, store: Any) -> None:
        """Loads the state of all optimizers, starts included."""
        super().load_own_variables(store)
        if len(store.keys()) == len(self.variables):  # Keras only warns of others, and loads none
            self._complete()

    def set_weights(self, weights: Any) -> None:
        """Sets the state of all optimizers, starts included."""
        super().set_weights(weights)
        self._complete()

    def _complete(self) -> None:
        for leaf in self._starting():
            vars(leaf)[_COMPLETE] = True

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, serialized."""
        return {**super().get_config(), "towards_start": list(self.__dict__["_towards_start"])}


class _TowardsStart(_keras.OwnDecay):
    """Mixed into an optimizer's class: decays weights towards starts, which are its own state."""

    built: bool
    learning_rate: Any
    weight_decay: Any

    def build(self, variables: Any) -> None:
        """Takes the starts that it was given; without any, those that will be loaded."""
        if self.built:
            return
        super().build(variables)  # type: ignore[misc] # the optimizer's class has it
        own: Any = self
        given = {id(weight): start.state for weight, start in vars(self).pop(_GIVEN, ())}
        vars(self)[_COMPLETE] = all(id(variable) in given for variable in variables)
        vars(self)[_STARTS] = starts = []
        for variable in variables:
            start = given.get(id(variable))
            if start is None:
                start = own.add_variable_from_reference(variable, "start")
            else:
                _keras.track_variable(own, start)
            starts.append(start)

    def decay_weights(self, variables: Sequence[Any]) -> None:
        """Decays weights towards their starts."""
        if not vars(self)[_COMPLETE]:
            raise GraphwdError(
                f"The optimizer {type(self).__name__} decays weights towards a start that it has "
                "no record of; set it up with graphwd.decouple, or load it from a .keras file."
            )
        own: Any = self

        def pull(weight: Any, start: Any) -> None:
            rate = keras.ops.cast(self.learning_rate, weight.dtype)
            decay = keras.ops.cast(self.weight_decay, weight.dtype)
            own.assign_sub(weight, (weight - start) * decay * rate)

        pairs = [(variable, decay_start_of(own, variable)) for variable in variables]
        backends.update_each(pull, [pair for pair in pairs if _keras.is_decayed(self, pair[0])])


def decay_start_of(leaf: Any, variable: Any) -> Any:
    """The start that an optimizer decays a weight towards; `None` where that is 0."""
    if not isinstance(leaf, _TowardsStart):
        return None
    if not leaf.built:
        given = vars(leaf).get(_GIVEN, ())
        return next((start.state for weight, start in given if weight is variable), None)
    starts: list[Any] = vars(leaf)[_STARTS]
    return starts[_keras.index_of(leaf, variable)] if vars(leaf)[_COMPLETE] else None


def alike(cls: type, mixin: type, namespace: Mapping[str, Any]) -> type:
    """A subclass of an optimizer's class that files call by the name of that class."""
    identity = _keras.identity(cls)
    plain = vars(cls).get(_PLAIN, cls)
    named = {"__module__": identity["module"] or cls.__module__, "__doc__": cls.__doc__}
    made = type(identity["class_name"], (mixin, cls), {**named, _PLAIN: plain, **namespace})
    package, separator, name = keras.saving.get_registered_name(plain).partition(">")
    if separator:  # what is loaded by the name that the class is registered by is plain
        keras.saving.register_keras_serializable(package, name)(made)
        keras.saving.register_keras_serializable(package, name)(plain)
    return made


def several(
    optimizers: Mapping[str, Any],
    default: Any,
    *,
    starts: Iterable[tuple[Any, Any]] = (),
    loss_scale_factor: float | None,
    global_clipnorm: float | None,
) -> Any:
    """Several optimizers as one, by patterns of paths; `starts` are optimizers with pairs."""
    mapped = keras.optimizers.OptimizerMap(default, dict(optimizers))
    # An optimizer with pairs of weights and `Start`s decays the weights towards these.
    pairs = {id(leaf): found for leaf, found in starts}
    if pairs:
        order = [*optimizers.values(), default]
        places = [place for place, leaf in enumerate(order) if id(leaf) in pairs]
        for place in places:
            vars(order[place])[_GIVEN] = pairs[id(order[place])]
        return StartDecay(mapped, places, global_clipnorm, loss_scale_factor)
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
