"""Slots: every `<role>_regularizer` in a serialized model or layer, found by name and set.

The rules here are conventions of Keras's configs, not a list of classes:

- a key `<role>_regularizer` in the config of a serialized object is a slot;
- whatever in a config looks like a serialized object (`class_name` and `config`) is walked into,
  so wrappers, cells, nested models and custom layers that hold layers need no special case;
- a weight that the config switches off (`use_bias`, `scale`, `center`) has no slot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeGuard

from graphwd.graph.roles import known_ndim
from graphwd.policy import regularizers

Pointer: TypeAlias = tuple[str | int, ...]
"""The keys and indices that lead from a serialized model to a place inside it."""

SUFFIX = "_regularizer"
CARRIED = "graphwd"
"""The key under which a layer's config carries penalties that Keras's own keys can't express."""
# A key beside it that `Layer.__new__` refuses, so that the layer's class can't drop the penalties.
_GUARD = "cls"
_REFUSAL = (
    "carries penalties of graphwd, which the class alone would drop: load this config by "
    "keras.saving.deserialize_keras_object"
)

_CONTAINERS = (dict, list, tuple, Mapping)  # in the order in which asking is quick
_ATOMS = frozenset((type(None), bool, int, float, str))
_SWITCHES = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
_INTEGER_KERNELS = ("int8", "int4", "gptq", "awq")

# Keras 3's constructors of these take an activity_regularizer and lose it, so no edit can stick.
_WITHOUT_ACTIVITY = ("SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")


@dataclass(frozen=True, slots=True)
class Slot:
    """One place that can hold a regularizer."""

    path: str  # layer names from the model inwards, then the role, joined by `/`
    role: str  # Keras's prefix; for a weight without a regularizer argument its variable's name
    layers: tuple[str, ...]  # class names from the outermost layer inwards; the last one owns it
    regularizer: regularizers.Serialized | None  # what it holds now
    # Where it stands in the serialized model: in several places if its layer is shared, or is both
    # directions of a `Bidirectional`; in none if no config reaches the weight.
    pointers: tuple[Pointer, ...]
    frozen: bool = False  # whether all its weights are, so that Keras skips a penalty on them
    shapes: tuple[tuple[int, ...], ...] = ()  # of its weights; none where a file doesn't tell
    carried: bool = False  # whether graphwd's carrier holds the regularizer
    ndim: int | None = None  # of weights without a shape, where Keras's class tells

    @property
    def ndims(self) -> tuple[int, ...]:
        """The number of dimensions of each weight; without shapes the one of them all, if known."""
        return tuple(map(len, self.shapes)) or (() if self.ndim is None else (self.ndim,))

    @property
    def layer(self) -> str:
        """The class name of the layer that owns the slot."""
        return self.layers[-1] if self.layers else ""

    @property
    def parameters(self) -> int | None:
        """The number of scalars in the slot's weights; `None` where a file doesn't tell."""
        if not self.shapes:
            return None
        return sum(map(math.prod, self.shapes))


@dataclass(frozen=True, slots=True)
class _Place:
    """A value still to be walked, and what surrounds it."""

    value: Any
    pointer: Pointer
    names: tuple[str, ...]
    layers: tuple[str, ...]
    frozen: bool
    direction: str = ""


def is_serialized(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value in a config is a serialized object (a layer, a cell, an initializer...)."""
    # Asking for `dict` first is quick; a file's config has nothing else.
    if type(value) is not dict and not isinstance(value, Mapping):
        return False
    if not isinstance(value.get("class_name"), str):
        return False
    config = value.get("config")
    return type(config) is dict or isinstance(config, Mapping)


def is_serialized_stock(value: Mapping[str, Any]) -> bool:
    """Whether a serialized object's class is Keras's own and not another one of the same name."""
    module = value.get("module")
    if module is None:  # the legacy dialect notes packages before a ">"; a notebook's has none
        return ">" not in value["class_name"] and value.get("registered_name") is None
    return str(module).split(".")[0] == "keras"


def find_slots(serialized: Mapping[str, Any]) -> list[Slot]:
    """Finds every slot of a serialized model or layer, in the order of its config."""
    found: list[Slot] = []
    directed: dict[int, str] = {}
    shared: dict[tuple[Any, str], int] = {}
    stack = [_Place(serialized, (), (), (), False)]
    outermost = True  # the name and class of this object are not part of the paths
    while stack:
        place = stack.pop()
        value = place.value
        if not is_serialized(value):
            stack.extend(_inside(value, place))
            continue
        config = value["config"]
        frozen = place.frozen or config.get("trainable") is False
        names, layers = place.names, place.layers
        if not outermost:
            name = config.get("name", value.get("name"))
            if isinstance(name, str):
                names = (*names, name.removeprefix(place.direction))
            layers = (*layers, value["class_name"])
        own = layers or (value["class_name"],)
        inside: list[_Place] = []
        here = (*place.pointer, "config")
        for key, item in config.items():
            if isinstance(key, str) and key.endswith(SUFFIX) and len(key) > len(SUFFIX):
                if not is_slot(config, key):
                    continue
                role = key.removesuffix(SUFFIX)
                if role == "activity" and value["class_name"] in _WITHOUT_ACTIVITY and not item:
                    continue
                slot = Slot(
                    path="/".join((*names, role)),
                    role=role,
                    layers=own,
                    regularizer=standard(item),
                    pointers=((*here, key),),
                    frozen=frozen and role != "activity",
                    ndim=known_ndim(value["class_name"], config, role)
                    if is_serialized_stock(value)
                    else None,
                )
                identity = (value.get("shared_object_id"), role)
                if identity[0] is not None and identity in shared:
                    first = found[shared[identity]]
                    found[shared[identity]] = replace(
                        first, pointers=(*first.pointers, *slot.pointers)
                    )
                    continue
                if identity[0] is not None:
                    shared[identity] = len(found)
                if place.direction:
                    directed[len(found)] = place.direction
                found.append(slot)
            elif key == CARRIED and isinstance(item, Mapping):
                found.extend(_carried_slots(item, (*here, key), names, layers, frozen))
            elif type(item) not in _ATOMS and may_hold_slots(item):
                direction = place.direction if not is_serialized(item) else ""
                if value["class_name"] == "Bidirectional" and is_serialized(item):
                    direction = {"layer": "forward_", "backward_layer": "backward_"}.get(
                        str(key), ""
                    )
                inside.append(_Place(item, (*here, key), names, layers, frozen, direction))
        stack.extend(reversed(inside))
        outermost = False
    return _merge_directions(found, directed)


def _inside(value: Any, place: _Place) -> Iterable[_Place]:
    """What a list or a plain mapping holds, last first, since the walk is a stack."""
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        items = list(enumerate(value))
    else:
        return ()
    names, layers, frozen, direction = place.names, place.layers, place.frozen, place.direction
    return [
        _Place(item, (*place.pointer, key), names, layers, frozen, direction)
        for key, item in reversed(list(items))
        if may_hold_slots(item)
    ]


def may_hold_slots(value: Any) -> bool:
    """Whether a slot may be inside a value: most of a config is numbers, shapes, initializers."""
    if type(value) is dict:
        return not (_is_flat(value) or all(map(_is_flat, value.values())))
    return not _is_flat(value) and isinstance(value, _CONTAINERS)


def _is_flat(value: Any) -> bool:
    """Whether a value is an atom or holds nothing but atoms, none of them in a slot."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is list or kind is tuple:
        return _ATOMS.issuperset(map(type, value))
    return (
        kind is dict
        and _ATOMS.issuperset(map(type, value.values()))
        and not any(str(key).endswith(SUFFIX) for key in value)
    )


def _carried_slots(
    carried: Mapping[str, Any],
    pointer: Pointer,
    names: tuple[str, ...],
    layers: tuple[str, ...],
    frozen: bool,
) -> list[Slot]:
    return [
        Slot(
            path="/".join((*names, *penalty["names"], penalty["role"])),
            role=penalty["role"],
            layers=(*layers, *penalty["layers"]),
            regularizer=penalty["regularizer"],
            pointers=((*pointer, "penalties", index, "regularizer"),),
            frozen=frozen,
            shapes=(tuple(penalty["shape"]),),
            carried=True,
        )
        for index, penalty in enumerate(carried.get("penalties") or ())
    ]


def add_carried(config: Mapping[str, Any], carried: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's config that carries something, and that the layer's class alone refuses."""
    return {**config, _GUARD: config.get(_GUARD, _REFUSAL), CARRIED: carried}


def take_carried(config: dict[str, Any]) -> Any:
    """Takes what a layer's config carries out of it."""
    if config.get(_GUARD) == _REFUSAL:  # which is otherwise an argument of the layer's own
        del config[_GUARD]
    return config.pop(CARRIED)


def strip_carried(serialized: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a serialized model without what graphwd carries in it: Keras's own config alone."""
    places: list[Pointer] = []
    stack: list[tuple[Any, Pointer]] = [(serialized, ())]
    while stack:
        value, pointer = stack.pop()
        if is_serialized(value) and isinstance(value["config"].get(CARRIED), Mapping):
            places.append(pointer)
        items = (
            value.items()
            if isinstance(value, Mapping)
            else enumerate(value)
            if isinstance(value, (list, tuple))
            else ()
        )
        stack.extend(
            (item, (*pointer, key)) for key, item in items if isinstance(item, _CONTAINERS)
        )
    if not places:
        return serialized  # type: ignore[return-value] # Keras's configs are dicts
    copies = _Copies(serialized)
    for pointer in places:
        layer = copies.at(pointer)
        config = copies.at((*pointer, "config"))
        # Every carrying layer is under its own class again.
        layer.update(take_carried(config)["class"])
    return copies.at(())  # type: ignore[no-any-return] # a config is JSON, which has no static type


def _merge_directions(slots: list[Slot], directed: Mapping[int, str]) -> list[Slot]:
    """Makes one slot of a `Bidirectional`'s two directions, which the user gave as one layer."""
    groups: dict[str, list[int]] = {}
    for index in directed:
        groups.setdefault(slots[index].path, []).append(index)
    dropped: set[int] = set()
    for indices in groups.values():
        first = slots[indices[0]]
        if len({regularizers.normalize(slots[i].regularizer) for i in indices}) == 1:
            pointers = tuple(p for i in indices for p in slots[i].pointers)
            slots[indices[0]] = replace(first, pointers=pointers)
            dropped.update(indices[1:])
            continue
        # Directions that differ stay apart, under the names that Keras gave them.
        for i in indices:
            *outer, name, role = slots[i].path.split("/")
            slots[i] = replace(slots[i], path="/".join((*outer, directed[i] + name, role)))
    return [slot for index, slot in enumerate(slots) if index not in dropped]


def is_slot(config: Mapping[Any, Any], key: str) -> bool:
    """Whether a key `<role>_regularizer` of a layer's config governs a weight, set or not."""
    return _is_regularizer(config.get(key)) and _has_weight(config, key.removesuffix(SUFFIX))


def _is_regularizer(value: Any) -> bool:
    """Whether a value is one of the forms in which Keras saves a regularizer."""
    if value is None or isinstance(value, str) or is_serialized(value):
        return True
    # A registered function has its name as its config.
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("class_name"), str)
        and isinstance(value.get("config"), str)
    )


def standard(value: Any) -> regularizers.Serialized | None:
    """A custom layer's get_config may give Keras's identifier instead of a serialized object."""
    if isinstance(value, str):
        return {"class_name": value, "config": {}}
    return value  # type: ignore[no-any-return] # a config is JSON, which has no static type


def _has_weight(config: Mapping[str, Any], role: str) -> bool:
    switch = _SWITCHES.get(role)
    if switch is not None and config.get(switch) is False:
        return False
    if role == "beta" and config.get("rms_scaling") is True:
        return False
    if role == "bias" and config.get("bias_axes", "") is None:  # EinsumDense's switch
        return False
    if role in ("kernel", "embeddings"):
        policy = config.get("dtype")
        if is_serialized(policy):
            mode = policy["config"].get("mode", policy["config"].get("name", ""))
            return not str(mode).startswith(_INTEGER_KERNELS)
    return True


def set_regularizers(
    serialized: Mapping[str, Any], values: Mapping[Pointer, regularizers.Serialized | None]
) -> dict[str, Any]:
    """Returns a serialized model with regularizers at the given pointers; `None` takes one away."""
    copies = _Copies(serialized)  # so that the argument is left as it was
    for pointer, value in values.items():
        container = copies.at(pointer[:-1])
        owner = copies.at(pointer[:-2]) if len(pointer) >= 2 else {}
        legacy = isinstance(owner, Mapping) and "class_name" in owner and "module" not in owner
        container[pointer[-1]] = _in_legacy_dialect(value) if legacy and value else value
    return copies.at(())  # type: ignore[no-any-return] # a config is JSON, which has no static type


class _Copies:
    """Copies of the containers on the way to an edit; what is not on the way is shared."""

    def __init__(self, original: Mapping[str, Any]) -> None:
        self._made: dict[Pointer, Any] = {(): dict(original)}

    def at(self, pointer: Pointer) -> Any:
        depth = len(pointer)
        while pointer[:depth] not in self._made:
            depth -= 1
        for length in range(depth, len(pointer)):
            parent, key = self._made[pointer[:length]], pointer[length]
            child = parent[key]
            child = dict(child) if isinstance(child, Mapping) else list(child)
            parent[key] = child
            self._made[pointer[: length + 1]] = child
        return self._made[pointer]


def _in_legacy_dialect(value: regularizers.Serialized) -> dict[str, Any]:
    class_name = value.get("registered_name") or value["class_name"]
    return {"class_name": class_name, "config": dict(value["config"])}
