"""Plans: what a policy does to the slots of one model."""

from __future__ import annotations

import html
import inspect
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphwd.graph.slots import Pointer, Slot
from graphwd.plans.coverage import passed_over
from graphwd.plans.deciding import decide
from graphwd.plans.decisions import Decision as Decision  # part of this module's interface
from graphwd.plans.outcome import Measure, Outcome
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


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a plan.

    Attributes:
        path: The slot's path: layer names from the model inwards, then the role.
        role: `kernel`, `depthwise`, `bias`, ...
        layer: The class name of the layer that owns the slot.
        before: The serialized regularizer that the slot holds now, or `None`.
        after: The serialized regularizer that it gets, or `None`.
        portable: Whether Keras's own config expresses the edit, so that the saved model loads
            without graphwd.
        dormant: Whether the weights are frozen, so that Keras skips the penalty until they are
            made trainable.
    """

    path: str
    role: str
    layer: str
    before: regularizers.Serialized | None
    after: regularizers.Serialized | None
    portable: bool
    dormant: bool


@dataclass(frozen=True)
class Plan(Outcome):
    """What a policy does to one model: iterate for its edits, print for a table.

    The values of penalties are computed when they are shown or asked for, on the weights of that
    moment: a plan of a live model keeps the model.

    Attributes:
        policy: The `Policy`, or `None` for what `inspect` returns.
        decisions: A `Decision` for every slot and weight of the model, edited or not.
        source: What the plan was made for, for headings.
        notes: What the plan can't tell, a sentence each.
    """

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The changes, in the order of the model's layers."""
        return tuple(
            Edit(
                path=decision.slot.path,
                role=decision.slot.role,
                layer=decision.slot.layer,
                before=decision.slot.regularizer,
                after=decision.after,
                portable=decision.portable,
                dormant=decision.slot.dormant,
            )
            for decision in self.decisions
            if decision.changes
        )

    def __iter__(self) -> Iterator[Edit]:
        return iter(self.edits)

    def __len__(self) -> int:
        return sum(decision.changes for decision in self.decisions)

    def config_edits(self) -> dict[Pointer, regularizers.Serialized | None]:
        """What the plan changes in a serialized model.

        Returns:
            A dict from pointers into the serialized model to what stands there afterwards.
        """
        return {
            pointer: decision.after
            for decision in self.decisions
            if decision.changes
            for pointer in decision.slot.pointers
        }

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data, for JSON.

        Returns:
            A dict with the keys `source`, `policy`, `edits`, `slots` (all of them, edited or not),
            `summary` (sums by role, by rule and by penalty, and the whole), `decays` (from
            `inspect`, of a compiled model: for each weight what the optimizer decays it by) and
            `notes`. Rules count from 1, and a number that is not known is `None`.
        """
        summary = Summary(self)
        return {
            "source": self.source,
            "policy": None if self.policy is None else self.policy.to_dict(),
            "edits": [
                {
                    "path": edit.path,
                    "role": edit.role,
                    "layer": edit.layer,
                    "before": _plain(edit.before),
                    "after": _plain(edit.after),
                    "portable": edit.portable,
                    "dormant": edit.dormant,
                }
                for edit in self.edits
            ],
            "slots": [
                _slot_dict(decision, summary.penalties.values.get(place))
                for place, decision in enumerate(self.decisions)
            ],
            "summary": summary.to_dict(),
            "decays": None if self.decays is None else self.decays.to_list(),
            "notes": [*self.notes, *summary.penalties.notes],
        }

    def tables(self) -> list[Table]:
        """The plan as tables: repeated layers as one line, then sums by rule and by role.

        Returns:
            A list of `graphwd.tables.Table`.
        """
        return self.shown()[0]

    def shown(self) -> tuple[list[Table], list[str]]:
        """What a plan looks like: its tables and its notes, which one look at the weights gives.

        Returns:
            A list of `graphwd.tables.Table`, and a list of sentences.
        """
        summary = Summary(self)
        more = [] if self.decays is None else [self.decays.table()]
        return [*summary.tables(), *more], [*self.notes, *summary.penalties.notes]

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


def _slot_dict(decision: Decision, penalty: tuple[float, float] | None) -> dict[str, Any]:
    slot = decision.slot
    return {
        "path": slot.path,
        "role": slot.role,
        "layers": list(slot.layers),
        "before": _plain(slot.regularizer),
        "after": _plain(decision.after),
        "rule": None if decision.rule is None else decision.rule + 1,
        "frozen": slot.dormant,
        "dormant": decision.dormant,
        "carried": decision.carried,
        "unreached": decision.unreached,
        "parameters": slot.parameters,
        "penalty": None if penalty is None else penalty[0],
        "planned_penalty": None if penalty is None else penalty[1],
    }


def _plain(serialized: regularizers.Serialized | None) -> dict[str, Any] | None:
    return None if serialized is None else dict(serialized)


def make_plan(
    slots: Iterable[Slot],
    policy: Policy,
    *,
    source: str = "",
    notes: Sequence[str] = (),
    serialized: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    hidden: int = 0,
    measure: Measure | None = None,
    expectations: bool = True,
) -> Plan:
    """Decides on every slot by the rules of a policy.

    Args:
        slots: The slots of one model.
        policy: A `Policy`.
        source: What the slots are from, for headings.
        notes: What the plan can't tell, a sentence each.
        serialized: The serialized model, for drawings.
        sizes: The number of parameters of each layer, by path, where the slots don't tell.
        hidden: The number of parameters in weights that no slot reaches and that are no slots.
        measure: Computes the values of penalties, when somebody asks for them.
        expectations: Whether rules must select the number of weights that they expect.

    Returns:
        A `Plan`. A rule that matches nothing is a warning that names it, since a typo must not
        pass as a choice, and so is a slot of which a rule can't tell whether it selects it.

    Raises:
        PolicyError: when a rule selects another number of weights than it expects.
    """
    verdict = decide(policy, list(slots), source, expectations=expectations)
    for message in verdict.unmatched:
        warnings.warn(message, UnmatchedRuleWarning, stacklevel=_outside())
    for message in verdict.undecided:
        warnings.warn(message, UndecidedSlotWarning, stacklevel=_outside())
    told = (*notes, *verdict.undecided, *passed_over(verdict.decisions))
    if policy.mechanism == "decoupled":
        told = (*told, DECOUPLED)
    return Plan(policy, verdict.decisions, source, told, serialized, sizes, hidden, measure)


def warn_of_mechanism(plan: Plan) -> None:
    """Warns when a plan that is carried out adds penalties of strengths for decoupled decay."""
    gives = any(decision.changes and decision.after is not None for decision in plan.decisions)
    if gives and plan.policy is not None and plan.policy.mechanism == "decoupled":
        warnings.warn(DECOUPLED, DecoupledStrengthWarning, stacklevel=_outside())


def _outside() -> int:
    """How far up the caller is who knows the policy: the nearest code that is not graphwd's."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("graphwd."):
        level, frame = level + 1, frame.f_back
    return level
