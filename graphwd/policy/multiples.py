"""Multiples: rules that multiply what earlier rules gave, alike or by the depth of a block."""

from __future__ import annotations

import fnmatch
import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from graphwd.errors import PolicyError
from graphwd.policy import parsing

_Block: TypeAlias = tuple[float, ...]
_BOTTOM: _Block = ()
_TOP: _Block = (math.inf,)


@dataclass(frozen=True, slots=True)
class Times:
    """A multiple of what earlier rules gave: what `graphwd.times` returns."""

    factor: float  # with `blocks`, for each block between the weight and the top of the model
    blocks: tuple[str, ...] | None = None  # the patterns that find a block's number in a path

    def factors(self, paths: Sequence[str], chosen: Sequence[bool]) -> list[float]:
        """What each slot's penalty is multiplied by, from the paths of all, in their order."""
        if self.blocks is None:
            return [self.factor] * len(paths)
        blocks = _blocks_of(paths, self.blocks)
        # The distance from the top counts the blocks of the chosen ones alone.
        levels = sorted({block for block, counts in zip(blocks, chosen, strict=True) if counts})
        distance = {block: len(levels) - 1 - place for place, block in enumerate(levels)}
        return [self.factor ** distance.get(block, 0) for block in blocks]

    def finds_blocks(self, paths: Sequence[str]) -> bool:
        """Whether a block's number is found in any of these paths, where it is asked for."""
        return self.blocks is None or any(_number(path, self.blocks) is not None for path in paths)

    def describe(self) -> str:
        """A short text for tables and messages: `times 0.1`."""
        by = "" if self.blocks is None else f" for each block of {'|'.join(self.blocks)}"
        return f"times {self.factor:.6g}{by}"

    def to_dict(self) -> dict[str, Any]:
        """The entries of a rule's table that say the same."""
        blocks = {} if self.blocks is None else {"blocks": list(self.blocks)}
        return {"times": self.factor, **blocks}


def times(factor: float, *, blocks: str | Sequence[str] | None = None) -> Times:
    """Makes a rule multiply what earlier rules gave, instead of giving a penalty of its own.

    What no earlier rule gave a penalty stays as it is. The factor is a plain number, without a
    unit: it multiplies a factor of L2 and a weight decay alike. With `times(0)` there is no
    penalty.

    **By depth.** With `blocks`, the factor is raised to the distance from the top of the model, as
    layer-wise policies do (BEiT, ConvNeXt): the last block that has a penalty to multiply, or
    what comes after all blocks, such as the classifier, keeps what it has, the one below it gets
    `factor` times that, the next one `factor ** 2` times, down to what comes before all blocks,
    such as the patch embedding. What lies between two blocks counts with the one that follows.

    Args:
        factor: Float of at least 0.
        blocks: String, or a list of them: globs over the slot's path, with `#` where a block's
            number stands: `"*_block_#/*"`. A pattern with several numbers, such as
            `"*stage_#_block_#*"`, puts blocks in the order of the first, then of the second. The
            first pattern that matches a path counts.

    Returns:
        What a `graphwd.Rule` takes in place of a regularizer.

    Raises:
        PolicyError: when the factor is negative or not finite, or a pattern has no `#`.

    Example:

    ```python
    policy = graphwd.Policy([
        graphwd.Rule(graphwd.weight_decay(0.05), ndim=">=2", roles="!*bias*"),
        graphwd.Rule(graphwd.times(0.1), paths="backbone/*"),
        graphwd.Rule(graphwd.times(0.75, blocks="*transformer_block_#/*")),
    ])
    ```
    """
    return times_from(factor, blocks, "times")


def times_from(factor: Any, blocks: Any, where: str) -> Times:
    """A `Times` from what a user or a file gives, checked."""
    number = parsing.factor(factor, f"{where}: `times`" if where != "times" else where)
    if blocks is None:
        return Times(number)
    patterns = parsing.patterns(blocks, "blocks", where)
    for pattern in patterns:
        if "#" not in pattern or pattern.startswith("!"):
            raise PolicyError(
                f"{where}: `blocks` has the pattern '{pattern}'; put `#` where a block's number "
                "stands, as in '*block_#*', and no `!` before it."
            )
    return Times(number, patterns)


def _blocks_of(paths: Sequence[str], patterns: tuple[str, ...]) -> list[_Block]:
    """The block of each path: of its own number, or of the place between blocks where it stands."""
    found = [_number(path, patterns) for path in paths]
    following: list[_Block] = []
    after: _Block = _TOP
    for block in reversed(found):
        after = after if block is None else block
        following.append(after)
    blocks: list[_Block] = []
    before: _Block | None = None
    for block, after in zip(found, reversed(following), strict=True):
        before = before if block is None else block
        # Where the numbers begin anew, there is another stack of blocks, and this is its bottom.
        between = before is not None and after >= before
        blocks.append(block if block is not None else after if between else _BOTTOM)
    return blocks


def _number(path: str, patterns: tuple[str, ...]) -> _Block | None:
    for expression in _expressions(patterns):
        if (match := expression(path)) is not None:
            return tuple(map(int, match.groups()))
    return None


@functools.lru_cache(maxsize=256)
def _expressions(patterns: tuple[str, ...]) -> list[Callable[[str], re.Match[str] | None]]:
    digits = r"(?<!\d)(\d+)(?!\d)"
    return [re.compile(fnmatch.translate(p).replace(r"\#", digits)).match for p in patterns]
