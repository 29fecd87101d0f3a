"""Patterns of paths: they find their own weights in every file, and no others."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphwd
from graphwd.training.patterns import VariablePath, regular_expressions


def test_the_patterns_tell_same_names_apart_and_refuse_the_same_path():
    places = {
        1: [VariablePath("model/a/kernel"), VariablePath("model/b/a/kernel")],
        2: [
            VariablePath("model/c/a/kernel"),
            VariablePath("model/block/dense_3/kernel", frozenset({"dense_3"})),
        ],
    }
    found = regular_expressions(places)
    for group, members in places.items():
        for place in members:
            hits = [g for g, pattern in found.items() if re.fullmatch(pattern, place.path)]
            assert hits == [group], place
    assert re.fullmatch(found[2], "block/dense/kernel")
    with pytest.raises(graphwd.GraphwdError, match=r"'a/kernel'.*different names"):
        regular_expressions({1: [VariablePath("a/kernel")], 2: [VariablePath("a/kernel")]})


NAMES = st.sampled_from(["a", "b", "block", "dense", "dense_1", "dense_2", "kernel", "a.b", "(c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(PATHS, st.integers(1, 3), min_size=1, max_size=8))
def test_every_path_is_found_by_its_own_group_alone(groups):
    places = {}
    for path, group in groups.items():
        places.setdefault(group, []).append(VariablePath(path))
    found = regular_expressions(places)
    for path, group in groups.items():
        hits = [other for other, pattern in found.items() if re.fullmatch(pattern, path)]
        assert hits == [group], (path, found)


@given(st.dictionaries(PATHS, st.integers(1, 3), min_size=1, max_size=8))
def test_a_model_of_another_name_has_the_same_patterns(groups):
    """Where a path is told by its end, as it is but for layers of the same name."""
    places = {}
    for path, group in groups.items():
        places.setdefault(group, []).append(VariablePath(f"model/layer/{path}"))
    found = regular_expressions(places)
    for path, group in groups.items():
        renamed = f"model_1/layer/{path}"
        hits = [other for other, pattern in found.items() if re.fullmatch(pattern, renamed)]
        assert hits in ([group], []) or set(hits) <= {group}
