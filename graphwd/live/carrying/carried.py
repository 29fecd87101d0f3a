"""What a layer carries: penalties, and how their weights are known again in another process.

Names of layers differ between processes, and the order of a layer's own weights does when it is
quantized or gets LoRA. So a weight is known by the classes of the layers that lead to it, by which
of the layers of these classes it belongs to, and by its name there.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

from graphwd.errors import ModelError
from graphwd.live import _keras, walk
from graphwd.policy import regularizers

Address: TypeAlias = tuple[tuple[str, ...], int, str, int]
"""Class names, which of the layers that these lead to, a weight's name, which of that name."""


_AFFORDABLE = 10**8
"""So many scalars are built a second time to see what a file brings back; that is 0.4 GB."""


@dataclass
class Carried:
    """What one layer carries."""

    penalties: list[dict[str, Any]]  # one for each, as `penalty` makes it or a config has it
    weights: str  # the fingerprint of the weights that the penalties were recorded for
    # The penalties' variables, once they exist; quantization frees those that it replaces.
    variables: list[weakref.ref[Any]] | None = None
    # What `as_saved` remembers: a fingerprint of the layer's weights, then that of those which a
    # file brings back, where each of them stands, and the layers that it brings back.
    reloaded: tuple[str, str, dict[Address, int], set[tuple[tuple[str, ...], int]]] | None = None
    starts: Any = None  # the `starts.Kept` of its weights, or `None`


def penalty(
    index: int, weight: walk.Weight, role: str, regularizer: dict[str, Any]
) -> dict[str, Any]:
    """The record of one penalty, with what is needed to know its variable again."""
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
    """A short text that differs when any weight's place, owner's class, name or shape does."""
    # Left out is what differs between processes: names of layers, the numbers in names, and the
    # order of the weights of one layer.
    owners: dict[int, list[Any]] = {}
    for weight in weights:
        own = owners.setdefault(id(weight.owner), [list(weight.layers), []])
        shape = list(_keras.shape_of(weight.variable))
        own[1].append([walk.plain_name(weight.variable.name), shape])
    text = json.dumps([[layers, sorted(own)] for layers, own in owners.values()])
    return f"{len(weights)}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def give(layer: Any, carried: Carried) -> bool:
    """Puts the carried regularizers on a layer's variables, if all of these exist."""
    weights = walk.weights(layer)
    if fingerprint(weights) != carried.weights:
        if len(weights) < int(carried.weights.split(":")[0]) and not _is_complete(layer):
            return False
        raise ModelError(_misfit(layer, carried, weights))
    found = [_find(layer, weights, record) for record in carried.penalties]
    for weight, record in zip(found, carried.penalties, strict=True):
        if weight is None or list(_keras.shape_of(weight.variable)) != record["shape"]:
            raise ModelError(_misfit(layer, carried, weights))
    variables = [weight.variable for weight in found if weight is not None]
    for variable, record in zip(variables, carried.penalties, strict=True):
        variable.regularizer = keras.regularizers.deserialize(copy.deepcopy(record["regularizer"]))
    carried.variables = [weakref.ref(variable) for variable in variables]
    return True


def current(layer: Any, carried: Carried) -> list[dict[str, Any]]:
    """The penalties that a layer carries now: those of its variables that still have one."""
    if carried.variables is None:
        return [dict(record) for record in carried.penalties]
    return [record for _, record in _current(layer, carried)]


def as_saved(
    layer: Any, carried: Carried, rebuild: Callable[[bool], Any]
) -> tuple[str, list[dict[str, Any]]]:
    """What a layer's config has of its penalties, so that they fit the layer that is loaded."""
    if carried.variables is None:
        return carried.weights, current(layer, carried)
    weights = fingerprint(walk.weights(layer))
    # A layer is loaded as its config tells, which may be otherwise than it is: LoRA inside a
    # composite layer is merged, a block that was added later is not there. Whether that is so is
    # found out by building the layer anew, once for the weights that it has.
    if carried.reloaded is None or carried.reloaded[0] != weights:
        with _keras.unchanged_globals():
            size = sum(math.prod(_keras.shape_of(variable)) for variable in layer.weights)
            other = rebuild(weights != carried.weights or size < _AFFORDABLE)
            if other is not None and not _is_complete(other):
                other = None  # its first call will build the rest
            target = layer if other is None else other
            reloaded = fingerprint(walk.weights(target))
            if reloaded != weights:
                with keras.StatelessScope(initialize_variables=False):
                    _check_loadable(layer, target)
            order = {address: index for index, (address, _) in enumerate(_addressed(target))}
        carried.reloaded = (weights, reloaded, order, set(_by_place(target)))
    _, reloaded, order, layers = carried.reloaded
    records = []
    for address, record in _current(layer, carried):
        if address in order:
            place = [address[1], address[3]]
            records.append({**record, "index": order[address], "place": place})
            continue
        name = "/".join([*record["names"], record["variable"]])
        if address[:2] not in layers:
            raise ModelError(_unsavable(layer, f"it lacks {name}, which has a penalty"))
        warnings.warn(
            f"The penalty on {name} in layer {layer.name!r} is not saved: Keras saves that weight "
            "as part of another, so the loaded layer does not have it.",
            stacklevel=2,
        )
    return reloaded, records


def _current(layer: Any, carried: Carried) -> Iterator[tuple[Address, dict[str, Any]]]:
    recorded = {}
    for reference, record in zip(carried.variables or (), carried.penalties, strict=True):
        variable = reference()
        if variable is not None and variable.regularizer is not None:
            recorded[id(variable)] = record
    for index, (address, weight) in enumerate(_addressed(layer)):
        record = recorded.get(id(weight.variable), {})
        if record:
            regularizer = regularizers.serialize(weight.variable.regularizer)
            if regularizers.equal(regularizer, record["regularizer"]):
                regularizer = record["regularizer"]
            yield (
                address,
                penalty(index, weight, record["role"], copy.deepcopy(dict(regularizer or {}))),
            )


def _addressed(layer: Any) -> list[tuple[Address, walk.Weight]]:
    """The weights of a layer in the order of `walk.weights`, each with its address."""
    which: dict[int, int] = {}
    layers: Counter[tuple[str, ...]] = Counter()
    for _, chain, inner in walk.layers_within(layer):
        which[id(inner)] = layers[chain]
        layers[chain] += 1
    names: Counter[tuple[int, str]] = Counter()
    found = []
    for weight in walk.weights(layer):
        name = walk.plain_name(weight.variable.name)
        key = (id(weight.owner), name)
        found.append(((weight.layers, which[key[0]], name, names[key]), weight))
        names[key] += 1
    return found


def _find(layer: Any, weights: Sequence[walk.Weight], record: dict[str, Any]) -> walk.Weight | None:
    if "place" not in record:
        return weights[record["index"]] if record["index"] < len(weights) else None
    owner, number = record["place"]
    address = (tuple(record["layers"]), owner, walk.plain_name(record["variable"]), number)
    return dict(_addressed(layer)).get(address)


def _is_complete(layer: Any) -> bool:
    return all(inner.built for _, _, inner in walk.layers_within(layer))


def _check_loadable(layer: Any, other: Any) -> None:
    """Refuses a layer of which Keras would write a file that it can't load."""
    counterparts = _by_place(other)
    for place, ours in _by_place(layer).items():
        theirs = counterparts.get(place)
        store: dict[str, Any] = {}
        if theirs is None or not any(_keras.own_variables(ours)):
            continue
        ours.save_own_variables(store)
        try:
            theirs.load_own_variables(store)
        except Exception as error:
            raise ModelError(
                _unsavable(layer, f"{ours.name} can't load the weights that it has now")
            ) from error


def _by_place(layer: Any) -> dict[tuple[tuple[str, ...], int], Any]:
    layers: Counter[tuple[str, ...]] = Counter()
    found = {}
    for _, chain, inner in walk.layers_within(layer):
        found[chain, layers[chain]] = inner
        layers[chain] += 1
    return found


def _unsavable(layer: Any, what: str) -> str:
    return (
        f"Layer {layer.name!r} ({walk.class_name(layer)}) can't be saved with the penalties that "
        f"it carries: built anew from its config, {what}; let its get_config tell what has changed "
        "its weights since it was made, or rewrite it with a policy that leaves none on them."
    )


def _misfit(layer: Any, carried: Carried, weights: list[walk.Weight]) -> str:
    """The message for a layer whose weights are not those of the record; names one if it can."""
    differs = f"a penalty was recorded for {carried.weights} but it has {fingerprint(weights)}"
    for record in carried.penalties:
        name = "/".join([*record["names"], record["variable"]])
        weight = _find(layer, weights, record)
        if weight is None:
            differs = f"the weight {name} {record['shape']} is missing"
            break
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
