"""Stacks: at which steps their parts are computed."""

from __future__ import annotations

from collections.abc import Mapping

from synapse_onnx.compiler.loops.terms import Size, Term
from synapse_onnx.compiler.loops.times import Times

__all__ = ["grows", "not_the_steps", "steps_of_parts"]


def grows(values: Mapping[Size, Term]) -> bool:
    """Whether stacks have more parts in longer traces."""
    lengths = [len(term.args[0]) for term in values.values()]
    return lengths[0] < max(lengths)


def steps_of_parts(
    values: Mapping[Size, Term], times: Mapping[Size, Times]
) -> tuple[int, int] | None:
    """Return the step of the first part of stacks, and how many steps later the next one is.

    ``stack(spikes[1::2])`` has the spikes of steps 1, 3, 5 and so on: 1 and 2.

    Args:
        values: the stack of each trace.
        times: the times of terms in each trace.

    Returns:
        Both; None if no such steps are as many as there are parts.
    """
    strides = {1} | {_stride(term, times[size]) for size, term in values.items()}
    for stride in sorted(strides):
        for start in range(max(size.steps for size in values)):
            if all(
                len(range(start, size.steps, stride)) == len(term.args[0])
                for size, term in values.items()
            ):
                return start, stride
    return None


def not_the_steps(values: Mapping[Size, Term]) -> str:
    """Say that the parts of stacks are not those of all steps, nor of every k-th one."""
    more = {len(term.args[0]) - size.steps for size, term in values.items()}
    if len(more) == 1:
        return f"a list has {more.pop()} values more than there are steps"
    return "the number of values that are stacked is not the number of steps"


def _stride(stack: Term, times: Times) -> int:
    """Return how many steps the last part of a stack is after the one before it."""
    parts = stack.args[0][-2:] if len(stack.args[0]) > 1 else (None, None)
    one, other = (times.of(part) if isinstance(part, Term) else None for part in parts)
    return max(other - one, 1) if one is not None and other is not None else 1
