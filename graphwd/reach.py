"""Reach: which stored weights no slot of the config reaches, as far as a file can tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphwd.slots import Pointer, Slot, is_serialized
from graphwd.weights import Array

STATE = ("optimizer", "optimizer_weights")
"""The groups of a weights file that hold no weights of the model."""

_METRICS = ("metrics", "loss", "compile_metrics", "_compile_metrics", "_loss_tracker")
_STATISTICS = ("BatchNormalization", "SyncBatchNormalization", "Normalization")


@dataclass(frozen=True, slots=True)
class Unreached:
    """A layer with stored weights that no slot of its config reaches.

    Attributes:
        path: Layer names from the model inwards, joined by `/`; empty for the model itself.
        layer: The layer's class name.
        arrays: The number of arrays of floating-point numbers that the file stores for it.
        parameters: The number of scalars in them.
        slots: The number of its slots. A file doesn't tell which arrays these reach.
    """

    path: str
    layer: str
    arrays: int
    parameters: int
    slots: int

    def __str__(self) -> str:
        where = f"{self.path} ({self.layer})" if self.path else f"the model itself ({self.layer})"
        reached = f", {self.slots} with a slot" if self.slots else ""
        return f"{where}: {self.arrays} arrays{reached}, {self.parameters:,} parameters"


@dataclass(frozen=True, slots=True)
class _Unit:
    """A layer that is no model: what Keras saves below it belongs to it."""

    names: tuple[str, ...]
    pointer: Pointer
    layer: str
    stock: bool


def find_unreached(
    config: Mapping[str, Any], slots: Iterable[Slot], arrays: Iterable[Array], legacy: bool
) -> list[Unreached]:
    """Finds the layers that store weights which no slot reaches.

    Only numbers can be compared, since the file of a `.keras` archive numbers a layer's arrays
    and doesn't name them: a layer of Keras's own with a slot counts as reached, one of another
    package only when it has a slot for every array. Integers, the statistics of normalization
    layers and the state of optimizers and metrics take no regularizer and don't count.

    Args:
        config: The serialized model.
        slots: Its slots.
        arrays: The stored arrays.
        legacy: Whether the file is a whole-model `.h5` file.

    Returns:
        A list of `Unreached`, in the order of the config.
    """
    units = _find_units(config)
    counts = [[0, 0, 0] for _ in units]  # arrays, parameters, slots
    by_pointer = {unit.pointer: number for number, unit in enumerate(units)}
    for slot in slots:
        if slot.role == "activity" or not slot.pointers:
            continue
        pointer = slot.pointers[0]
        number = next(
            (
                by_pointer[pointer[:n]]
                for n in range(len(pointer), -1, -1)
                if pointer[:n] in by_pointer
            ),
            None,
        )
        if number is not None:
            counts[number][2] += 1
    find = _LegacyOwners(units) if legacy else _Owners(units)
    for array in arrays:
        owner = find(array) if array.is_float else None
        if owner is not None:
            counts[owner][0] += 1
            counts[owner][1] += array.parameters
    return [
        Unreached("/".join(unit.names), unit.layer, stored, parameters, reached)
        for unit, (stored, parameters, reached) in zip(units, counts, strict=True)
        if stored
        and (not reached if unit.stock else reached < stored)
        and not (unit.stock and unit.layer in _STATISTICS)
    ]


def sizes_of_layers(
    config: Mapping[str, Any], arrays: Iterable[Array], legacy: bool
) -> dict[str, int]:
    """Counts the floating-point numbers that are stored for each layer.

    Args:
        config: The serialized model.
        arrays: The stored arrays.
        legacy: Whether the file is a whole-model `.h5` file.

    Returns:
        Maps the path of each layer that has any to their number, in the order of the config.
    """
    units = _find_units(config)
    sizes = [0] * len(units)
    find = _LegacyOwners(units) if legacy else _Owners(units)
    for array in arrays:
        owner = find(array) if array.is_float else None
        if owner is not None:
            sizes[owner] += array.parameters
    return {"/".join(unit.names): size for unit, size in zip(units, sizes, strict=True) if size}


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
                units.append(_Unit(names, pointer, node["class_name"], _is_stock(node)))
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


def _is_stock(node: Mapping[str, Any]) -> bool:
    module = node.get("module")
    if isinstance(module, str):
        return module == "keras" or module.startswith("keras.")
    return ">" not in node["class_name"]  # the legacy dialect notes packages only like this


class _Owners:
    """Finds the layer of an array in the weights of a `.keras` archive.

    There a model keeps its layers in a group `layers`, and each notes its name.
    """

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
    """Finds the layer of an array in a whole-model `.h5` file.

    There the group of a layer of the model has all weights of that layer, under their own paths.
    """

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
