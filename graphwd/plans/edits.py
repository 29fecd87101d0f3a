"""Edits: what the rules of a policy give to each slot of a model, and what they can't decide."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphwd.errors import PolicyError
from graphwd.graph.slots import Slot
from graphwd.policy import regularizers
from graphwd.policy.parsing import suggest
from graphwd.policy.policies import Policy
from graphwd.policy.rules import Rule
from graphwd.policy.selectors import matcher, ndim_selects

_HINTS, _LONGEST_TEXT = 4, 200  # a pattern of a megabyte is told in a line, too
_TO_KNOW = "build the model first, or load the file (--live)"
_SELECTS_MATRICES = matcher(("!*bias*", "!*embed*", "!*token*", "!activity"))
"""By role: the weights that inputs are multiplied by, and no table that is looked up in."""


@dataclass(frozen=True, slots=True, repr=False)
class Edit:
    """What a plan does to one slot: what the slot holds, what it gets, and which rule says so.

    A plan has one for every slot of a model; those that it is iterated for change something.

    Attributes:
        slot: Where it is and which weights it governs, for those who need more than is below.
        after: The serialized regularizer that the slot gets, or `None`.
        rule: The index of the rule that decides, or `None` where none does.
        penalty: What the penalty that the slot has now comes to; `None` where that is not known.
            Frozen weights have a value, too, though Keras skips it.
        planned_penalty: What the one that it gets comes to.
    """

    slot: Slot
    after: regularizers.Serialized | None
    rule: int | None = None
    penalty: float | None = field(default=None, compare=False)
    planned_penalty: float | None = field(default=None, compare=False)

    @property
    def path(self) -> str:
        """The slot's path: layer names from the model inwards, then the role."""
        return self.slot.path

    @property
    def role(self) -> str:
        """`kernel`, `depthwise`, `bias`, ..."""
        return self.slot.role

    @property
    def layer(self) -> str:
        """The class name of the layer that owns the slot."""
        return self.slot.layer

    @property
    def before(self) -> regularizers.Serialized | None:
        """The serialized regularizer that the slot holds now, or `None`."""
        return self.slot.regularizer

    @property
    def changes(self) -> bool:
        """Whether the slot gets another regularizer than it holds."""
        return not regularizers.equal(self.before, self.after)

    @property
    def portable(self) -> bool:
        """Whether Keras's own config expresses it, so that the saved model loads without graphwd.

        A penalty that is not portable is carried by graphwd.
        """
        return bool(self.slot.pointers) and not self.slot.carried

    @property
    def dormant(self) -> bool:
        """Whether the slot gets a penalty and its weights are frozen.

        Keras skips the penalty until they are made trainable. A frozen weight without a penalty is
        not dormant.
        """
        return self.slot.frozen and self.after is not None

    @property
    def carried(self) -> bool:
        """Whether graphwd carries the penalty, since no config of Keras's own expresses it."""
        return not self.portable and self.after is not None

    @property
    def unreached(self) -> bool:
        """Whether no config reaches the weight, and no rule wants a penalty on it either."""
        return not self.portable and self.after is None

    @property
    def distance(self) -> float | None:
        """How far the weights have gone from the start that the penalty on them now has."""
        if self.penalty is None or not regularizers.wants_start(self.before):
            return None
        strength = float((self.before or {})["config"]["strength"])
        return math.sqrt(self.penalty / strength) if strength else None

    @property
    def penalised(self) -> bool:
        """Whether there is a penalty on weights, before or after, which has a value."""
        return self.role != "activity" and not (self.before is None and self.after is None)

    def to_dict(self) -> dict[str, Any]:
        """The edit as plain data, for JSON.

        Returns:
            A dict with the keys `path`, `role`, `layer`, `before`, `after`, `portable` and
            `dormant`.
        """
        return {
            "path": self.path,
            "role": self.role,
            "layer": self.layer,
            "before": None if self.before is None else dict(self.before),
            "after": None if self.after is None else dict(self.after),
            "portable": self.portable,
            "dormant": self.dormant,
        }

    def __repr__(self) -> str:
        return f"Edit({', '.join(f'{key}={value!r}' for key, value in self.to_dict().items())})"


def decide(
    policy: Policy, slots: Sequence[Slot], source: str = "", *, expectations: bool = True
) -> tuple[tuple[Edit, ...], list[str], list[str]]:
    """Goes through a policy's rules in their order; the last one that selects a slot decides."""
    fold = _Fold(slots)
    where = f" of {source}" if source else ""
    unmatched = []
    for index, rule in enumerate(policy.rules):
        selected = [rule.selects(slot) for slot in slots]
        if expectations and rule.expect is not None:
            _check_expected(index, rule, selected, slots, where)
        if not fold.apply(index, rule, selected):
            unmatched.append((index, rule, selected))
    # Beside the edits: a sentence for each rule without any effect, and one for each kind of slot
    # that stays as it is, since its shape doesn't tell whether a rule selects it.
    edits, undecided = fold.decided(), _undecided(slots, fold.undecided)
    return edits, [_unmatched(*each, slots, where) for each in unmatched], undecided


class _Fold:
    """What the rules so far give to each slot."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._edits = [Edit(slot, slot.regularizer) for slot in slots]
        self._paths = [slot.path for slot in slots]
        self._multiplied: dict[tuple[Any, float], regularizers.Serialized | None] = {}
        self.undecided: dict[int, int] = {}
        """Maps the places of slots to the rule that can't tell whether it selects them."""

    def apply(self, index: int, rule: Rule, selected: Sequence[bool | None]) -> bool:
        """Applies a rule; whether it decides on anything, or can't tell."""
        times, regularizer = rule.times, rule.regularizer
        factors: Sequence[float] = ()
        if times is not None:
            selected = [
                answer if place in self.undecided or _given(edit) is not None else False
                for place, (answer, edit) in enumerate(zip(selected, self._edits, strict=True))
            ]
            if not times.finds_blocks(self._paths):
                return False
            factors = times.factors(self._paths, [answer is not False for answer in selected])
        for place, answer in enumerate(selected):
            if answer is False:
                continue
            edit = self._edits[place]
            if answer is None:
                either_way = times is None and regularizers.equal(edit.after, regularizer)
                if place in self.undecided or not either_way:
                    self.undecided[place] = index
            elif times is not None:
                given, factor = _given(edit), factors[place]
                key = (regularizers.normalize(given), factor)
                if key not in self._multiplied:  # one object for all that were given one object
                    self._multiplied[key] = regularizers.multiplied(given, factor)
                self._edits[place] = Edit(edit.slot, self._multiplied[key], index)
            else:
                self._edits[place] = Edit(edit.slot, regularizer, index)
                self.undecided.pop(place, None)
        return any(answer is not False for answer in selected)

    def decided(self) -> tuple[Edit, ...]:
        """The edits; what is undecided, and what gets an equal regularizer, stays as it is."""
        for place in self.undecided:
            self._edits[place] = Edit(self._edits[place].slot, self._edits[place].before)
        return tuple(
            edit if edit.rule is None or edit.changes else Edit(edit.slot, edit.before, edit.rule)
            for edit in self._edits
        )


def _given(edit: Edit) -> regularizers.Serialized | None:
    """What a slot gets from a rule, so far; what it holds already is not given."""
    return None if edit.rule is None else edit.after


def _check_expected(
    index: int, rule: Rule, selected: Sequence[bool | None], slots: Sequence[Slot], where: str
) -> None:
    chosen = [slot for slot, answer in zip(slots, selected, strict=True) if answer is not False]
    weights = [slot for slot in chosen if slot.role != "activity"]
    unknown = [slot.path for slot in weights if not slot.shapes]
    count = sum(len(slot.shapes) for slot in weights)
    if unknown:
        raise PolicyError(
            f"{_named(index, rule)} expects {rule.expect:,} weights{where}, but how many "
            f"{some(unknown)} stands for is not known; {_TO_KNOW}, or leave `expect` out."
        )
    if count != rule.expect:
        raise PolicyError(
            f"{_named(index, rule)} expects {rule.expect:,} weights{where} but selects {count:,}"
            + (f" ({some([slot.path for slot in weights])})" if weights else "")
            + "; change the rule, or what it expects."
        )


def _undecided(slots: Sequence[Slot], undecided: Mapping[int, int]) -> list[str]:
    """Why slots stay as they are: their shapes are not known, or are of both kinds."""
    unknown: dict[int, list[str]] = {}
    mixed: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for place, rule in undecided.items():
        slot = slots[place]
        if slot.ndims:
            mixed.setdefault((rule, tuple(sorted({*slot.ndims}))), []).append(slot.path)
        else:
            unknown.setdefault(rule, []).append(slot.path)
    sentences = [
        f"Rule {rule + 1} selects by ndim, but the number of dimensions of {some(paths)} is not "
        f"known, so it stays as it is; {_TO_KNOW}, or select it by role or path."
        for rule, paths in unknown.items()
    ]
    sentences += [
        f"Rule {rule + 1} selects by ndim, but {some(paths)} is one argument for weights of "
        f"{' and '.join(map(str, ranks))} dimensions, so it stays as it is; select it by role or "
        "path, too."
        for (rule, ranks), paths in mixed.items()
    ]
    return sentences


def _named(index: int, rule: Rule) -> str:
    text = rule.describe()
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]}..."
    return f"Rule {index + 1} ({text})"


def _unmatched(
    index: int,
    rule: Rule,
    selected: Sequence[bool | None],
    slots: Sequence[Slot],
    where: str,
) -> str:
    """The warning for a rule without effect, with the nearest words that would match."""
    if rule.times is not None and True in selected:
        paths = [slot.path for slot in slots]
        if rule.times.finds_blocks(paths):
            return (
                f"{_named(index, rule)} multiplies nothing{where}: no rule before it gives what it "
                "selects a penalty."
            )
        blocks = "|".join(rule.times.blocks or ())
        return (
            f"{_named(index, rule)} finds the number of no block{where}: no path matches {blocks}."
        )
    known: Mapping[str, set[str]] = {
        "roles": {slot.role for slot in slots},
        "layers": {name for slot in slots for name in slot.layers},
        "paths": {slot.path for slot in slots},
    }
    hints = []
    for selector, words in known.items():
        for pattern in (getattr(rule, selector) or ())[:_HINTS]:
            nearest = suggest(pattern, words)
            if nearest and pattern not in words:
                hints.append(f"{pattern[:_LONGEST_TEXT]!r}: did you mean {nearest!r}?")
    hint = f" ({' '.join(hints)})" if hints else ""
    return f"{_named(index, rule)} matches nothing{where}{hint}."


def passed_over(edits: Sequence[Edit]) -> list[str]:
    """A sentence, or none, on large matrices that no rule decides on while others are penalised."""
    matrices = [
        e for e in edits if _SELECTS_MATRICES((e.role,)) and ndim_selects((">=2",), e.slot.ndims)
    ]
    penalised = [e for e in matrices if e.rule is not None and e.after is not None]
    if not penalised:
        return []
    # One is large that has as many parameters as half of those that are penalised.
    typical = statistics.median(map(_size, penalised))
    over = [e for e in matrices if e.rule is None and e.after is None and _size(e) >= typical]
    if not over:
        return []
    share = sum(map(_size, over)) / sum(map(_size, matrices))
    return [
        f"No rule decides on {len(over):,} large matrices, {share:.0%} of the parameters in all of "
        f"them, while others like them are penalised: {some([e.path for e in over])}; "
        'ndim=">=2" with roles="!*bias*" selects matrices by whatever name.'
    ]


def _size(edit: Edit) -> int:
    return edit.slot.parameters or 0


def some(paths: Sequence[str]) -> str:
    """The first few of some paths, and how many more there are."""
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")


def together(distances: Iterable[float | None]) -> float | None:
    """The distance of several weights taken as one, of those that have one."""
    known = [distance for distance in distances if distance is not None]
    return math.hypot(*known) if known else None
