"""Pairing: two models' layers matched, by their names or by the graph's structure, and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphwd.graph import values
from graphwd.graph.values import Mask, contrast, keys_text, show
from graphwd.graph.wiring import (
    DEEPEST_LAYER,
    INPUTS,
    OUTPUTS,
    Call,
    Level,
    Links,
    Position,
    model_kind,
    name_of,
    too_deep,
)

if TYPE_CHECKING:
    pass

_STRUCTURE = ("layers", "input_layers", "output_layers")
# Shapes that Keras recorded while it built the model: where a layer differs, so do the shapes
# after it, and the reader wants the cause.
_RECORDED = ("build_config", "build_input_shape")


@dataclass(frozen=True, slots=True, eq=False)
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
        """A layer of this model, or what is in this layer.

        Args:
            kind: What to call it.
            name: Its name in the original.
            counterpart: Its name in the rewritten model.

        Returns:
            An `Owner`.

        Raises:
            ModelError: when models are nested too deep.
        """
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
    mask: Mask | None
    named: bool  # whether the models' own names count
    entry: bool = False  # whether they stand in the list of another model's layers


class Findings:
    """What one way of matching two models' layers finds."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.recorded: list[str] = []
        self.names: dict[str, str] = {}
        self.pending: list[Task] = []
        self.shared: list[tuple[int | None, int | None, Owner]] = []

    def add(self, other: Findings) -> None:
        """Takes over what another way has found."""
        self.problems += other.problems
        self.recorded += other.recorded
        for name, counterpart in other.names.items():
            self.names.setdefault(name, counterpart)
        self.pending += other.pending
        self.shared += other.shared


class Pair(Findings):
    """Compares two models' graphs, with the layers matched in one of the two ways."""

    def __init__(self, one: Level, other: Level, task: Task, named: bool) -> None:
        super().__init__()
        self.one = one
        self.other = other
        self.task = task
        self.named = named
        self.layers: dict[str, str] = {}
        self.calls: dict[Call, Call] = {INPUTS: INPUTS, OUTPUTS: OUTPUTS}
        self.links: Links = {}
        self.other_links: Links = {}

    def compare_models(self, wired: bool) -> None:
        """Compares layers and wiring, or only the layers of models known to be `wired` alike."""
        task = self.task
        mask: Mask | None = {} if task.mask is None else task.mask.get("config", {})
        layer_masks: Mask | None = {} if mask is None else mask.get("layers", {})
        structure = None if mask is None else {**mask, **dict.fromkeys(_STRUCTURE)}
        own_mask = {**(task.mask or {}), "config": structure}
        inner_named, self.named = self.named, task.named
        self.compare_objects(task.original, task.rewritten, task.owner, own_mask, task.entry)
        self.named = inner_named
        if not wired:
            self.links, self.other_links = self.one.links(), self.other.links()
        if wired:
            self.layers = {name: name for name in self.one.layers}
        elif self.named:
            self._match_names()
        else:
            self._match_structure()
        for name, counterpart in self.layers.items():
            inner: Mask | None = {}
            if layer_masks is not None:
                inner = layer_masks.get(self.one.indices[name], {})
            self._compare_layer(name, counterpart, inner if layer_masks is not None else None)
        if not wired:
            self._compare_calls()
            if not self.problems:
                self._report_unmatched()

    def _match_names(self) -> None:
        one, other, owner = self.one, self.other, self.task.owner
        for name, count in one.calls.items():
            if name not in other.calls:
                title = owner.inner("layer", name, name).title
                self.problems.append(f"{title} is missing in the rewritten model")
                continue
            self.layers[name] = name
            for number in range(min(count, other.calls[name])):
                self.calls[name, number] = (name, number)
        for name in other.calls:
            if name not in one.calls:
                title = owner.inner("layer", name, name).title
                self.problems.append(f"{title} is in the rewritten model only")
        shared = any(count > 1 for count in one.calls.values())
        different = self._count_different() if shared else 0
        if different:
            # The calls of a shared layer may be numbered in another order: let the walk tell.
            numbered = self.calls
            self.calls = self._walk()[0]
            taken = set(self.calls.values())
            for call, counterpart in numbered.items():
                if call not in self.calls and counterpart not in taken:
                    self.calls[call] = counterpart
            if self._count_different() >= different:
                self.calls = numbered

    def _count_different(self) -> int:
        """Counts the calls that don't take the same as their counterparts."""
        return sum(map(self._differs, self.calls.items()))

    def _differs(self, pair: tuple[Call, Call]) -> bool:
        links = self.links.get(pair[0], {})
        other_links = self.other_links.get(pair[1], {})
        if links.keys() != other_links.keys():
            return True
        for position, (maker, data) in links.items():
            other_maker, other_data = other_links[position]
            if self.calls.get(maker) != other_maker or data["tensor"] != other_data["tensor"]:
                return True
        return bool(values.differences(*self._constants(*pair)))

    def _match_structure(self) -> None:
        self.calls, complete = self._walk()
        if complete:
            # What neither outputs nor inputs lead to, no model has; then the order decides.
            taken = set(self.calls.values())
            spare = [call for call in self.other.nodes() if call not in taken]
            rest = [call for call in self.one.nodes() if call not in self.calls]
            self.calls.update(zip(rest, spare, strict=False))
        for (name, number), (counterpart, _) in self.calls.items():
            if number >= 0:
                self.layers.setdefault(name, counterpart)

    def _walk(self) -> tuple[dict[Call, Call], bool]:
        """Walks both graphs at once, from the outputs, argument by argument.

        Returns:
            The counterpart of each call that was reached, and whether all of them fitted.
        """
        forth: dict[Call, Call] = {INPUTS: INPUTS, OUTPUTS: OUTPUTS}
        back = dict(forth)
        layers: dict[str, str] = {}
        owners: dict[str, str] = {}
        complete = True
        pending = [INPUTS, OUTPUTS]
        while pending:
            call = pending.pop()
            other_links = self.other_links.get(forth[call], {})
            for position, (maker, _) in self.links.get(call, {}).items():
                if position not in other_links:
                    complete = False
                    continue
                counterpart = other_links[position][0]
                if maker in forth or counterpart in back:
                    complete = complete and forth.get(maker) == counterpart
                    continue
                name, other_name = maker[0], counterpart[0]
                if self.named:
                    fits = name == other_name
                elif name in layers or other_name in owners:
                    fits = layers.get(name) == other_name
                else:
                    fits = _class_of(self.one, name) == _class_of(self.other, other_name)
                if fits:
                    layers[name], owners[other_name] = other_name, name
                    forth[maker], back[counterpart] = counterpart, maker
                    pending.append(maker)
                else:
                    complete = False
        return forth, complete

    def _compare_layer(self, name: str, counterpart: str, mask: Mask | None) -> None:
        one, other = self.one, self.other
        entry, other_entry = one.layers[name], other.layers[counterpart]
        nested = model_kind(entry) != "opaque" and model_kind(other_entry) != "opaque"
        owner = self.task.owner.inner("model" if nested else "layer", name, counterpart)
        self.names.setdefault(owner.path, owner.counterpart)
        count, other_count = one.calls[name], other.calls[counterpart]
        if count != other_count:
            self.problems.append(
                f"{owner.title} is called {_times(count)} in the original and "
                f"{_times(other_count)} in the rewritten model"
            )
        offsets, other_offsets = one.offsets.get(name), other.offsets.get(counterpart)
        if offsets != other_offsets:
            what = f"{owner.title}: the first number of its calls"
            self.problems.append(contrast(what, offsets or (0, 0), other_offsets or (0, 0)))
        if mask is None:
            return
        if nested:
            self.pending.append(
                Task(entry, other_entry, owner, mask or None, self.named, entry=True)
            )
        else:
            self.compare_objects(entry, other_entry, owner, mask or None, True)

    def compare_objects(
        self,
        original: Mapping[str, Any],
        rewritten: Mapping[str, Any],
        owner: Owner,
        mask: Mask | None,
        entry: bool,
    ) -> None:
        """Compares two serialized layers or models key by key; models inside them later."""
        mask = self._mask(original, rewritten, owner, mask, entry)
        for each in values.differences(original, rewritten, owner, mask, self._visit):
            path = each.path
            if path[0] == "config" and len(path) > 1:
                path = path[1:]
            recorded = path[0] in _RECORDED
            text = contrast(f"{each.root.title}: {keys_text(path)}", each.original, each.rewritten)
            (self.recorded if recorded else self.problems).append(text)

    def _visit(
        self, one: Mapping[Any, Any], other: Mapping[Any, Any], path: Any, mask: Mask | None
    ) -> Any:
        """Gives layers and models inside a config an owner of their own."""
        config, other_config = one.get("config"), other.get("config")
        if not isinstance(config, Mapping) or not isinstance(other_config, Mapping):
            return None
        is_model = "layers" in config and "opaque" not in (model_kind(one), model_kind(other))
        if not is_model and not _is_layer(one):
            if "shared_object_id" in one or "shared_object_id" in other:
                mask = {**(mask or {}), "shared_object_id": None}
            if not self.named and _is_optimizer(one):
                inner = (mask or {}).get("config", {})
                unnamed = inner if inner is None else {**inner, "name": None}
                mask = {**(mask or {}), "config": unnamed}
            return path, _class_mask(one, other, mask)
        root = path
        while isinstance(root, tuple):
            root = root[0]
        name = name_of(one) or str(one["class_name"])
        kind = "model" if is_model else "layer"
        owner: Owner = root.inner(kind, name, name_of(other) or name)
        self.names.setdefault(owner.path, owner.counterpart)
        if is_model:
            self.pending.append(Task(one, other, owner, mask, self.named))
            return values.SKIP
        return owner, self._mask(one, other, owner, mask, False)

    def _mask(
        self,
        one: Mapping[Any, Any],
        other: Mapping[Any, Any],
        owner: Owner,
        mask: Mask | None,
        entry: bool,
    ) -> Mask | None:
        """Adds to a mask what is compared elsewhere: wiring, sharing and, by structure, names."""
        added: Mask = {"inbound_nodes": None} if entry else {}
        if not self.named:
            if entry:
                added["name"] = None
            config = mask.get("config", {}) if mask else {}
            added["config"] = config if config is None else {**config, "name": None}
        if "shared_object_id" in one or "shared_object_id" in other:
            added["shared_object_id"] = None
            shared = (_number(one.get("shared_object_id")), _number(other.get("shared_object_id")))
            self.shared.append((*shared, owner))
        if added:
            mask = {**mask, **added} if mask else added
        return _class_mask(one, other, mask)

    def _constants(self, call: Call, counterpart: Call) -> tuple[Any, Any]:
        return self.one.constants.get(call, {}), self.other.constants.get(counterpart, {})

    def _compare_calls(self) -> None:
        for call, counterpart in self.calls.items():
            links = self.links.get(call, {})
            other_links = self.other_links.get(counterpart, {})
            for position, (maker, data) in links.items():
                if position not in other_links:
                    self._report(call, position, self._show(maker, data, self.one), None)
                    continue
                other_maker, other_data = other_links[position]
                if self.calls.get(maker) != other_maker or data["tensor"] != other_data["tensor"]:
                    self._report(
                        call,
                        position,
                        self._show(maker, data, self.one),
                        self._show(other_maker, other_data, self.other),
                    )
                elif not _same_record(data, other_data):
                    for each in values.differences(data, other_data):
                        what = f"{self._where(call, position)}.{keys_text(each.path)}"
                        self.recorded.append(contrast(what, each.original, each.rewritten))
            if len(other_links) != len(links) or links.keys() != other_links.keys():
                for position, (maker, data) in other_links.items():
                    if position not in links:
                        self._report(call, position, None, self._show(maker, data, self.other))
            constants, other_constants = self._constants(call, counterpart)
            told = set()
            for each in values.differences(constants, other_constants):
                position = each.path[0]
                if position in links or position in other_links or position[:2] in told:
                    continue  # a tensor on one side, or one more item of the same constant
                told.add(position[:2])
                where = self._where(call, (*position, *each.path[1:]))
                self.problems.append(contrast(where, each.original, each.rewritten))

    def _where(self, call: Call, position: Position) -> str:
        owner = self.task.owner
        if call[1] >= 0:
            owner = owner.inner("layer", call[0], self.layers.get(call[0], call[0]))
        where = f"{owner.title}: {keys_text(position)}"
        if call[1] >= 0 and self.one.calls[call[0]] > 1:
            where += f" of call {call[1]}"
        return where

    def _show(self, maker: Call, data: dict[str, Any], level: Level) -> str:
        name, number = maker
        if number < 0:
            return f"the model's {name}"
        text = show(name)
        if level.calls[name] > 1:
            text += f" (call {number})"
        if data["tensor"]:
            text += f" (output {data['tensor']})"
        return text

    def _report(
        self, call: Call, position: Position, maker: str | None, other_maker: str | None
    ) -> None:
        where = self._where(call, position)
        if maker == other_maker:
            self.problems.append(
                f"{where} is {maker} in both models, which are not each other's counterparts"
            )
        else:
            self.problems.append(
                f"{where} is {maker or 'missing'} in the original and "
                f"{other_maker or 'missing'} in the rewritten model"
            )

    def _report_unmatched(self) -> None:
        taken = set(self.calls.values())
        for level, found, here in (
            (self.one, self.calls.keys(), "rewritten model"),
            (self.other, taken, "original"),
        ):
            for call in level.nodes():
                if call not in found:
                    owner = self.task.owner.inner("layer", call[0], call[0])
                    self.problems.append(f"{owner.title} has no counterpart in the {here}")


_OTHER_CLASS: Mask = dict.fromkeys(("config", "module", "registered_name", "build_config"))


def _same_record(data: dict[str, Any], other_data: dict[str, Any]) -> bool:
    """Tells quickly that what Keras recorded of a tensor is the same; a `False` may be wrong."""
    try:
        return data == other_data
    except (RecursionError, ValueError):  # nested deep, or an array: a slower comparison decides
        return False


def _class_mask(one: Mapping[Any, Any], other: Mapping[Any, Any], mask: Mask | None) -> Mask | None:
    """Leaves out what differs only because the class does."""
    name = one.get("class_name")
    if type(name) is str and name != other.get("class_name"):
        return {**(mask or {}), **_OTHER_CLASS}
    return mask


def _class_of(level: Level, name: str) -> tuple[Any, Any]:
    entry = level.layers[name]
    return entry.get("module"), entry.get("class_name")


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


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
