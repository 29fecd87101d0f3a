"""Objects as Python has them: what can't change, what is its attributes and its items alone."""

from __future__ import annotations

import functools
import inspect
import operator
import types
from collections import OrderedDict
from typing import Any

import numpy as np

ATOMS = frozenset((type(None), bool, int, float, str, bytes, complex, object, inspect.Signature))
"""What can't change, and so is shared: the classes that most of a layer's attributes are of."""
SHARED = (
    *(type, type(...), type(NotImplemented), types.ModuleType, types.CodeType, types.GenericAlias),
    *(property, staticmethod, classmethod, operator.attrgetter, operator.itemgetter),
    *(np.dtype, np.generic, np.ufunc, inspect.Parameter),
)
"""More of that kind."""
CONTAINERS = (list, dict, set, tuple, frozenset)


@functools.cache
def slots_of(cls: Any) -> tuple[str, ...]:
    """The attributes that a class keeps outside of `__dict__`."""
    names = []
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{base.__name__.lstrip('_')}{name}"
            names.append(name)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def is_plain(cls: type) -> bool:
    """Whether an object of a class is its attributes, and its items, and nothing else."""
    own = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
    base = next((each for each in (OrderedDict, *CONTAINERS) if issubclass(cls, each)), object)
    return (
        all(getattr(cls, name, None) is getattr(base, name, None) for name in own)
        and not hasattr(cls, "__del__")
        and all(
            base.__flags__ & _DEFINED or base in (object, OrderedDict, *CONTAINERS)
            for base in cls.__mro__
        )
        and type(cls).__module__ != "pybind11_builtins"
    )


_DEFINED = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was defined in Python, not in C


def set_state(copy: Any, state: Any) -> None:
    """Gives an object the state that `__reduce_ex__` told, as Python's `copy` does."""
    if hasattr(copy, "__setstate__"):
        copy.__setstate__(state)
        return
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        vars(copy).update(state)
    for name, value in (slots or {}).items():
        setattr(copy, name, value)


def base_of(container: Any) -> Any:
    """The class of Python's own that a container is one of."""
    return next(each for each in (list, dict, set) if isinstance(container, each))
