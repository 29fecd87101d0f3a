"""Slots as plain data, without a model around them, and plans of them."""

from graphwd.graph.slots import Slot
from graphwd.plans.plan import make_plan
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy, Rule

L2 = regularizers.l2(1e-4)


def slot(path, *shapes, layers=("Layer",), held=None, **more):
    """A slot of weights of these shapes; of none, where the shapes are not known."""
    more.setdefault("pointers", (("config", path),))
    return Slot(path, path.rsplit("/", 1)[-1], layers, held, shapes=shapes, **more)


def sized(path, layer="Dense", *, held=None, shape=(2, 3), **more):
    """A slot of one weight of some shape, or of none that is known."""
    shapes = () if shape is None else (shape,)
    return slot(path, *shapes, layers=(layer,), held=held, **more)


def state(*slots):
    return make_plan(slots, None, source="it")


def measured(*values):
    """A measure that gives the slots of a plan the values of penalties now and as planned."""
    return lambda edits: list(values)


def hostile():
    """The plan of a model whose names would steer a terminal, or run in a page."""
    path = "a\x1b[2J\n<script>/kernel"
    return make_plan([sized(path)], Policy([Rule(L2)]), source="x\x1b]0;y\x07", notes=["\x1b[0m"])
