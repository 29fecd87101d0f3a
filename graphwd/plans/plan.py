"""Plans: what a policy does to the slots of one model."""

from __future__ import annotations

import html
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from graphwd.errors import GraphwdError, UnreachableWeightError
from graphwd.graph.slots import Pointer, Slot
from graphwd.plans.decays import Decays
from graphwd.plans.edits import Edit as Edit  # part of this module's interface
from graphwd.plans.edits import decide, passed_over, some
from graphwd.plans.summary import Summary
from graphwd.plans.tables import Table, printable
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy


class UnusedPenaltyWarning(UserWarning):
    """A model's own training step leaves its penalties out of the loss."""


class UnmatchedRuleWarning(UserWarning):
    """A rule of a policy matches no slot and no weight of the model."""


class UndecidedSlotWarning(UserWarning):
    """A rule selects by a number of dimensions that is not known, or not one; the slot stays."""


class DecoupledStrengthWarning(UserWarning):
    """A strength that was chosen for decoupled decay is applied as a penalty in the loss."""


DECOUPLED = (
    "The policy's strengths were chosen for decoupled decay (AdamW); as a penalty in the loss they "
    "are another thing, far too strong with SGD, and divided by the size of the gradients with "
    "Adam: use graphwd.decouple, or give a strength of your own."
)
"""What is said of a policy that is made for decoupled decay, where it gives penalties."""


Value: TypeAlias = tuple[float, float] | str | None
"""What the penalty on a slot comes to, now and as planned; why that is not known; or nothing."""

Measure: TypeAlias = Callable[[Sequence[Edit]], Sequence[Value]]
"""Gives the value of each edit, on the weights of the moment, when somebody asks for them."""


@dataclass(frozen=True)
class Plan:
    """What a policy does to one model: iterate for its edits, print for a table.

    The values of penalties are computed when they are shown or asked for, on the weights of that
    moment: a plan of a live model keeps the model.

    Attributes:
        policy: The `Policy`, or `None` for what `inspect` returns.
        slots: An `Edit` for every slot and weight of the model, changed or not, in the order of its
            layers.
        source: What the plan was made for, for headings.
        notes: What the plan can't tell, a sentence each.
        serialized: The serialized model, for drawings, where it is known.
        sizes: The number of parameters of each layer, by path, where the slots don't tell.
        hidden: The number of parameters in weights that no slot reaches, as far as a file tells.
        measure: Computes the values of the penalties, where the weights are known.
        decays: What the optimizer decays, where that was asked for.
        unmatched: A sentence for each rule without any effect.
    """

    policy: Policy | None
    slots: tuple[Edit, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    serialized: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    sizes: Mapping[str, int] | None = field(default=None, compare=False, repr=False)
    hidden: int = field(default=0, compare=False, repr=False)
    measure: Measure | None = field(default=None, compare=False, repr=False)
    decays: Decays | None = field(default=None, compare=False, repr=False)
    unmatched: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The changes, in the order of the model's layers."""
        return tuple(edit for edit in self.slots if edit.changes)

    def __iter__(self) -> Iterator[Edit]:
        return iter(self.edits)

    def __len__(self) -> int:
        return sum(edit.changes for edit in self.slots)

    @property
    def title(self) -> str:
        """What it comes to, in a line."""
        where = f" of {self.source}" if self.source else ""
        count = len(self.slots)
        if self.policy is None:
            held = sum(edit.after is not None for edit in self.slots)
            return f"{held:,} of the {count:,} slots{where} hold a regularizer"
        return f"{len(self):,} of the {count:,} slots{where} get another regularizer"

    def config_edits(self) -> dict[Pointer, regularizers.Serialized | None]:
        """What the plan changes in a serialized model.

        Returns:
            A dict from pointers into the serialized model to what stands there afterwards.
        """
        return {pointer: edit.after for edit in self for pointer in edit.slot.pointers}

    def measured(self) -> Plan:
        """The plan with the values of its penalties, on the weights of the moment.

        Returns:
            A `Plan` whose slots have a `penalty` and a `planned_penalty` where these are known, and
            whose notes say why others are not.
        """
        if self.measure is None:
            return self
        try:
            values = self.measure(self.slots)
        except GraphwdError as error:  # the rest of a table is right without them
            note = f"The values of the penalties are missing: {error}"
            return replace(self, notes=(*self.notes, note), measure=_values_of)
        reasons: dict[str, list[str]] = {}
        slots = []
        for edit, value in zip(self.slots, values, strict=True):
            if isinstance(value, str):
                reasons.setdefault(value, []).append(edit.path)
            elif value is not None:
                edit = replace(edit, penalty=value[0], planned_penalty=value[1])
            slots.append(edit)
        unknown = [
            f"The value of the penalty on {some(paths)} is not known: {reason}."
            for reason, paths in reasons.items()
        ]
        notes = (*self.notes, *unknown)
        return replace(self, slots=tuple(slots), notes=notes, measure=_values_of)

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process has no model and no file to measure: it gets the values."""
        return dict(self.measured().__dict__)

    def summary(self) -> Summary:
        """Sums over the slots, of a plan that was measured.

        Returns:
            A `graphwd.plans.summary.Summary`.
        """
        return Summary(self.policy, self.slots, self.hidden, measurable=self.measure is not None)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data, for JSON.

        Returns:
            A dict with the keys `source`, `policy`, `edits`, `slots` (all of them, edited or not),
            `summary` (sums by role, by rule and by penalty, and the whole), `decays` (from
            `inspect`, of a compiled model: for each weight what the optimizer decays it by) and
            `notes`. Rules count from 1, and a number that is not known is `None`.
        """
        plan = self.measured()
        return {
            "source": self.source,
            "policy": None if self.policy is None else self.policy.to_dict(),
            "edits": [edit.to_dict() for edit in self],
            "slots": [_slot_dict(edit) for edit in plan.slots],
            "summary": plan.summary().to_dict(),
            "decays": None if self.decays is None else self.decays.to_list(),
            "notes": list(plan.notes),
        }

    def tables(self) -> list[Table]:
        """The plan as tables: repeated layers as one line, then sums by rule and by role.

        Returns:
            A list of `graphwd.plans.tables.Table`.
        """
        return self.shown()[0]

    def shown(self) -> tuple[list[Table], list[str]]:
        """What a plan looks like: its tables and its notes, which one look at the weights gives.

        Returns:
            A list of `graphwd.plans.tables.Table`, and a list of sentences.
        """
        plan = self.measured()
        more = [] if self.decays is None else [self.decays.table()]
        return [*plan.summary().tables(), *more], list(plan.notes)

    def save_html(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Writes the plan as a page: graph, charts and tables in one file that asks no network.

        Args:
            path: The file's path.
            overwrite: Whether a file that is there is replaced.

        Raises:
            ArchiveError: when the file can't be written. What was there is unchanged.

        Example:

        ```python
        graphwd.plan("model.keras", graphwd.Policy.recipe("resnet")).save_html("plan.html")
        ```
        """
        from graphwd.plans import page  # here, since most plans are never drawn

        page.save_html(self, path, overwrite=overwrite)

    def __str__(self) -> str:
        tables, notes = self.shown()
        parts = [printable(self.title), *(table.text() for table in tables)]
        return "\n\n".join((*parts, *(f"Note: {printable(note)}" for note in notes)))

    def _repr_html_(self) -> str:
        tables, notes = self.shown()
        parts = [f"<p>{html.escape(self.title)}</p>", *(table.html() for table in tables)]
        return "".join((*parts, *(f"<p>{html.escape(note)}</p>" for note in notes)))


def _values_of(slots: Sequence[Edit]) -> list[Value]:
    """The values of slots that were measured before."""
    return [
        None
        if edit.penalty is None or edit.planned_penalty is None
        else (edit.penalty, edit.planned_penalty)
        for edit in slots
    ]


def _slot_dict(edit: Edit) -> dict[str, Any]:
    told = edit.to_dict()
    return {
        "path": edit.path,
        "role": edit.role,
        "layers": list(edit.slot.layers),
        "before": told["before"],
        "after": told["after"],
        "rule": None if edit.rule is None else edit.rule + 1,
        "frozen": edit.slot.frozen,
        "dormant": edit.dormant,
        "carried": edit.carried,
        "unreached": edit.unreached,
        "parameters": edit.slot.parameters,
        "penalty": edit.penalty,
        "distance": edit.distance,
        "planned_penalty": edit.planned_penalty,
    }


def make_plan(
    slots: Iterable[Slot],
    policy: Policy | None,
    *,
    source: str = "",
    notes: Iterable[str] = (),
    serialized: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    hidden: int = 0,
    measure: Measure | None = None,
    decays: Decays | None = None,
    expectations: bool = True,
) -> Plan:
    """The plan of a policy for a model's slots; without one, of what they hold.

    A rule that matches nothing is a warning that names it, since a typo must not pass as a choice,
    and so is a slot of which a rule can't tell whether it selects it.

    `expectations` says whether rules must select the number of weights that they expect; the other
    arguments are those of `Plan`.
    """
    told = [*notes, *(decays.notes() if decays else ())]
    edits, unmatched, undecided = decide(
        policy or Policy([]), list(slots), source, expectations=expectations
    )
    for message in unmatched:
        warnings.warn(message, UnmatchedRuleWarning, stacklevel=outside())
    for message in undecided:
        warnings.warn(message, UndecidedSlotWarning, stacklevel=outside())
    told += [*undecided, *passed_over(edits)]
    if policy is not None and policy.mechanism == "decoupled":
        told.append(DECOUPLED)
    return Plan(
        policy,
        edits,
        source,
        tuple(told),
        serialized,
        sizes,
        hidden,
        measure,
        decays,
        tuple(unmatched),
    )


def refuse_carried(plan: Plan) -> None:
    """Refuses a plan with penalties that Keras alone can't load."""
    carried = tuple(edit.path for edit in plan.slots if edit.carried)
    if carried:
        named = ", ".join(carried[:5]) + (", ..." if len(carried) > 5 else "")
        raise UnreachableWeightError(
            f"No layer's config reaches {len(carried)} of the weights that the policy wants a "
            f"regularizer on ({named}); leave portable=False to let graphwd carry them.",
            carried,
        )


def warn_of_mechanism(plan: Plan) -> None:
    """Warns when a plan that is carried out adds penalties of strengths for decoupled decay."""
    gives = any(edit.after is not None for edit in plan)
    if gives and plan.policy is not None and plan.policy.mechanism == "decoupled":
        warnings.warn(DECOUPLED, DecoupledStrengthWarning, stacklevel=outside())


def outside() -> int:
    """How far up the caller is who knows the policy: the nearest code that is not graphwd's."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("graphwd."):
        level, frame = level + 1, frame.f_back
    return level
