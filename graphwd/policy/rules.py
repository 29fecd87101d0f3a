"""Rules: which slots are selected, and what they get."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphwd.errors import PolicyError
from graphwd.policy import multiples, parsing, regularizers, selectors
from graphwd.policy.multiples import Times
from graphwd.policy.selectors import Ndim, Selectable

STRENGTH_KEYS = ("l1", "l2", "weight_decay", "regularizer", "times")
"""The keys of a rule's table of which it has exactly one: what the rule gives."""

_PATTERNS = ("roles", "layers", "paths")
_SELECTORS = (*_PATTERNS, "ndim")
_KEYS = (*_SELECTORS, "expect", *STRENGTH_KEYS, "blocks")


def _selection(given: Mapping[str, Any], where: str, expect_label: str) -> dict[str, Any]:
    """What is selected, and how many, of what a user or a file gives, checked."""
    chosen: dict[str, Any] = {
        key: parsing.patterns(given[key], key, where) for key in _PATTERNS if key in given
    }
    if "ndim" in given:
        chosen["ndim"] = selectors.ndim_conditions(given["ndim"], where)
    if "expect" in given:
        chosen["expect"] = parsing.count(given["expect"], expect_label)
    return chosen


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Rule:
    """Selects slots of a model, and says which regularizer they get.

    `roles`, `layers` and `paths` are shell globs (`*`, `?`, `[abc]`) or lists of them, and are
    case-sensitive. All selectors that are given must match; of a list, any entry may. A pattern
    that starts with `!` excludes: what it matches is not selected, whatever the list's other
    patterns say, and a list of nothing but exclusions selects everything else. A rule without
    selectors selects everything.

    Args:
        regularizer: What the selected slots get: a `keras.regularizers` object, its identifier
            (`"l2"`), its serialized form, `None` to remove what is there, or `graphwd.times` to
            multiply what earlier rules gave.
        roles: Selects by role: `"kernel"`, `["!*bias*", "!gamma"]`.
        layers: Selects by class name, of the layer or of any layer around it: `"Dense"`.
        paths: Selects by path: `"backbone/*/kernel"`. `*` matches across `/`, and `*block_1*`
            matches block 10, too.
        ndim: Selects by the weight's own number of dimensions: a number (`4`), a comparison as a
            string (`">=2"`, `"<=1"`), or a list of them. The biases of EinsumDense and
            MultiHeadAttention have two and more, so that "no vectors and no biases" is
            `ndim=">=2", roles="!*bias*"`. Weights whose shape is not known (a model that isn't
            built) are not selected, and a warning names them.
        expect: Integer, how many weights the rule must select. In a model where it selects another
            number, using the policy is a `PolicyError`: a policy that is kept for years doesn't
            change its meaning in silence.

    Raises:
        PolicyError: when the regularizer, a selector or the number is not of this form.

    Example:
    ```python
    graphwd.Rule(keras.regularizers.L2(1e-4), ndim=">=2", roles="!*bias*")
    graphwd.Rule(None, layers="DepthwiseConv2D", expect=13)
    graphwd.Rule(graphwd.times(0.1), paths=["backbone/*", "!*/bias"])
    ```
    """

    roles: tuple[str, ...] | None
    layers: tuple[str, ...] | None
    paths: tuple[str, ...] | None
    ndim: tuple[Ndim, ...] | None
    expect: int | None
    times: Times | None
    _serialized: dict[str, Any] | None
    _key: tuple[Any, ...]

    def __init__(
        self,
        regularizer: Any,
        *,
        roles: str | Sequence[str] | None = None,
        layers: str | Sequence[str] | None = None,
        paths: str | Sequence[str] | None = None,
        ndim: Ndim | Sequence[Ndim] | None = None,
        expect: int | None = None,
    ) -> None:
        times, serialized = None, None
        if isinstance(regularizer, Times):
            times = regularizer
        elif callable(regularizer) and not hasattr(regularizer, "get_config"):
            raise PolicyError(
                "The rule's regularizer is a function, which a saved model can't hold: make it a "
                "keras.regularizers.Regularizer with a get_config method."
            )
        elif (given := regularizers.serialize(regularizer)) is not None:
            serialized = parsing.canonical(given, "The rule's regularizer")
        chosen = {"roles": roles, "layers": layers, "paths": paths, "ndim": ndim, "expect": expect}
        given = {key: value for key, value in chosen.items() if value is not None}
        self._set(serialized, times, _selection(given, "The rule", "The rule's `expect`"))

    def _set(
        self, serialized: dict[str, Any] | None, times: Times | None, selection: dict[str, Any]
    ) -> None:
        values: dict[str, Any] = {key: selection.get(key) for key in (*_SELECTORS, "expect")}
        key = (regularizers.normalize(serialized), *values.values(), times)
        values.update(times=times, _serialized=serialized, _key=key)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_entry(cls, entry: Any, number: int) -> Rule:
        """Reads a rule from its table in a policy file.

        Args:
            entry: The table.
            number: Its place among the rules, from 1, for messages.

        Returns:
            A `Rule`.

        Raises:
            PolicyError: naming the rule's number and the key that is wrong.
        """
        where = f"Rule {number}"
        if not isinstance(entry, Mapping):
            raise PolicyError(
                f"{where} is {parsing.kind(entry)}; make it a table such as "
                '{"roles": ["kernel"], "l2": 0.0001}.'
            )
        parsing.check_keys(entry, _KEYS, where)
        given = [key for key in STRENGTH_KEYS if key in entry]
        if len(given) != 1:
            has = " and ".join(f"`{key}`" for key in given)
            raise PolicyError(
                f"{where} has {has or 'no strength'}: give it exactly one of `l1`, `l2`, "
                "`weight_decay`, `regularizer` and `times`."
            )
        if "blocks" in entry and "times" not in entry:
            raise PolicyError(f"{where} has `blocks` without `times`, which they are for.")
        selection = _selection(entry, where, f"{where}: `expect`")
        value, serialized, times = entry[given[0]], None, None
        if given[0] == "times":
            times = multiples.times_from(value, entry.get("blocks"), where)
        else:
            serialized = parsing.regularizer_from(value, given[0], where)
        rule = cls.__new__(cls)
        rule._set(serialized, times, selection)
        return rule

    @property
    def regularizer(self) -> dict[str, Any] | None:
        """The serialized regularizer, or `None`; a copy, so that the rule stays as it is."""
        return copy.deepcopy(self._serialized)

    @property
    def gives(self) -> str:
        """What the selected slots get, for tables and messages: `L2(0.0001)`, `times 0.1`."""
        return self.times.describe() if self.times else regularizers.describe(self._serialized)

    def describe(self) -> str:
        """What the rule selects, for tables and messages.

        Returns:
            A string such as `"roles: kernel|bias, layers: Dense"`, or `"everything"`.
        """
        chosen = {key: getattr(self, key) for key in _SELECTORS}
        texts = [f"{key}: {'|'.join(map(str, value))}" for key, value in chosen.items() if value]
        return ", ".join(texts) or "everything"

    def with_regularizer(self, regularizer: Any) -> Rule:
        """The rule that selects the same, and gives something else.

        Args:
            regularizer: As for `Rule`.

        Returns:
            A `Rule`.
        """
        chosen = {key: getattr(self, key) for key in (*_SELECTORS, "expect")}
        return Rule(regularizer, **chosen)

    def matches(self, slot: Selectable) -> bool:
        """Whether the rule selects a slot.

        Args:
            slot: A `Slot`, or anything else with its `path`, `role`, `layers` and `ndims`.

        Returns:
            A boolean; `False` when that can't be said, since the rule asks for a number of
            dimensions and the shape is not known.
        """
        return self.selects(slot) is True

    def selects(self, slot: Selectable) -> bool | None:
        """Whether the rule selects a slot, as far as that can be said.

        Args:
            slot: As for `matches`.

        Returns:
            A boolean, or `None` when the slot's number of dimensions is not known, or not one.
        """
        if slot.role == "activity" and self.regularizer is not None and not self._names_activity:
            return False  # a rule for all weights penalises no activations
        if not (
            (self.roles is None or selectors.matcher(self.roles)((slot.role,)))
            and (self.layers is None or selectors.matcher(self.layers)(slot.layers))
            and (self.paths is None or selectors.matcher(self.paths)((slot.path,)))
        ):
            return False
        if self.ndim is None:
            return True
        if slot.role == "activity":  # it is no weight
            return False
        return selectors.ndim_selects(self.ndim, slot.ndims)

    @property
    def _names_activity(self) -> bool:
        """Whether a pattern other than `*` asks for activations."""
        named = tuple(role for role in self.roles or () if role != "*" and role[:1] != "!")
        return bool(named) and selectors.matcher(named)(("activity",))

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain data, as it stands in a policy file.

        Returns:
            A dict: one entry of the list `rules` of `Policy.to_dict`.
        """
        entry: dict[str, Any] = {}
        for key in _PATTERNS:
            patterns = getattr(self, key)
            if patterns is not None:
                entry[key] = list(patterns)
        if self.ndim is not None:
            entry["ndim"] = self.ndim[0] if len(self.ndim) == 1 else list(self.ndim)
        if self.expect is not None:
            entry["expect"] = self.expect
        entry.update(self.times.to_dict() if self.times else parsing.strength(self._serialized))
        return entry

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Rule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        chosen = {key: getattr(self, key) for key in _SELECTORS}
        texts = [f", {key}={list(value)}" for key, value in chosen.items() if value]
        if self.expect is not None:
            texts.append(f", expect={self.expect}")
        return f"Rule({self.gives}{''.join(texts)})"
