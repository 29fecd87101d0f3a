"""Decays: what an optimizer decays beside the penalties in the loss, and what may surprise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from graphwd.graph.slots import Slot, is_serialized
from graphwd.plans.edits import some, together
from graphwd.plans.tables import Table, make_table
from graphwd.policy import regularizers

_PLAIN_GRADIENT = ("SGD",)
"""The optimizers with which a penalty is weight decay; all others divide its gradient."""
_UNDECAYED = ("bias", "gamma", "beta")
"""The roles that decay is usually kept from: biases and normalization (arXiv:1812.01187)."""
TOWARDS_START = "towards its start"


@dataclass(frozen=True, slots=True)
class Optimizer:
    """One optimizer that updates weights, as far as decay goes."""

    name: str  # its class
    decay: float  # its `weight_decay`
    vector_decay: float | None = None  # Muon's `adam_weight_decay`, for what it leaves to AdamW
    pattern: str = ""  # of the paths that it is for in a `MultiOptimizer`; empty if for the rest
    leaves_out: str = ""  # the pattern of names that it was told to exclude
    excludes: bool = False  # whether it was told to exclude anything, by name or by variable
    towards_start: bool = False  # whether its decay leads to where weights started, and not to 0
    vector_patterns: tuple[str, ...] = ()  # of the paths of matrices that Muon leaves to AdamW, too


@dataclass(frozen=True, slots=True)
class Decay:
    """What one weight is decayed by."""

    path: str  # of the slot that governs the weight
    role: str
    variable: str  # the variable's path, or what it is likely to be in a model from a file
    penalty: regularizers.Serialized | None  # the one in the loss
    frozen: bool  # not trained, so that neither acts on it
    # The coefficient before the learning rate: a step subtracts `learning_rate * decay * w`, or
    # with a start `learning_rate * decay * (w - start)`.
    decay: float
    reason: str = ""  # why it is not the optimizer's `weight_decay`, or where it leads
    distance: float | None = None  # how far the weight has gone from the start


@dataclass(frozen=True, slots=True)
class Decays:
    """What the optimizers that update a model's weights decay, weight by weight."""

    optimizers: tuple[Optimizer, ...]
    weights: tuple[Decay, ...]

    def table(self) -> Table:
        """The weights by what acts on them."""
        groups: dict[tuple[str, str, float, str], list[Decay]] = {}
        for weight in self.weights:
            penalty = "" if weight.penalty is None else regularizers.describe(weight.penalty)
            key = (weight.role, penalty, weight.decay, weight.reason)
            groups.setdefault(key, []).append(weight)
        return make_table(
            f"Decay by the optimizer ({self.title}), beside the penalty in the loss",
            {
                "role": [role for role, *_ in groups],
                "weights": [len(found) for found in groups.values()],
                "penalty": [penalty for _, penalty, *_ in groups],
                "decay": [f"{decay:.6g}" for _, _, decay, _ in groups],
                "from start": [
                    together(one.distance for one in found) for found in groups.values()
                ],
                "why": [reason for *_, reason in groups],
                "such as": [found[0].path for found in groups.values()],
            },
        )

    @property
    def title(self) -> str:
        """The optimizers in a few words."""
        names = list(dict.fromkeys(each.name for each in self.optimizers))
        return f"{len(self.optimizers)} times {names[0]}" if self.optimizers[1:] else names[0]

    def to_list(self) -> list[dict[str, Any]]:
        """The weights as plain data, for JSON."""
        return [asdict(weight) for weight in self.weights]

    def notes(self) -> tuple[str, ...]:
        """What may surprise, a sentence each."""
        return (
            *_twice(self.weights),
            *_exclusions(self.optimizers, self.weights),
            *_patterns(self.optimizers, self.weights),
            *_adaptive(self.optimizers, self.weights),
        )


def _twice(weights: Iterable[Decay]) -> list[str]:
    both = [w for w in weights if w.decay and w.penalty is not None and not w.frozen]
    if not both:
        return []
    penalty = regularizers.describe(both[0].penalty)
    return [
        f"{_some(both)} {_are(both)} decayed twice: by {penalty} in the loss, and by the optimizer "
        f"with {both[0].decay:.6g}; take the one off with graphwd.rewrite(model, "
        "graphwd.Rule(None)), or use an optimizer without weight_decay."
    ]


def _exclusions(optimizers: Sequence[Optimizer], weights: Sequence[Decay]) -> list[str]:
    trained = [w for w in weights if not w.frozen and w.role in _UNDECAYED]
    decayed = [w for w in trained if w.decay]
    if not decayed:
        return []
    kept = {w.role for w in trained if not w.decay}
    if kept and any(each.leaves_out for each in optimizers):
        return [
            f"The optimizer leaves out {' and '.join(sorted(kept))} but decays {_some(decayed)}: "
            "each call of exclude_from_weight_decay replaces what the one before left out, so give "
            "all names in one call, or use graphwd.decouple."
        ]
    if any(each.excludes or each.pattern for each in optimizers):
        return []  # it was told what to leave out, and these are not among it
    return [
        f"The optimizer decays {_some(decayed)}, biases or normalization, for it is told to leave "
        "nothing out; what exclude_from_weight_decay leaves out is not saved, so a model that is "
        "loaded decays it again: graphwd.decouple keeps it."
    ]


def _patterns(optimizers: Iterable[Optimizer], weights: Sequence[Decay]) -> list[str]:
    notes = []
    names = {weight.variable.rpartition("/")[2] for weight in weights}
    for each in optimizers:
        for part in each.leaves_out.split("|") if each.leaves_out else ():
            if not any(re.search(part, name) for name in names):
                notes.append(
                    f"The pattern {part!r} of exclude_from_weight_decay matches no weight: Keras "
                    "compares it with a variable's own name, such as 'gamma', and not with the "
                    "names of layers in its path."
                )
        if each.pattern and not any(re.fullmatch(each.pattern, w.variable) for w in weights):
            shown = each.pattern if len(each.pattern) < 80 else f"{each.pattern[:77]}..."
            notes.append(
                f"The pattern {shown!r} of the MultiOptimizer matches no weight's path, so its "
                f"{each.name} updates none."
            )
    return notes


def _adaptive(optimizers: Iterable[Optimizer], weights: Iterable[Decay]) -> list[str]:
    names = sorted({each.name for each in optimizers} - set(_PLAIN_GRADIENT))
    penalised = [w for w in weights if not w.frozen and _is_l2(w.penalty) and not w.decay]
    if not names or not penalised:
        return []
    return [
        f"{' and '.join(names)} divides the gradient of the penalty on {_some(penalised)} by the "
        "size of past gradients, so that it is no weight decay; if you meant decoupled decay, as "
        "AdamW has it, give the policy to graphwd.decouple and take the penalty off."
    ]


def _is_l2(penalty: regularizers.Serialized | None) -> bool:
    return penalty is not None and "L2" in str(penalty["class_name"]).upper()


def _some(weights: Sequence[Decay]) -> str:
    return some(list(dict.fromkeys(weight.path for weight in weights)))


def _are(weights: Sequence[Decay]) -> str:
    return "are" if len({weight.path for weight in weights}) > 1 else "is"


def from_config(compile_config: Any, slots: Sequence[Slot]) -> Decays | None:
    """What the optimizer of a saved model decays once it is loaded; `None` where there is none."""
    if not isinstance(compile_config, Mapping):
        return None
    serialized = compile_config.get("optimizer", compile_config.get("optimizer_config"))
    optimizers = _optimizers(serialized)
    if not optimizers:
        return None
    # Weights that no slot reaches are missing.
    return Decays(
        optimizers,
        tuple(_stored(slot, optimizers) for slot in slots if slot.role != "activity"),
    )


def _optimizers(serialized: Any, pattern: str = "") -> tuple[Optimizer, ...]:
    if isinstance(serialized, str):  # an identifier: Keras's defaults, which have decay in three
        return (Optimizer(serialized, _DEFAULTS.get(serialized.lower(), 0.0), pattern=pattern),)
    if not is_serialized(serialized):
        return ()
    config = serialized["config"]
    if "inner_optimizer" in config:
        return _optimizers(config["inner_optimizer"], pattern)
    mapped = config.get("optimizer_map")
    if is_serialized(mapped):
        inside = mapped["config"]
        found = [
            each
            for key, inner in (inside.get("optimizer_map") or {}).items()
            for each in _optimizers(inner, str(key))
        ]
        found += _optimizers(inside.get("default_optimizer"))
        starting = config.get("towards_start", ())
        return tuple(
            replace(each, towards_start=place in starting) for place, each in enumerate(found)
        )
    decay = config.get("weight_decay")
    vector = config.get("adam_weight_decay")
    excluded = [each for each in config.get("exclude_layers") or () if isinstance(each, str)]
    if config.get("exclude_embeddings"):
        excluded.append("(?i)embedding")
    return (
        Optimizer(
            serialized["class_name"].rpartition(">")[2],
            float(decay) if isinstance(decay, (int, float)) else 0.0,
            float(vector) if isinstance(vector, (int, float)) else None,
            pattern,
            vector_patterns=tuple(excluded),
        ),
    )


_DEFAULTS = {"adamw": 0.004, "muon": 0.004}
"""The `weight_decay` of Keras's optimizers that have one when none is given."""


_WITHIN = {
    "LSTM": ("lstm_cell",),
    "GRU": ("gru_cell",),
    "SimpleRNN": ("simple_rnn_cell",),
    "MultiHeadAttention": ("query", "key", "value", "attention_output"),
    "GroupQueryAttention": ("query", "key", "value", "attention_output"),
}
"""The layers within Keras's own whose weights one slot governs; their names are in the paths."""


def _stored(slot: Slot, optimizers: Sequence[Optimizer]) -> Decay:
    """What acts on a slot's weights; the paths of variables are those that Keras gives them."""
    layer, _, role = slot.path.rpartition("/")
    own = (role, f"{role}_kernel", *(["kernel"] if role == "depthwise" else []))
    within = [f"/{name}" for name in _WITHIN.get(slot.layer, ())]
    names = [f"{layer}{inner}/{name}" for inner in ("", *within) for name in own]
    chosen, variable = None, names[0]
    for each in optimizers:
        for name in names:
            if chosen is None and each.pattern and _matches(re.fullmatch, each.pattern, name):
                chosen, variable = each, name
    if chosen is None:
        chosen = next((o for o in optimizers if not o.pattern), optimizers[0])
    decay, reason = chosen.decay, ""
    if chosen.vector_decay is not None and (
        (slot.shapes and len(slot.shapes[0]) != 2)
        or any(_matches(re.search, pattern, variable) for pattern in chosen.vector_patterns)
    ):
        decay = chosen.vector_decay
    if len(optimizers) > 1:
        reason = "its optimizer's" if chosen.pattern else "the other weights' optimizer"
    if chosen.towards_start:
        reason = TOWARDS_START
    if slot.frozen:
        decay, reason = 0.0, "frozen"
    return Decay(slot.path, slot.role, variable, slot.regularizer, slot.frozen, decay, reason)


def _matches(match: Callable[[str, str], Any], pattern: str, path: str) -> bool:
    """Whether a pattern from a file matches, which may be none at all."""
    try:
        return match(pattern, path) is not None
    except re.error:
        return False
