"""What is refused, or warned of, before a model is touched."""

from __future__ import annotations

import copy
import dis
import inspect
import os
import types
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from graphwd.errors import ModelError, PolicyError
from graphwd.live import _keras, backends, walk
from graphwd.live.carrying.ownclass import runs_own_code
from graphwd.live.survey import Survey, is_built
from graphwd.plans.plan import Plan, UnusedPenaltyWarning, outside
from graphwd.policy import regularizers

_REACHES_THE_LOSS = frozenset(
    (
        *("losses", "compute_loss", "_compute_loss", "compiled_loss"),
        *("compute_loss_and_updates", "stateless_compute_loss"),
    )
)
_STEPS = ("train_step", "test_step", "compute_loss")


def refuse_other_than_model(model: Any, function: str) -> None:
    """Raises `ModelError` unless an argument is a live model, outside of a traced function."""
    if isinstance(model, (str, os.PathLike)):
        raise ModelError(
            f"{function} takes a live keras.Model, and {os.fspath(model)!r} is a path; use "
            "graphwd.rewrite_file, or keras.saving.load_model first."
        )
    if isinstance(model, type):
        raise ModelError(
            f"{function} takes a live keras.Model, and {model.__name__} is a class; make a model "
            "of it first."
        )
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"{function} takes a live keras.Model, and this is a {type(model).__name__}; wrap "
            "layers in a keras.Sequential or keras.Model first."
        )
    if runs_own_code(model):
        raise ModelError(
            f"{function} was called in a method of {model.name!r} itself, which carries penalties "
            "and is of its own class while the method runs; call it outside of the method."
        )
    if backends.is_tracing():
        raise ModelError(
            f"{function} makes variables, which can't be done while tf.function or jax.jit traces "
            "a function; call it outside of the traced function."
        )


def check(found: Survey, plan: Plan) -> None:
    """Refuses, or warns of, what a plan would do, before anything is changed."""
    refuse_misfits(found, plan)
    warn_of_unbuilt(found)
    warn_of_unused_penalties(found.model)


def refuse_misfits(found: Survey, plan: Plan) -> None:
    """Raises `PolicyError` when a planned regularizer can't be computed on a weight it is for.

    Keras's L1, L2 and L1L2 fit every float; others are computed once for each shape.
    """
    asked: set[tuple[int, tuple[int, ...], str]] = set()
    for unit in found.units:
        for index, slot in unit.governs.items():
            after = plan.slots[slot].after
            if (
                not plan.slots[slot].changes
                or regularizers.fits_every_float(after)
                or regularizers.wants_start(after)  # which is there once the rewrite is done
            ):
                continue
            variable = unit.weights[index].variable
            key = (id(after), _keras.shape_of(variable), _keras.dtype_of(variable))
            if key not in asked:
                asked.add(key)
                _compute(plan.slots[slot].path, variable, dict(after or {}))


def _compute(path: str, variable: Any, serialized: dict[str, Any]) -> None:
    try:
        penalty = keras.regularizers.deserialize(copy.deepcopy(serialized))(variable)
        if len(penalty.shape):
            raise ValueError(f"it gives a tensor of shape {tuple(penalty.shape)}, not a scalar")
    except Exception as error:  # a regularizer may raise anything
        raise PolicyError(
            f"{regularizers.describe(serialized)} can't be computed on {path}, whose shape is "
            f"{_keras.shape_of(variable)} ({str(error).splitlines()[0] if str(error) else error!r})"
            "; leave that weight out of the rule."
        ) from error


def warn_of_unbuilt(found: Survey) -> None:
    """Warns when weights that are not there yet can't get their penalties."""
    if not is_built(found.model):
        warnings.warn(
            f"Model {found.model.name!r} is not built: only the weights that its config reaches "
            "get a penalty; call or build it before the rewrite to reach all.",
            UserWarning,
            stacklevel=outside(),
        )


def unused_penalties(model: Any, step: str = "train_step") -> str:
    """Says which of a model's own methods leaves its penalties out of the loss; "" for none.

    Keras adds `model.losses` in `compute_loss`. A `train_step` of one's own reaches it by calling
    `compute_loss`, `compiled_loss`, Keras's own step, or by naming `losses`; these names are
    looked for in the code of the method and of the methods and functions that it calls by name on
    `self`. A method that names them and does nothing with them is taken for one that uses them,
    and one that reaches them in a roundabout way (`getattr`, a function in another module) for one
    that does not: this is a hint, not a proof.
    """
    for name in (step, "compute_loss"):
        owner = next((cls for cls in type(model).__mro__ if name in vars(cls)), None)
        if owner is None or _is_of_keras(owner):
            continue
        if not _uses_losses(type(model), owner, name, set()):
            return (
                f"{owner.__name__}.{name} of model {model.name!r} leaves self.losses out of the "
                "loss, so that no penalty has an effect in training; add sum(self.losses) to its "
                "loss, or use graphwd.decouple, which needs no loss."
            )
        if name == step:
            return ""  # what it calls was looked at
    return ""


def warn_of_unused_penalties(model: Any) -> None:
    """Warns when no penalty has an effect in training."""
    sentence = unused_penalties(model)
    if sentence:
        warnings.warn(sentence, UnusedPenaltyWarning, stacklevel=outside())


def warn_of_globals(model: Any) -> None:
    """Warns when code calls a layer of the model by a global name, which a copy calls, too."""
    layers = [inner for _, _, inner in walk.layers_within(model)]
    own = {id(layer) for layer in layers}
    for where, function in _functions(layers):
        for called in _globals_in(function.__code__):
            if id(function.__globals__.get(called)) in own:
                warnings.warn(
                    f"{where} calls {called}, a layer of model {model.name!r}, by its global name, "
                    "so that the copy calls the original's; let it call what self holds, or use "
                    "in_place=True.",
                    UserWarning,
                    stacklevel=outside(),
                )


def _functions(layers: list[Any]) -> Iterator[tuple[str, types.FunctionType]]:
    """The functions of the layers' own classes, and those in attributes, such as a Lambda's."""
    for cls in dict.fromkeys(map(type, layers)):
        for name in () if _is_of_keras(cls) else dir(cls):
            method = inspect.unwrap(inspect.getattr_static(cls, name))
            method = getattr(method, "python_function", method)
            # A copy doesn't run __init__.
            if _is_own_function(method) and name != "__init__":
                yield f"{cls.__name__}.{name}", method
    for layer in layers:
        for name, value in vars(layer).items():
            if _is_own_function(value):
                yield f"{name} of layer {layer.name!r}", value


def _is_own_function(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and not _is_of_keras(value)


def _is_of_keras(defined: Any) -> bool:
    return str(defined.__module__).split(".")[0] in ("keras", "keras_hub")


def _uses_losses(cls: type, owner: type, name: str, seen: set[tuple[type, str]]) -> bool:
    """Whether a method reaches the penalties: by itself, by `super()`, or by another method."""
    if (owner, name) in seen:
        return False
    seen.add((owner, name))
    function = vars(owner)[name]
    for wrapper in ("python_function", "__func__", "fget", "__wrapped__"):
        function = getattr(function, wrapper, function)
    if not isinstance(function, types.FunctionType):
        return False
    names = set(_names_in(function.__code__, function.__globals__))
    if "losses" in names or (names & _REACHES_THE_LOSS) - {name} - set(_own(cls)):
        return True
    for called in names:
        above = cls.__mro__[cls.__mro__.index(owner) + 1 :] if called == name else cls.__mro__
        found = next((base for base in above if called in vars(base)), None)
        if found is None or (called not in _STEPS and _is_of_keras(found)):
            continue
        if _is_of_keras(found) and called in _STEPS:
            return True
        if not _is_of_keras(found) and _uses_losses(cls, found, called, seen):
            return True
    return False


def _own(cls: type) -> set[str]:
    """The methods that a model's own classes define."""
    return {name for base in cls.__mro__ if not _is_of_keras(base) for name in vars(base)}


def _names_in(code: types.CodeType, known: dict[str, Any]) -> Iterator[str]:
    """The attributes that a function's code and the functions within it use, but of modules."""
    held: Any = None
    for instruction in dis.get_instructions(code):
        kind, name = instruction.opname, instruction.argval
        if kind == "LOAD_GLOBAL":
            held = known.get(name)
        elif kind in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            in_module = isinstance(held, types.ModuleType)  # `keras.losses` is no model's losses
            held = getattr(held, name, None) if in_module else None
            if not in_module:
                yield name
        elif kind != "EXTENDED_ARG":
            held = None
    for inner in _codes_in(code):
        yield from _names_in(inner, known)


def _globals_in(code: types.CodeType) -> Iterator[str]:
    """The global names that a function's code and the functions within it use."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval
    for inner in _codes_in(code):
        yield from _globals_in(inner)


def _codes_in(code: types.CodeType) -> list[types.CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
