"""Rules and policies: which regularizer each slot gets; their files, and the papers' recipes."""

from __future__ import annotations

import contextlib
import copy
import difflib
import fnmatch
import functools
import importlib.resources
import json
import math
import numbers
import os
import re
import shutil
import tomllib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tomli_w

from graphwd import regularizers
from graphwd.errors import PolicyError

PENALTY_ROLES = ("!bias", "!gamma", "!beta", "!alpha", "!activity")
"""Where a bare regularizer goes that is given as a policy: every role but these."""

_SELECTORS = ("roles", "layers", "paths")
_STRENGTHS = ("l1", "l2", "weight_decay", "regularizer")
_NONE = "none"  # TOML has no null

# Keras's own regularizers: their factors, and the value of a factor that a config leaves out
# (None: it must be there, since Keras would fill in 0.01, which nobody means).
_STOCK: Mapping[str, Mapping[str, float | None]] = {
    "L1": {"l1": None},
    "L2": {"l2": None},
    "L1L2": {"l1": 0.0, "l2": 0.0},
}
_MAX_DEPTH = 32  # of a regularizer's config, which may come from a hostile file


class Selectable(Protocol):
    """What a rule needs to know of a slot."""

    @property
    def path(self) -> str:
        """Layer names from the model inwards, then the role, joined by `/`."""

    @property
    def role(self) -> str:
        """Keras's prefix (`kernel`), or the variable's name where no slot reaches it."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Class names of the layers around the weight, outermost first."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Rule:
    """Selects slots of a model, and says which regularizer they get.

    A selector is a shell glob (`*`, `?`, `[abc]`) or a list of them, and is case-sensitive. All
    selectors that are given must match; of a list, any pattern may. A pattern that starts with `!`
    excludes: what it matches is not selected, whatever the list's other patterns say, and a list of
    nothing but exclusions selects everything else. A rule without selectors selects everything.

    Args:
        regularizer: What the selected slots get: a `keras.regularizers` object, its identifier
            (`"l2"`), its serialized form, or `None` to remove what is there.
        roles: Selects by role: `"kernel"`, `["!bias", "!gamma"]`.
        layers: Selects by class name, of the layer or of any layer around it: `"Dense"`.
        paths: Selects by path: `"backbone/*/kernel"`. `*` matches across `/`.

    Raises:
        PolicyError: when the regularizer or a selector is not of this form.

    Example:
    ```python
    graphwd.Rule(keras.regularizers.L2(1e-4), roles=["kernel", "recurrent"])
    graphwd.Rule(None, layers="DepthwiseConv2D")
    graphwd.Rule(keras.regularizers.L1(1e-5), paths="head/*", roles="!bias")
    ```
    """

    roles: tuple[str, ...] | None
    layers: tuple[str, ...] | None
    paths: tuple[str, ...] | None
    _serialized: dict[str, Any] | None
    _key: tuple[Any, ...]

    def __init__(
        self,
        regularizer: Any,
        *,
        roles: str | Sequence[str] | None = None,
        layers: str | Sequence[str] | None = None,
        paths: str | Sequence[str] | None = None,
    ) -> None:
        if callable(regularizer) and not hasattr(regularizer, "get_config"):
            raise PolicyError(
                "The rule's regularizer is a function, which a saved model can't hold: make it a "
                "keras.regularizers.Regularizer with a get_config method."
            )
        serialized = regularizers.serialize(regularizer)
        if serialized is not None:
            serialized = _canonical(serialized, "The rule's regularizer")
        values = {
            "roles": None if roles is None else _patterns(roles, "roles", "The rule"),
            "layers": None if layers is None else _patterns(layers, "layers", "The rule"),
            "paths": None if paths is None else _patterns(paths, "paths", "The rule"),
        }
        key = (regularizers.normalize(serialized), *values.values())
        for name, value in {**values, "_serialized": serialized, "_key": key}.items():
            object.__setattr__(self, name, value)

    @property
    def regularizer(self) -> dict[str, Any] | None:
        """The serialized regularizer, or `None`; a copy, so that the rule stays as it is."""
        return copy.deepcopy(self._serialized)

    def describe(self) -> str:
        """What the rule selects, for tables and messages.

        Returns:
            A string such as `"roles: kernel|bias, layers: Dense"`, or `"everything"`.
        """
        selectors = {key: getattr(self, key) for key in _SELECTORS}
        texts = [f"{key}: {'|'.join(value)}" for key, value in selectors.items() if value]
        return ", ".join(texts) or "everything"

    def matches(self, slot: Selectable) -> bool:
        """Whether the rule selects a slot.

        Args:
            slot: A `Slot`, or anything else with its `path`, `role` and `layers`.

        Returns:
            A boolean.
        """
        return (
            (self.roles is None or _matcher(self.roles)((slot.role,)))
            and (self.layers is None or _matcher(self.layers)(slot.layers))
            and (self.paths is None or _matcher(self.paths)((slot.path,)))
        )

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain data, as it stands in a policy file.

        Returns:
            A dict: one entry of the list `rules` of `Policy.to_dict`.
        """
        entry: dict[str, Any] = {}
        for key in _SELECTORS:
            patterns = getattr(self, key)
            if patterns is not None:
                entry[key] = list(patterns)
        entry.update(_strength(self._serialized))
        return entry

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Rule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        selectors = {key: getattr(self, key) for key in _SELECTORS}
        texts = [f", {key}={list(value)}" for key, value in selectors.items() if value]
        return f"Rule({regularizers.describe(self._serialized)}{''.join(texts)})"


@dataclass(frozen=True, init=False, repr=False)
class Policy:
    """An ordered list of rules: of those that match a slot, the last one decides.

    What no rule matches stays as it is. A policy is a value: it can't be changed, two policies with
    equal rules are equal, and it can be a key of a dictionary.

    Args:
        rules: The `Rule`s, in order.

    Raises:
        PolicyError: when one of them is not a rule.

    Example:
    ```python
    policy = graphwd.Policy([
        graphwd.Rule(keras.regularizers.L2(1e-4), roles=["kernel", "depthwise"]),
        graphwd.Rule(None, layers="DepthwiseConv2D"),
    ])
    policy.save("policy.toml")
    assert graphwd.Policy.load("policy.toml") == policy
    ```
    """

    rules: tuple[Rule, ...]

    def __init__(self, rules: Iterable[Rule]) -> None:
        if isinstance(rules, str) or not isinstance(rules, Iterable):
            raise PolicyError(f"A policy takes a list of rules, but was given {rules!r}.")
        rules = tuple(rules)
        for number, rule in enumerate(rules, 1):
            if not isinstance(rule, Rule):
                raise PolicyError(
                    f"Rule {number} of the policy is {rule!r}; make it a graphwd.Rule, "
                    "or read plain tables with Policy.from_dict."
                )
        object.__setattr__(self, "rules", rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __repr__(self) -> str:
        return f"Policy([{', '.join(map(repr, self.rules))}])"

    @classmethod
    def coerce(cls, value: Any) -> Policy:
        """Turns whatever a user may give as a policy into a `Policy`.

        Args:
            value: A `Policy`, a `Rule`, a list of rules, a policy as a dictionary, or a bare
                regularizer (an object, its identifier or its serialized form). A bare regularizer
                goes on every role but bias, gamma, beta, alpha and activity.

        Returns:
            A `Policy`.

        Raises:
            PolicyError: when it is none of these.
        """
        if isinstance(value, Policy):
            return value
        if isinstance(value, Rule):
            return cls([value])
        if value is None:
            raise PolicyError(
                "None is no policy: to remove every regularizer give graphwd.Rule(None)."
            )
        if isinstance(value, Mapping):
            if "class_name" in value and "rules" not in value:
                return cls([Rule(value, roles=PENALTY_ROLES)])
            return cls.from_dict(value)
        if isinstance(value, os.PathLike) or (
            isinstance(value, str) and value.lower().endswith((".json", ".toml"))
        ):
            raise PolicyError(
                f"'{os.fspath(value)}' is the name of a file: read it with graphwd.Policy.load."
            )
        if isinstance(value, Iterable) and not isinstance(value, str) and not callable(value):
            return cls(value)
        return cls([Rule(value, roles=PENALTY_ROLES)])

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Policy:
        """Reads a policy from plain data, as JSON and TOML files have it.

        Args:
            data: Dictionary with the one key `rules`, a list of dictionaries. Each has exactly one
                of `l1` and `l2` (the factor of Keras's regularizer), `weight_decay` (the papers'
                unit: `weight_decay` x is `l2` x/2) and `regularizer` (null or `"none"` to remove
                what is there, or Keras's `{"class_name": ..., "config": ...}`), and any of the
                selectors `roles`, `layers` and `paths`, each a glob or a list of globs.

        Returns:
            A `Policy`.

        Raises:
            PolicyError: naming the rule's number, from 1, and the key that is wrong.

        Example:
        ```python
        graphwd.Policy.from_dict({"rules": [{"roles": ["kernel"], "weight_decay": 1e-4}]})
        ```
        """
        if not isinstance(data, Mapping):
            raise PolicyError(
                f"A policy is a table with a list `rules`, but this is {_kind(data)}."
            )
        _check_keys(data, ("rules",), "The policy")
        if "rules" not in data:
            raise PolicyError("The policy has no `rules`: give it a list of rules.")
        entries = data["rules"]
        if not isinstance(entries, (list, tuple)):
            raise PolicyError(
                f"The policy's `rules` is {_kind(entries)}; make it a list of tables."
            )
        return cls([_rule_from(entry, number) for number, entry in enumerate(entries, 1)])

    def to_dict(self) -> dict[str, Any]:
        """The policy as plain data, that `from_dict` reads back to an equal policy.

        Returns:
            A dictionary for JSON. A regularizer is written as `l1` or `l2` where it is just that,
            and otherwise as `regularizer`; weight decays are written as the `l2` that they are.
        """
        return {"rules": [rule.to_dict() for rule in self.rules]}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """Reads a policy file.

        Args:
            path: Path of a file whose name ends in `.json` or `.toml`.

        Returns:
            A `Policy`.

        Raises:
            PolicyError: when the file can't be read, or is not a policy; it names the file, and
                the line or the rule.
        """
        suffix = _suffix(path)
        where = f"Policy file '{os.fspath(path)}'"
        try:
            text = Path(path).read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise PolicyError(f"{where} can't be read: {error.strerror or error}.") from error
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise PolicyError(f"{where} is not UTF-8 (line {line}); save it as UTF-8.") from error
        try:
            data = _parse_json(text) if suffix == ".json" else tomllib.loads(text)
            return cls.from_dict(data)
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a policy file that `load` reads back to an equal policy.

        A file of that name is replaced, at once or not at all. In TOML, which has no null, a rule
        that removes regularizers has `regularizer = "none"`.

        Args:
            path: Path of the file; its name ends in `.json` or `.toml`.

        Raises:
            PolicyError: when the file can't be written, or TOML has no way to write a rule.
        """
        suffix = _suffix(path)
        data = self.to_dict()
        try:
            if suffix == ".json":
                text = json.dumps(data, indent=2) + "\n"
            else:
                for number, entry in enumerate(data["rules"], 1):
                    _without_null(entry, number)
                text = tomli_w.dumps(data)
            _write_atomically(path, text.encode("utf-8"))
        except OSError as error:
            raise PolicyError(
                f"Policy file '{os.fspath(path)}' can't be written: {error.strerror or error}."
            ) from error
        except UnicodeEncodeError as error:
            raise PolicyError(
                f"Policy file '{os.fspath(path)}' can't be written: {error.object!r} "
                "is not text that UTF-8 can hold."
            ) from error

    @classmethod
    def recipe(
        cls, name: str, *, weight_decay: float | None = None, l2: float | None = None
    ) -> Policy:
        """The policy of a published training recipe.

        Args:
            name: String, the recipe's name; `graphwd.policy.recipes()` has them all.
            weight_decay: Float, to use in place of the recipe's strength: a weight decay as in the
                papers, PyTorch and TF-Slim; x is `L2(x / 2)`.
            l2: Float, to use in place of the recipe's strength: the factor of Keras's `L2`.

        Returns:
            A `Policy`.

        Raises:
            PolicyError: when there is no such recipe, when both numbers are given, or when one is
                negative or not finite.

        Example:
        ```python
        graphwd.Policy.recipe("mobilenet")
        graphwd.Policy.recipe("no-bias", weight_decay=5e-4)
        ```
        """
        known = _recipes()
        if name not in known:
            hint = _hint(name, known) if isinstance(name, str) else ""
            raise PolicyError(
                f"There is no recipe {name!r}{hint}; the recipes are {', '.join(known)}."
            )
        return known[name].with_strength(weight_decay=weight_decay, l2=l2)


@dataclass(frozen=True)
class Recipe:
    """A published training recipe: where weight decay goes, how much, and who says so.

    Attributes:
        name: what `Policy.recipe` knows it by.
        title: one line.
        source: where it was published: `arXiv:1512.03385`.
        mechanism: `penalty` (a term of the loss, as graphwd adds it) or `decoupled` (AdamW).
        weights: the weights that are decayed, in words.
        quote: the few words of the source that matter; empty where it has none.
        notes: what follows from code rather than from the paper, and what is uncertain.
        unit: `weight_decay` or `l2`: the unit in which the source gives the strength.
        coefficient: the strength in that unit.
        policy: the `Policy`.
    """

    name: str
    title: str
    source: str
    mechanism: str
    weights: str
    quote: str
    notes: str
    unit: str
    coefficient: float
    policy: Policy

    def with_strength(
        self, *, weight_decay: float | None = None, l2: float | None = None
    ) -> Policy:
        """The recipe's policy, with another strength on every rule that has one.

        Args:
            weight_decay: Float, the strength as a weight decay, or
            l2: Float, the strength as a factor of `L2`; with neither, the recipe's own.

        Returns:
            A `Policy`.

        Raises:
            PolicyError: when both are given, or one is negative or not finite.
        """
        if weight_decay is not None and l2 is not None:
            raise PolicyError("Give weight_decay or l2, not both: weight_decay x is l2 x/2.")
        if weight_decay is not None:
            strength = regularizers.from_weight_decay(_factor(weight_decay, "weight_decay"))
        elif l2 is not None:
            strength = regularizers.l2(_factor(l2, "l2"))
        else:
            return self.policy
        return Policy(
            Rule(
                None if rule.regularizer is None else strength,
                roles=rule.roles,
                layers=rule.layers,
                paths=rule.paths,
            )
            for rule in self.policy
        )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, its policy's rules under `rules`."""
        texts = ("name", "title", "source", "mechanism", "weights", "quote", "notes", "unit")
        return {
            **{key: getattr(self, key) for key in texts},
            "coefficient": self.coefficient,
            **self.policy.to_dict(),
        }


def recipes() -> tuple[Recipe, ...]:
    """All recipes, in the order in which they are best read.

    Returns:
        A tuple of `Recipe`s.
    """
    return tuple(_recipes().values())


def suggest(word: str, candidates: Iterable[str]) -> str | None:
    """What a misspelt word was probably meant to be.

    Args:
        word: String, as the user wrote it.
        candidates: Strings, what could have been meant.

    Returns:
        The nearest candidate, whatever its case, or `None` when none is near.

    Example:
    ```python
    suggest("kernal", ["kernel", "bias"])  # "kernel"
    ```
    """
    spellings = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower(), spellings, n=1)
    return spellings[close[0]] if close else None


def _hint(word: str, candidates: Iterable[str]) -> str:
    nearest = suggest(word, candidates)
    return f" (did you mean '{nearest}'?)" if nearest else ""


@functools.cache
def _recipes() -> dict[str, Recipe]:
    text = importlib.resources.files("graphwd").joinpath("recipes.toml").read_text("utf-8")
    return {name: _recipe_from(name, table) for name, table in tomllib.loads(text).items()}


def _recipe_from(name: str, table: dict[str, Any]) -> Recipe:
    rules = table.pop("rules")
    # A rule's own key is its unit, so that no number and no unit is written down twice.
    unit, coefficient = next(
        (unit, rule[unit]) for rule in rules for unit in ("weight_decay", "l2") if unit in rule
    )
    texts = {key: " ".join(value.split()) for key, value in table.items()}
    return Recipe(
        name=name,
        unit=unit,
        coefficient=coefficient,
        policy=Policy.from_dict({"rules": rules}),
        **texts,
    )


def _rule_from(entry: Any, number: int) -> Rule:
    where = f"Rule {number}"
    if not isinstance(entry, Mapping):
        raise PolicyError(
            f"{where} is {_kind(entry)}; make it a table such as "
            '{"roles": ["kernel"], "l2": 0.0001}.'
        )
    _check_keys(entry, (*_SELECTORS, *_STRENGTHS), where)
    given = [key for key in _STRENGTHS if key in entry]
    if len(given) != 1:
        has = " and ".join(f"`{key}`" for key in given)
        raise PolicyError(
            f"{where} has {has or 'no strength'}: "
            "give it exactly one of `l1`, `l2`, `weight_decay` and `regularizer`."
        )
    selectors = {key: _patterns(entry[key], key, where) for key in _SELECTORS if key in entry}
    return Rule(_regularizer_from(entry[given[0]], given[0], where), **selectors)


def _regularizer_from(value: Any, key: str, where: str) -> dict[str, Any] | None:
    if key != "regularizer":
        make = {
            "l1": regularizers.l1,
            "l2": regularizers.l2,
            "weight_decay": regularizers.from_weight_decay,
        }[key]
        return make(_factor(value, f"{where}: `{key}`"))
    if value is None or value == _NONE:
        return None
    if not isinstance(value, Mapping):
        raise PolicyError(
            f'{where}: `regularizer` is {_kind(value)}; make it null (in TOML "none") or '
            '{"class_name": ..., "config": {...}}, or give `l1`, `l2` or `weight_decay`.'
        )
    return _canonical(value, f"{where}: `regularizer`")


def _canonical(serialized: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of a serialized regularizer, checked, and Keras's own in Keras 3's dialect."""
    class_name, config = serialized.get("class_name"), serialized.get("config")
    if not isinstance(class_name, str) or not class_name:
        raise PolicyError(f'{where} needs a `class_name` that is a string, such as "L2".')
    if not isinstance(config, Mapping):
        raise PolicyError(f'{where} needs a `config` that is a table, such as {{"l2": 0.0001}}.')
    _check_plain(serialized, where)
    factors = _stock_factors(serialized)
    if factors is None:
        result = copy.deepcopy(dict(serialized))
        if "module" in result or "registered_name" in result:
            result = {"module": None, "registered_name": None, **result}
        return result
    _check_keys(config, tuple(factors), f"{where}'s `config`")
    values = {}
    for key, default in factors.items():
        if key not in config and default is None:
            raise PolicyError(f"{where}'s `config` has no `{key}`: say how strong it is.")
        values[key] = _factor(config.get(key, default), f"{where}'s `{key}`")
    return {**regularizers.l2(0), "class_name": class_name, "config": values}


def _stock_factors(serialized: Mapping[str, Any]) -> Mapping[str, float | None] | None:
    """The factors of a regularizer of Keras's own (of Keras 2 and 3), None for any other."""
    module = serialized.get("module")
    if module is not None and str(module).split(".")[0] not in ("keras", "tf_keras"):
        return None
    if module is None and serialized.get("registered_name") is not None:
        return None
    return _STOCK.get(serialized["class_name"])


def _strength(serialized: Mapping[str, Any] | None) -> dict[str, Any]:
    """The one entry of a rule's table that says which regularizer it is."""
    if serialized is None:
        return {"regularizer": None}
    if _stock_factors(serialized) is not None:
        l1, l2 = (serialized["config"].get(key, 0.0) for key in ("l1", "l2"))
        if not l1:
            return {"l2": l2}
        if not l2:
            return {"l1": l1}
        return {"regularizer": {"class_name": "L1L2", "config": {"l1": l1, "l2": l2}}}
    written = {key: value for key, value in serialized.items() if value is not None}
    return {"regularizer": copy.deepcopy(written)}


def _patterns(value: Any, key: str, where: str) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else value
    if not isinstance(patterns, (list, tuple)):
        raise PolicyError(
            f"{where}: `{key}` is {_kind(value)}; make it a pattern or a list of them."
        )
    if not patterns:
        raise PolicyError(f"{where}: `{key}` is an empty list; leave it out to select everything.")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise PolicyError(f"{where}: `{key}` has {_kind(pattern)} in it; make it a string.")
        if not pattern.removeprefix("!"):
            raise PolicyError(f"{where}: `{key}` has the pattern '{pattern}', which is empty.")
    return tuple(patterns)


@functools.lru_cache(maxsize=1024)
def _matcher(patterns: tuple[str, ...]) -> Callable[[tuple[str, ...]], bool]:
    """A function that tells whether a selector selects something with these names."""
    included = _any_of(pattern for pattern in patterns if not pattern.startswith("!"))
    excluded = _any_of(pattern[1:] for pattern in patterns if pattern.startswith("!"))

    def selects(names: tuple[str, ...]) -> bool:
        if excluded is not None and any(map(excluded, names)):
            return False
        return included is None or any(map(included, names))

    return selects


def _any_of(globs: Iterable[str]) -> Callable[[str], object] | None:
    joined = "|".join(map(fnmatch.translate, globs))
    return re.compile(joined).match if joined else None


def _factor(value: Any, what: str) -> float:
    """A strength as a float; anything but a finite number of at least 0 is an error."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
            if math.isfinite(number) and number >= 0:
                return number + 0.0  # -0.0 becomes 0.0
    raise PolicyError(f"{what} must be a finite number of at least 0, but is {_kind(value)}.")


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            names = ", ".join(f"`{name}`" for name in known)
            raise PolicyError(
                f"{where} has an unknown key '{key}'{_hint(str(key), known)}; known: {names}."
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
            raise PolicyError(f"{where} holds {_kind(item)}, which no policy file can hold.")


def _kind(value: Any) -> str:
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


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".toml"):
        raise PolicyError(
            f"Policy file '{os.fspath(path)}' must have a name that ends in .json or .toml."
        )
    return suffix


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_repeats)


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
        entry["regularizer"] = _NONE
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


def _write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    target = os.path.realpath(path)  # a link stays a link
    temporary = f"{target}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
