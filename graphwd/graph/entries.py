"""Entries: serialized layers and models compared key by key, their regularizers by meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphwd.graph import values
from graphwd.graph.slots import SUFFIX, is_slot, standard
from graphwd.graph.values import Mask, contrast, is_mapping, keys_text, show
from graphwd.graph.wiring import DEEPEST_LAYER, layer_name, model_kind, too_deep
from graphwd.policy import regularizers

_STRUCTURE = ("layers", "input_layers", "output_layers")
# Shapes that Keras recorded while it built the model: where a layer differs, so do the shapes
# after it, and the reader wants the cause.
_RECORDED = ("build_config", "build_input_shape")
_OTHER_CLASS: Mask = dict.fromkeys(("config", "module", "registered_name", "build_config"))


@dataclass(slots=True, eq=False)
class Owner:
    """The model or layer that a difference belongs to, by its path in either model."""

    kind: str
    path: str
    counterpart: str
    depth: int

    @property
    def title(self) -> str:
        """What to call it in messages."""
        if not self.path:
            return self.kind
        if self.path == self.counterpart:
            return f"{self.kind} {show(self.path)}"
        return f"{self.kind} {show(self.path)} ({show(self.counterpart)} in the rewritten model)"

    def inner(self, kind: str, name: str, counterpart: str) -> Owner:
        """A layer of this model, or what is in this layer."""
        if self.depth >= DEEPEST_LAYER:
            raise too_deep()
        if self.path:
            name, counterpart = f"{self.path}/{name}", f"{self.counterpart}/{counterpart}"
        return Owner(kind, name, counterpart, self.depth + 1)


@dataclass(slots=True)
class Task:
    """Two models that are still to be compared."""

    original: Mapping[str, Any]
    rewritten: Mapping[str, Any]
    owner: Owner
    named: bool  # whether the models' own names count
    regularized: bool  # whether regularizers count
    entry: bool = False  # whether they stand in the list of another model's layers


class Findings:
    """What a comparison finds."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.recorded: list[str] = []
        self.names: dict[str, str] = {}
        self.pending: list[Task] = []
        self.shared: list[tuple[int | None, int | None, Owner]] = []

    def add(self, other: Findings) -> None:
        """Takes over what another comparison has found."""
        self.problems += other.problems
        self.recorded += other.recorded
        for name, counterpart in other.names.items():
            self.names.setdefault(name, counterpart)
        self.pending += other.pending
        self.shared += other.shared


class Entries(Findings):
    """Compares serialized layers and models, with names or without; models inside them later."""

    def __init__(self, task: Task, named: bool) -> None:
        super().__init__()
        self.task = task
        self.named = named

    def compare(
        self,
        original: Mapping[str, Any],
        rewritten: Mapping[str, Any],
        owner: Owner,
        mask: Mask,
        entry: bool,
    ) -> None:
        """Compares two serialized objects key by key, their regularizers by meaning."""
        mask = self._mask(original, rewritten, owner, mask, entry)
        for each in values.differences(original, rewritten, owner, mask, self._visit):
            path = each.path
            if path[0] == "config" and len(path) > 1:
                path = path[1:]
            text = contrast(f"{each.root.title}: {keys_text(path)}", each.original, each.rewritten)
            (self.recorded if path[0] in _RECORDED else self.problems).append(text)

    def compare_models(self) -> None:
        """Compares what two models have beside their layers and wiring."""
        task = self.task
        named, self.named = self.named, task.named
        mask: Mask = {}
        if model_kind(task.original) == model_kind(task.rewritten) != "opaque":
            mask = {"config": dict.fromkeys(_STRUCTURE)}
        self.compare(task.original, task.rewritten, task.owner, mask, task.entry)
        self.named = named

    def _visit(
        self, one: Mapping[Any, Any], other: Mapping[Any, Any], path: Any, mask: Mask | None
    ) -> Any:
        """Gives layers and models inside a config an owner of their own."""
        config, other_config = one.get("config"), other.get("config")
        if not is_mapping(config) or not is_mapping(other_config):
            return None
        root = path
        while isinstance(root, tuple):
            root = root[0]
        is_model = "layers" in config and "opaque" not in (model_kind(one), model_kind(other))
        if not is_model and not _is_layer(one):
            added: Mask = {"config": self._slots(config, other_config, root)}
            if "shared_object_id" in one or "shared_object_id" in other:
                added["shared_object_id"] = None
            if not self.named and _is_optimizer(one):
                added["config"]["name"] = None
            return path, _class_mask(one, other, added)
        name = layer_name(one) or str(one["class_name"])
        kind = "model" if is_model else "layer"
        owner: Owner = root.inner(kind, name, layer_name(other) or name)
        self.names.setdefault(owner.path, owner.counterpart)
        if is_model:
            task = self.task
            self.pending.append(Task(one, other, owner, self.named, task.regularized))
            return values.SKIP
        return owner, self._mask(one, other, owner, {}, False)

    def _mask(
        self,
        one: Mapping[Any, Any],
        other: Mapping[Any, Any],
        owner: Owner,
        mask: Mask,
        entry: bool,
    ) -> Mask:
        """Adds to a mask what is compared elsewhere: wiring, sharing and, by structure, names."""
        inner = dict(mask.get("config", {}))
        config, other_config = one.get("config"), other.get("config")
        if is_mapping(config) and is_mapping(other_config):
            inner |= self._slots(config, other_config, owner)
        added: Mask = {"inbound_nodes": None} if entry else {}
        if not self.named:
            inner["name"] = None
            if entry:
                added["name"] = None
        if "shared_object_id" in one or "shared_object_id" in other:
            added["shared_object_id"] = None
            shared = (_number(one.get("shared_object_id")), _number(other.get("shared_object_id")))
            self.shared.append((*shared, owner))
        return _class_mask(one, other, {**added, "config": inner})

    def _slots(self, one: Mapping[Any, Any], other: Mapping[Any, Any], owner: Owner) -> Mask:
        """Compares what two configs' slots hold by meaning, and gives a mask of these."""
        mask: Mask = {}
        keys = one if one.keys() == other.keys() else {**one, **other}
        for key in [key for key in keys if type(key) is str and key.endswith(SUFFIX)]:
            if is_slot(one, key) and is_slot(other, key):
                mask[key] = None
                # Keras writes a regularizer in several ways: its factor rounded to float32
                # or not, a key with null or no key.
                here, there = standard(one.get(key)), standard(other.get(key))
                if self.task.regularized and not regularizers.equal(here, there):
                    role = key.removesuffix(SUFFIX)
                    path = f"{owner.path}/{role}" if owner.path else role
                    self.problems.append(instead(path, there, here))
        return mask


def instead(path: str, actual: Any, expected: Any) -> str:
    """The problem of a slot that holds something else than planned."""
    return (
        f"{path}: the config has {regularizers.describe(actual)} instead of the planned "
        f"{regularizers.describe(expected)}"
    )


def _class_mask(one: Mapping[Any, Any], other: Mapping[Any, Any], mask: Mask) -> Mask:
    """Leaves out what differs only because the class does."""
    name = one.get("class_name")
    if type(name) is str and name != other.get("class_name"):
        return {**mask, **_OTHER_CLASS}
    return mask


def _is_layer(entry: Mapping[Any, Any]) -> bool:
    """Tells a serialized layer from, say, a dtype policy, whose name is all that it is."""
    config = entry["config"]
    if not isinstance(config.get("name"), str):
        return False
    module = entry.get("module")
    return "trainable" in config or (isinstance(module, str) and module.startswith("keras.layers"))


def _is_optimizer(entry: Mapping[Any, Any]) -> bool:
    """Tells a serialized optimizer, which Keras names as it does layers: `sgd`, `sgd_1`."""
    module = entry.get("module")
    return isinstance(module, str) and module.startswith("keras.optimizers")


def _number(value: Any) -> int | None:
    return value if type(value) is int else None
