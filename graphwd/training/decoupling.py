"""Decoupled decay: an optimizer set up to decay exactly the weights that a policy selects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import keras

from graphwd.errors import GraphwdError, PolicyError
from graphwd.live import _keras, backends, walk
from graphwd.live.carrying import starts
from graphwd.live.penalties import planned_by_weight
from graphwd.plans.plan import Edit
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy
from graphwd.training import optimizers
from graphwd.training.patterns import VariablePath, regular_expressions

_COEFFICIENTS = ("weight_decay", "adam_weight_decay")  # the second is Muon's, for what it leaves


class _Strength(NamedTuple):
    """A coefficient of an optimizer's, and whether what it decays goes to its start or to 0."""

    decay: float = 0.0
    towards_start: bool = False

    def __str__(self) -> str:
        return f"{self.decay:.6g}" + (" towards the start" if self.towards_start else "")


def decouple(model: Any, policy: Any, optimizer: Any) -> Any:
    """Sets up an optimizer to decay exactly what a policy selects, in place of a penalty.

    With a penalty in the loss, adaptive optimizers such as Adam divide the decay by the size of
    the gradients, so the weights with large gradients decay least. Decoupled decay, which the
    AdamW paper (https://arxiv.org/abs/1711.05101) proposes, subtracts it from the weights instead.
    Keras's optimizers with a `weight_decay` do that, but to every weight alike, biases and
    normalization included. What `exclude_from_weight_decay` leaves out is not saved.

    So where the policy gives all weights the same decay, this is the given optimizer with that
    `weight_decay`. Otherwise it is a `keras.optimizers.MultiOptimizer` of copies of it, one for
    each strength, which finds its weights by the ends of their paths. A saved file has all of it,
    and loads with Keras alone.

    **Towards the start.** `L2SP(a)` in the policy decays weights towards where they are now: beside
    each update, a step subtracts `learning_rate * 2 * a * (w - start)`. The starts are part of the
    optimizer's state, in memory and in files; such a file needs `import graphwd`.

    **Units.** In a step, Keras subtracts `learning_rate * weight_decay * w` from a weight `w`, as
    PyTorch does. The gradient of `L2(a)` is `2 * a * w`. So `L2(a)` in the policy, and
    `weight_decay(2 * a)`, become the optimizer's `weight_decay = 2 * a`: with plain SGD both
    ways are the same step. With momentum or Adam they are not, and a good value for the penalty
    is not one for the decay: AdamW wants larger ones, 0.01 to 0.1.

    **What may surprise.** The policy decides on the coefficient: a `weight_decay` that the
    optimizer was made with is replaced, and weights that no rule selects don't decay. Activity
    regularizers penalise outputs; no optimizer can decay those. Clipping by `global_clipnorm` is
    by the norm of all gradients, also with several strengths; a file needs `import graphwd` then.
    With several strengths, callbacks may read and set `learning_rate` as ever, but in a model that
    was loaded from a file Keras's `MultiOptimizer` has none to set: give it a schedule.

    Args:
        model: A built `keras.Model`, whose weights the optimizer is going to train. It is left as
            it is, and must not have a penalty already on what the policy selects: that would add
            to the decay.
        policy: As for `graphwd.rewrite`, with any number of strengths. It must not give a weight
            `L1` or another regularizer than `L2` and `L2SP`, which no optimizer has a decay for.
        optimizer: A `keras.optimizers.Optimizer` that takes a `weight_decay` and is not built, or
            its identifier, such as `"adamw"`; in a `LossScaleOptimizer` or not.

    Returns:
        The optimizer to compile the model with: the given one, or one made of copies of it.

    Raises:
        PolicyError: when no optimizer can express the policy; the message names the rules.
        GraphwdError: when the optimizer is built already or has no weight decay, when the model is
            not built or penalises the same weights, or when this Keras can't have several
            optimizers in one.

    Example:

    ```python
    policy = graphwd.Rule(graphwd.weight_decay(0.05), roles="kernel")
    model.compile(graphwd.decouple(model, policy, keras.optimizers.AdamW(1e-3)), "mse")
    ```
    """
    optimizer = keras.optimizers.get(optimizer)
    inner = _decaying(optimizer)
    if not model.built:
        raise GraphwdError(
            f"Model {model.name!r} is not built, so it has no weights to tell the optimizer of; "
            "call model.build(input_shape), or the model on a batch, first."
        )
    policy = Policy.coerce(policy)
    plan, edits = planned_by_weight(model, policy)
    _refuse_inexpressible(policy, plan.slots)
    _refuse_penalised(edits, model)
    groups = _groups(model, edits)
    if not _decays_something(model, groups):
        frozen = any(strength.decay for strength in groups)
        what = "are all frozen; make them trainable" if frozen else "are none; change the policy"
        raise PolicyError(
            f"The weights of model {model.name!r} that the policy decays {what}, or use an "
            "optimizer without weight decay."
        )
    if len(groups) == 1 and not any(strength.towards_start for strength in groups):
        _set_decay(inner, next(iter(groups)).decay)
        return optimizer
    return _as_given(optimizer, _several(model, inner, groups))


def _decaying(optimizer: Any) -> Any:
    """The optimizer that does the decay: itself, or the one in Keras's loss scaling."""
    inner = optimizer
    while isinstance(inner, keras.optimizers.LossScaleOptimizer):
        inner = inner.inner_optimizer
    name = type(inner).__name__
    several = hasattr(inner, "optimizers")  # a MultiOptimizer's own coefficient does nothing
    if several or not all(
        hasattr(inner, attribute) for attribute in ("weight_decay", "exclude_from_weight_decay")
    ):
        raise GraphwdError(
            f"The optimizer {name} has no weight decay of its own; "
            + (
                "give decouple the plain one, and it makes several of it where it has to."
                if several
                else "use one that takes a `weight_decay`, such as keras.optimizers.AdamW."
            )
        )
    # Keras's own check looks for another attribute and lets this pass, without effect
    if optimizer.built or inner.built:
        raise GraphwdError(
            f"The optimizer {name} is built already, and a built optimizer can't be told what to "
            f"leave out; make a new one, with keras.optimizers.{name}.from_config("
            "optimizer.get_config())."
        )
    return inner


def _strength_of(edit: Edit) -> _Strength | None:
    """What an edit asks of an optimizer; `None` when no optimizer can do that."""
    if edit.after is None:
        return _Strength()
    config = edit.after.get("config") or {}
    if regularizers.wants_start(edit.after):
        decay = 2 * float(config["strength"])
        return _Strength(decay, bool(decay))
    normal = regularizers.normalize(edit.after)
    if edit.role == "activity" or normal[0] != "l1l2" or normal[1]:
        return None
    return _Strength(2 * float(config.get("l2", 0.0)))


def _refuse_inexpressible(policy: Policy, edits: Iterable[Edit]) -> None:
    wrong: dict[int, Edit] = {}
    for edit in edits:
        if edit.rule is not None and _strength_of(edit) is None:
            wrong.setdefault(edit.rule, edit)
    if wrong:
        asked = " and ".join(
            f"{_named(policy, rule)} asks for {regularizers.describe(edit.after)} on {edit.path}"
            for rule, edit in sorted(wrong.items())
        )
        raise PolicyError(
            f"An optimizer's decay can only be that of L2 or L2SP on weights, but {asked}; let "
            "graphwd.rewrite put such penalties into the model."
        )


def _refuse_penalised(edits: list[tuple[walk.Weight, Edit]], model: Any) -> None:
    penalised = [
        edit.path
        for weight, edit in edits
        if edit.rule is not None and weight.variable.regularizer is not None
    ]
    if penalised:
        some = ", ".join(penalised[:5]) + (", ..." if len(penalised) > 5 else "")
        raise GraphwdError(
            f"Model {model.name!r} has a penalty in its loss for {len(penalised)} of the weights "
            f"that the policy decides on ({some}), which would add to the decay; take it off with "
            "graphwd.rewrite(model, graphwd.Rule(None)) first."
        )


def _groups(
    model: Any, edits: list[tuple[walk.Weight, Edit]]
) -> dict[_Strength, list[walk.Weight]]:
    """The weights by their decay, frozen ones too; those that no rule selects have none."""
    strengths: dict[int, _Strength] = {}
    inside: dict[int, walk.Weight] = {}
    for weight, edit in edits:
        key = id(weight.variable)
        inside[key] = weight
        strength = None if edit.rule is None else _strength_of(edit)
        if strength is not None and (strength.decay or key not in strengths):
            strengths[key] = strength  # a weight of two layers decays if it does in one of them
    groups: dict[_Strength, list[walk.Weight]] = {}
    for weight in walk.weights(model):
        key = id(weight.variable)
        groups.setdefault(strengths.get(key, _Strength()), []).append(inside.get(key, weight))
    return groups


def _decays_something(model: Any, groups: Mapping[_Strength, Iterable[walk.Weight]]) -> bool:
    trainable = {id(variable) for variable in model.trainable_variables}
    return any(
        strength.decay and id(weight.variable) in trainable
        for strength, weights in groups.items()
        for weight in weights
    )


def _set_decay(optimizer: Any, decay: float) -> None:
    for name in _COEFFICIENTS:
        if hasattr(optimizer, name):
            setattr(optimizer, name, decay)


def _several(model: Any, optimizer: Any, groups: Mapping[_Strength, list[walk.Weight]]) -> Any:
    """Copies of an optimizer as one, each for the weights of one decay."""
    if not optimizers.KNOWN:
        raise GraphwdError(
            f"The policy decays the weights of model {model.name!r} by {_listed(groups)}, for "
            f"which Keras 3.15 has its MultiOptimizer, but this is Keras {keras.__version__}; "
            "install a newer Keras, or let graphwd.rewrite put the penalties into the model."
        )
    if optimizer.global_clipnorm and optimizer.gradient_accumulation_steps:
        raise GraphwdError(
            f"The policy decays the weights of model {model.name!r} by {_listed(groups)}, and with "
            "several strengths gradients that are accumulated can't be clipped by their global "
            "norm; use clipnorm, or leave out gradient_accumulation_steps."
        )
    # Weights that come later, and that no pattern knows, are not to decay.
    default = _Strength() if _Strength() in groups else min(groups)
    places = {
        strength: [
            VariablePath(weight.variable.path, frozenset(weight.names)) for weight in weights
        ]
        for strength, weights in groups.items()
    }
    found = regular_expressions(places)
    made = {strength: _copy(optimizer, strength.decay) for strength in sorted(groups)}
    return optimizers.several(
        {found[strength]: leaf for strength, leaf in made.items() if strength != default},
        made[default],
        starts=[
            (leaf, _started(model, groups[strength]))
            for strength, leaf in made.items()
            if strength.towards_start
        ],
        loss_scale_factor=optimizer.loss_scale_factor,
        global_clipnorm=optimizer.global_clipnorm,
    )


def _started(model: Any, weights: Iterable[walk.Weight]) -> list[tuple[Any, starts.Start]]:
    """Weights with where they are now."""
    with backends.build_scope(model):
        pairs = [(weight.variable, starts.Start(weight.variable)) for weight in weights]
        for variable, start in pairs:
            backends.assign_value(variable, start.state)
    return pairs


def _copy(optimizer: Any, decay: float) -> Any:
    """An optimizer like a given one, with a decay of its own; clipping globally is left out."""
    cls = type(optimizer)
    try:
        config = optimizer.get_config()
        rate = _keras.learning_rate_of(optimizer)
        if not isinstance(rate, keras.Variable):
            config["learning_rate"] = rate
        if config.get("global_clipnorm"):
            config["global_clipnorm"] = None
        copy = cls.from_config(config)
    except Exception as error:
        raise GraphwdError(
            f"The optimizer {cls.__name__} can't be rebuilt from its config "
            f"({type(error).__name__}: {error}), and several strengths take one optimizer each; "
            "let its get_config return all arguments of __init__."
        ) from error
    _set_decay(copy, decay)
    return copy


def _as_given(optimizer: Any, inner: Any) -> Any:
    """Puts an optimizer into the loss scaling that the given one was in."""
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return inner
    return type(optimizer)(
        _as_given(optimizer.inner_optimizer, inner),
        initial_scale=optimizer.initial_scale,
        dynamic_growth_steps=optimizer.dynamic_growth_steps,
        name=optimizer.name,
    )


def _listed(groups: Mapping[_Strength, Any]) -> str:
    numbers = [str(strength) for strength in sorted(groups)]
    return " and ".join(filter(None, (", ".join(numbers[:-1]), numbers[-1])))


def _named(policy: Policy, rule: int) -> str:
    return f"rule {rule + 1} ({policy.rules[rule].describe()})"
