"""Policies: rules in their order, what may be given as one, their files, the papers' recipes."""

from __future__ import annotations

import functools
import importlib.resources
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from graphwd.errors import PolicyError
from graphwd.policy import parsing, policyfiles, regularizers
from graphwd.policy.rules import STRENGTH_KEYS
from graphwd.policy.rules import Rule as Rule  # part of this module's interface

Mechanism: TypeAlias = Literal["penalty", "decoupled"]
"""How decay is applied: as a term of the loss, or beside the optimizer's step (AdamW)."""

_FORMS = (
    "a policy is a graphwd.Policy, a graphwd.Rule, a list of rules, the name of a recipe, the path "
    "of a .toml or .json file, a dictionary, a list of dictionaries, or a regularizer"
)


def bare(regularizer: Any) -> Rule:
    """The rule that a bare regularizer stands for: matrices and the like, no vectors, no biases."""
    return Rule(regularizer, roles="!*bias*", ndim=">=2")


@dataclass(frozen=True, init=False, repr=False)
class Policy:
    """An ordered list of rules: of those that match a slot, the last one decides.

    A rule of `graphwd.times` multiplies what the rules before it gave. What no rule matches stays
    as it is. A policy is a value: it can't be changed, two policies with equal rules are equal, and
    it can be a key of a dictionary.

    Args:
        rules: The `Rule`s, in order.
        mechanism: What the strengths were chosen for: `"penalty"`, a term of the loss, or
            `"decoupled"`, as AdamW applies it; `graphwd.rewrite`, which adds penalties, warns of
            the second.

    Raises:
        PolicyError: when one of them is not a rule, or there is no such mechanism.

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
    mechanism: Mechanism

    def __init__(self, rules: Iterable[Rule], *, mechanism: Mechanism = "penalty") -> None:
        if isinstance(rules, str) or not isinstance(rules, Iterable):
            raise PolicyError(f"A policy takes a list of rules, but was given {rules!r}.")
        rules = tuple(rules)
        for number, rule in enumerate(rules, 1):
            if not isinstance(rule, Rule):
                raise PolicyError(
                    f"Rule {number} of the policy is {rule!r}; make it a graphwd.Rule, "
                    "or read plain tables with Policy.from_dict."
                )
        if mechanism not in get_args(Mechanism):
            raise PolicyError(
                f"The policy's `mechanism` is {parsing.kind(mechanism)}; "
                'make it "penalty" or "decoupled".'
            )
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "mechanism", mechanism)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __repr__(self) -> str:
        made_for = "" if self.mechanism == "penalty" else f", mechanism={self.mechanism!r}"
        return f"Policy([{', '.join(map(repr, self.rules))}]{made_for})"

    @classmethod
    def coerce(cls, value: Any) -> Policy:
        """Turns whatever a user may give as a policy into a `Policy`.

        Args:
            value: A `Policy`, a `Rule`, a list of rules, the name of a recipe, the path of a policy
                file, a policy or a rule as a dictionary, a list of rules as dictionaries, or a bare
                regularizer (an object, its identifier or its serialized form). A bare regularizer
                goes on all weights of two and more dimensions that are no bias.

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
        if isinstance(value, str):
            return cls._from_text(value)
        if isinstance(value, os.PathLike):
            return cls.load(value)
        if isinstance(value, Mapping):
            if "rules" in value or not value.keys() & {"class_name", *STRENGTH_KEYS}:
                return cls.from_dict(value)
            return cls([bare(value) if "class_name" in value else Rule.from_entry(value, 1)])
        if isinstance(value, Iterable) and not callable(value):
            return cls(
                Rule.from_entry(item, number)
                if isinstance(item, Mapping) and "class_name" not in item
                else item
                for number, item in enumerate(value, 1)
            )
        return cls._from_regularizer(value, "")

    @classmethod
    def _from_text(cls, text: str) -> Policy:
        """The policy of a recipe's name, a file's path or a regularizer's identifier."""
        if text in _recipes():
            return cls.recipe(text)
        if text.lower().endswith((".json", ".toml")):
            return cls.load(text)
        return cls._from_regularizer(text, parsing.hint(text, _recipes()))

    @classmethod
    def _from_regularizer(cls, value: Any, hint: str) -> Policy:
        try:
            return cls([bare(value)])
        except PolicyError as error:
            raise PolicyError(f"{value!r} is no policy{hint}: {_FORMS} ({error})") from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Policy:
        """Reads a policy from plain data, as JSON and TOML files have it.

        Args:
            data: Dictionary with the key `rules`, a list of dictionaries. Each has exactly one of
                `l1` and `l2` (the factor of Keras's regularizer), `weight_decay` (the papers'
                unit: `weight_decay` x is `l2` x/2), `regularizer` (null or `"none"` to remove
                what is there, or Keras's `{"class_name": ..., "config": ...}`) and `times` (a
                multiple of what earlier rules gave; with `blocks`, by depth, as for
                `graphwd.times`), and any of `roles`, `layers`, `paths`, `ndim` and `expect`, as
                for `graphwd.Rule`. `mechanism` may say `"decoupled"`.

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
        parsing.check_keys(data, ("rules", "mechanism"), "The policy")
        if "rules" not in data:
            raise PolicyError("The policy has no `rules`: give it a list of rules.")
        entries = data["rules"]
        if not isinstance(entries, (list, tuple)):
            raise PolicyError(
                f"The policy's `rules` is {parsing.kind(entries)}; make it a list of tables."
            )
        rules = [Rule.from_entry(entry, number) for number, entry in enumerate(entries, 1)]
        return cls(rules, mechanism=data.get("mechanism", "penalty"))

    def to_dict(self) -> dict[str, Any]:
        """The policy as plain data, that `from_dict` reads back to an equal policy.

        Returns:
            A dictionary for JSON. A regularizer is written as `l1` or `l2` where it is just that,
            and otherwise as `regularizer`; weight decays are written as the `l2` that they are.
        """
        made_for = {} if self.mechanism == "penalty" else {"mechanism": self.mechanism}
        return {**made_for, "rules": [rule.to_dict() for rule in self.rules]}

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
            raise PolicyError(f"{policyfiles.title_of(path)}: {error}") from error

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes a policy file that `load` reads back to an equal policy.

        The file is written at once or not at all. In TOML, which has no null, a rule that removes
        regularizers has `regularizer = "none"`.

        Args:
            path: Path of the file; its name ends in `.json` or `.toml`.
            overwrite: Whether a file that is there is replaced.

        Raises:
            PolicyError: when the file can't be written, or TOML has no way to write a rule.
        """
        policyfiles.write_table(path, self.to_dict(), overwrite=overwrite)

    @classmethod
    def recipe(
        cls, name: str, *, weight_decay: float | None = None, l2: float | None = None
    ) -> Policy:
        """The policy of a published training recipe.

        Args:
            name: String, the recipe's name; `graphwd.recipes()` has them all.
            weight_decay: Float, to use in place of the recipe's strength: a weight decay as in the
                papers, PyTorch and TF-Slim; x is `L2(x / 2)`.
            l2: Float, to use in place of the recipe's strength: the factor of Keras's `L2`.

        Returns:
            A `Policy`. Rules of several strengths keep their ratios.

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
    """A published training recipe: where weight decay goes, how much, and who says so."""

    name: str  # what `Policy.recipe` knows it by
    title: str  # one line
    source: str  # where it was published: `arXiv:1512.03385`
    mechanism: str  # `penalty` (a term of the loss, as graphwd adds it) or `decoupled` (AdamW)
    weights: str  # the weights that are decayed, in words
    quote: str  # the few words of the source that matter; empty where it has none
    notes: str  # what follows from code rather than from the paper, and what is uncertain
    unit: str  # `weight_decay` or `l2`, in which the source gives the strength
    coefficient: float  # the strength in that unit
    policy: Policy

    def with_strength(
        self, *, weight_decay: float | None = None, l2: float | None = None
    ) -> Policy:
        """The recipe's policy, with another strength, in one of the two units, if one is given."""
        if weight_decay is not None and l2 is not None:
            raise PolicyError("Give weight_decay or l2, not both: weight_decay x is l2 x/2.")
        if weight_decay is not None:
            strength = regularizers.from_weight_decay(parsing.factor(weight_decay, "weight_decay"))
        elif l2 is not None:
            strength = regularizers.l2(parsing.factor(l2, "l2"))
        else:
            return self.policy
        given = [rule.regularizer for rule in self.policy]
        own = next((each["config"]["l2"] for each in given if each and "l2" in each["config"]), 0)
        # Rules of several strengths keep their ratios. The mechanism is not the recipe's: the
        # caller's strength is for whatever mechanism he uses it for.
        return Policy(
            rule
            if old is None  # it removes, or multiplies
            else rule.with_regularizer(_in_ratio(old, own, strength))
            for rule, old in zip(self.policy, given, strict=True)
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
    """All published recipes, in the order in which they are best read.

    Returns:
        A tuple of `Recipe`s, each with its `name`, `source`, `quote`, `coefficient` and `unit`
        (`weight_decay` or `l2`), and its `policy`.

    Example:

    ```python
    for recipe in graphwd.recipes():
        print(recipe.name, recipe.unit, recipe.coefficient, recipe.source)
    ```
    """
    return tuple(_recipes().values())


@functools.cache
def _recipes() -> dict[str, Recipe]:
    text = importlib.resources.files("graphwd.policy").joinpath("recipes.toml").read_text("utf-8")
    return {name: _recipe_from(name, table) for name, table in tomllib.loads(text).items()}


def _recipe_from(name: str, table: dict[str, Any]) -> Recipe:
    rules = table.pop("rules")
    mechanism = table["mechanism"]
    # A rule's own key is its unit, so that no number and no unit is written down twice.
    unit, coefficient = next(
        (unit, rule[unit]) for rule in rules for unit in ("weight_decay", "l2") if unit in rule
    )
    texts = {key: " ".join(value.split()) for key, value in table.items()}
    return Recipe(
        name=name,
        unit=unit,
        coefficient=coefficient,
        policy=Policy.from_dict({"rules": rules, "mechanism": mechanism}),
        **texts,
    )


def _in_ratio(old: dict[str, Any], own: float, strength: dict[str, Any]) -> dict[str, Any]:
    """A regularizer in the ratio to a strength that it has to the factor of L2 before."""
    if not own or regularizers.equal(old, regularizers.l2(own)):
        return strength  # to the last bit
    return regularizers.multiplied(old, strength["config"]["l2"] / own) or regularizers.l2(0)
