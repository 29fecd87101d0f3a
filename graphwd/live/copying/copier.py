"""Copies a model as it is, with its layers, variables and all that hangs on it.

A config says what its author thought of; an object has everything. So a copy is a new object of
the same class, without its constructor, whose attributes are copies of the original's: variables
are new ones with the same value, and the graph of a Functional model is walked by
`keras.models.clone_model`, which calls the copies. What is nothing of Keras's is copied in
`objects`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import keras

from graphwd.errors import ModelError
from graphwd.live import _keras, backends, walk
from graphwd.live.carrying.serializing import serialize_layer
from graphwd.live.copying import reachable, undoing
from graphwd.live.copying.objects import CopyRule, ObjectCopier, Uncopied, Unordered
from graphwd.live.copying.plain import ATOMS, base_of

_OPTIMIZER: Any = keras.optimizers.Optimizer
_SAVEABLE: Any = (keras.Operation, _OPTIMIZER, keras.Metric, keras.Loss)


def copied(model: Any) -> tuple[Any, dict[int, Any]]:
    """A copy of a model, and what maps the id of every object that was copied to its copy."""
    copier = Copier(model)
    try:
        with backends.build_scope(model):
            # Tensors that a layer keeps in an attribute are those of the graph, which comes first.
            for layer in [inner for _, _, inner in walk.layers_within(model)]:
                if isinstance(layer, keras.Function):
                    copier.copy(layer)
            copy = copier.copy(model)
            copier.finish()
    except Uncopied as error:
        raise ModelError(_refusal(model, error)) from error
    except RecursionError as error:
        raise ModelError(
            f"Model {model.name!r} holds objects that hold one another more deeply than Python "
            "follows, so it can't be copied; raise sys.setrecursionlimit, or use in_place=True."
        ) from error
    return copy, copier.copies


class Copier(ObjectCopier):
    """One copy of a model in progress."""

    def __init__(self, root: Any) -> None:
        super().__init__(root)
        self._graphs: list[Any] = []
        self._calls: list[tuple[Any, Any]] = []

    def _rule(self, cls: type) -> CopyRule:
        """How objects of a class are copied."""
        if issubclass(cls, keras.KerasTensor):
            return self._symbolic
        if issubclass(cls, _keras.Node):  # a call outside of the model's graphs
            return lambda value: None
        if issubclass(cls, keras.Variable):
            return self._variable
        if issubclass(cls, keras.Function):
            return self._graph
        if issubclass(cls, keras.layers.InputLayer):
            return self._input
        if issubclass(cls, _SAVEABLE):  # their __reduce__ writes a file
            return self._keras_object
        rule = backends.copy_rule(cls, self.copy)
        if rule is not None:
            return lambda value: self._backend_object(value, rule(value))
        if issubclass(cls, backends.traced_types()):
            return self._traced
        return super()._rule(cls)

    def _keras_object(self, original: Any) -> Any:
        """A new object of the same class; a layer that can't be copied is rebuilt, if possible."""
        start = len(self._originals)
        copy = self._noted(original, object.__new__(type(original)))
        try:
            self._attributes(original, copy)
        except Uncopied as error:
            if error.owner is not original or isinstance(error, Unordered):
                raise
            copy = self._rebuilt(original, start, error)
        return copy

    def _rebuilt(self, original: Any, start: int, error: Uncopied) -> Any:
        """A layer that can't be copied, made from its config, if that tells the whole layer."""
        for each in self._originals[start:]:
            self.copies.pop(id(each), None)
        del self._originals[start:]
        try:
            copy = keras.saving.deserialize_keras_object(
                serialize_layer(original),
                custom_objects={type(original).__name__: type(original)},
                safe_mode=False,  # what it runs, the original has run
            )
            if [name for name in vars(original) if name not in vars(copy)]:
                raise error  # something was added to it that no config tells
            layers = walk.pair_layers(original, copy)
            variables = walk.pair_variables(layers)
        except Exception:  # noqa: BLE001 # a constructor may raise anything
            raise error from None
        for ours, theirs in variables:
            backends.assign_value(ours, theirs)
        for ours, theirs in (*layers, *variables):
            self._noted(ours, theirs)
        return copy

    def _variable(self, original: Any) -> Any:
        copy = self._noted(original, object.__new__(type(original)))
        attributes = {
            name: value if type(value) in ATOMS else self.copy(value)
            for name, value in vars(original).items()
            if name != _keras.VALUE
        }
        vars(copy).update(attributes)
        value = _keras.value_of(original)
        if id(value) in self.copies:
            _keras.set_value(copy, self.copies[id(value)])
        else:
            backends.give_value(original, copy)
            self._noted(value, _keras.value_of(copy))
            backends.give_attributes(value, _keras.value_of(copy), self.copy)
        return copy

    def _backend_object(self, original: Any, copy: Any) -> Any:
        if copy is not original:
            self._noted(original, copy)
            backends.give_attributes(original, copy, self.copy)
        return copy

    def _traced(self, original: Any) -> Any:
        if original.captured_inputs:
            raise Uncopied(original, "it was traced with the original's variables")
        return original

    def _symbolic(self, original: Any) -> Any:
        """A symbolic tensor that no graph of the model has made: one of the same specification."""
        made_by = getattr(getattr(original, _keras.HISTORY, None), "operation", None)
        if isinstance(made_by, keras.layers.InputLayer):  # of which a graph is yet to be made
            return self._noted(original, self.copy(made_by).output)
        copy = self._noted(original, object.__new__(type(original)))
        attributes = {name: v for name, v in vars(original).items() if name != _keras.HISTORY}
        vars(copy).update({name: self.copy(value) for name, value in attributes.items()})
        return copy

    def _graph(self, original: Any) -> Any:
        """A Functional model, or a function of symbolic tensors: its graph, then its attributes."""
        copy = self._noted(original, object.__new__(type(original)))
        clone = keras.models.clone_model(
            _keras.plain_graph(original),
            input_tensors=keras.tree.map_structure(
                lambda tensor: self.copy(_keras.maker(tensor)).output, _keras.inputs_of(original)
            ),
            clone_function=self.copy,
            call_function=self._called,
        )
        calls = _keras.paired_calls(original, clone)
        self._calls += calls
        for ours, theirs in calls:
            self._noted(ours, theirs)
            for tensor, its in zip(ours.outputs, theirs.outputs, strict=True):
                self._noted(tensor, its)
        self._attributes_but(original, copy, clone, _keras.GRAPH)
        self._graphs.append(copy)
        return copy

    def _called(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a copy in its graph; weights and arrays among the arguments are copies, too."""
        own = lambda value: value if isinstance(value, keras.KerasTensor) else self.copy(value)
        args, kwargs = keras.tree.map_structure(own, (args, kwargs))
        return undoing.called(layer, *args, **kwargs)

    def _input(self, original: Any) -> Any:
        """An input layer has a tensor of its own, which its config tells all about."""
        copy = self._noted(original, type(original).from_config(original.get_config()))
        self._noted(original.output, copy.output)
        self._attributes_but(original, copy, copy, _keras.CALLS)
        return copy

    def _attributes_but(self, original: Any, copy: Any, made: Any, names: Iterable[str]) -> None:
        """Copies all attributes but some, which are those of an object that Keras has made."""
        own = {name: vars(made)[name] for name in names if name in vars(made)}
        for name, value in own.items():
            self._noted(vars(original)[name], value)
        self._attributes(original, copy, frozenset(own))
        vars(copy).update(own)

    def finish(self) -> None:
        """Puts calls into their order, and the ids of copies in the place of ids."""
        _keras.order_calls(self._calls, self._graphs)
        for container in self._identifying.values():
            _exchange(container, self._own_id)
        for model in [each for each in self._originals if isinstance(each, keras.Model)]:
            backends.join_scope(self.copies[id(model)])
        optimizers = [each for each in self._originals if isinstance(each, _OPTIMIZER)]
        if not optimizers:
            return
        keys = {
            _keras.key_of(each): _keras.key_of(self.copies[id(each)])
            for each in self._originals
            if isinstance(each, keras.Variable)
        }
        for optimizer in optimizers:
            for value in vars(self.copies[id(optimizer)]).values():
                if isinstance(value, (dict, set)):
                    _exchange(value, lambda key: keys.get(key, key))

    def _own_id(self, key: Any) -> Any:
        """The id of the copy where a number, or one in a tuple, is the id of an original."""
        if type(key) is tuple:
            own = tuple(map(self._own_id, key))
            return key if all(map(operator.is_, own, key)) else own
        return id(self.copies[key]) if type(key) is int and key in self.copies else key


def _exchange(container: Any, exchanged: Callable[[Any], Any]) -> None:
    """Exchanges the keys of a dict, or the items of a set, by which an object is known."""
    held = getattr(container, "__wrapped__", container)  # TensorFlow wraps an optimizer's dicts
    keys = list(map(exchanged, held))
    if all(map(operator.is_, keys, held)):
        return
    base = base_of(held)
    content = keys if base is set else list(zip(keys, held.values(), strict=True))
    base.clear(held)
    base.update(held, content)
    if held is not container:
        _keras.changed_inside(container)


def _refusal(model: Any, error: Uncopied) -> str:
    owner = error.owner or model
    where = ".".join(error.names) or "attributes"
    if where.startswith("_"):  # TensorFlow lists what a layer has once more
        public = {name: held for name, held in vars(owner).items() if not name.startswith("_")}
        kept = ((name, reachable.kept(held)) for name, held in public.items())
        sought = (name for name, ids in kept if id(error.value) in ids and id(owner) not in ids)
        where = next(sought, where)
    return (
        f"Layer {owner.name!r} ({type(owner).__name__}) keeps in {where} something of the model "
        f"inside a {type(error.value).__name__}, which can't be copied ({error}); take it away "
        "before the rewrite, or use in_place=True."
    )
