"""Rewrites a live model: rebuilds it by `keras.models.clone_model`, carries weights and state."""

from __future__ import annotations

import contextlib
import types
import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import keras

from graphwd import _keras, backends, carrier, compiling, state, walk
from graphwd._keras import making
from graphwd.errors import GraphwdError, ModelError
from graphwd.plans import Plan
from graphwd.slots import SUFFIX, Pointer, set_regularizers, strip_carried
from graphwd.survey import Survey, Unit


def clone(survey: Survey, plan: Plan) -> Any:
    """Builds the model that a plan describes, with the original's weights and state.

    Args:
        survey: What `survey.survey` found in the original, which is left as it is.
        plan: A plan for the survey's slots.

    Returns:
        A new `keras.Model`.

    Raises:
        ModelError: when a layer or the model can't be rebuilt; the message says which and why.
    """
    with backends.build_scope(survey.model):
        with making.deferred(backends.placeholder) as waiting:
            cloner = _Cloner(survey, plan, waiting)
            copy = cloner.clone_model(survey.model)
        cloner.finish(copy)
        compiling.carry(survey.model, copy, cloner.copies)
    return copy


def probe(layer: Any, values: Mapping[Pointer, Any]) -> Any:
    """Rebuilds one layer with the given regularizers, built but without values for its variables.

    Args:
        layer: A live layer.
        values: Maps pointers into the serialized layer to serialized regularizers.

    Returns:
        A new layer.
    """
    with making.deferred(backends.placeholder):
        return _rebuilt(layer, values)


class _Cloner:
    """One rewrite in progress.

    Attributes:
        copies: Maps the id of each original variable to its copy.
    """

    def __init__(self, survey: Survey, plan: Plan, waiting: list[Any]) -> None:
        self.copies: dict[int, Any] = {}
        self._units: dict[int, Unit] = {id(unit.layer): unit for unit in survey.units}
        self._after = [decision.after for decision in plan.decisions]
        self._changes = [decision.changes for decision in plan.decisions]
        self._clones: dict[int, Any] = {}
        self._sources: dict[int, Any] = {}
        self._origin: dict[int, Any] = {}
        self._order: dict[int, int] = {}
        self._visit: dict[int, int] = {}
        self._pending: list[tuple[Any, Any]] = []
        self._layers: list[tuple[Any, Any]] = []
        self._waiting = waiting

    def clone_model(self, model: Any) -> Any:
        """Clones a model: a graph layer by layer, any other through its class."""
        if not _keras.is_graph(model):
            return self.rebuild(model)
        if isinstance(model, keras.Sequential):
            copy = self._clone_sequential(model)
        else:
            copy = self._clone_functional(model)
        self._clones[id(model)] = copy
        self._sources[id(copy)] = model
        self._layers.append((model, copy))
        return copy

    def rebuild(self, layer: Any) -> Any:
        """The clone function: gives each layer its copy, the same one whenever it is asked."""
        if id(layer) in self._clones:
            return self._clones[id(layer)]
        if _keras.is_graph(layer):
            return self.clone_model(layer)
        if not isinstance(layer, keras.Layer):  # an operation of keras.ops: no state, no slots
            copy = type(layer).from_config(layer.get_config())
        else:
            unit = self._units.get(id(layer))
            values = {}
            if unit is not None:
                values = {
                    pointer: self._after[index]
                    for pointer, index in unit.slots.items()
                    if self._changes[index]
                }
            copy = _rebuilt(layer, values)
            if not self._fill(layer, copy):
                self._pending.append((layer, copy))
        self._clones[id(layer)] = copy
        self._sources[id(copy)] = layer
        return copy

    def _fill(self, layer: Any, copy: Any) -> bool:
        """Gives a copy its variables' values, if its variables are all there."""
        if len(walk.weights(copy)) < len(walk.weights(layer)):
            return False
        layers = walk.pair_layers(layer, copy)
        for source, target in walk.pair_variables(layers):
            if id(source) not in self.copies:
                self.copies[id(source)] = target
                backends.copy_variable(source, target)
        self._layers.extend(layers)
        return True

    def _clone_sequential(self, model: Any) -> Any:
        layers = []
        for member in _keras.members(model):
            if isinstance(member, keras.layers.InputLayer):
                layers.append(self._input(member))
            else:
                layers.append(self.rebuild(member))
        copy = keras.Sequential(layers, name=model.name)
        if model.built and not copy.built:
            copy.build_from_config(model.get_build_config())
        return copy

    def _input(self, layer: Any) -> Any:
        copy = self._clones.get(id(layer))
        if copy is None:
            copy = type(layer).from_config(layer.get_config())
            self._clones[id(layer)] = copy
            self._sources[id(copy)] = layer
            self._layers.append((layer, copy))
        return copy

    def _clone_functional(self, model: Any) -> Any:
        def new_input(tensor: Any) -> Any:
            layer = _keras.maker(tensor)
            made = self._input(layer)
            output = made.output
            self._origin[id(output)] = tensor
            return output

        inputs = keras.tree.map_structure(new_input, model.input)
        source = _keras.uncompiled(model) if model.compiled else model
        self._visit.update(_keras.order_of_visit(source))
        copy = keras.models.clone_model(
            source,
            input_tensors=inputs,
            clone_function=self.rebuild,
            call_function=self._call,
        )
        _keras.restore_call_order(copy, self._order)
        if type(copy) is not carrier.base_class(type(model)):
            copy = carrier.base_class(type(model))(copy.input, copy.output, name=model.name)
        return copy

    def _call(self, copy: Any, *args: Any, **kwargs: Any) -> Any:
        """The call function: writes the original's call down again, where its node is known."""
        layer = self._sources.get(id(copy))
        flat = keras.tree.flatten((args, kwargs))
        node = None
        if layer is not None:
            node = _keras.node_of_call(layer, flat, self._origin, self._visit)
        if node is not None and not any(target is copy for _, target in self._pending):
            outputs = _keras.replay(copy, node, args, kwargs)
        else:
            outputs = copy(*args, **kwargs)
            self._settle_pending(copy)
        if node is not None:
            new = _keras.nodes_of(copy)[-1]
            self._order[id(new)] = _keras.nodes_of(layer).index(node)
            for ours, theirs in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
                self._origin[id(theirs)] = ours
        return outputs

    def _settle_pending(self, copy: Any) -> None:
        waiting, self._pending = self._pending, []
        for layer, target in waiting:
            if target is not copy or not self._fill(layer, target):
                self._pending.append((layer, target))

    def finish(self, copy: Any) -> None:
        """Fills what had to wait for a call, then carries flags, state and penalties."""
        for layer, target in self._pending:
            layers = walk.pair_layers(layer, target)
            for source, variable in walk.pair_variables(layers):
                self.copies[id(source)] = variable
                backends.copy_variable(source, variable)
            self._layers.extend(layers)
        for variable in self._waiting:
            if not backends.has_value(variable):  # one that its layer does not track
                making.draw(variable)
        for layer, target in self._layers:
            if state.carry(layer, target):
                for source, variable in walk.pair_variables([(layer, target)]):
                    backends.copy_variable(source, variable)
        self._carry_flags()
        for unit in self._units.values():
            self._carry_penalties(unit, self._clones[id(unit.layer)])
        backends.finish(copy)

    def _carry_flags(self) -> None:
        """Trainable flags and dtype policies, of each layer and each variable by itself."""
        for layer, target in self._layers:
            _keras.set_own_trainable(target, layer.trainable)
            if target.dtype_policy != layer.dtype_policy:  # where the config leaves it out
                target.dtype_policy = layer.dtype_policy
        for source, variable in walk.pair_variables(self._layers):
            if variable.trainable != source.trainable:
                variable.trainable = source.trainable
            _keras.keep_path(source, variable)

    def _carry_penalties(self, unit: Unit, copy: Any) -> None:
        governed = set(unit.slots.values())
        weights = walk.weights(copy)
        targets = {id(weight.variable): index for index, weight in enumerate(weights)}
        penalties = []
        for index, slot in unit.governs.items():
            after = self._after[slot]
            if slot in governed or after is None:
                continue
            target = self.copies[id(unit.weights[index].variable)]
            place = targets[id(target)]
            penalties.append(
                carrier.penalty(
                    place, weights[place], walk.role_of(unit.weights[index]), dict(after)
                )
            )
        carrier.attach(copy, penalties, carrier.fingerprint(weights))


def _rebuilt(layer: Any, values: Mapping[Pointer, Any], *, build: bool = True) -> Any:
    """A layer rebuilt from its config with some regularizers set, and built as it was built."""
    cls = carrier.base_class(type(layer))
    try:
        with _live_objects(layer), _dtype_of(layer), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = carrier.plain_config(layer)
            if _keras.sublayers(layer):  # which may carry something, and be told in the config
                config = strip_carried({"config": config})["config"]
            config, values = _with_live_layers(config, values)
            config = _with_live_functions(layer, config)
            # Keras remembers plain arguments only for a layer that has no get_config of its own
            plain = cls.get_config is keras.Layer.get_config
            config = _edited(config, values, plain=plain)
            if isinstance(layer, keras.layers.Lambda):
                copy = _keras.call_lambda_constructor(layer, config)
            else:
                copy = cls.from_config(config)
            if build and layer.built and not copy.built:
                build_config = layer.get_build_config()
                if build_config:
                    copy.build_from_config(build_config)
    except GraphwdError:
        raise
    except Exception as error:
        raise ModelError(
            f"Layer {layer.name!r} ({cls.__name__}) can't be rebuilt from its config "
            f"({type(error).__name__}: {_first_line(error)}); let get_config return all arguments "
            "of __init__, add from_config where they are not plain values, or use in_place=True."
        ) from error
    return copy


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""


def _edited(
    config: dict[str, Any], values: Mapping[Pointer, Any], *, plain: bool
) -> dict[str, Any]:
    """A config with the given regularizers: objects at the top, JSON inside nested configs."""
    nested = {pointer: value for pointer, value in values.items() if len(pointer) != 2}
    if nested:
        config = set_regularizers({"config": config, "module": "", "class_name": ""}, nested)[
            "config"
        ]
    top = {
        str(pointer[1]): dict(value)
        if plain and value is not None
        else (None if value is None else keras.regularizers.deserialize(deepcopy(dict(value))))
        for pointer, value in values.items()
        if len(pointer) == 2
    }
    return {**config, **top}


def _with_live_layers(
    config: dict[str, Any], values: Mapping[Pointer, Any]
) -> tuple[dict[str, Any], dict[Pointer, Any]]:
    """A config whose live layers are made anew, for a copy must not hold the original's layers.

    They are left for the layer around them to build, as they were when it was made.

    Args:
        config: A layer's config as its get_config returned it.
        values: Maps pointers into the serialized layer to regularizers.

    Returns:
        The config, and the values that are still to be set in it.
    """
    left = dict(values)

    def anew(value: Any, pointer: Pointer) -> Any:
        if isinstance(value, keras.Layer):
            depth = len(pointer)
            inner = {p[depth:]: left.pop(p) for p in values if p[:depth] == pointer}
            return _rebuilt(value, inner, build=False)
        if isinstance(value, dict):
            return {key: anew(item, (*pointer, key)) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(anew(item, (*pointer, i)) for i, item in enumerate(value))
        return value

    return anew(config, ("config",)), left


def _with_live_functions(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """A config with the layer's own functions in place of their serialized form.

    A function that is not registered, or a lambda, can't be found again by its name.
    """
    live = {}
    for key, value in config.items():
        if key.endswith(SUFFIX) or not isinstance(value, (dict, str)):
            continue
        attribute = vars(layer).get(key)
        if isinstance(attribute, types.FunctionType) and not _is_keras(attribute):
            live[key] = attribute
    return {**config, **live}


@contextlib.contextmanager
def _live_objects(layer: Any) -> Iterator[None]:
    """A scope in which Keras finds the classes and functions that a live layer is made of."""
    objects: dict[str, Any] = {}
    for _, _, inner in walk.layers_within(layer):
        _name(objects, carrier.base_class(type(inner)))
        for value in vars(inner).values():
            if isinstance(value, types.FunctionType):
                _name(objects, value)
            elif hasattr(value, "get_config"):
                _name(objects, carrier.base_class(type(value)))
    if not objects:
        yield
        return
    with keras.saving.custom_object_scope(objects):
        yield


@contextlib.contextmanager
def _dtype_of(layer: Any) -> Iterator[None]:
    """The dtype policy that layers inside this one took from Keras's global setting."""
    before, policy = keras.config.dtype_policy(), layer.dtype_policy
    if policy == before or type(policy) is not keras.DTypePolicy:
        yield
        return
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _is_keras(value: Any) -> bool:
    """Whether a class or function is Keras's own; one that `exec` made has no module."""
    return str(value.__module__).startswith("keras.")


def _name(objects: dict[str, Any], value: Any) -> None:
    if not _is_keras(value):
        objects[keras.saving.get_registered_name(value)] = value
        objects.setdefault(value.__name__, value)
