"""Rules and policies: which regularizer each slot gets; their files, and the papers' recipes."""

from __future__ import annotations

import copy
import fnmatch
import functools
import importlib.resources
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from graphwd import parsing, policyfiles, regularizers
from graphwd.errors import PolicyError
from graphwd.parsing import suggest as suggest  # part of this module's interface

PENALTY_ROLES = ("!bias", "!gamma", "!beta", "!alpha", "!activity")
"""Where a bare regularizer goes that is given as a policy: every role but these."""

_SELECTORS = ("roles", "layers", "paths")
_STRENGTHS = ("l1", "l2", "weight_decay", "regularizer")


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
            serialized = parsing.canonical(serialized, "The rule's regularizer")
        values = {
            "roles": None if roles is None else parsing.patterns(roles, "roles", "The rule"),
            "layers": None if layers is None else parsing.patterns(layers, "layers", "The rule"),
            "paths": None if paths is None else parsing.patterns(paths, "paths", "The rule"),
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
        entry.update(parsing.strength(self._serialized))
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
                f"A policy is a table with a list `rules`, but this is {parsing.kind(data)}."
            )
        parsing.check_keys(data, ("rules",), "The policy")
        if "rules" not in data:
            raise PolicyError("The policy has no `rules`: give it a list of rules.")
        entries = data["rules"]
        if not isinstance(entries, (list, tuple)):
            raise PolicyError(
                f"The policy's `rules` is {parsing.kind(entries)}; make it a list of tables."
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
        data = policyfiles.read_table(path)
        try:
            return cls.from_dict(data)
        except PolicyError as error:
            raise PolicyError(f"{policyfiles.name_of(path)}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a policy file that `load` reads back to an equal policy.

        A file of that name is replaced, at once or not at all. In TOML, which has no null, a rule
        that removes regularizers has `regularizer = "none"`.

        Args:
            path: Path of the file; its name ends in `.json` or `.toml`.

        Raises:
            PolicyError: when the file can't be written, or TOML has no way to write a rule.
        """
        policyfiles.write_table(path, self.to_dict())

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
            hint = parsing.hint(name, known) if isinstance(name, str) else ""
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
            strength = regularizers.from_weight_decay(parsing.factor(weight_decay, "weight_decay"))
        elif l2 is not None:
            strength = regularizers.l2(parsing.factor(l2, "l2"))
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
            f"{where} is {parsing.kind(entry)}; make it a table such as "
            '{"roles": ["kernel"], "l2": 0.0001}.'
        )
    parsing.check_keys(entry, (*_SELECTORS, *_STRENGTHS), where)
    given = [key for key in _STRENGTHS if key in entry]
    if len(given) != 1:
        has = " and ".join(f"`{key}`" for key in given)
        raise PolicyError(
            f"{where} has {has or 'no strength'}: "
            "give it exactly one of `l1`, `l2`, `weight_decay` and `regularizer`."
        )
    selectors = {
        key: parsing.patterns(entry[key], key, where) for key in _SELECTORS if key in entry
    }
    return Rule(parsing.regularizer_from(entry[given[0]], given[0], where), **selectors)


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
