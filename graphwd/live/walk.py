"""Walks live layers: who owns which variable, in Keras's tracking order, and pairs two layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from graphwd.errors import ModelError
from graphwd.graph.roles import prefix_for
from graphwd.graph.slots import SUFFIX
from graphwd.live import _keras

_NUMBER = re.compile(r"_\d+$")
_TO_WORD, _SMALL_TO_CAPITAL = re.compile("(.)([A-Z][a-z]+)"), re.compile("([a-z])([A-Z])")


@dataclass(frozen=True, slots=True)
class Weight:
    """A variable that was created trainable, seen from the layer where the walk began."""

    names: tuple[str, ...]  # of the sublayers on the way, without the first layer's
    layers: tuple[str, ...]  # their class names
    owner: Any  # the layer that owns the variable
    variable: Any


def class_name(layer: Any) -> str:
    """A layer's class name as its config has it."""
    return type(layer).__name__


def is_stock(layer: Any) -> bool:
    """Whether a layer is one of Keras's own, whose names follow Keras's conventions."""
    return type(layer).__module__.startswith(_keras.LAYERS)


def layers_within(layer: Any) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], Any]]:
    """Yields a layer and everything it tracks, each layer once: names, class names, layer."""
    seen: set[int] = set()
    stack: list[tuple[tuple[str, ...], tuple[str, ...], Any]] = [((), (), layer)]
    while stack:
        names, layers, current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield names, layers, current
        stack.extend(
            ((*names, inner.name), (*layers, class_name(inner)), inner)
            for inner in reversed(_keras.sublayers(current))
        )


def weights(layer: Any) -> list[Weight]:
    """All variables of a layer and its sublayers that were created trainable, each once."""
    found: list[Weight] = []
    seen: set[int] = set()
    for names, layers, current in layers_within(layer):
        for variable in _keras.own_variables(current)[0]:
            if id(variable) not in seen:
                seen.add(id(variable))
                found.append(Weight(names, layers, current, variable))
    return found


def role_of(weight: Weight) -> str:
    """A weight's role: the prefix of its layer's argument for it, or else the variable's name."""
    roles = [
        attribute.removeprefix("_").removesuffix(SUFFIX)
        for attribute in (*vars(weight.owner), *dir(type(weight.owner)))
        if attribute.endswith(SUFFIX) and attribute != f"activity{SUFFIX}"
    ]
    return role_among(weight, roles) or _name_within(weight.owner, weight.variable)


def role_among(weight: Weight, roles: Iterable[str]) -> str | None:
    """The one among some roles that a weight has by its name, if any."""
    return prefix_for(weight.variable.name, roles)


def _name_within(layer: Any, variable: Any) -> str:
    """The name of a layer's variable; those that Keras made up are numbered within the layer."""
    name: str = variable.name
    if not _is_made_up(variable):
        return name
    # Keras counts them over the whole process, and names them after a class that each backend has.
    made_up = [own for own in _keras.own_variables(layer)[0] if _is_made_up(own)]
    number = next((n for n, own in enumerate(made_up) if own is variable), 0)
    return f"variable_{number}" if number else "variable"


def steady_names(layer: Any, weight: Weight) -> tuple[str, ...]:
    """The names of sublayers on the way; those that Keras made up are numbered in each layer."""
    ways: list[tuple[Any, ...]] = [(layer,)]
    for name in weight.names:  # which two sublayers of one layer may share
        ways = [
            (*way, inner)
            for way in ways
            for inner in _keras.sublayers(way[-1])
            if inner.name == name
        ]
    steady: list[str] = []
    for outer, one in pairwise(next(way for way in ways if way[-1] is weight.owner)):
        made_up = [
            inner
            for inner in _keras.sublayers(outer)
            if type(inner) is type(one) and _is_made_up(inner)
        ]
        number = next((n for n, inner in enumerate(made_up) if inner is one), None)
        kind = _snake_case(class_name(one))
        steady.append(one.name if number is None else f"{kind}_{number}" if number else kind)
    return tuple(steady)


def _is_made_up(named: Any) -> bool:
    """Whether Keras made up the name of a variable or layer: that of its class, and a number."""
    return plain_name(named.name) == _snake_case(type(named).__name__)


def _snake_case(name: str) -> str:
    """A class's name as Keras writes it into the names that it makes up."""
    return _SMALL_TO_CAPITAL.sub(r"\1_\2", _TO_WORD.sub(r"\1_\2", name)).lower()


def plain_name(name: str) -> str:
    """A name without the number that Keras appends, which differs between processes."""
    return _NUMBER.sub("", name)


def pair_layers(source: Any, clone: Any) -> list[tuple[Any, Any]]:
    """Pairs a layer and its sublayers with those of its clone."""
    pairs: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    stack = [(source, clone)]
    while stack:
        ours, theirs = stack.pop()
        if id(ours) in seen:
            continue
        seen.add(id(ours))
        pairs.append((ours, theirs))
        inner, other = _keras.sublayers(ours), _keras.sublayers(theirs)
        if len(inner) != len(other):
            raise ModelError(
                f"Layer {ours.name!r} ({class_name(ours)}) holds {len(inner)} sublayers but "
                f"{len(other)} in the other model; compare models that were built, and called, "
                "in the same way."
            )
        if not inner:
            continue
        # Where the names are not the same, sublayers are paired by their place in tracking order.
        by_name = {layer.name: layer for layer in other}
        if len(by_name) == len(other) and {layer.name for layer in inner} == set(by_name):
            other = [by_name[layer.name] for layer in inner]
        for one, two in zip(inner, other, strict=True):
            if class_name(one) != class_name(two):
                raise ModelError(
                    f"Layer {ours.name!r} ({class_name(ours)}) holds the sublayer {one.name!r} "
                    f"({class_name(one)}) but {two.name!r} ({class_name(two)}) in its place "
                    "in the other model; create the sublayers in the same order every time."
                )
        stack.extend(reversed(list(zip(inner, other, strict=True))))
    return pairs


def pair_variables(layers: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Pairs all variables of paired layers: weights, statistics, seeds."""
    pairs: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    for ours, theirs in layers:
        for one, two in zip(_keras.own_variables(ours), _keras.own_variables(theirs), strict=True):
            for variable, copy in _aligned(ours, one, two):
                if id(variable) not in seen:
                    seen.add(id(variable))
                    pairs.append((variable, copy))
    return pairs


def _aligned(layer: Any, ours: list[Any], theirs: list[Any]) -> Iterator[tuple[Any, Any]]:
    if not ours and not theirs:
        return
    names = [variable.name for variable in ours]
    if names != [variable.name for variable in theirs]:
        by_name = {variable.name: variable for variable in theirs}
        if len(by_name) == len(theirs) == len(ours) and by_name.keys() == set(names):
            theirs = [by_name[name] for name in names]
    if len(ours) != len(theirs) or any(
        _keras.shape_of(one) != _keras.shape_of(two) or _keras.dtype_of(one) != _keras.dtype_of(two)
        for one, two in zip(ours, theirs, strict=True)
    ):
        raise ModelError(
            f"Layer {layer.name!r} ({class_name(layer)}) has the variables {_listed(ours)} but "
            f"{_listed(theirs)} in the other model; compare models that were built, and called, "
            "in the same way."
        )
    yield from zip(ours, theirs, strict=True)


def _listed(variables: list[Any]) -> str:
    return "[" + ", ".join(f"{v.name}{tuple(v.shape)} {v.dtype}" for v in variables) + "]"
