"""Multiples: what a rule multiplies, and how often by the depth of a block."""

import math

import pytest

import graphwd


def decayed(paths, blocks, base=0.5):
    """How often each path of a matrix is multiplied; the vectors have nothing to multiply."""
    chosen = [not path.endswith(("bias", "gamma")) for path in paths]
    found = graphwd.times(base, blocks=blocks).factors(paths, chosen)
    return {
        path: round(math.log(factor, base)) if counts else None
        for path, factor, counts in zip(paths, found, chosen, strict=True)
    }


def test_depth_counts_from_the_top():
    paths = ["stem/kernel"]
    paths += [f"stack/block_{n}/{role}" for n in range(12) for role in ("kernel", "bias")]
    paths += ["norm/gamma", "head/kernel"]
    found = decayed(paths, "*block_#/*")
    assert found["head/kernel"] == 0
    assert found["norm/gamma"] is None
    assert [found[f"stack/block_{n}/kernel"] for n in range(12)] == list(range(12, 0, -1))
    assert found["stem/kernel"] == 13


def test_without_a_head_the_last_block_is_the_top():
    paths = ["stem/kernel", "block_1/kernel", "block_2/kernel", "norm/gamma"]
    assert list(decayed(paths, "block_#*").values()) == [2, 1, 0, None]


def test_what_lies_between_blocks_counts_with_the_next():
    paths = ["stem/kernel", "stage_0_block_0/kernel", "stage_0_block_1/kernel", "down_0/kernel"]
    paths += ["stage_1_block_0/kernel", "stage_1_block_1/kernel", "head/kernel"]
    assert list(decayed(paths, "stage_#_block_#/*").values()) == [5, 4, 3, 2, 2, 1, 0]


def test_numbers_are_whole_and_the_first_pattern_counts():
    paths = ["x/block_9/kernel", "x/block_10/kernel", "y/layer2_11/kernel", "block_12_3/kernel"]
    assert list(decayed(paths, ["*block_#/*", "*_#/*"]).values()) == [2, 1, 0, 3]


def test_a_second_stack_begins_at_the_bottom():
    paths = [f"{tower}/{part}/kernel" for tower in "ab" for part in ("in", "block_0", "block_1")]
    found = decayed(paths, "*block_#*")
    assert [found[path] for path in paths] == [2, 1, 0] * 2


def test_a_block_of_which_nothing_is_chosen_is_no_step():
    paths = ["block_0/kernel", "block_1/bias", "block_2/kernel", "head/bias"]
    assert list(decayed(paths, "block_#/*").values()) == [1, None, 0, None]


def test_without_blocks_all_are_multiplied_alike():
    plain = graphwd.times(0.25)
    assert plain.factors(["a/kernel", "b/bias"], [True, False]) == [0.25, 0.25]
    assert plain.finds_blocks([])
    assert graphwd.times(0.25, blocks="b#/*").finds_blocks(["a/kernel", "b1/kernel"])
    assert not graphwd.times(0.25, blocks="b#/*").finds_blocks(["a/kernel", "b/kernel"])


@pytest.mark.parametrize("blocks", [None, "block_#/*", ["stage_#_#/*", "#/*"]])
def test_it_is_told_as_it_is_written(blocks):
    made = graphwd.times(0.1, blocks=blocks)
    told = made.to_dict()
    assert graphwd.times(told.pop("times"), **told) == made
    assert made.describe().startswith("times 0.1")
    assert all(pattern in made.describe() for pattern in made.blocks or ())
