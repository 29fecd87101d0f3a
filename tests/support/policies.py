"""Policies that hypothesis draws, slots that no model has, and a few regularizers."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

import graphwd
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy, Rule

L2 = regularizers.l2(1e-4)
CUSTOM = {
    "module": "my.regularizers",
    "class_name": "Spectral",
    "config": {"rank": 3, "on": True, "names": ["a", "b"], "inner": {"x": 0.5}},
    "registered_name": "my>Spectral",
}


@dataclass(frozen=True)
class FakeSlot:
    path: str
    role: str
    layers: tuple[str, ...]
    ndims: tuple[int, ...] = ()


factors = st.floats(min_value=0, max_value=1e30, allow_nan=False)
patterns = st.lists(st.text(min_size=1).filter(lambda p: p != "!"), min_size=1, max_size=4)
selectors = st.one_of(st.none(), patterns, st.text(min_size=1).filter(lambda p: p != "!"))
plain = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(-1e30, 1e30) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
serialized = st.one_of(
    st.none(),
    factors.map(regularizers.l1),
    factors.map(regularizers.l2),
    factors.map(regularizers.from_weight_decay),
    st.builds(
        lambda l1, l2: {"class_name": "L1L2", "config": {"l1": l1, "l2": l2}}, factors, factors
    ),
    st.builds(
        lambda config, module, registered: {
            "module": module,
            "class_name": "Custom",
            "config": config,
            "registered_name": registered,
        },
        st.dictionaries(st.text(), plain, max_size=3),
        st.sampled_from([None, "my.module"]),
        st.sampled_from([None, "my>Custom"]),
    ),
)
conditions = st.integers(0, 99) | st.builds(
    "{}{}".format, st.sampled_from([">=", "<=", "==", "!=", ">", "<", ""]), st.integers(0, 99)
)
multiples = st.builds(
    lambda factor, blocks: graphwd.times(factor, blocks=blocks),
    factors,
    st.none() | st.lists(st.text("ab*?/", max_size=5).map("#".__add__), min_size=1, max_size=3),
)
rules = st.builds(
    Rule,
    serialized | multiples,
    roles=selectors,
    layers=selectors,
    paths=selectors,
    ndim=st.none() | conditions | st.lists(conditions, min_size=1, max_size=3),
    expect=st.none() | st.integers(0, 2**40),
)
policies = st.builds(
    lambda rules, mechanism: Policy(rules, mechanism=mechanism),
    st.lists(rules, max_size=4),
    st.sampled_from(["penalty", "decoupled"]),
)
