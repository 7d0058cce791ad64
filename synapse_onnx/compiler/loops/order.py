"""The order in which a loop goes through time, and the steps that it leaves out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

__all__ = ["Order"]


@dataclass(frozen=True)
class Order:
    """The order in which a loop goes through time.

    A loop from the last step to the first is one from the first to the last whose sequences are
    turned around, and so are the stacks of its values, if the code turns them around again.

    A loop that leaves steps out is one over all steps of shorter sequences::

        for t in range(1, T, 2): ... x[t]     ->     for x_t in x[1::2]: ...

    Attributes:
        backwards: whether sequences are read from their end.
        stacks_backwards: whether the first part of a stack is the value of the last step.
        start: the first step that is taken.
        stride: how many steps it is from one that is taken to the next.
        left_out: how many steps at the end are left out, whatever the stride.
        ahead: how many steps later its sequences are read: the last steps read the last one again.
        both_ways: whether each loop has an order of its own.
    """

    backwards: bool = False
    stacks_backwards: bool = False
    start: int = 0
    stride: int = 1
    left_out: int = 0
    ahead: int = 0
    both_ways: bool = False

    @property
    def takes_all(self) -> bool:
        """Whether the loop leaves no step out."""
        return self.stride == 1 and self.start == self.left_out == 0

    def count(self, length: Any) -> Any:
        """Return how many steps are taken of a sequence of this length, a number or a symbol."""
        if self.takes_all:
            return length
        between = length - self.left_out - self.start
        count = (between + self.stride - 1) // self.stride
        return max(count, 0) if isinstance(count, int) else count

    def length(self, count: int, residue: int = 0) -> int:
        """Return a length of which so many steps are taken: one that is longer by a residue."""
        more = residue % self.stride
        return self.start + self.left_out + self.stride * (count - 1) + 1 + more

    @property
    def part(self) -> tuple[int, int, int]:
        """The steps that are taken, as a slice has them: ``x[start:end:stride]``."""
        return self.start, -self.left_out or sys.maxsize, self.stride

    def is_part(self, start: int, end: int, stride: int, length: int) -> bool:
        """Whether a slice of a sequence of this length is the steps that are taken."""
        return (start, stride) == (self.start, self.stride) and end == length - self.left_out

    def taken(self, index: int, length: int) -> int | None:
        """Return which of the steps that are taken an index is; None of one that is left out."""
        step, rest = divmod(index - self.start, self.stride)
        return step if rest == 0 and 0 <= step < self.count(length) else None
