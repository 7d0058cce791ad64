"""Steps that differ by the remainder of their number: ``if t % 2 == 0``.

A step that is read as late as every second one before it, as the output of a layer that runs in
every second step is, has another delay in each phase::

    t                                  0    1    2    3    4    5
    what the output reads              s0   s0   s2   s2   s4   s4
    delay                              0    1    0    1    0    1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from synapse_onnx.compiler.loops.members import identity
from synapse_onnx.compiler.loops.terms import Size, Term
from synapse_onnx.compiler.loops.times import Times

__all__ = ["period_of"]


def period_of(
    values: Mapping[Size, Mapping[int, Any]], times: Mapping[Size, Times], early: int
) -> int | None:
    """Return after how many steps the values of steps are computed in the same way again.

    Args:
        values: what a step reads, by trace and step.
        times: the times of terms in each trace.
        early: so many of the first steps may differ.

    Returns:
        The shortest period that is seen twice; None if there is none.
    """
    late = {
        size: {t: value for t, value in steps.items() if t >= early}
        for size, steps in values.items()
    }
    longest = max(late.values(), key=len)
    for period in range(2, len(longest) // 2 + 1):
        counts = Counter(t % period for t in longest)
        if min(counts.values()) > 1 and all(
            _phase(late, times, period, phase) for phase in range(period)
        ):
            return period
    return None


def _phase(
    values: Mapping[Size, Mapping[int, Any]], times: Mapping[Size, Times], period: int, phase: int
) -> bool:
    """Whether all steps of a phase read the same, or what is computed in the same way."""
    ways = set()
    same = True
    for size, steps in values.items():
        chosen = {t: value for t, value in steps.items() if t % period == phase}
        same = same and len({identity(value) for value in chosen.values()}) <= 1
        ways |= {_way(value, t, times[size]) for t, value in chosen.items()}
    return same or (len(ways) == 1 and None not in ways)


def _way(value: Any, t: int, times: Times) -> Any:
    """Return the operator of a value, and how many steps ago it was computed."""
    if not isinstance(value, Term):
        return type(value).__name__
    time = times.of(value)
    return None if time is None or time > t else (value.op, t - time)
