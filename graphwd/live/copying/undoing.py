"""Calls a layer for its place in a graph, and leaves it as it was, whatever its call does."""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from graphwd.live import _keras, backends, walk
from graphwd.live.copying import reachable
from graphwd.live.copying.plain import ATOMS, SHARED, base_of, is_plain


def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a copy for its place in the graph, and leaves it as it was, whatever its call does."""
    if not isinstance(layer, keras.Layer):  # an operation of keras.ops has no state
        return layer(*args, **kwargs)
    if walk.is_stock(layer) and not _keras.sublayers(layer):
        before = dict(vars(layer))
        restores = _restores([before[name] for name in _keras.LOSSES if before.get(name)])
        outputs = keras.Layer.__call__(layer, *args, **kwargs)
        _give_back(vars(layer), before)
        for restore in restores:
            restore()
        return outputs
    inner = [each for _, _, each in walk.layers_within(layer)]
    attributes = [(vars(each), dict(vars(each))) for each in inner]
    kept = [
        value
        for each, (_, before) in zip(inner, attributes, strict=True)
        if not walk.is_stock(each)
        for name, value in before.items()
        if name not in _keras.CALLS and type(value) not in ATOMS
    ]
    restores = _restores(kept) + backends.restores(layer)
    # A `__call__` of its own has added its calls to the graph already.
    outputs = keras.Layer.__call__(layer, *args, **kwargs)
    for now, before in attributes:
        _give_back(now, before)
    for restore in restores:
        restore()
    return outputs


def _give_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Gives an object its attributes back, but for the calls."""
    for name in _keras.CALLS:
        if name in now:
            before[name] = now[name]
    for name in now.keys() - before.keys():
        del now[name]
    now.update(before)


def _restores(values: list[Any]) -> list[Callable[[], Any]]:
    """What gives containers, arrays and plain objects, and what is in them, their content back."""
    restores: list[Callable[[], Any]] = []
    seen: set[int] = set()
    while values:
        value = values.pop()
        cls = type(value)
        if cls in ATOMS or id(value) in seen:
            continue
        seen.add(id(value))
        if issubclass(cls, (list, dict, set)):
            base = base_of(value)
            restores.append(functools.partial(_refill, base, value, base(value)))
            values.extend(base.values(value) if base is dict else value)
        elif issubclass(cls, (tuple, frozenset, deque)):
            values.extend(value)
            if issubclass(cls, deque):
                restores.append(functools.partial(_refill, deque, value, list(value)))
        elif issubclass(cls, np.ndarray) and value.flags.writeable:
            restores.append(functools.partial(np.copyto, value, value.copy()))
        elif issubclass(cls, np.random.Generator):
            state = value.bit_generator.state
            restores.append(functools.partial(setattr, value.bit_generator, "state", state))
        elif issubclass(cls, np.random.RandomState):
            restores.append(functools.partial(value.set_state, value.get_state()))
        elif issubclass(cls, random.Random):
            restores.append(functools.partial(value.setstate, value.getstate()))
        elif (
            hasattr(value, "__dict__")
            and not issubclass(cls, (*reachable.STATEFUL, keras.KerasTensor, *SHARED))
            and is_plain(cls)
        ):
            restores.append(functools.partial(_refill, dict, vars(value), dict(vars(value))))
            values.extend(vars(value).values())
    return restores


def _refill(base: Any, container: Any, content: Any) -> None:
    """Gives a container its content back; those who track it need not be told."""
    base.clear(container)
    (base.update if base in (dict, set) else base.extend)(container, content)
