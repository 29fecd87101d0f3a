"""Copies objects as they are: a model with its layers, variables and all that hangs on it.

A config says what its author thought of; an object has everything. So a copy is a new object of
the same class, without its constructor, whose attributes are copies of the original's:

- variables are new ones with the same value, containers new containers, bound methods and
  functions that hold something of the model are bound to its copy;
- values that can't change are shared: numbers, texts, classes, functions, tensors, lookup tables;
- the graph of a Functional model is walked by `keras.models.clone_model`, which calls the copies;
- other objects are copied as Python's `copy` would: by `__deepcopy__` or `__reduce_ex__`;
- what can't be copied (an open file, a generator) is shared, unless something of the model hangs
  on it: then the copy is refused.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import operator
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

from graphwd.errors import ModelError
from graphwd.live import _keras, backends, walk
from graphwd.live.copying import reachable, undoing
from graphwd.live.copying.plain import (
    ATOMS,
    CONTAINERS,
    SHARED,
    base_of,
    is_plain,
    set_state,
    slots_of,
)
from graphwd.live.serializing import serialize

Rule: TypeAlias = Callable[[Any], Any]

_NEW: Any = (vars(copyreg)["__newobj__"], vars(copyreg)["__newobj_ex__"])
_OPTIMIZER: Any = keras.optimizers.Optimizer
_SAVEABLE: Any = (keras.Operation, _OPTIMIZER, keras.Metric, keras.Loss)


class Uncopied(Exception):
    """An object can't be copied and holds something of the model; `names` lead to it."""

    def __init__(self, value: Any, reason: str) -> None:
        super().__init__(reason.partition("\n")[0])
        self.value = value
        self.names: list[str] = []
        self.owner: Any = None


def copied(model: Any) -> tuple[Any, dict[int, Any]]:
    """Copies a model.

    Args:
        model: A `keras.Model`, which stays as it is.

    Returns:
        The copy, and a dict that maps the id of every object that was copied to its copy.

    Raises:
        ModelError: when something of the model hangs on an object that can't be copied; the
            message names the layer and the attribute.
    """
    copier = Copier()
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
    return copy, copier.copies


class Copier:
    """One copy in progress.

    Attributes:
        copies: Maps the id of an original to its copy. An object is copied once, wherever it hangs.
    """

    def __init__(self) -> None:
        self.copies: dict[int, Any] = {}
        self._originals: list[Any] = []  # alive, so that their ids stay their own
        self._identifying: dict[int, Any] = {}
        self._rules: dict[type, Rule] = {}
        self._graphs: list[Any] = []
        self._calls: list[tuple[Any, Any]] = []

    def copy(self, value: Any) -> Any:
        """The copy of an object, or the object itself where it can't change."""
        cls = type(value)
        if cls in ATOMS:
            return value
        known = self.copies.get(id(value))
        if known is not None:
            return known
        rule = self._rules.get(cls)
        if rule is None:
            rule = self._rules[cls] = self._rule(cls)
        return rule(value)

    def _rule(self, cls: type) -> Rule:
        """How objects of a class are copied."""
        shared = lambda value: value
        if cls in (types.FunctionType, types.MethodType):
            return self._function if cls is types.FunctionType else self._method
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
            return self._object
        rule = backends.copy_rule(cls, self.copy)
        if rule is not None:
            return lambda value: self._noted(value, rule(value))
        if issubclass(cls, SHARED):
            return shared
        if issubclass(cls, backends.traced_types()):
            return self._traced
        if cls is type(functools.lru_cache(len)):
            return self._cached
        if cls is types.BuiltinMethodType:
            return self._builtin
        if issubclass(cls, weakref.ReferenceType):
            return self._reference
        for lock in (threading.Lock, threading.RLock):
            if cls is type(lock()):
                return lambda value, lock=lock: self._noted(value, lock())  # type: ignore[misc] # typed as a default
        if issubclass(cls, threading.local):
            return self._local
        if issubclass(cls, np.ndarray):
            return self._array
        container = self._container(cls)
        if container is not None and (cls in CONTAINERS or is_plain(cls)):
            return container
        if hasattr(cls, "__wrapped__") and "ObjectProxy" in {base.__name__ for base in cls.__mro__}:
            proxy: Any = cls
            return lambda value: self._noted(value, proxy(self.copy(value.__wrapped__)))
        if hasattr(cls, "__deepcopy__") and container is None:
            return self._by_deepcopy
        return self._object if container is None and is_plain(cls) else self._reduced

    def _container(self, cls: type) -> Rule | None:
        """How containers of a class are copied, if it is one of Python's."""
        rules = {list: self._list, dict: self._dict, set: self._set}
        rules |= {tuple: self._tuple, frozenset: self._tuple}
        return next((rule for base, rule in rules.items() if issubclass(cls, base)), None)

    def _noted(self, original: Any, copy: Any) -> Any:
        self.copies[id(original)] = copy
        self._originals.append(original)
        return copy

    # Objects of Keras and of plain classes

    def _object(self, original: Any) -> Any:
        """A new object of the same class with copies of the attributes."""
        start = len(self._originals)
        copy = self._noted(original, object.__new__(type(original)))
        try:
            self._attributes(original, copy)
        except Uncopied as error:
            if error.owner is not original:
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
                serialize(original),
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
            backends.set_value(ours, theirs)
        for ours, theirs in (*layers, *variables):
            self._noted(ours, theirs)
        return copy

    def _attributes(self, original: Any, copy: Any, left_out: frozenset[str] = frozenset()) -> None:
        if isinstance(original, keras.Operation):
            attributes = _keras.lasting(original)
        else:
            attributes = dict(vars(original)) if hasattr(original, "__dict__") else {}
        cls: Any = type(original)
        slots = [name for name in slots_of(cls) if hasattr(original, name)]
        name = ""
        try:
            for name, value in attributes.items():
                if type(value) not in ATOMS and name not in left_out:
                    attributes[name] = self.copy(value)
            for name in slots:
                object.__setattr__(copy, name, self.copy(getattr(original, name)))
        except Uncopied as error:
            if error.owner is None:
                error.names.insert(0, name)
                error.owner = original if isinstance(original, keras.Layer) else None
            raise
        if attributes:
            vars(copy).update(attributes)

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
        return copy

    # Containers, functions, and what Python has besides

    def _list(self, original: Any) -> Any:
        copy = self._noted(original, list.__new__(type(original)))
        list.extend(copy, [v if type(v) in ATOMS else self.copy(v) for v in original])
        return self._with_attributes(original, copy)

    def _dict(self, original: Any) -> Any:
        base: Any = OrderedDict if isinstance(original, OrderedDict) else dict
        copy = self._noted(original, base.__new__(type(original)))
        for key, value in base.items(original):
            if type(key) is int:
                self._identifying[id(copy)] = copy
            elif type(key) not in ATOMS:
                key = self.copy(key)
            base.__setitem__(copy, key, value if type(value) in ATOMS else self.copy(value))
        return self._with_attributes(original, copy)

    def _set(self, original: Any) -> Any:
        copy = self._noted(original, set.__new__(type(original)))
        if original:
            set.update(copy, [v if type(v) in ATOMS else self.copy(v) for v in original])
            self._identifying[id(copy)] = copy
        return self._with_attributes(original, copy)

    def _tuple(self, original: Any) -> Any:
        """A tuple or frozen set can't change, but what it holds may."""
        items = [item if type(item) in ATOMS else self.copy(item) for item in original]
        if all(map(operator.is_, items, original)):
            return original
        base = tuple if isinstance(original, tuple) else frozenset
        return self._noted(original, base.__new__(type(original), items))

    def _with_attributes(self, original: Any, copy: Any) -> Any:
        if hasattr(original, "__dict__"):
            self._attributes(original, copy)
        return copy

    def _function(self, original: Any) -> Any:
        """The function; where it holds something of the model, one that holds the copy of that."""
        held = (original.__closure__, original.__defaults__, original.__kwdefaults__)
        if not (any(held) or vars(original)) or not reachable.holds(original):
            return original
        closure = original.__closure__ or ()
        cells = [self.copies.get(id(cell)) or types.CellType() for cell in closure]
        copy = types.FunctionType(
            original.__code__, original.__globals__, original.__name__, None, tuple(cells) or None
        )
        self._noted(original, copy)
        for ours, theirs in zip(closure, cells, strict=True):
            if id(ours) not in self.copies:
                self._noted(ours, theirs)
                with contextlib.suppress(ValueError):  # an empty cell
                    theirs.cell_contents = self.copy(ours.cell_contents)
        copy.__defaults__ = self.copy(original.__defaults__)
        copy.__kwdefaults__ = self.copy(original.__kwdefaults__)
        copy.__qualname__, copy.__module__ = original.__qualname__, original.__module__
        copy.__doc__, copy.__annotations__ = original.__doc__, original.__annotations__
        vars(copy).update({name: self.copy(value) for name, value in vars(original).items()})
        return copy

    def _method(self, original: Any) -> Any:
        function, owner = self.copy(original.__func__), self.copy(original.__self__)
        if function is original.__func__ and owner is original.__self__:
            return original
        return self._noted(original, types.MethodType(function, owner))

    def _traced(self, original: Any) -> Any:
        if original.captured_inputs:
            raise Uncopied(original, "it was traced with the original's variables")
        return original

    def _local(self, original: Any) -> Any:
        copy = self._noted(original, type(original)())
        vars(copy).update({name: self.copy(value) for name, value in vars(original).items()})
        return copy

    def _cached(self, original: Any) -> Any:
        function = self.copy(original.__wrapped__)
        if function is original.__wrapped__:
            return original
        return self._noted(original, functools.lru_cache(**original.cache_parameters())(function))

    def _builtin(self, original: Any) -> Any:
        owner = original.__self__
        if owner is None or isinstance(owner, (types.ModuleType, type)):
            return original
        return self._noted(original, getattr(self.copy(owner), original.__name__))

    def _reference(self, original: Any) -> Any:
        target = original()
        if target is None or isinstance(target, type):
            return original
        return self._noted(original, type(original)(self.copy(target)))

    def _array(self, original: Any) -> Any:
        if original.dtype.hasobject:
            copy = self._noted(original, np.empty_like(original))
            copy.flat = [self.copy(item) for item in original.flat]
            return copy
        if not original.flags.writeable and original.base is None:
            return original
        return self._noted(original, original.copy(order="K"))

    def _by_deepcopy(self, original: Any) -> Any:
        """What has a `__deepcopy__` of its own is asked for it, with the model's parts copied."""
        memo: dict[int, Any] = {}
        for part in reachable.held(original):
            memo[id(part)] = self.copy(part)
        return self._noted(original, original.__deepcopy__(memo))

    def _reduced(self, original: Any) -> Any:
        """A copy by the protocol of Python's `copy` and `pickle`."""
        try:
            reduced = original.__reduce_ex__(4)
        except Exception as error:  # noqa: BLE001 # a __reduce_ex__ may raise anything
            return self._uncopied(original, error)
        if isinstance(reduced, str):  # the name of something that is there once
            return self._uncopied(original, TypeError("it is there once"))
        function, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        try:
            if function in _NEW:
                copy = function(*self.copy(arguments))
            else:
                copy = self.copy(function)(*self.copy(arguments))
        except Uncopied:
            raise
        except Exception as error:  # noqa: BLE001 # a constructor may raise anything
            return self._uncopied(original, error)
        self._noted(original, copy)
        for item in items or ():
            copy.append(self.copy(item))
        for key, value in pairs or ():
            copy[self.copy(key)] = self.copy(value)
        if state is not None:
            set_state(copy, self.copy(state))
        return copy

    def _uncopied(self, original: Any, error: Exception) -> Any:
        if reachable.holds(original):
            raise Uncopied(original, str(error)) from error
        return original

    # Graphs

    def _symbolic(self, original: Any) -> Any:
        """A symbolic tensor that no graph of the model has made: one of the same specification."""
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
        graph = {name: vars(clone)[name] for name in _keras.GRAPH if name in vars(clone)}
        self._attributes(original, copy, frozenset(graph))
        vars(copy).update(graph)
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
        calls = {name: vars(copy)[name] for name in _keras.CALLS}
        self._attributes(original, copy)
        vars(copy).update(calls)
        return copy

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
        """The id of the copy where a number is the id of an original."""
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
    return (
        f"Layer {owner.name!r} ({type(owner).__name__}) keeps in {where} something of the model "
        f"inside a {type(error.value).__name__}, which can't be copied ({error}); take it away "
        "before the rewrite, or use in_place=True."
    )
