"""Compares two values of serialized configs, key by key, and says where they differ."""

from __future__ import annotations

import json
import operator
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

Mask: TypeAlias = dict[Any, Any]
"""What not to compare: a tree of keys whose leaves are `None`."""

Path: TypeAlias = Any
"""Where a value stands: `(path of what holds it, key)`, and the walk's root at the far end."""

# Called with each pair of dictionaries that have a `class_name`, but not with the two values given.
# It returns `None` to go on, `SKIP` to leave the pair out, or another `(path, mask)` to go on with.
Visitor: TypeAlias = Callable[[Mapping[Any, Any], Mapping[Any, Any], Path, "Mask | None"], Any]

SKIP = object()
"""What a visitor returns for a pair that it takes care of itself."""

_ATOMS = frozenset({str, int, float, bool, type(None), bytes, complex})
_BY_IDENTITY = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
_WHOLE_LISTS = 8


class _Missing:
    """Stands for a value that isn't there."""


MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two values differ, by its path from a root; a value may be `MISSING`."""

    root: Any
    path: tuple[Any, ...]
    original: Any
    rewritten: Any

    def __str__(self) -> str:
        return contrast(keys_text(self.path), self.original, self.rewritten)


class Label:
    """A value as a label in a graph: equal to another one if their JSON would be."""

    __slots__ = ("value",)
    __hash__ = None  # type: ignore[assignment] # what is compared strictly isn't looked up

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Label) and not differences(self.value, other.value)


def differences(
    original: Any,
    rewritten: Any,
    root: Any = None,
    mask: Mask | None = None,
    visit: Visitor | None = None,
) -> list[Difference]:
    """Compares two values as strictly as their JSON would, and lists where they differ."""
    # A tuple equals a list, NaN equals NaN, a numpy scalar equals its Python number. `1`, `1.0` and
    # `True` are three values, since a constant's type decides a tensor's dtype. Python objects that
    # are not JSON are equal if they are the same object, compare equal, or hold equal state.
    found: list[Difference] = []
    seen: dict[tuple[int, int], tuple[Any, Any]] | None = None
    stack: list[tuple[Any, Any, Path, Mask | None]] = [(original, rewritten, root, mask)]
    first = True

    def differ(path: Path, one: Any, other: Any) -> None:
        keys = []
        while isinstance(path, tuple):  # the root is no tuple
            path, key = path
            keys.append(key)
        found.append(Difference(path, tuple(reversed(keys)), one, other))

    while stack:
        one, other, path, mask = stack.pop()
        kind = type(one)
        if kind in _ATOMS and kind is type(other):
            if one != other and not (one != one and other != other):
                differ(path, one, other)
            continue
        if seen is not None and _is_container(one):
            # Only Python objects can hold themselves; JSON can't, and needs no bookkeeping.
            if (id(one), id(other)) in seen:
                continue
            seen[id(one), id(other)] = (one, other)
        if is_mapping(one):
            if not is_mapping(other):
                differ(path, one, other)
                continue
            if visit is not None and not first and "class_name" in one:
                answer = visit(one, other, path, mask)
                if answer is SKIP:
                    continue
                if answer is not None:
                    path, mask = answer
            first = False
            children = []
            common = 0
            for key, value in one.items():
                inner = None
                if mask is not None and key in mask:
                    inner = mask[key]
                    if inner is None:
                        common += key in other
                        continue
                counterpart = other.get(key, MISSING)
                kind = type(value)
                if kind in _ATOMS and kind is type(counterpart) and value == counterpart:
                    common += 1
                    continue
                if counterpart is MISSING:
                    differ((path, key), value, MISSING)
                    continue
                common += 1
                children.append((value, counterpart, (path, key), inner))
            if common != len(other):
                for key, counterpart in other.items():
                    ignored = mask is not None and key in mask and mask[key] is None
                    if key not in one and not ignored:
                        differ((path, key), MISSING, counterpart)
            if children:
                stack.extend(children[::-1])
            continue
        first = False
        if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
            if len(one) != len(other):
                differ(path, one, other)
                continue
            # A table of constants may have millions of numbers.
            if (
                _ATOMS.issuperset(map(type, one))
                and one == other
                and all(map(operator.is_, map(type, one), map(type, other)))
            ):
                continue
            children = []
            plain = True
            for index, value in enumerate(one):
                counterpart = other[index]
                kind = type(value)
                if kind in _ATOMS:
                    if kind is type(counterpart) and value == counterpart:
                        continue
                    if value != value and counterpart != counterpart:
                        continue
                else:
                    plain = False
                children.append((value, counterpart, (path, index), None))
            if plain and children:
                # A short list is told as a whole, of a longer one the first difference.
                if len(one) <= _WHOLE_LISTS:
                    differ(path, one, other)
                else:
                    differ(children[0][2], children[0][0], children[0][1])
            else:
                stack.extend(children[::-1])
            continue
        if one is other:
            continue
        states = _states(one, other)
        if states is None:
            differ(path, one, other)
        elif states:
            if seen is None:
                seen = {}
            if (id(one), id(other)) not in seen:
                seen[id(one), id(other)] = (one, other)
                stack.append((*states, path, None))
    return found


def is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    """Whether a value is a dictionary of any kind."""
    # Asking for the type itself first spares the abstract class's slower answer.
    kind = type(value)
    return kind is dict or (kind is not list and isinstance(value, Mapping))


def _is_container(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple))


def _states(one: Any, other: Any) -> tuple[Any, Any] | tuple[()] | None:
    """Compares what is no JSON: `()` for equal, `None` for different, or two states to compare."""
    if _is_numpy(one) or _is_numpy(other):
        if getattr(one, "shape", ()) != getattr(other, "shape", ()):
            return None
        if getattr(one, "shape", ()) == ():
            return _plain(one), _plain(other)
        if type(one) is not type(other) or one.dtype != other.dtype:
            return None
        return one.tolist(), other.tolist()
    if type(one) is not type(other) or type(one) in _ATOMS:
        return None
    if _says_equal(one, other):
        return ()
    if isinstance(one, _BY_IDENTITY):
        return None
    # `get_config` of a functional model copies deeply, so that an object without an __eq__ is
    # never the same one on both sides: compare what a copy is made of.
    if callable(getattr(one, "get_config", None)):
        try:
            return one.get_config(), other.get_config()
        except NotImplementedError:  # Keras's word for a class that can't say
            return None
    try:
        return _reduced(one), _reduced(other)
    except Exception:  # noqa: BLE001 - an object that can't be copied can only be the same one
        return None


def _says_equal(one: Any, other: Any) -> bool:
    try:
        return (one == other) is True
    except Exception:  # noqa: BLE001 - anybody's __eq__ may raise anything; the state decides then
        return False


def _is_numpy(value: Any) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "tolist")


def _plain(value: Any) -> Any:
    return value.item() if _is_numpy(value) else value


def _reduced(value: Any) -> Any:
    parts = value.__reduce_ex__(4)
    if isinstance(parts, str):
        return [parts]
    constructor, arguments, state, items, pairs = [*parts, None, None, None][:5]
    return {
        "constructor": constructor,
        "arguments": list(arguments),
        "state": state,
        "items": None if items is None else list(items),
        "pairs": None if pairs is None else list(pairs),
    }


class _OneLine(reprlib.Repr):
    """Shows any value on one line of bounded length, without calling foreign code."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = 8
        self.maxstring = self.maxlong = self.maxother = 60

    def repr1(self, value: Any, level: int) -> str:
        """Shows a value by its type, where reprlib goes by the name of its type."""
        if isinstance(value, dict):
            return self.repr_dict(value, level)
        if isinstance(value, (list, tuple)):
            return self.repr_list(list(value), level)
        if type(value) in (str, int):
            return super().repr1(value, level)
        return self.repr_instance(value, level)

    def repr_str(self, value: str, level: int) -> str:
        """Shows a string as JSON does."""
        if len(value) > self.maxstring:
            value = value[: self.maxstring - 3] + "..."
        return json.dumps(value, ensure_ascii=False)

    def repr_instance(self, value: Any, level: int) -> str:
        """Shows the class of an object: its own repr may be long, or wrong."""
        if type(value) in _ATOMS:
            text = repr(value)
            return text if len(text) <= self.maxother else text[: self.maxother - 3] + "..."
        if value is MISSING:
            return "missing"
        if _is_numpy(value) and getattr(value, "shape", ()) == ():
            return self.repr1(value.item(), level)
        name = getattr(value, "__qualname__", None)
        kind = type(value).__qualname__
        return f"<{kind} {name}>" if isinstance(name, str) else f"<{kind}>"


_one_line = _OneLine()


def show(value: Any) -> str:
    """Shows any value on one line, shortened."""
    return _one_line.repr1(value, _one_line.maxlevel).replace("\n", " ")


def keys_text(keys: Iterable[Any]) -> str:
    """Writes the way to a value as Python would: `cells[0].units`."""
    parts: list[str] = []
    shown = list(keys)
    if len(shown) > 16:
        shown = [*shown[:8], "...", *shown[-8:]]
    for key in shown:
        if isinstance(key, str) and (key.isidentifier() or key == "..."):
            parts.append(f".{key}" if parts else key)
        else:
            parts.append(f"[{show(key)}]")
    return "".join(parts)


def contrast(what: str, original: Any, rewritten: Any) -> str:
    """Says that something is one thing in the original and another in the rewritten model."""
    one, other = show(original), show(rewritten)
    if one == other:
        return f"{what} is {one} in both, but with another content or type"
    return f"{what} is {one} in the original and {other} in the rewritten model"
