"""Decoupled decay: an optimizer set up to decay exactly the weights that a policy selects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from graphwd import regularizers
from graphwd.decided import decided
from graphwd.errors import GraphwdError, PolicyError
from graphwd.plans import Decision
from graphwd.policy import Policy

_COEFFICIENTS = ("weight_decay", "adam_weight_decay")  # the second is Muon's, for what it leaves


def decouple(model: Any, policy: Any, optimizer: Any) -> Any:
    """Sets up an optimizer to decay exactly what a policy selects, in place of a penalty.

    With a penalty in the loss, adaptive optimizers such as Adam divide the decay by the size of
    the gradients, so the weights with large gradients decay least. Decoupled decay, which the
    AdamW paper (https://arxiv.org/abs/1711.05101) proposes, subtracts it from the weights instead.
    Keras's optimizers with a `weight_decay` do that, but to every weight, biases and
    normalization included, until they are told what to leave out. This tells them.

    **Units.** In a step, Keras subtracts `learning_rate * weight_decay * w` from a weight `w`, as
    PyTorch does. The gradient of `L2(a)` is `2 * a * w`. So `L2(a)` in the policy, and
    `weight_decay(2 * a)`, become the optimizer's `weight_decay = 2 * a`: with plain SGD both
    ways are the same step. With momentum or Adam they are not, and a good value for the penalty
    is not one for the decay: AdamW wants larger ones, 0.01 to 0.1.

    **What may surprise.** The policy decides on the coefficient: a `weight_decay` that the
    optimizer was made with is replaced. Keras does not save what an optimizer leaves out: a model
    that was loaded decays every weight again, so compile it with a new optimizer that went through
    here. Activity regularizers penalise outputs; no optimizer can do that.

    Args:
        model: A built `keras.Model`, whose weights the optimizer is going to train. It is left as
            it is, and must not have a penalty already on what the policy selects: that would add
            to the decay.
        policy: As for `graphwd.rewrite`. All weights that it selects must get the same `L2`, and
            no `L1` or other regularizer, since one optimizer has one coefficient.
        optimizer: A `keras.optimizers.Optimizer` that takes a `weight_decay` and is not built, or
            its identifier, such as `"adamw"`.

    Returns:
        The optimizer.

    Raises:
        PolicyError: when one optimizer can't express the policy; the message names the rules.
        GraphwdError: when the optimizer is built already or has no weight decay, or when the
            model is not built or penalises the same weights.

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
    plan, decisions = decided(model, policy)
    coefficient = _coefficient(policy, plan.decisions)
    _refuse_penalised(decisions, model)
    selected = {id(variable) for variable, decision in decisions if _selects(decision)}
    trainable = {id(variable) for variable in model.trainable_variables}
    if not selected & trainable:
        what = "are all frozen; make them trainable" if selected else "are none; change the policy"
        raise PolicyError(
            f"The weights of model {model.name!r} that the policy decays {what}, or use an "
            "optimizer without weight decay."
        )
    for name in _COEFFICIENTS:
        if hasattr(inner, name):
            setattr(inner, name, coefficient)
    inner.exclude_from_weight_decay(
        var_list=[variable for variable in model.variables if id(variable) not in selected]
    )
    return optimizer


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
                "call decouple on each of its optimizers."
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


def _selects(decision: Decision) -> bool:
    return decision.rule is not None and bool(_decay_of(decision))


def _decay_of(decision: Decision) -> float | None:
    """What a decision asks for as an optimizer's coefficient; `None` when that can't be said."""
    if decision.after is None:
        return 0.0
    normal = regularizers.normalize(decision.after)
    if decision.slot.role == "activity" or normal[0] != "l1l2" or normal[1]:
        return None
    return 2 * float((decision.after.get("config") or {}).get("l2", 0.0))


def _coefficient(policy: Policy, decisions: Iterable[Decision]) -> float:
    """The one coefficient of all decisions; 0 when there is nothing to decay."""
    wrong: dict[int, Decision] = {}
    rules: dict[Any, int] = {}
    decays: dict[Any, float] = {}
    for decision in decisions:
        if decision.rule is None:
            continue
        decay = _decay_of(decision)
        if decay is None:
            wrong.setdefault(decision.rule, decision)
        elif decay:
            key = regularizers.normalize(decision.after)
            rules[key] = min(rules.get(key, decision.rule), decision.rule)
            decays[key] = decay
    if wrong:
        asked = " and ".join(
            f"{_named(policy, rule)} asks for {regularizers.describe(decision.after)} "
            f"on {decision.slot.path}"
            for rule, decision in sorted(wrong.items())
        )
        raise PolicyError(
            f"An optimizer's decay can only be that of L2 on weights, but {asked}; let "
            "graphwd.rewrite put such penalties into the model."
        )
    if len(decays) > 1:
        asked = " and ".join(
            f"{_named(policy, rule)} asks for {decays[key]:.6g}"
            for key, rule in sorted(rules.items(), key=lambda item: item[1])
        )
        raise PolicyError(
            f"One optimizer decays all its weights alike, but {asked}; give the rules the same "
            "coefficient, or let graphwd.rewrite put the penalties into the model."
        )
    return next(iter(decays.values()), 0.0)


def _refuse_penalised(decisions: list[tuple[Any, Decision]], model: Any) -> None:
    penalised = [
        decision.slot.path
        for variable, decision in decisions
        if decision.rule is not None and variable.regularizer is not None
    ]
    if penalised:
        some = ", ".join(penalised[:5]) + (", ..." if len(penalised) > 5 else "")
        raise GraphwdError(
            f"Model {model.name!r} has a penalty in its loss for {len(penalised)} of the weights "
            f"that the policy decides on ({some}), which would add to the decay; take it off with "
            "graphwd.rewrite(model, graphwd.Rule(None)) first."
        )


def _named(policy: Policy, rule: int) -> str:
    return f"rule {rule + 1} ({policy.rules[rule].describe()})"
