"""The config of a saved model: JSON from a file that nobody vouches for, read within limits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from graphwd.errors import ArchiveError

CONFIG_LIMIT = 64 << 20
"""The largest config that is read, in bytes."""

DEPTH_LIMIT = 500
"""The deepest nesting of a config that is read: some hundred models within models."""

_VALUES_LIMIT = 2_000_000
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in _BRACKETS)


def parse_config(text: bytes, path: str) -> dict[str, Any]:
    """Parses the config of a saved model.

    Args:
        text: JSON.
        path: The file that it is from, for messages.

    Returns:
        The serialized model.

    Raises:
        ArchiveError: when it isn't JSON, isn't a serialized model, or is nested too deeply.
    """
    config = parse_object(text, f"the config of {path!r}")
    if not isinstance(config.get("class_name"), str) or not isinstance(
        config.get("config"), (dict, list)
    ):
        raise ArchiveError(f"The config of {path!r} is not a model's: it names no class.")
    return config


def serialize_config(config: Mapping[str, Any]) -> bytes:
    """The JSON text of a serialized model, as Keras writes it."""
    return json.dumps(config).encode()


def parse_object(text: bytes, what: str) -> dict[str, Any]:
    """Parses a JSON object.

    Args:
        text: JSON.
        what: What it is, for messages.

    Returns:
        The object.

    Raises:
        ArchiveError: when it isn't a JSON object, or is nested too deeply.
    """
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
