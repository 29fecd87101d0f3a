"""Policy files: JSON and TOML, read and written so that mistakes are named and files stay whole."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from graphwd.errors import ArchiveError, PolicyError
from graphwd.policy.regularizers import NONE
from graphwd.writing import write_whole

_LIMIT = 1 << 20


def read_table(path: str | os.PathLike[str]) -> Any:
    """What is in a policy file, whose name ends in `.json` or `.toml`."""
    suffix = _suffix(path)
    where = title_of(path)
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise PolicyError(f"{where} can't be read: it is not a regular file.")
        with open(path, "rb") as file:
            content = file.read(_LIMIT + 1)
        if len(content) > _LIMIT:
            raise PolicyError(f"{where} is larger than {_LIMIT >> 20} MiB, which no policy is.")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise PolicyError(f"{where} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PolicyError(f"{where} is not UTF-8 (line {line}); save it as UTF-8.") from error
    try:
        if suffix == ".json":
            return json.loads(text, object_pairs_hook=_without_repeats)
        return tomllib.loads(text)
    except json.JSONDecodeError as error:
        raise PolicyError(
            f"{where} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{where} is not TOML: {str(error).rstrip('.')}.") from error
    except RecursionError as error:
        raise PolicyError(f"{where} is nested too deep to be a policy.") from error
    except PolicyError as error:
        raise PolicyError(f"{where}: {error}") from error
    except ValueError as error:  # a number of more digits than Python converts
        raise PolicyError(f"{where} has a number that can't be read: {error}.") from error


def write_table(
    path: str | os.PathLike[str], data: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Writes a policy file, at once or not at all, from a policy's `to_dict()`."""
    suffix = _suffix(path)
    try:
        if suffix == ".json":
            text = json.dumps(data, indent=2) + "\n"
        else:
            for number, entry in enumerate(data["rules"], 1):
                _without_null(entry, number)
            text = tomli_w.dumps(data)
        write_whole(path, text.encode("utf-8"), overwrite=overwrite)
    except ArchiveError as error:
        raise PolicyError(f"Policy file {error}") from error
    except UnicodeEncodeError as error:
        raise PolicyError(
            f"{title_of(path)} can't be written: {error.object!r} is not text that UTF-8 can hold."
        ) from error


def title_of(path: str | os.PathLike[str]) -> str:
    """What to call a policy file in messages."""
    return f"Policy file '{os.fspath(path)}'"


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".toml"):
        raise PolicyError(f"{title_of(path)} must have a name that ends in .json or .toml.")
    return suffix


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """TOML refuses a key that comes twice; JSON would take the last one without a word."""
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise PolicyError(f"the key '{repeated}' comes twice in one table.")
    return table


def _without_null(entry: dict[str, Any], number: int) -> None:
    """Makes one rule's table fit for TOML, in place."""
    if entry.get("regularizer", entry) is None:
        entry["regularizer"] = NONE
    pending: list[Any] = [entry]
    while pending:
        item = pending.pop()
        if item is None:
            raise PolicyError(
                f"Rule {number}: `regularizer` holds a null in its `config`, which TOML "
                "can't write; save the policy as .json."
            )
        if isinstance(item, (dict, list, tuple)):
            pending.extend(item.values() if isinstance(item, dict) else item)
