"""Copies objects as Python has them: containers, functions, arrays, and what a class makes of them.

- values that can't change are shared: numbers, texts, classes, functions, lookup tables;
- containers are new containers, bound methods and functions that hold something of the model are
  bound to its copy;
- other objects are copied as Python's `copy` would: by `__deepcopy__` or `__reduce_ex__`;
- what can't be copied (an open file, a generator) is shared, unless something of the model hangs
  on it: then the copy is refused.
"""

from __future__ import annotations

import contextlib
import copyreg
import dis
import functools
import gc
import operator
import random
import sys
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

from graphwd.live import _keras
from graphwd.live.copying import reachable
from graphwd.live.copying.plain import ATOMS, CONTAINERS, SHARED, is_plain, set_state, slots_of

CopyRule: TypeAlias = Callable[[Any], Any]

_GLOBAL: Any = (np.random.normal.__self__, random.random.__self__)  # type: ignore[attr-defined] # of a bound method
_WEAK = (weakref.WeakSet, weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_NEW: Any = (vars(copyreg)["__newobj__"], vars(copyreg)["__newobj_ex__"])


class Uncopied(Exception):
    """An object can't be copied and holds something of the model; `names` lead to it."""

    def __init__(self, value: Any, reason: str) -> None:
        super().__init__(reason.partition("\n")[0])
        self.value = value
        self.names: list[str] = []
        self.owner: Any = None


class Unordered(Uncopied):
    """A set gives its layers by their addresses, and so the copy's in another order."""


class ObjectCopier:
    """One copy in progress."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._kept: dict[int, Any] | None = None
        # By the id of the original, which is copied once, wherever it hangs. The global generators
        # stay themselves, since a copy draws from them as its original does.
        self.copies: dict[int, Any] = {id(each): each for each in _GLOBAL}
        self._originals: list[Any] = []  # alive, so that their ids stay their own
        self._identifying: dict[int, Any] = {}
        self._rules: dict[type, CopyRule] = {}

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

    def _rule(self, cls: type) -> CopyRule:
        """How objects of a class are copied."""
        if cls in (types.FunctionType, types.MethodType):
            return self._function if cls is types.FunctionType else self._method
        if issubclass(cls, SHARED):
            return lambda value: value
        if cls is type(functools.lru_cache(len)):
            return self._cached
        if cls is types.BuiltinMethodType:
            return self._builtin
        if issubclass(cls, weakref.ReferenceType):
            return self._reference
        if cls in weakref.ProxyTypes:
            return self._proxy
        if issubclass(cls, _WEAK):
            return self._weak_container
        if cls is types.MappingProxyType:
            return self._mapping_proxy
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
        if hasattr(cls, "__del__") and container is None:
            return self._owning
        return self._object if container is None and is_plain(cls) else self._reduced

    def _container(self, cls: type) -> CopyRule | None:
        """How containers of a class are copied, if it is one of Python's."""
        rules = {list: self._list, dict: self._dict, set: self._set}
        rules |= {tuple: self._tuple, frozenset: self._tuple}
        return next((rule for base, rule in rules.items() if issubclass(cls, base)), None)

    def _noted(self, original: Any, copy: Any) -> Any:
        self.copies[id(original)] = copy
        self._originals.append(original)
        return copy

    def _object(self, original: Any) -> Any:
        """A new object of the same class with copies of the attributes."""
        try:
            copy = object.__new__(type(original))
        except TypeError as error:  # of a class that is written in C
            return self._uncopied(original, error)
        self._attributes(original, self._noted(original, copy))
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

    def _list(self, original: Any) -> Any:
        copy = self._noted(original, list.__new__(type(original)))
        list.extend(copy, [v if type(v) in ATOMS else self.copy(v) for v in original])
        return self._with_attributes(original, copy)

    def _dict(self, original: Any) -> Any:
        base: Any = OrderedDict if isinstance(original, OrderedDict) else dict
        copy = self._noted(original, base.__new__(type(original)))
        for key, value in base.items(original):
            if type(key) in (int, tuple):
                self._identifying[id(copy)] = copy
            if type(key) not in ATOMS:
                key = self.copy(key)
            base.__setitem__(copy, key, value if type(value) in ATOMS else self.copy(value))
        return self._with_attributes(original, copy)

    def _set(self, original: Any) -> Any:
        _refuse_layers(original)
        copy = self._noted(original, set.__new__(type(original)))
        if original:
            set.update(copy, [v if type(v) in ATOMS else self.copy(v) for v in original])
            self._identifying[id(copy)] = copy
        return self._with_attributes(original, copy)

    def _tuple(self, original: Any) -> Any:
        """A tuple or frozen set can't change, but what it holds may."""
        items = [item if type(item) in ATOMS else self.copy(item) for item in original]
        if all(map(operator.is_, items, original)) and not getattr(original, "__dict__", None):
            return original
        base = tuple if isinstance(original, tuple) else frozenset
        if base is frozenset:
            _refuse_layers(original)
        copy = self._noted(original, base.__new__(type(original), items))
        return self._with_attributes(original, copy)

    def _with_attributes(self, original: Any, copy: Any) -> Any:
        if getattr(original, "__dict__", None) is original:  # its items are its attributes
            copy.__dict__ = copy
        elif hasattr(original, "__dict__"):
            self._attributes(original, copy)
        return copy

    def _function(self, original: Any) -> Any:
        """The function; where it holds what can change, one that holds the copy of that."""
        if _stays(original) or (_is_known(original) and not reachable.holds(original)):
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

    def _local(self, original: Any) -> Any:
        try:
            copy = self._noted(original, type(original)())
        except Exception as error:  # noqa: BLE001 # a constructor may raise anything
            return self._uncopied(original, error)
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
        """A weak reference to the copy; a dead one, or one to what no copy keeps, is shared."""
        target = reachable.target(original)
        copy = self._weakly(target)
        if copy is target:
            return original
        callback = original.__callback__ if type(original) is weakref.ReferenceType else None
        arguments = (copy,) if callback is None else (copy, self.copy(callback))
        return self._noted(original, type(original)(*arguments))

    def _proxy(self, original: Any) -> Any:
        target = reachable.target(original)
        copy = self._weakly(target)
        return original if copy is target else self._noted(original, weakref.proxy(copy))

    def _weak_container(self, original: Any) -> Any:
        copy = self._noted(original, type(original)())
        if isinstance(original, weakref.WeakSet):
            copy.update(map(self._weakly, original))
        elif isinstance(original, weakref.WeakKeyDictionary):
            copy.update({self._weakly(key): self.copy(each) for key, each in original.items()})
        else:
            copy.update({self.copy(key): self._weakly(each) for key, each in original.items()})
        return copy

    def _weakly(self, target: Any) -> Any:
        """The copy of what is referred to weakly, if the model is what keeps it alive."""
        owner = getattr(target, "__self__", target)  # of a method, which is made anew each time
        return self.copy(target) if id(owner) in self.copies or self._is_kept(owner) else target

    def _is_kept(self, value: Any) -> bool:
        """Whether what is copied leads to an object by other than weak references."""
        if self._kept is None:
            self._kept = reachable.kept(self._root)
        return id(value) in self._kept

    def _mapping_proxy(self, original: Any) -> Any:
        if not reachable.holds(original):
            return original
        (mapping,) = gc.get_referents(original)
        return self._noted(original, types.MappingProxyType(self.copy(mapping)))

    def _array(self, original: Any) -> Any:
        if original.dtype.hasobject:
            copy = self._noted(original, np.empty_like(original))
            for place in np.ndindex(original.shape):
                copy[place] = self.copy(original[place])
            return copy
        if not original.flags.writeable and original.base is None:
            return original
        return self._noted(original, original.copy(order="K"))

    def _by_deepcopy(self, original: Any) -> Any:
        """What has a `__deepcopy__` of its own is asked for it, with the model's parts copied."""
        for part in reachable.held(original):
            self.copy(part)
        try:
            return self._noted(original, original.__deepcopy__(self.copies))
        except Exception as error:  # noqa: BLE001 # a __deepcopy__ may raise anything
            return self._uncopied(original, error)

    def _owning(self, original: Any) -> Any:
        """What cleans up behind itself would do so twice: a file, a pool of processes."""
        return self._reduced(original) if reachable.holds(original) else original

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
        if function in _NEW and hasattr(original, "__dict__"):
            for name in vars(original).keys() - vars(copy).keys():  # what a file would not keep
                with contextlib.suppress(Uncopied):
                    vars(copy)[name] = self.copy(vars(original)[name])
        return copy

    def _uncopied(self, original: Any, error: Exception) -> Any:
        if reachable.holds(original):
            raise Uncopied(original, str(error)) from error
        return original


def _refuse_layers(original: Any) -> None:
    if sum(isinstance(item, keras.Layer) for item in original) > 1:
        raise Unordered(original, "its layers come in another order there; keep them in a list")


def _is_known(function: Any) -> bool:
    """Whether a module or Keras has a function under its name: then it is code, not state."""
    module = sys.modules.get(function.__module__)
    return (
        getattr(module, function.__qualname__, None) is function
        or keras.saving.get_registered_name(function) != function.__name__
    )


def _stays(value: Any, seen: tuple[int, ...] = ()) -> bool:
    """Whether an object is sure to lead to nothing that can change."""
    cls = type(value)
    if cls in ATOMS or id(value) in seen or issubclass(cls, SHARED):
        return True
    seen = (*seen, id(value))
    if cls in (tuple, frozenset):
        return all(_stays(item, seen) for item in value)
    if cls is not types.FunctionType or _rebound(value.__code__) & {*value.__code__.co_freevars}:
        return False
    cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
    held = (value.__defaults__, *cells, *(value.__kwdefaults__ or {}).values())
    return all(_stays(each, seen) for each in (*held, *vars(value).values()))


@functools.cache
def _rebound(code: types.CodeType) -> frozenset[str]:
    """The variables of closures that a function, or one within it, gives another value."""
    own = (each for each in dis.get_instructions(code) if each.opname == "STORE_DEREF")
    within = (_rebound(each) for each in code.co_consts if isinstance(each, types.CodeType))
    return frozenset(each.argval for each in own).union(*within)
