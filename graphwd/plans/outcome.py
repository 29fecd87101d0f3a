"""Outcomes: all decisions on one model, what they were made from, and the penalties' values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from graphwd.errors import GraphwdError
from graphwd.plans.decays import Decays
from graphwd.plans.decisions import Decision
from graphwd.policy.policies import Policy


@dataclass(frozen=True)
class Penalties:
    """What the penalties on the slots of one model come to, on the weights of the moment.

    Attributes:
        values: Maps the place of a decision to the value of the penalty that its slot has now, and
            of the one that it gets. Frozen weights have values, too, though Keras skips them.
        unknown: The places of penalties whose value can't be told.
        notes: Why not, a sentence each.
    """

    values: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    unknown: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.values)


Measure: TypeAlias = Callable[[tuple[Decision, ...]], Penalties]
"""What computes the values of penalties, when somebody asks for them."""


@dataclass(frozen=True)
class Outcome:
    """What is decided on every slot of one model.

    Attributes:
        policy: The `Policy`, or `None` for what is penalised now.
        decisions: A `Decision` for every slot and weight of the model, edited or not.
        source: What was decided on, for headings.
        notes: What can't be told, a sentence each.
        serialized: The serialized model, for drawings, where it is known.
        sizes: The number of parameters of each layer, by path, where the slots don't tell.
        hidden: The number of parameters in weights that no slot reaches and that no decision
            is on, as far as a file tells.
        measure: Computes the values of the penalties, where the weights are known.
        decays: What the optimizer decays, where that was asked for.
    """

    policy: Policy | None
    decisions: tuple[Decision, ...]
    source: str = ""
    notes: tuple[str, ...] = field(default=())
    serialized: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    sizes: Mapping[str, int] | None = field(default=None, compare=False, repr=False)
    hidden: int = field(default=0, compare=False, repr=False)
    measure: Measure | None = field(default=None, compare=False, repr=False)
    decays: Decays | None = field(default=None, compare=False, repr=False)

    def penalties(self) -> Penalties:
        """Computes what the penalties come to, on the weights of the moment.

        Returns:
            `Penalties`; without values where the weights are not known, and with a note where they
            can't be read any more.
        """
        if self.measure is None:
            return Penalties()
        try:
            return self.measure(self.decisions)
        except GraphwdError as error:  # the rest of a table is right without them
            penalised = frozenset(penalised_places(self.decisions))
            return Penalties({}, penalised, (f"The values of the penalties are missing: {error}",))

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process has no model and no file to measure: it gets the values."""
        state = dict(self.__dict__)
        if self.measure is not None:
            state["measure"] = _Known(self.penalties())
        return state

    @property
    def title(self) -> str:
        """What it comes to, in a line."""
        where = f" of {self.source}" if self.source else ""
        count = len(self.decisions)
        if self.policy is None:
            held = sum(decision.after is not None for decision in self.decisions)
            return f"{held:,} of the {count:,} slots{where} hold a regularizer"
        edits = sum(decision.changes for decision in self.decisions)
        return f"{edits:,} of the {count:,} slots{where} get another regularizer"


@dataclass(frozen=True)
class _Known:
    """Penalties that were computed before."""

    penalties: Penalties

    def __call__(self, decisions: tuple[Decision, ...]) -> Penalties:
        return self.penalties


def penalised_places(decisions: Iterable[Decision]) -> list[int]:
    """The places of decisions on weights that have a penalty, before or after."""
    return [
        place
        for place, decision in enumerate(decisions)
        if decision.slot.role != "activity"
        and not (decision.slot.regularizer is None and decision.after is None)
    ]


def unknown_note(words: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Notes on penalties whose value can't be told.

    Args:
        words: Maps reasons to the paths of the slots.

    Returns:
        A sentence for each reason.
    """
    notes = []
    for reason, paths in words.items():
        few = list(paths)
        named = ", ".join(few[:3]) + (f" and {len(few) - 3:,} more" if len(few) > 3 else "")
        notes.append(f"The value of the penalty on {named} is not known: {reason}.")
    return tuple(notes)
