"""The carrier: a layer that keeps penalties which its own config can't express.

A Dense inside a composite layer has no regularizer in any config. Such a penalty is kept by the
innermost layer that is rebuilt from a config of its own: that layer becomes an instance of a
subclass of its class, which adds one key to its config, sets the regularizers on its variables
once they exist, and does nothing else. So the penalties go wherever the layer goes: into larger
models, through `clone_model`, to a file and back.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from graphwd import _keras, regularizers, walk
from graphwd.errors import ModelError
from graphwd.slots import CARRIED, SUFFIX

_ATTRIBUTE = "_graphwd_carried"
_classes: dict[type, type] = {}


@dataclass
class _Carried:
    """What one layer carries.

    Attributes:
        identity: Module, class name and registered name of the layer's own class.
        weights: A fingerprint of all weights that the layer had when the penalties were recorded.
        penalties: One plain dict for each penalty, as it stands in the config.
        settled: Whether the regularizers are on the variables.
    """

    identity: dict[str, Any]
    weights: str
    penalties: list[dict[str, Any]]
    settled: bool = False


@keras.saving.register_keras_serializable(package="graphwd", name="Carrier")
class Carrier:
    """Mixed into a layer's class: keeps penalties on variables that no config reaches."""

    @classmethod
    def from_config(cls, config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Rebuilds the layer under its own class and gives it its penalties again.

        Args:
            config: What `get_config` returned.
            *args: Passed on to the layer's class.
            **kwargs: Passed on to the layer's class.

        Returns:
            The layer.

        Raises:
            ModelError: as soon as the layer has variables, when they are not the ones that the
                penalties were recorded for.
        """
        config = dict(config)
        carried = config.pop(CARRIED)
        base = base_class(cls)
        if base is not Carrier and base.__name__ == carried["class"]["class_name"]:
            layer = base.from_config(config, *args, **kwargs)
        else:
            layer = keras.saving.deserialize_keras_object({**carried["class"], "config": config})
        return attach(layer, carried["penalties"], carried["weights"])

    def get_config(self) -> dict[str, Any]:
        """The layer's own config and, under one more key, the penalties.

        Returns:
            A dict.
        """
        carried = vars(self)[_ATTRIBUTE]
        return {
            **plain_config(self),
            CARRIED: {
                "class": dict(carried.identity),
                "weights": carried.weights,
                "penalties": copy.deepcopy(carried.penalties),
            },
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer; the call may be what builds it, and then its penalties take effect."""
        outputs = super().__call__(*args, **kwargs)  # type: ignore[misc] # the layer's class has it
        settle(self)
        return outputs

    def load_own_variables(self, store: Any) -> None:
        """Loads the layer's variables, if they are the ones that the penalties are meant for."""
        settle(self)
        super().load_own_variables(store)  # type: ignore[misc] # the layer's class has it

    @property
    def variables(self) -> list[Any]:
        """All variables of the layer; reading them makes its penalties take effect."""
        settle(self)
        return super().variables  # type: ignore[misc,no-any-return] # the layer's class has it

    @property
    def weights(self) -> list[Any]:
        """All weights of the layer; reading them makes its penalties take effect."""
        settle(self)
        return super().weights  # type: ignore[misc,no-any-return] # the layer's class has it


def is_carrier(layer: Any) -> bool:
    """Whether a layer carries penalties."""
    return isinstance(layer, Carrier)


def base_class(cls: type) -> Any:
    """The class of a layer as its author wrote it, without the carrier."""
    for base in cls.__mro__:
        if base is not Carrier and not (issubclass(base, Carrier)):
            return base if cls is not Carrier else Carrier
    return cls


def plain_config(layer: Any) -> dict[str, Any]:
    """A layer's config without the penalties that it carries."""
    cls = type(layer)
    if not is_carrier(layer):
        return dict(layer.get_config())
    # Under its own class: Keras writes the config of a layer without a get_config by itself, but
    # not where a subclass has one.
    layer.__class__ = base_class(cls)
    try:
        return dict(layer.get_config())
    finally:
        layer.__class__ = cls


def penalty(
    index: int, weight: walk.Weight, role: str, regularizer: dict[str, Any]
) -> dict[str, Any]:
    """The record of one penalty, with what is needed to know its variable again.

    Args:
        index: The weight's place among `walk.weights(layer)`.
        weight: The weight.
        role: Its role.
        regularizer: The serialized regularizer that it gets.

    Returns:
        A plain dict.
    """
    return {
        "index": index,
        "names": list(weight.names),
        "layers": list(weight.layers),
        "role": role,
        "variable": weight.variable.name,
        "shape": list(_keras.shape_of(weight.variable)),
        "regularizer": regularizer,
    }


def fingerprint(weights: Sequence[walk.Weight]) -> str:
    """A short text that differs when any weight's place, owner's class, name or shape does.

    Names of layers and the numbers in names are left out: they differ between processes.

    Args:
        weights: All weights of a layer, as `walk.weights` gives them.

    Returns:
        The number of weights and a hash of what they are.
    """
    text = json.dumps(
        [
            [w.layers, walk.plain_name(w.variable.name), list(_keras.shape_of(w.variable))]
            for w in weights
        ]
    )
    return f"{len(weights)}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def attach(layer: Any, penalties: Sequence[dict[str, Any]], weights: str) -> Any:
    """Makes a layer carry penalties, in place of those that it carries already.

    With no penalties the layer has its own class afterwards.

    Args:
        layer: A layer, built or not.
        penalties: Records made by `penalty`.
        weights: The `fingerprint` of the weights that the layer has once it is built.

    Returns:
        The layer.

    Raises:
        ModelError: when the penalties don't fit the layer's variables.
    """
    detach(layer)
    if not penalties:
        return layer
    cls = type(layer)
    vars(layer)[_ATTRIBUTE] = _Carried(_keras.identity(cls), weights, [dict(p) for p in penalties])
    if cls not in _classes:
        _classes[cls] = type(
            cls.__name__, (Carrier, cls), {"__doc__": cls.__doc__, "__module__": __name__}
        )
        register = keras.saving.register_keras_serializable(package="graphwd", name="Carrier")
        register(_classes[cls])
        register(Carrier)
    layer.__class__ = _classes[cls]
    settle(layer)
    return layer


def detach(layer: Any) -> Any:
    """Gives a carrying layer its own class back; its variables keep their regularizers."""
    if is_carrier(layer):
        layer.__class__ = base_class(type(layer))
        del vars(layer)[_ATTRIBUTE]
    return layer


def settle(layer: Any) -> None:
    """Puts the carried regularizers on the layer's variables, once these exist.

    Args:
        layer: A carrying layer.

    Raises:
        ModelError: when the variables are not the ones that the penalties were recorded for.
    """
    carried = vars(layer)[_ATTRIBUTE]
    if carried.settled or not layer.built:
        return
    weights = walk.weights(layer)
    if fingerprint(weights) != carried.weights:
        if len(weights) < int(carried.weights.split(":")[0]) and not all(
            inner.built for _, _, inner in walk.layers_within(layer)
        ):
            return  # not all of its sublayers are built yet
        raise ModelError(_misfit(layer, carried, weights))
    if any(record["index"] >= len(weights) for record in carried.penalties):
        raise ModelError(_misfit(layer, carried, weights))
    for record in carried.penalties:
        variable = weights[record["index"]].variable
        variable.regularizer = keras.regularizers.deserialize(copy.deepcopy(record["regularizer"]))
    carried.settled = True
    hand_down(layer)


def hand_down(layer: Any) -> None:
    """Lets the layers of a Functional model keep their penalties by themselves, too.

    The model carries what its config leaves out, but a user may take its layers into another
    model (`keras.Model(backbone.inputs, backbone.layers[-2].output)`), which is saved layer by
    layer. So each has what its variables have: Keras's own layers in their attributes, others by
    carrying it.

    Args:
        layer: Any layer; only a Functional model has layers to hand down to.
    """
    if not _keras.is_functional(layer):
        return
    stack = list(layer.layers)
    while stack:
        member = stack.pop()
        if _keras.is_graph(member):
            stack.extend(member.layers)
            continue
        weights = walk.weights(member)
        records = []
        for index, weight in enumerate(weights):
            regularizer = weight.variable.regularizer
            role = walk.role_of(weight)
            attribute = f"{role}{SUFFIX}"
            if weight.owner is member and attribute in vars(member) and walk.is_stock(member):
                setattr(member, attribute, regularizer)
            elif regularizer is not None:
                serialized = regularizers.serialize(regularizer)
                records.append(penalty(index, weight, role, dict(serialized or {})))
        if records != carried_penalties(member):
            attach(member, records, fingerprint(weights))


def snapshot(layer: Any) -> Callable[[], None]:
    """Remembers every regularizer within a layer: on variables, in attributes, and carried.

    Args:
        layer: A layer.

    Returns:
        A function that brings all of it back.
    """
    remembered = []
    for _, _, inner in walk.layers_within(layer):
        attributes = {name: value for name, value in vars(inner).items() if name.endswith(SUFFIX)}
        penalised = [
            (variable, variable.regularizer)
            for variables in _keras.own_variables(inner)
            for variable in variables
        ]
        remembered.append((inner, type(inner), vars(inner).get(_ATTRIBUTE), attributes, penalised))

    def restore() -> None:
        for inner, cls, carried, attributes, penalised in remembered:
            inner.__class__ = cls
            vars(inner).pop(_ATTRIBUTE, None)
            if carried is not None:
                vars(inner)[_ATTRIBUTE] = carried
            for name, value in attributes.items():
                setattr(inner, name, value)
            for variable, regularizer in penalised:
                variable.regularizer = regularizer

    return restore


def carried_penalties(layer: Any) -> list[dict[str, Any]]:
    """The records of what a layer carries; empty for a layer that carries nothing."""
    return list(vars(layer)[_ATTRIBUTE].penalties) if is_carrier(layer) else []


def _misfit(layer: Any, carried: _Carried, weights: list[walk.Weight]) -> str:
    """The message for a layer whose weights are not those of the record; names one if it can."""
    differs = f"a penalty was recorded for {carried.weights} but it has {fingerprint(weights)}"
    for record in carried.penalties:
        name = "/".join([*record["names"], record["variable"]])
        if record["index"] >= len(weights):
            differs = f"the weight {name} {record['shape']} is missing"
            break
        weight = weights[record["index"]]
        shape = list(_keras.shape_of(weight.variable))
        if shape != record["shape"] or list(weight.layers) != record["layers"]:
            found = "/".join([*weight.names, weight.variable.name])
            differs = f"{found} {shape} stands in the place of {name} {record['shape']}"
            break
    return (
        f"Layer {layer.name!r} carries penalties for other weights than it has ({differs}); load "
        "it with the versions of its libraries that it was saved with, or rewrite the original "
        "model again."
    )
