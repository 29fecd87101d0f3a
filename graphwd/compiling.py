"""Carries compile state: loss and metrics as they were given, the optimizer with its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from graphwd import _keras, backends, state
from graphwd._keras import making
from graphwd.errors import ModelError


def carry(model: Any, copy: Any, copies: Mapping[int, Any]) -> None:
    """Compiles a copy as its original was compiled, with the optimizer's state.

    Args:
        model: The original; nothing happens when it is not compiled.
        copy: The rebuilt model.
        copies: Maps the id of each original variable to its copy.

    Raises:
        ModelError: when the optimizer can't be rebuilt.
    """
    if not getattr(model, "compiled", False):
        return
    arguments = _keras.compile_arguments(model)
    if arguments is None:
        copy.compile_from_config(model.get_compile_config())
    else:
        arguments["optimizer"] = _rebuilt_optimizer(model.optimizer)
        for key in ("metrics", "weighted_metrics"):
            arguments[key] = keras.tree.map_structure(_rebuilt_metric, arguments.get(key))
        keras.Model.compile(copy, **arguments)
        if type(model).compile is not keras.Model.compile:  # it may set attributes of its own
            state.adopt(model, copy)
    for ours, theirs in zip(model.metrics, copy.metrics, strict=False):  # some are not built yet
        if len(ours.variables) == len(theirs.variables):
            for source, target in zip(ours.variables, theirs.variables, strict=True):
                backends.place(source, target)
    if model.optimizer is not None and model.optimizer.built:
        _carry_optimizer(model.optimizer, copy.optimizer, copies)


def _rebuilt_metric(metric: Any) -> Any:
    """A metric has state, so a copy needs its own; names and functions are as good as new."""
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    try:
        return type(metric).from_config(metric.get_config())
    except Exception:  # noqa: BLE001 # a metric that can't be rebuilt is carried as it is: the issue of Keras's own clone_model, which fails here
        return metric


def _rebuilt_optimizer(optimizer: Any) -> Any:
    if optimizer is None:
        return None
    try:
        config = optimizer.get_config()
        rate = _keras.learning_rate_of(optimizer)
        if callable(rate) and not isinstance(rate, keras.Variable):
            config["learning_rate"] = rate
        inner = getattr(optimizer, "inner_optimizer", None)
        if inner is not None:
            config["inner_optimizer"] = keras.saving.serialize_keras_object(inner)
        return type(optimizer).from_config(config)
    except Exception as error:
        raise ModelError(
            f"The optimizer {type(optimizer).__name__} can't be rebuilt from its config "
            f"({type(error).__name__}: {error}); let its get_config return all arguments of "
            "__init__, or compile the rewritten model yourself after rewriting an uncompiled one."
        ) from error


def _carry_optimizer(ours: Any, theirs: Any, copies: Mapping[int, Any]) -> None:
    order = [copies.get(id(v)) for v in _keras.optimized_variables(ours)]
    # Keras builds the optimizer of a model from an .h5 file for no variables at all
    with backends.unvalued() as waiting:
        theirs.build([variable for variable in order if variable is not None])
    if len(ours.variables) != len(theirs.variables):
        raise ModelError(
            f"The optimizer {type(ours).__name__} has {len(ours.variables)} variables but "
            f"{len(theirs.variables)} after it was rebuilt; let its get_config return all "
            "arguments of __init__."
        )
    for source, target in zip(ours.variables, theirs.variables, strict=True):
        backends.copy_variable(source, target)
    for variable in waiting:
        if not backends.has_value(variable):  # one that the optimizer does not list
            making.draw(variable)
