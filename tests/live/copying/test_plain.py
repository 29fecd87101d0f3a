"""What Python objects are made of: copies by their parts are those of Python's own `copy`."""

import collections
import copy
import enum
import functools
import io
import random
import types

import numpy as np
import pytest

from graphwd.live.copying import plain


class Slotted:
    __slots__ = ("__hidden", "value")

    def __init__(self, value=None):
        self.value, self.__hidden = value, 1


class Mixed(Slotted):
    """One more in a slot, and any others in `__dict__`."""

    __slots__ = "own", "__dict__"  # noqa: RUF023 # in the order in which they are told


class Single:
    __slots__ = "only"


class Listed(list):
    pass


class Reduced:
    def __reduce__(self):
        return Reduced, ()


class Stated:
    def __setstate__(self, state):
        self.restored = state


class Closing:
    def __del__(self):
        pass


class Kind(enum.Enum):
    ONE = 1


def test_slots_are_told_by_the_names_that_attributes_have():
    names = plain.slots_of(Mixed)
    assert set(names) == {"_Slotted__hidden", "value", "own"}
    assert all(hasattr(Mixed, name) for name in names)
    assert plain.slots_of(Single) == ("only",)
    one = Mixed(3)
    assert {name for name in names if hasattr(one, name)} == {"_Slotted__hidden", "value"}


@pytest.mark.parametrize("cls", [Slotted, Mixed, Listed, collections.OrderedDict, dict, tuple])
def test_what_is_its_attributes_and_items_is_plain(cls):
    assert plain.is_plain(cls)


@pytest.mark.parametrize(
    "cls",
    [
        *(Reduced, Stated, Closing, collections.deque, collections.defaultdict),
        *(functools.partial, random.Random, io.StringIO, np.ndarray),
        *(types.GeneratorType, memoryview),
    ],
)
def test_what_is_more_than_that_is_not(cls):
    assert not plain.is_plain(cls)


@pytest.mark.parametrize(
    "value", [Mixed([1, 2]), Slotted("x"), Stated(), Kind.ONE, random.Random(3)], ids=type
)
def test_the_state_that_an_object_tells_makes_one_like_it(value):
    function, arguments, state, *_ = (*value.__reduce_ex__(4), None)
    ours, theirs = function(*arguments), copy.copy(value)
    if state is not None:
        plain.set_state(ours, state)
    assert type(ours) is type(theirs)
    for name in (*plain.slots_of(type(value)), *getattr(theirs, "__dict__", ())):
        assert getattr(ours, name, None) == getattr(theirs, name, None)
    if isinstance(value, random.Random):
        assert ours.getstate() == value.getstate()


def test_the_class_of_a_container_is_pythons_own():
    containers = [Listed(), collections.OrderedDict(), collections.Counter(), {1}]
    assert [plain.base_of(each) for each in containers] == [list, dict, dict, set]
