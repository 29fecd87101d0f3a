"""Parsing: what users and files give as a rule's parts, checked and refused in one sentence."""

from __future__ import annotations

import contextlib
import copy
import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphwd.errors import PolicyError
from graphwd.policy import regularizers

_MOST_PATTERNS, _LONGEST_PATTERN, _MOST_STARS = 10_000, 1_000, 32
_MAX_DEPTH = 32  # of a regularizer's config, which may come from a hostile file


def suggest(word: str, candidates: Iterable[str]) -> str | None:
    """What a misspelt word was probably meant to be, whatever its case; `None` if none is near."""
    spellings = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower(), spellings, n=1)
    return spellings[close[0]] if close else None


def hint(word: str, candidates: Iterable[str]) -> str:
    """A suggestion to put behind a misspelt word, or nothing."""
    nearest = suggest(word, candidates)
    return f" (did you mean '{nearest}'?)" if nearest else ""


def regularizer_from(value: Any, key: str, where: str) -> dict[str, Any] | None:
    """The regularizer that an entry of a rule's table (`l2`, `regularizer`, ...) asks for."""
    if key != "regularizer":
        make = {
            "l1": regularizers.l1,
            "l2": regularizers.l2,
            "weight_decay": regularizers.from_weight_decay,
        }[key]
        return make(factor(value, f"{where}: `{key}`"))
    if value is None or value == regularizers.NONE:
        return None
    if not isinstance(value, Mapping):
        raise PolicyError(
            f'{where}: `regularizer` is {kind(value)}; make it null (in TOML "none") or '
            '{"class_name": ..., "config": {...}}, or give `l1`, `l2` or `weight_decay`.'
        )
    return canonical(value, f"{where}: `regularizer`")


def canonical(serialized: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of a serialized regularizer, checked, and Keras's own in Keras 3's dialect."""
    class_name, config = serialized.get("class_name"), serialized.get("config")
    if not isinstance(class_name, str) or not class_name:
        raise PolicyError(f'{where} needs a `class_name` that is a string, such as "L2".')
    if not isinstance(config, Mapping):
        raise PolicyError(f'{where} needs a `config` that is a table, such as {{"l2": 0.0001}}.')
    _check_plain(serialized, where)
    factors = regularizers.stock_factors(serialized)
    if not factors:
        result = copy.deepcopy(dict(serialized))
        if "module" in result or "registered_name" in result:
            result = {"module": None, "registered_name": None, **result}
        return result
    check_keys(config, factors, f"{where}'s `config`")
    values = {}
    for key in factors:
        if key not in config and len(factors) == 1:  # Keras fills in 0.01, which nobody means
            raise PolicyError(f"{where}'s `config` has no `{key}`: say how strong it is.")
        values[key] = factor(config.get(key, 0.0), f"{where}'s `{key}`")
    return {**regularizers.l2(0), "class_name": class_name, "config": values}


def strength(serialized: Mapping[str, Any] | None) -> dict[str, Any]:
    """The one entry of a rule's table that says which regularizer it is."""
    if serialized is None:
        return {"regularizer": None}
    if regularizers.stock_factors(serialized):
        l1, l2 = (serialized["config"].get(key, 0.0) for key in ("l1", "l2"))
        if not l1:
            return {"l2": l2}
        if not l2:
            return {"l1": l1}
        return {"regularizer": {"class_name": "L1L2", "config": {"l1": l1, "l2": l2}}}
    written = {key: value for key, value in serialized.items() if value is not None}
    return {"regularizer": copy.deepcopy(written)}


def patterns(value: Any, key: str, where: str) -> tuple[str, ...]:
    """The patterns of a selector, at least one, from a string or a list of strings."""
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)):
        raise PolicyError(
            f"{where}: `{key}` is {kind(value)}; make it a pattern or a list of them."
        )
    if not given:
        raise PolicyError(f"{where}: `{key}` is an empty list; leave it out to select everything.")
    if len(given) > _MOST_PATTERNS:
        raise PolicyError(f"{where}: `{key}` has more than {_MOST_PATTERNS:,} patterns.")
    for pattern in given:
        length, stars = (len(pattern), pattern.count("*")) if isinstance(pattern, str) else (0, 0)
        if length > _LONGEST_PATTERN or stars > _MOST_STARS:
            raise PolicyError(
                f"{where}: `{key}` has a pattern of {length:,} characters and {stars:,} stars; "
                f"make it {_LONGEST_PATTERN:,} and {_MOST_STARS} at most."
            )
        if not isinstance(pattern, str):
            raise PolicyError(f"{where}: `{key}` has {kind(pattern)} in it; make it a string.")
        if not pattern.removeprefix("!"):
            raise PolicyError(f"{where}: `{key}` has the pattern '{pattern}', which is empty.")
    return tuple(given)


def count(value: Any, what: str) -> int:
    """A number of things; anything but an integer of at least 0 is an error."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 0:
        return int(value)
    raise PolicyError(f"{what} must be a whole number of at least 0, but is {kind(value)}.")


def factor(value: Any, what: str) -> float:
    """A strength as a float; anything but a finite number of at least 0 is an error."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
            if math.isfinite(number) and number >= 0:
                return number + 0.0  # -0.0 becomes 0.0
    raise PolicyError(f"{what} must be a finite number of at least 0, but is {kind(value)}.")


def check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raises a PolicyError for a key that is not known, with the nearest one that is."""
    for key in table:
        if key not in known:
            names = ", ".join(f"`{name}`" for name in known)
            raise PolicyError(
                f"{where} has an unknown key '{key}'{hint(str(key), known)}; known: {names}."
            )


def _check_plain(value: Any, where: str) -> None:
    """Refuses what a policy file could not hold: it iterates, since depth may be hostile."""
    pending: list[tuple[Any, int]] = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise PolicyError(f"{where} is nested deeper than {_MAX_DEPTH} levels.")
        if isinstance(item, Mapping):
            for key in item:
                if not isinstance(key, str):
                    raise PolicyError(f"{where} has the key {key!r}, which is not a string.")
            pending.extend((child, depth + 1) for child in item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend((child, depth + 1) for child in item)
        elif isinstance(item, float) and not math.isfinite(item):
            raise PolicyError(f"{where} holds {item!r}; its numbers must be finite.")
        elif item is not None and not isinstance(item, (str, bool, int, float)):
            raise PolicyError(f"{where} holds {kind(item)}, which no policy file can hold.")


def kind(value: Any) -> str:
    """What a value is, in the words of somebody who writes JSON or TOML."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 40 else "a long string"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, numbers.Real):
        large = isinstance(value, int) and abs(value) > 10**18
        return "a number too large" if large else f"the number {value!r}"
    return f"an object of type {type(value).__name__}"
