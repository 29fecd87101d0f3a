"""Repeats: where a sequence repeats itself, and one name for many."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PERIOD = 60  # of repeats
_SHORTEST = 3  # letters that names must begin with for these to say something
_NUMBER = re.compile(r"(\d+)")


def spans(keys: Sequence[int]) -> list[tuple[int, int, int]]:
    """Splits a sequence into repeats: where each starts, its length, and how often it stands.

    Short sequences are found first, so that a stage of equal blocks is folded block by block.

    Args:
        keys: What is there; the same number for what is alike.

    Returns:
        A list of triples that cover the sequence; what repeats nothing stands once.
    """
    gaps = [(0, len(keys))]
    found: list[tuple[int, int, int]] = []
    for period in range(1, min(_PERIOD, len(keys) // 2) + 1):
        left = []
        for low, high in gaps:
            start = low
            while start + 2 * period <= high:
                end = start
                while end + period < high and keys[end] == keys[end + period]:
                    end += 1
                times = (end - start) // period + 1
                if (times - 1) * period < 2:
                    start = end + 1
                    continue
                found.append((start, period, times))
                left.append((low, start))
                low = start = start + period * times
            left.append((low, high))
        gaps = left
    split: list[tuple[int, int, int]] = []
    place = 0
    for start, period, times in [*sorted(found), (len(keys), 0, 0)]:
        if place < start:
            split.append((place, start - place, 1))
        if times:
            split.append((start, period, times))
        place = start + period * times
    return split


def common_name(names: Sequence[str]) -> str:
    """One name for several layers, with `*` for what differs.

    Args:
        names: At least one name.

    Returns:
        A string such as `conv_*_bn`; the first name and an ellipsis where too little is common.
    """
    pieces = [_NUMBER.split(name) for name in names]
    if len({len(piece) for piece in pieces}) == 1:
        texts = [set(column) for column in zip(*pieces, strict=True)]
        if all(len(text) == 1 for text in texts[::2]):
            return "".join(text.pop() if len(text) == 1 else "*" for text in texts)
    shortest = min(names, key=len)
    for end in range(len(shortest), _SHORTEST - 1, -1):
        if all(name.startswith(shortest[:end]) for name in names):
            return shortest[:end] + ("" if end == len(shortest) == max(map(len, names)) else "*")
    # Of names with nothing in common a `*` would say nothing: the first one stands for all.
    return f"{names[0]}, \N{HORIZONTAL ELLIPSIS}"
