"""The config of a saved model: JSON that nobody vouches for, read within limits and checked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from graphwd.errors import ArchiveError, ModelError
from graphwd.graph.slots import SUFFIX, Pointer, is_serialized_stock, may_hold_slots
from graphwd.graph.values import show
from graphwd.graph.wiring import model_kind, read

CONFIG_LIMIT = 64 << 20
"""The largest config that is read, in bytes."""

DEPTH_LIMIT = 500
"""The deepest nesting of a config that is read: some hundred models within models."""

_VALUES_LIMIT = 2_000_000
_LONGEST_SHOWN = 200  # characters of a value in a message
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in _BRACKETS)

_KERAS = ("keras", "tf_keras")
_KNOWN = {
    "L1": {"l1"},
    "L2": {"l2"},
    "L1L2": {"l1", "l2"},
    "OrthogonalRegularizer": {"factor", "mode"},
    "Regularizer": set[str](),
}
_IDENTIFIERS = {name.lower() for name in _KNOWN} | {"orthogonal_regularizer", "l1_l2"}


def parse_config(text: bytes, path: str) -> dict[str, Any]:
    """Parses the config of a saved model, whose path is for messages."""
    config = parse_object(text, f"the config of {path!r}")
    if not isinstance(config.get("class_name"), str) or not isinstance(
        config.get("config"), (dict, list)
    ):
        raise ArchiveError(f"The config of {path!r} is not a model's: it names no class.")
    return config


def serialize_config(config: Mapping[str, Any]) -> bytes:
    """The JSON text of a serialized model, as Keras writes it."""
    return json.dumps(config).encode()


def value_at(config: Any, pointer: Pointer) -> Any:
    """What stands at a pointer into a serialized model."""
    for key in pointer:
        config = config[key]
    return config


def parse_object(text: bytes, what: str) -> dict[str, Any]:
    """Parses a JSON object within limits; `what` says in messages what it is."""
    what = what[0].upper() + what[1:]
    # Cheap to see, and sparing what comes: a text may hold some quotes within its strings.
    many = text.count(b'"') > 4 * _VALUES_LIMIT + len(text) // 8
    rest = b"" if many else _STRING.sub(b"", text)
    brackets = rest.translate(None, _NOT_BRACKETS)
    if many or rest.count(b",") > _VALUES_LIMIT or len(brackets) > 2 * _VALUES_LIMIT:
        raise ArchiveError(f"{what} holds more than {_VALUES_LIMIT:,} values: no model's does.")
    depth = deepest = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > deepest:
            deepest = depth
            if deepest > DEPTH_LIMIT:
                raise ArchiveError(f"{what} is nested more than {DEPTH_LIMIT} deep: no model's is.")
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{what} is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise ArchiveError(f"{what} is not a JSON object.")
    return value


def check_loadable(config: Mapping[str, Any], path: str) -> None:
    """Refuses a config that Keras can't load, whatever classes are registered."""
    # Without this a rewrite would be proved equal to an original that nobody can load.
    for problem in _problems(config):
        raise ArchiveError(f"{path!r} is damaged, and Keras can't load it: {problem}.")


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    stack: list[tuple[Any, str]] = [(config, "the model")]
    while stack:
        value, owner = stack.pop()
        if isinstance(value, Mapping):
            inner = value.get("config")
            if isinstance(value.get("class_name"), str) and isinstance(inner, Mapping):
                name = inner.get("name")
                owner = name if isinstance(name, str) else owner
                for key, held in inner.items():
                    if isinstance(key, str) and key.endswith(SUFFIX) and key != SUFFIX:
                        problem = _regularizer_problem(held, value)
                        if problem:
                            yield f"the {key} of {show(owner)} {problem}"
                if isinstance(inner.get("layers"), list):
                    yield from _graph_problems(value)
            items = list(value.values())
        elif isinstance(value, list):
            items = value
        else:
            continue
        stack.extend((item, owner) for item in reversed(items) if may_hold_slots(item))


def _regularizer_problem(held: Any, owner: Mapping[str, Any]) -> str:
    """What is wrong with what a slot holds; empty when nothing is."""
    if held is None:
        return ""
    modern = is_serialized_stock(owner) and "module" in owner
    if isinstance(held, str):  # in the legacy dialect it may be a function's name
        known = not modern or held.lower() in _IDENTIFIERS
        return "" if known else f"is {_shown(held)}, which is the name of no regularizer of Keras's"
    if (
        not isinstance(held, Mapping)
        or not isinstance(held.get("class_name"), str)
        or not isinstance(held.get("config"), (Mapping, str))
    ):
        return f"is {_shown(held)}, which is no regularizer" if is_serialized_stock(owner) else ""
    class_name, config, module = held["class_name"], held["config"], held.get("module")
    if str(module or "keras").split(".")[0] not in _KERAS:
        return ""
    if held.get("registered_name") not in (None, class_name) or not isinstance(config, Mapping):
        return ""
    if class_name not in _KNOWN:
        unknown = modern and str(module).startswith("keras")
        return f"is a {show(class_name)}, which Keras doesn't have" if unknown else ""
    if not config.keys() <= _KNOWN[class_name]:
        extra = min(map(str, config.keys() - _KNOWN[class_name]))
        return f"is a {class_name} with an unknown {show(extra)}"
    for key, factor in config.items():
        if key != "mode" and factor is not None and not _is_factor(factor):
            return f"has the {key} {_shown(factor)}, which is no finite number of at least 0"
    return ""


def _is_factor(value: Any) -> bool:
    if isinstance(value, Mapping):  # an array of one number, serialized
        return True
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return isinstance(value, bool)
    try:
        return math.isfinite(value) and value >= 0
    except OverflowError:
        return False


def _graph_problems(model: Mapping[str, Any]) -> Iterator[str]:
    """What a model of layers lacks: Keras asks for these keys, without which it raises."""
    config = model["config"]
    functional = model_kind(model) == "functional"
    if not functional:
        if is_serialized_stock(model) and model["class_name"] in ("Functional", "Model"):
            lacks = [key for key in ("input_layers", "output_layers") if key not in config]
            yield f"it has layers, but no {show((lacks or ['layers'])[0])}"
        if is_serialized_stock(model) and model["class_name"] == "Sequential":
            for number, layer in enumerate(config["layers"]):
                if not _is_layer(layer):
                    yield f"layer number {number} is {_shown(layer)}, which is no layer"
        return
    for number, layer in enumerate(config["layers"]):
        if not _is_layer(layer):
            yield f"layer number {number} is {_shown(layer)}, which is no layer"
            return
        if not isinstance(layer.get("name"), str):
            yield f"layer number {number} has no name in the graph"
            return
        nodes = layer.get("inbound_nodes")
        if not isinstance(nodes, list):
            yield f"layer {show(layer['name'])} has no list of inbound_nodes"
            return
        for node in nodes:
            if isinstance(node, dict) and node:
                if not isinstance(node.get("args"), list):
                    yield f"a call of layer {show(layer['name'])} has no list of args"
                if not isinstance(node.get("kwargs"), dict):
                    yield f"a call of layer {show(layer['name'])} has no table of kwargs"
            elif not isinstance(node, (list, dict)):
                yield f"a call of layer {show(layer['name'])} is {_shown(node)}"
    try:
        read(model)
    except ModelError as error:
        yield str(error).rstrip(".")


def _is_layer(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("class_name"), str)


def _shown(value: Any) -> str:
    text = show(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
