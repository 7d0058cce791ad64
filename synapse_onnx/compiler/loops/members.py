"""What steps read: values of one family, some steps ago, but for the first steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse_onnx.compiler.loops.refusals import NoLoopError, UndrivenError
from synapse_onnx.compiler.loops.terms import Size, Term
from synapse_onnx.compiler.loops.times import Times

__all__ = [
    "EARLY", "IrregularError", "Values", "agree", "by_size", "identity",
    "members_of", "read_ahead",
]  # fmt: skip

#: how many of the first steps may differ from the later ones
EARLY = 3

#: values by trace and step
Values = dict[tuple[Size, int], Any]


class IrregularError(Exception):
    """Values are none of one family, and why; the second argument is one of them."""

    refusal = NoLoopError


class UndrivenMemberError(IrregularError):
    """The step of a value is unknown, for it reads no input."""

    refusal = UndrivenError


def agree(one: Mapping[tuple[Size, int], Term], other: Mapping[tuple[Size, int], Term]) -> bool:
    """Whether two families have the same value wherever both have one."""
    return all(other.get(key, term) is term for key, term in one.items())


def identity(value: Any) -> Any:
    """Return what is equal of equal values."""
    return id(value) if isinstance(value, Term) else repr(value)


def by_size(values: Mapping[tuple[Size, int], Any]) -> dict[Size, dict[int, Any]]:
    """Return values by trace, and in each by step."""
    steps: dict[Size, dict[int, Any]] = {}
    for (size, t), value in values.items():
        steps.setdefault(size, {})[t] = value
    return steps


def read_ahead(members: Mapping[tuple[Size, int], Any], times: Mapping[Size, Times]) -> int | None:
    """Return how many steps ahead steps read one sequence; None if they read something else."""
    for ahead in range(1 + max(each.ahead for each in times.values())):
        if all(
            isinstance(value, Term) and times[size].is_read(value, t, ahead)
            for (size, t), value in members.items()
        ):
            return ahead
    return None


def members_of(
    steps: Mapping[Size, Mapping[int, Any]], times: Mapping[Size, Times], longest: Size
) -> tuple[int, Values, Values]:
    """Part what steps read into values of a family and those at early steps that are none.

    Args:
        steps: what a step reads, by trace and step.
        times: the times of terms in each trace.
        longest: the longest trace.

    Returns:
        How many steps ago the values were computed; these values; and those at early steps.

    Raises:
        IrregularError: they are none of a family.
    """
    values = {(size, t): value for size, found in steps.items() for t, value in found.items()}
    if read_ahead(values, times) is not None:
        return 0, values, {}
    delay = _delay(steps, times, longest)
    regular: Values = {}
    early: Values = {}
    for size, found in steps.items():
        op = getattr(found[max(found)], "op", None)
        fits = True  # until a value does not, from the last step down
        for t in sorted(found, reverse=True):
            value = found[t]
            fits = (
                fits
                and isinstance(value, Term)
                and value.op is op
                and t >= delay
                and times[size].is_at(value, t - delay)
            )
            (regular if fits else early)[size, t] = value
    latest = max((t for _, t in early), default=-1)
    if latest > max(EARLY, delay):
        raise IrregularError(
            f"step {latest} is computed in another way than the later ones",
            early.get((longest, latest)) or next(iter(regular.values())),
        )
    return delay, regular, early


def _delay(
    steps: Mapping[Size, Mapping[int, Any]], times: Mapping[Size, Times], longest: Size
) -> int:
    """Return how many steps ago the last step computed what it reads."""
    delays = set()
    for size, values in steps.items():
        own = [t for t in values if t <= times[size].latest]
        t = max(own or values)
        value = values[t]
        if not isinstance(value, Term):
            raise IrregularError("a value is a number at one step and a tensor at another", None)
        time = times[size].of(value)
        if time is None:
            raise UndrivenMemberError(
                "a value changes from step to step and reads no input of its step: a parameter "
                "of each step, or a state that no input drives",
                value,
            )
        delays.add(t - time)
    if len(delays) != 1 or min(delays) < 0:
        raise IrregularError(
            "a step reads inputs of later steps, or of steps that are not one after the other",
            steps[longest][max(steps[longest])],
        )
    return delays.pop()
