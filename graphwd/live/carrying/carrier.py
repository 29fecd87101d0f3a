"""The carrier: a layer that keeps penalties which its own config can't express.

A Dense inside a composite layer has no regularizer in any config. Such a penalty is kept by the
innermost layer that is rebuilt from a config of its own: that layer becomes an instance of a
subclass of its class, which adds the penalties to its config, sets the regularizers on its
variables once they exist, and does nothing else. So the penalties go wherever the layer goes: into
larger models, through `clone_model` and pickle, to a file or a preset and back.

It has to be a subclass, since Keras asks an object's class, and nothing else, for the name to save
it under and for who makes it again; `ownclass` has what keeps that from being noticed.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import keras

from graphwd.graph.slots import CARRIED, SUFFIX, add_carried, take_carried
from graphwd.live import _keras, backends, walk
from graphwd.live.carrying import carried, loaders, starts
from graphwd.live.carrying.carried import (
    fingerprint as fingerprint,  # part of what this file offers
)
from graphwd.live.carrying.carried import penalty as penalty
from graphwd.live.carrying.ownclass import (
    RECORD,
    OwnMethod,
    as_itself,
    carrier_class,
    change,
    refuse_hdf5,
    telling,
)
from graphwd.live.carrying.ownclass import base_class as base_class
from graphwd.live.carrying.ownclass import is_carrier as is_carrier
from graphwd.policy import regularizers

_untold = ContextVar("_untold", default=False)


class Carrier:
    """Mixed into a layer's class: keeps penalties on variables that no config reaches."""

    build = OwnMethod()
    quantize = OwnMethod()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Tells no other base: the layer's class may ask for arguments, or keep a list."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A new layer carries nothing, so it is of its own class."""
        return base_class(cls)(*args, **kwargs)

    @classmethod
    def from_config(cls, config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Makes a layer of its own class, which then carries what its config has."""
        if CARRIED not in config:
            return base_class(cls).from_config(config, *args, **kwargs)
        return _loaded(base_class(cls), config, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The layer's own config and, under two more keys, the penalties."""
        refuse_hdf5(self)
        weights, penalties = _as_saved(self)
        kept = {
            "class": _keras.identity(base_class(type(self))),
            "weights": weights,
            "penalties": penalties,
            **_starts_config(self),
        }
        return add_carried(plain_config(self), kept)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer; the call may be what builds it, and then its penalties take effect."""
        with as_itself(self):
            outputs = self(*args, **kwargs)
        settle(self)
        return outputs

    def load_own_variables(self, store: Any) -> None:
        """Loads the layer's variables, if they are the ones that the penalties are meant for."""
        settle(self)
        with as_itself(self):
            self.load_own_variables(store)

    @property
    def variables(self) -> list[Any]:
        """All variables of the layer; reading them makes its penalties take effect."""
        settle(self)
        return super().variables  # type: ignore[misc,no-any-return] # the layer's class has it

    @property
    def weights(self) -> list[Any]:
        """All weights of the layer; reading them makes its penalties take effect."""
        settle(self)
        return super().weights  # type: ignore[misc,no-any-return] # the layer's class has it

    def __reduce__(self) -> Any:
        """Pickles and copies the layer as its own class does, and then what it carries."""
        weights, penalties = _as_saved(self)
        with as_itself(self, guarded=False):
            function, arguments, *state = self.__reduce__()
        return _unpickled, (function, arguments, penalties, weights), *state

    @property
    def save_assets(self) -> Callable[[str], None]:
        """What saves the layer's own assets, if it has any, and the starts of its weights."""
        save: Callable[[str], None] = self._with_starts("save_assets", starts.Kept.save)
        return save

    @property
    def load_assets(self) -> Callable[[str], None]:
        """What loads them again."""
        load: Callable[[str], None] = self._with_starts("load_assets", starts.Kept.load)
        return load

    def _with_starts(self, name: str, act: Callable[[starts.Kept, str], None]) -> Any:
        kept = _carried_by(self).starts
        own = getattr(super(), name, None)
        if kept is None:
            return getattr(super(), name)  # without any, Keras is to find none

        def both(folder: str) -> None:
            if own is not None:
                with as_itself(self):
                    own(folder)
            settle(self)
            act(kept, folder)

        return both


def _starts_config(layer: Any) -> dict[str, Any]:
    kept = _carried_by(layer).starts
    return {} if kept is None else {"starts": kept.to_config()}


def keep_starts(layer: Any, before: Mapping[int, Any]) -> None:
    """Lets a layer keep the starts of those of its weights whose penalties want one."""
    places = starts.indices_with_start(layer)
    kept = _carried_by(layer).starts if is_carrier(layer) else None
    if not places and kept is None:
        starts.unbind(layer)
        return
    same = kept is not None and kept.complete and places == list(kept.variables)
    if same and set(before) == set(places) == set(starts.found(layer)):
        return
    weights = walk.weights(layer)
    penalties = carried_penalties(layer)
    made = starts.new(places) if places else None
    starts.unbind(layer)
    attach(layer, penalties, fingerprint(weights), made)
    if made is not None:
        for index, variable in made.variables.items():
            backends.assign_value(before.get(index, weights[index].variable), variable)
        made.complete = True


def _unpickled(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    penalties: Sequence[dict[str, Any]],
    weights: str,
) -> Any:
    return attach(function(*arguments), penalties, weights)


def plain_config(layer: Any) -> dict[str, Any]:
    """A layer's config without the penalties that it carries."""
    if not is_carrier(layer):
        return dict(layer.get_config())
    with telling(), as_itself(layer, guarded=False):
        return dict(type(layer).get_config(layer))


@contextlib.contextmanager
def untold() -> Iterator[None]:
    """Layers tell their configs without their penalties, whether or not these can be saved."""
    token = _untold.set(True)
    try:
        yield
    finally:
        _untold.reset(token)


def attach(
    layer: Any,
    penalties: Sequence[dict[str, Any]],
    weights: str,
    kept: starts.Kept | None = None,
) -> Any:
    """Makes a layer carry other penalties than before; with none it is of its own class again."""
    detach(layer)
    if not penalties and kept is None:
        return layer
    loaders.register(_loaded)
    vars(layer)[RECORD] = carried.Carried(
        [dict(record) for record in penalties], weights, starts=kept
    )
    cls = type(layer)
    methods = {"save": _save} if issubclass(cls, keras.Model) else {}
    change(layer, carrier_class(cls, Carrier, loaders.loader_for(cls), methods))
    # A model that was never called isn't built, and its first call may give it more weights.
    settle(layer, complete=fingerprint(walk.weights(layer)) == weights)
    return layer


def detach(layer: Any) -> Any:
    """Gives a carrying layer its own class back; its variables keep their regularizers."""
    if is_carrier(layer):
        change(layer, base_class(type(layer)))
    vars(layer).pop(RECORD, None)
    return layer


def settle(layer: Any, *, complete: bool = False) -> None:
    """Puts the carried regularizers on the layer's variables, once these exist."""
    record = _carried_by(layer)
    complete = complete or layer.built
    if record.variables is None and complete and carried.give(layer, record):
        if record.starts is not None:
            starts.bind(layer, record.starts)
        hand_down(layer)


def hand_down(layer: Any) -> None:
    """Lets the layers inside of a layer keep their penalties by themselves, too."""
    # The layer carries what its config leaves out, but a user may take what is inside of it by
    # itself (`distiller.student`), or into another model, which is saved layer by layer. So each
    # has what its variables have: Keras's own layers in attributes, others by carrying it.
    if walk.is_stock(layer):
        return
    stack = _keras.sublayers(layer)
    while stack:
        member = stack.pop()
        if _keras.is_graph(member):
            stack += _keras.sublayers(member)
            continue
        weights = walk.weights(member)
        records = []
        for index, weight in enumerate(weights):
            regularizer, owner = weight.variable.regularizer, weight.owner
            role = walk.role_of(weight)
            attribute = f"{role}{SUFFIX}"
            told = walk.is_stock(owner) and attribute in vars(owner)
            if told:
                setattr(owner, attribute, regularizer)
            if starts.wanted(regularizer):  # its start is kept here
                continue
            if regularizer is not None and not (told and owner is member):
                serialized = regularizers.held(regularizer)
                if serialized and regularizers.can_be_made(serialized):
                    records.append(penalty(index, weight, role, serialized))
        if not is_carrier(layer):  # its file does without graphwd, and is to
            records = []
        if records != carried_penalties(member) or (is_carrier(member) and not records):
            attach(member, records, fingerprint(weights))
        if not records and not walk.is_stock(member):  # what carries hands down by itself
            stack += _keras.sublayers(member)


def snapshot(layer: Any) -> Callable[[], None]:
    """Remembers every regularizer within a layer: on variables, in attributes, carried; starts."""
    remembered = []
    for _, _, inner in walk.layers_within(layer):
        attributes = {name: value for name, value in vars(inner).items() if name.endswith(SUFFIX)}
        penalised = [
            (variable, variable.regularizer)
            for variables in _keras.own_variables(inner)
            for variable in variables
        ]
        own = type(inner), vars(inner).get(RECORD), starts.shown(inner)
        remembered.append((inner, own, attributes, penalised))

    def restore() -> None:
        for inner, (cls, record, shown), attributes, penalised in remembered:
            detach(inner)
            starts.show(inner, shown)
            change(inner, cls)
            if record is not None:
                vars(inner)[RECORD] = record
            vars(inner).update(attributes)  # a __setattr__ may raise, as it may have done before
            for variable, regularizer in penalised:
                variable.regularizer = regularizer

    return restore


def carried_penalties(layer: Any) -> list[dict[str, Any]]:
    """The records of what a layer carries; empty for a layer that carries nothing."""
    return carried.current(layer, _carried_by(layer)) if is_carrier(layer) else []


def _carried_by(layer: Any) -> carried.Carried:
    return vars(layer)[RECORD]  # type: ignore[no-any-return] # attributes have no static type


def _as_saved(layer: Any) -> tuple[str, list[dict[str, Any]]]:
    settle(layer)
    if _untold.get():
        return _carried_by(layer).weights, []
    return carried.as_saved(layer, _carried_by(layer), functools.partial(_rebuilt, layer))


def _loaded(base: Any, config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    config = dict(config)
    record = take_carried(config)
    if base is not None:
        layer = base.from_config(config, *args, **kwargs)
    else:
        layer = keras.saving.deserialize_keras_object({**record["class"], "config": config})
    kept = record.get("starts")
    return attach(
        layer,
        record["penalties"],
        record["weights"],
        None if kept is None else starts.Kept(kept["key"], kept["indices"]),
    )


def _rebuilt(layer: Any, with_values: bool) -> Any:
    """The layer that a file would bring back; `None` where that shows only when it is loaded."""
    # Without values if that will do: it does not where an optimizer is made along with the layer.
    scopes = [keras.StatelessScope(initialize_variables=False), contextlib.nullcontext()]
    for scope in scopes[: 1 + with_values]:
        try:
            with scope, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                config = keras.saving.serialize_keras_object(plain_config(layer))
                other = base_class(type(layer)).from_config(config)
                build = keras.saving.serialize_keras_object(layer.get_build_config() or {})
                if build and not other.built:
                    other.build_from_config(build)
                return other
        except Exception:  # noqa: BLE001 # third-party constructors raise anything, or need custom_objects
            continue
    return None


def _save(self: Any, filepath: Any, *args: Any, **kwargs: Any) -> Any:
    """Saves a model, or refuses to before Keras opens the file, which empties it."""
    refuse_hdf5(self, filepath)
    self.get_config()
    return base_class(type(self)).save(self, filepath, *args, **kwargs)


loaders.register(_loaded)
