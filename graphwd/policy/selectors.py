"""Selectors: globs over a slot's names, and conditions on its weights' number of dimensions."""

from __future__ import annotations

import fnmatch
import functools
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from graphwd.errors import PolicyError
from graphwd.policy import parsing

Ndim: TypeAlias = int | str
"""A condition on a number of dimensions: the number itself, or a comparison such as `">=2"`."""

_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*(>=|<=|==|!=|>|<)?\s*(\d{1,3})\s*")


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

    @property
    def ndims(self) -> tuple[int, ...]:
        """The number of dimensions of each of the slot's weights; empty where it is not known."""


@functools.lru_cache(maxsize=1024)
def matcher(patterns: tuple[str, ...]) -> Callable[[Sequence[str]], bool]:
    """A function that tells whether a selector's patterns select something with these names."""
    included = _any_of(pattern for pattern in patterns if not pattern.startswith("!"))
    excluded = _any_of(pattern[1:] for pattern in patterns if pattern.startswith("!"))

    def selects(names: Sequence[str]) -> bool:
        if excluded is not None and any(map(excluded, names)):
            return False
        return included is None or any(map(included, names))

    return selects


def _any_of(globs: Iterable[str]) -> Callable[[str], object] | None:
    joined = "|".join(map(fnmatch.translate, globs))
    return re.compile(joined).match if joined else None


def ndim_conditions(value: Any, where: str) -> tuple[Ndim, ...]:
    """The conditions of the selector `ndim`, of which any will do, each in its one spelling."""
    given = value if isinstance(value, (list, tuple)) else (value,)
    if not given:
        raise PolicyError(f"{where}: `ndim` is an empty list; leave it out to select everything.")
    return tuple(_condition(item, where) for item in given)


def _condition(value: Any, where: str) -> Ndim:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _CONDITION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PolicyError(
            f"{where}: `ndim` is {parsing.kind(value)}; make it a number of dimensions, such as 4, "
            'or a comparison, such as ">=2" or "<=1".'
        )
    comparison, number = found.groups()
    return int(number) if comparison in (None, "==") else f"{comparison}{int(number)}"


def ndim_selects(conditions: Sequence[Ndim], ndims: Iterable[int]) -> bool | None:
    """Whether weights have a number of dimensions that is asked for; `None` if it isn't known."""
    answers = {any(_holds(condition, ndim) for condition in conditions) for ndim in ndims}
    # No number is known, or only some of the weights have one that is asked for, which one
    # regularizer argument can't tell apart.
    return answers.pop() if len(answers) == 1 else None


@functools.lru_cache(maxsize=256)
def _holds(condition: Ndim, ndim: int) -> bool:
    if isinstance(condition, int):
        return ndim == condition
    comparison, number = _CONDITION.fullmatch(condition).groups()  # type: ignore[union-attr] # _condition made it
    return _COMPARISONS[comparison](ndim, int(number))
