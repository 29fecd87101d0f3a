"""Compares two live models beyond their configs: classes, variables, flags, penalties, outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np

from graphwd.errors import ModelError
from graphwd.live import _keras, backends, walk
from graphwd.live.carrying import carrier
from graphwd.live.copying import reachable, undoing
from graphwd.live.proving import attributes
from graphwd.live.survey import Survey, places
from graphwd.plans.plan import Plan
from graphwd.policy import regularizers

_OUTPUT_TOLERANCE = 1e-5
_PLAIN = (str, int, float, bool, bytes, tuple)

Copies: TypeAlias = Mapping[int, Any]
"""Of a copy that was just made, its objects, by the ids of their originals."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two models' layers and variables, each with its counterpart.

    Attributes:
        original: The first model.
        copy: The other one.
        layers: A title for messages, the original's layer and the other's; each layer once.
        inner: The same for these and the layers within them.
        renamed: Whether layers have other names in the other model.
        variables: The pairs of variables of a layer and its sublayers, by the original layer's id.
        problems: Where one has no counterpart, or one of another class or with other flags.
    """

    original: Any
    copy: Any
    layers: list[tuple[str, Any, Any]]
    inner: list[tuple[str, Any, Any]]
    renamed: bool
    variables: dict[int, list[tuple[Any, Any]]]
    problems: list[str]


def pair(original: Any, copy: Any, names: Mapping[str, str]) -> Pairs:
    """Pairs the layers and variables of two models, and compares the layers' flags."""
    problems: list[str] = []
    layers = list(_paired(original, copy, names, problems))
    inner: list[tuple[str, Any, Any]] = []
    variables = _variables(layers, inner, problems)
    return Pairs(
        original, copy, layers, inner, any(a != b for a, b in names.items()), variables, problems
    )


def model_differences(
    pairs: Pairs, compared: dict[str, int], *, unsaved: bool = True, copies: Copies | None = None
) -> list[str]:
    """What differs between two models of the same config, apart from regularizers."""
    problems = list(pairs.problems)
    seen: set[int] = set()
    targets: dict[int, str] = {}
    for owner, source, target in (
        (owner, source, target)
        for owner, ours, _ in pairs.layers
        for source, target in pairs.variables.get(id(ours), ())
    ):
        if id(source) in seen:
            continue
        seen.add(id(source))
        title = f"{owner}: variable {source.name}"
        if walk.plain_name(source.name) != walk.plain_name(target.name):
            problems.append(f"{title} is called {target.name} in the rewritten model")
        if source.trainable != target.trainable:
            problems.append(f"{title} has trainable={target.trainable} in the rewritten model")
        if not backends.same_bits(source, target) and (
            unsaved or walk.plain_name(source.name) != "seed_generator_state"
        ):
            problems.append(f"{title} has other values in the rewritten model")
        elif unsaved and not backends.same_place(source, target):
            problems.append(f"{title} lies on other devices in the rewritten model")
        if unsaved and not backends.same_gradients(source, target):
            problems.append(f"{title} gets gradients in one of the two models only")
        if id(target) in targets and source is not target:
            problems.append(f"{title} shares its values with {targets[id(target)]}")
        targets[id(target)] = title
    compared["variables"] = len(seen)
    for title, ours, theirs in pairs.layers:
        if _keras.is_functional(ours) and (
            not _keras.is_graph(ours)
            or any(isinstance(each, keras.Variable) for each in _keras.constants_of(ours))
        ):
            problems += _wiring_differences(title, ours, theirs)
    return problems + _object_differences(pairs) + _shared(pairs.original, pairs.copy, copies or {})


def _wiring_differences(title: str, ours: Any, theirs: Any) -> list[str]:
    """Where two graphs differ in what no config tells.

    That is what a class builds by itself, values of a weight that it took as constants, and
    weights among the arguments of a call.
    """
    one, two = _keras.wiring(ours), _keras.wiring(theirs)
    if len(one) != len(two):
        return [f"{title}: its class built {len(one)} calls, but {len(two)} when rewritten"]
    return [
        f"{title}: call {index} of {name} has other arguments when rewritten"
        for index, ((name, mine), (other, its)) in enumerate(zip(one, two, strict=True))
        if walk.plain_name(name) != walk.plain_name(other) or not _same_arguments(mine, its)
    ]


def _same_arguments(ours: list[Any], theirs: list[Any]) -> bool:
    """Whether two calls have the same arguments, or the same values where one has more options.

    Some of keras-hub's models pass what their own constructor was given on to their layers, which
    after `from_config` is more: a name, a dtype.
    """
    if len(ours) != len(theirs):
        ours, theirs = ([a for a in side if not _is_option(a)] for side in (ours, theirs))
    return len(ours) == len(theirs) and all(
        _same_argument(a, b) for a, b in zip(ours, theirs, strict=True)
    )


def _is_option(argument: Any) -> bool:
    return isinstance(argument, (str, bool, keras.DTypePolicy)) or argument is None


def _same_argument(one: Any, other: Any) -> bool:
    if isinstance(one, keras.Variable) and isinstance(other, keras.Variable):
        return backends.same_bits(one, other)
    if keras.ops.is_tensor(one) and keras.ops.is_tensor(other):
        a, b = (np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in (one, other))
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and (not isinstance(one, _PLAIN) or one == other)


def _paired(
    original: Any, copy: Any, names: Mapping[str, str], problems: list[str]
) -> Iterator[tuple[str, Any, Any]]:
    """Pairs the layers of two graph models by their places, each layer once."""
    others = {"/".join(place.names): place for place in places(copy)}
    partner: dict[int, Any] = {}
    taken: set[int] = set()
    for place in places(original):
        path = "/".join(place.names)
        other = others.get(names.get(path, path))
        title = f"layer {path!r}" if path else "the model"
        if other is None:
            problems.append(f"{title} is missing in the rewritten model")
            continue
        ours, theirs = place.layer, other.layer
        if id(ours) in partner:
            if partner[id(ours)] is not theirs:
                problems.append(f"{title} is shared in the original but not in the rewritten model")
            continue
        if id(theirs) in taken:
            problems.append(f"{title} is shared in the rewritten model but not in the original")
        partner[id(ours)] = theirs
        taken.add(id(theirs))
        one, two = (carrier.base_class(type(layer)) for layer in (ours, theirs))
        if not attributes.same_class(one, two):
            problems.append(f"{title} is a {one.__name__} but a {two.__name__} when rewritten")
        yield title, ours, theirs


def _variables(
    layers: list[tuple[str, Any, Any]], within: list[tuple[str, Any, Any]], problems: list[str]
) -> dict[int, list[tuple[Any, Any]]]:
    """Pairs the variables of paired layers and their sublayers; compares the layers' flags."""
    found: dict[int, list[tuple[Any, Any]]] = {}
    for title, ours, theirs in layers:
        graph = _keras.is_graph(ours)
        try:
            inner = [(ours, theirs)] if graph else walk.pair_layers(ours, theirs)
            found[id(ours)] = walk.pair_variables(inner)
        except ModelError as error:
            problems.append(str(error))
            continue
        within += [(title, one, two) for one, two in inner]
        for one, two in inner:
            if one.trainable != two.trainable:
                problems.append(f"{title}: {one.name} has trainable={two.trainable} when rewritten")
            if one.dtype_policy != two.dtype_policy:
                problems.append(f"{title}: {one.name} has another dtype policy when rewritten")
    return found


def penalty_differences(found: Survey, plan: Plan, pairs: Pairs) -> list[str]:
    """Where a variable's regularizer, or what a layer carries, is not what a plan says."""
    problems: list[str] = []
    serialize_once = regularizers.once()
    partner = {id(ours): theirs for _, ours, theirs in pairs.layers}
    for unit in found.units:
        theirs = partner[id(unit.layer)]
        weights = walk.weights(theirs)
        index_of = {id(weight.variable): index for index, weight in enumerate(unit.weights)}
        place_of = {id(weight.variable): place for place, weight in enumerate(weights)}
        in_config = set(unit.slots.values())
        carried = {p["index"]: p["regularizer"] for p in carrier.carried_penalties(theirs)}
        for source, target in pairs.variables[id(unit.layer)]:
            slot = unit.governs.get(index_of.get(id(source), -1))
            path = "/".join((*unit.names, source.name)) if slot is None else found.slots[slot].path
            expected = (
                serialize_once(source.regularizer) if slot is None else plan.slots[slot].after
            )
            actual = serialize_once(target.regularizer)
            if not regularizers.equal(expected, actual):
                problems.append(
                    f"{path}: the variable has {regularizers.describe(actual)} instead of "
                    f"{regularizers.describe(expected)}"
                )
            if slot is None or slot in in_config:
                continue
            kept = carried.pop(place_of[id(target)], None)
            if regularizers.can_be_made(expected) and not regularizers.equal(kept, expected):
                problems.append(
                    f"{path}: the config carries {regularizers.describe(kept)} instead of "
                    f"{regularizers.describe(expected)}"
                )
        problems += [
            f"layer {theirs.name!r} carries {regularizers.describe(extra)} for a weight that the "
            "plan says nothing of"
            for extra in carried.values()
        ]
    return problems


def _object_differences(pairs: Pairs) -> list[str]:
    """Where two models' objects differ: public attributes, optimizers, compile state, sharing."""
    variables = {id(one): (one, two) for each in pairs.variables.values() for one, two in each}
    partners = {id(one): id(two) for _, one, two in pairs.inner}
    partners.update((id(one), id(two)) for one, two in variables.values())
    comparison = attributes.ObjectComparison(list(variables.values()), partners)
    problems = []
    for title, ours, theirs in pairs.inner:
        if not pairs.renamed and walk.plain_name(ours.name) != walk.plain_name(theirs.name):
            problems.append(f"{title}: {ours.name} is called {theirs.name} in the rewritten model")
        problems += [
            f"{title}: {ours.name} has another {name} in the rewritten model"
            for name in comparison.differences(ours, theirs)
            if name != "optimizer"
        ]
    original, copy = pairs.original, pairs.copy
    compiled = getattr(original, "compiled", False)
    if compiled != getattr(copy, "compiled", False):
        which = "original" if compiled else "rewritten model"
        problems.append(f"only the {which} is compiled")
    elif compiled and original.optimizer is not None:
        problems += [
            f"the optimizer {difference} in the rewritten model"
            for difference in attributes.ObjectComparison(
                comparison.variables
            ).optimizer_differences(original.optimizer, copy.optimizer)
        ]
    return problems


def _shared(original: Any, copy: Any, copies: Copies) -> list[str]:
    """What can be reached from both models, so that training one would change the other."""
    reached = {id(value): value for value in reachable.everything(copy, weakly=True)}
    for made in copies.values():  # what was made for the copy is none of the original's
        if id(made) not in copies:
            reached.pop(id(made), None)
    ours = {id(value) for value in reachable.everything(original)} if reached else ()
    return [
        f"{_titled(value)} is the same object in both models"
        for place, value in reached.items()
        if place in ours
    ]


def _titled(value: Any) -> str:
    named = getattr(value, "path", None) or getattr(value, "name", None)
    return f"{type(value).__name__} {named!r}" if named else f"a {type(value).__name__}"


def output_differences(original: Any, copy: Any, compared: dict[str, int]) -> list[str]:
    """Where two models give other outputs on generated inputs."""
    inputs = keras.tree.map_structure(_example, _inputs(original))
    one, two = (_outputs(model, inputs) for model in (original, copy))
    compared["outputs"] = len(one)
    problems = []
    for index, (ours, theirs) in enumerate(zip(one, two, strict=True)):
        a, b = (np.asarray(keras.ops.convert_to_numpy(t), dtype="float64") for t in (ours, theirs))
        scale = float(np.nanmax(np.abs(a), initial=1.0))
        if a.shape != b.shape or not np.allclose(
            a, b, rtol=0, atol=_OUTPUT_TOLERANCE * scale, equal_nan=True
        ):
            problems.append(f"output {index} differs on generated inputs")
    return problems


def _outputs(model: Any, inputs: Any) -> list[Any]:
    """A model's outputs, without a trace of the call in its seeds and counters."""
    state = [each for each in model.variables if not each.trainable]
    before = [keras.ops.copy(each) for each in state]
    with _keras.unchanged_globals():  # so that both models draw the same
        outputs = undoing.called(model, inputs, training=False)
    for variable, value in zip(state, before, strict=True):
        variable.assign(value)
    return list(keras.tree.flatten(outputs))


def _inputs(model: Any) -> Any:
    """The symbolic inputs of a model in the structure that it is called with."""
    if isinstance(model, keras.Sequential) and model.inputs:
        return model.inputs[0]  # a Sequential has no `input` of its own
    try:
        return model.input
    except (AttributeError, ValueError) as error:
        raise ModelError(
            f"Model {model.name!r} does not say which inputs it takes, so its outputs can't be "
            'compared; leave verify=True instead of "outputs".'
        ) from error


def _example(tensor: Any) -> Any:
    """Small integers below two, which are valid for images, sequences and indices alike."""
    shape = [2 if index == 0 else 4 for index in range(len(tensor.shape))]
    shape = [
        known if known is not None else free
        for known, free in zip(tensor.shape, shape, strict=True)
    ]
    rng = np.random.default_rng(0)
    if "float" in str(tensor.dtype) and len(shape) > 2:
        return keras.ops.convert_to_tensor(rng.random(shape), dtype=tensor.dtype)
    return keras.ops.convert_to_tensor(rng.integers(0, 2, shape), dtype=tensor.dtype)
