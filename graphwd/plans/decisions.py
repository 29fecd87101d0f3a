"""Decisions: what a policy decides on one slot."""

from __future__ import annotations

from dataclasses import dataclass

from graphwd.graph.slots import Slot
from graphwd.policy import regularizers


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy decides on one slot.

    Attributes:
        slot: The `Slot`.
        rule: The index of the rule that decides, or `None` when no rule matches.
        after: The serialized regularizer that the slot has afterwards.
    """

    slot: Slot
    rule: int | None
    after: regularizers.Serialized | None

    @property
    def changes(self) -> bool:
        """Whether the slot holds another regularizer afterwards."""
        return not regularizers.equal(self.slot.regularizer, self.after)

    @property
    def portable(self) -> bool:
        """Whether stock Keras config expresses the slot."""
        return bool(self.slot.pointers) and not self.slot.carried

    @property
    def dormant(self) -> bool:
        """Whether the slot's penalty sleeps: Keras skips it while the weights are frozen."""
        return self.slot.dormant and self.after is not None

    @property
    def carried(self) -> bool:
        """Whether graphwd carries the penalty, since no config of Keras's own expresses it."""
        return not self.portable and self.after is not None

    @property
    def unreached(self) -> bool:
        """Whether no config reaches the weight, and no rule wants a penalty on it either."""
        return not self.portable and self.after is None
