"""Reach: which stored weights a slot of the config reaches, and which none does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphwd.graph import roles
from graphwd.graph.slots import CARRIED, Pointer, Slot, is_serialized, is_serialized_stock
from graphwd.saved.configs import value_at
from graphwd.saved.weights import Array

# The outermost groups of a .keras file's weights that hold no weights of the model.
_METRICS = ("metrics", "loss", "compile_metrics", "_compile_metrics", "_loss_tracker")
_STATISTICS = ("BatchNormalization", "SyncBatchNormalization", "Normalization")


@dataclass(frozen=True, slots=True)
class Unreached:
    """A layer with stored weights that no slot reaches: how many arrays, parameters and slots."""

    path: str
    layer: str
    arrays: int
    parameters: int
    slots: int  # a file doesn't tell which arrays they reach

    def __str__(self) -> str:
        where = f"{self.path} ({self.layer})" if self.path else f"the model itself ({self.layer})"
        reached = f", {self.slots} with a slot" if self.slots else ""
        arrays = f"{self.arrays} array{'' if self.arrays == 1 else 's'}"
        return f"{where}: {arrays}{reached}, {self.parameters:,} parameters"


@dataclass(frozen=True, slots=True)
class Reach:
    """What a file tells of its weights and its slots."""

    # For each slot the stored arrays that it governs; empty where the file doesn't tell.
    arrays: tuple[tuple[Array, ...], ...]
    unreached: tuple[Unreached, ...]  # the layers with weights that no slot reaches
    hidden: int  # the number of parameters in them, without arrays that a slot is known to govern
    sizes: Mapping[str, int]  # the number of parameters of each layer by path, with statistics


@dataclass(frozen=True, slots=True)
class _Unit:
    """A layer that is no model: what Keras saves below it belongs to it."""

    names: tuple[str, ...]
    pointer: Pointer
    layer: str
    stock: bool


def find_reach(
    config: Mapping[str, Any], slots: Sequence[Slot], arrays: Iterable[Array], legacy: bool
) -> Reach:
    """Finds out which stored arrays the slots of a model govern."""
    units = _find_units(config)
    find = _LegacyOwners(units) if legacy else _Owners(units)
    stored: list[list[Array]] = [[] for _ in units]
    for array in arrays:
        # Integers, and the state of optimizers and metrics, take no regularizer.
        owner = find(array) if array.is_float else None
        if owner is not None:
            stored[owner].append(array)
    slots_of: list[list[int]] = [[] for _ in units]
    by_pointer = {unit.pointer: number for number, unit in enumerate(units)}
    for index, slot in enumerate(slots):
        if slot.role != "activity" and slot.pointers:
            number = _nearest(slot.pointers[0], by_pointer)
            if number is not None:
                slots_of[number].append(index)
    # A `.h5` file has the names of its arrays. A `.keras` archive numbers those of each layer
    # in the order in which it created them, which is known of Keras's own layers alone.
    if legacy:
        governed = dict(_named(config, slots, units, stored, slots_of))
    else:
        governed = _numbered(config, slots, [array for own in stored for array in own])
    reached = {array.path for own in governed.values() for array in own}
    unreached = []
    hidden = 0
    for unit, own, indices in zip(units, stored, slots_of, strict=True):
        count = len(indices)
        # A layer of Keras's own counts as reached when it has any slot. Of others it is not known
        # which array a slot governs, so they do when they have a slot for every array.
        lacking = not count if unit.stock else count < len(own)
        if own and lacking and not (unit.stock and unit.layer in _STATISTICS):
            parameters = sum(array.parameters for array in own)
            path = "/".join(unit.names)
            unreached.append(Unreached(path, unit.layer, len(own), parameters, count))
            hidden += sum(array.parameters for array in own if array.path not in reached)
    sizes = {
        "/".join(unit.names): sum(array.parameters for array in own)
        for unit, own in zip(units, stored, strict=True)
        if own
    }
    found = tuple(tuple(governed.get(index, ())) for index in range(len(slots)))
    return Reach(found, tuple(unreached), hidden, sizes)


def _nearest(pointer: Pointer, places: Mapping[Pointer, int]) -> int | None:
    """What stands at a pointer or around it."""
    for length in range(len(pointer), -1, -1):
        if pointer[:length] in places:
            return places[pointer[:length]]
    return None


def _named(
    config: Mapping[str, Any],
    slots: Sequence[Slot],
    units: Sequence[_Unit],
    stored: Sequence[Sequence[Array]],
    slots_of: Sequence[Sequence[int]],
) -> Iterator[tuple[int, list[Array]]]:
    """The arrays that slots govern in a `.h5` file: by their names."""
    for unit, own, indices in zip(units, stored, slots_of, strict=True):
        names = [array.path.removesuffix(":0").split("/") for array in own]
        plain: dict[str, list[int]] = {}
        for index in indices:
            if slots[index].carried:
                penalty = value_at(config, slots[index].pointers[0][:-1])
                inner = penalty["names"]
                matches = [
                    array
                    for array, parts in zip(own, names, strict=True)
                    if roles.prefix_for(parts[-1], [slots[index].role]) is not None
                    and array.shape in slots[index].shapes
                    and _within(inner, parts[:-1])
                ]
                if len(matches) == 1:
                    yield index, matches
            elif unit.stock:
                plain.setdefault(slots[index].role, []).append(index)
        governed: dict[int, list[Array]] = {}
        for array, parts in zip(own, names, strict=True):
            role = roles.prefix_for(parts[-1], plain)
            if role is None:
                continue
            candidates = plain[role]
            if len(candidates) > 1:  # the directions of a Bidirectional that differ
                owners = {
                    i: value_at(config, slots[i].pointers[0][:-1]).get("name") for i in candidates
                }
                candidates = [i for i in candidates if owners[i] in parts]
            if len(candidates) == 1:
                governed.setdefault(candidates[0], []).append(array)
        yield from governed.items()


def _within(inner: Sequence[str], around: Sequence[str]) -> bool:
    """Whether all names are among others, in their order, and the last one is the last."""
    if not inner:
        return True
    rest = iter(around)
    return all(name in rest for name in inner) and around[-1] == inner[-1]


def _numbered(
    config: Mapping[str, Any], slots: Sequence[Slot], arrays: Sequence[Array]
) -> dict[int, list[Array]]:
    """The arrays that slots govern in a `.keras` archive: by their numbers in each layer."""
    saved = _Saved(arrays)
    governed: dict[int, list[Array]] = {}
    hosts: dict[tuple[str, ...], dict[str, int]] = {}
    for index, slot in enumerate(slots):
        if slot.role == "activity":
            continue
        if slot.carried:
            penalty = value_at(config, slot.pointers[0][:-1])
            group = saved.place(config, slot.pointers[0][:-5])
            if group is not None:
                matches = saved.matching(group, penalty["names"], slot.shapes)
                if len(matches) == 1:  # a layer with several of a shape doesn't tell which it is
                    governed[index] = matches
            continue
        for pointer in slot.pointers:
            group = saved.place(config, pointer[:-2])
            if group is not None and is_serialized_stock(
                _own_class(value_at(config, pointer[:-2]))
            ):
                hosts.setdefault(group, {})[slot.role] = index
    for group, numbers in saved.groups.items():
        host = next((group[:n] for n in range(len(group), -1, -1) if group[:n] in hosts), None)
        if host is None or not hosts[host].keys() <= {*roles.ORDER}:
            continue
        own = sorted(hosts[host], key=roles.ORDER.index)
        found = [numbers.get(number) for number in range(len(own))]
        if all(
            array is not None and (role not in roles.MATRICES or len(array.shape) > 1)
            for role, array in zip(own, found, strict=True)
        ):
            for role, array in zip(own, found, strict=True):
                governed.setdefault(hosts[host][role], []).append(array)  # type: ignore[arg-type] # none of them is None
    return governed


def _own_class(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The class of a layer itself, where graphwd makes it carry penalties."""
    carried = node["config"].get(CARRIED) if isinstance(node.get("config"), Mapping) else None
    own = carried.get("class") if isinstance(carried, Mapping) else None
    return own if isinstance(own, Mapping) and isinstance(own.get("class_name"), str) else node


class _Saved:
    """The saved objects of a `.keras` archive: the arrays of each by their numbers, in `groups`."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.groups: dict[tuple[str, ...], dict[int, Array]] = {}
        self._children: dict[tuple[str, ...], dict[str, str]] = {}
        self._below: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for array in arrays:
            *keys, own, number = array.path.split("/")
            if own != "vars" or not number.isdecimal() or not array.named:
                continue
            group = self.groups.setdefault(tuple(keys), {})
            if not group:
                for depth, key in enumerate(keys):
                    self._children.setdefault(tuple(keys[:depth]), {})[array.owners[depth]] = key
                    self._below.setdefault(tuple(keys[: depth + 1]), []).append(tuple(keys))
            group[int(number)] = array

    def place(self, config: Mapping[str, Any], pointer: Pointer) -> tuple[str, ...] | None:
        """The keys that lead to the object that stands at a pointer into the config."""
        keys: tuple[str, ...] = ()
        node: Any = config
        steps = iter(pointer)
        for step in steps:
            node = node[step]
            if step == "config":
                continue
            attribute = str(step)
            listed = step == "layers" and isinstance(node, list)
            if listed:
                node = node[next(steps)]
                keys = (*keys, "layers")
            name = node["config"].get("name") if is_serialized(node) else None
            key = self._children.get(keys, {}).get(name) if isinstance(name, str) else None
            if key is None or not (listed or key.endswith(attribute)):
                return None
            keys = (*keys, key)
        return keys

    def matching(
        self, group: tuple[str, ...], names: Sequence[str], shapes: Sequence[tuple[int, ...]]
    ) -> list[Array]:
        """The arrays of given shapes in the sublayer that names lead to."""
        return [
            array
            for keys in self._below.get(group, ())
            for array in self.groups[keys].values()
            if array.shape in shapes
            and (_within(names, array.owners[len(group) : len(keys)]) if names else keys == group)
        ]


def _find_units(config: Mapping[str, Any]) -> list[_Unit]:
    """All layers that are no models, in the order of the config, and the model itself."""
    units = [_Unit((), (), str(config.get("class_name")), False)]
    stack: list[tuple[Mapping[str, Any], tuple[str, ...], Pointer]] = [(config, (), ())]
    while stack:
        node, names, pointer = stack.pop()
        inner = _inner_layers(node)
        if pointer:
            name = node["config"].get("name", node.get("name"))
            names = (*names, name) if isinstance(name, str) else names
            if not inner:
                units.append(_Unit(names, pointer, node["class_name"], is_serialized_stock(node)))
        stack.extend(
            (layer, names, (*pointer, "config", "layers", number))
            for number, layer in reversed(inner)
        )
    return units


def _inner_layers(node: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    config = node.get("config")
    layers = config.get("layers") if isinstance(config, Mapping) else config
    if not isinstance(layers, Sequence) or isinstance(layers, str):
        return []
    return [(number, layer) for number, layer in enumerate(layers) if is_serialized(layer)]


class _Owners:
    """Finds the layer of an array of a `.keras` archive: a group `layers`, and each has a name."""

    def __init__(self, units: Sequence[_Unit]) -> None:
        self._numbers = {unit.names: number for number, unit in reversed([*enumerate(units)])}

    def __call__(self, array: Array) -> int | None:
        keys = array.path.split("/")
        names: list[str] = []
        place = 0
        while place + 1 < len(keys) and keys[place] == "layers":
            names.append(array.owners[place + 1] if place + 1 < len(array.owners) else "")
            place += 2
        if not names and keys[0] in _METRICS:
            return None
        while names and tuple(names) not in self._numbers:
            names.pop()  # a layer in a Sequential model may leave its name out of its config
        return self._numbers[tuple(names)]


class _LegacyOwners:
    """Finds the layer of an array of a `.h5` file: its group has all weights under their paths."""

    def __init__(self, units: Sequence[_Unit]) -> None:
        self._by_layer: dict[str, list[tuple[int, _Unit]]] = {}
        for number, unit in enumerate(units):
            if unit.names:
                self._by_layer.setdefault(unit.names[0], []).append((number, unit))

    def __call__(self, array: Array) -> int | None:
        group, _, rest = array.path.partition("/")
        layer, _, path = rest.partition("/")
        if group != "model_weights":
            return None
        candidates = self._by_layer.get(layer, [])
        if len(candidates) == 1:
            return candidates[0][0]
        around = path.split("/")[:-1]
        matches = [candidate for candidate in candidates if candidate[1].names[-1] in around]
        return max(matches, key=lambda match: len(match[1].names), default=(0,))[0]
