"""Last values of a loop: which earlier values belong to them, where no stack tells.

Each function returns members of a family, (trace, step) -> value, or none where it does not fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from synapse_onnx.compiler.loops.terms import Size, Term, terms_in
from synapse_onnx.compiler.loops.times import Cones, Times

__all__ = ["in_shorter_traces", "sums"]


def in_shorter_traces(
    values: Mapping[Size, Term], longer: Sequence[Size], cones: Cones
) -> dict[tuple[Size, int], Any]:
    """Take the last values of shorter traces for earlier ones.

    The sum of 5 spikes is in the trace of 6 steps.

    Args:
        values: the last value of each trace.
        longer: the traces of one batch size, the shortest first.
        cones: what terms are computed from.
    """
    cone = cones.of(values[longer[-1]])
    if not all(values[size].number in cone for size in longer[:-1]):
        return {}
    members: dict[tuple[Size, int], Any] = {}
    for i, size in enumerate(longer):
        for shorter in longer[: i + 1]:
            members[size, shorter.steps - 1] = values[shorter]
    for size in values:
        members[size, size.steps - 1] = values[size]
    return members


def sums(
    values: Mapping[Size, Term], times: Mapping[Size, Times], first: int
) -> dict[tuple[Size, int], Any]:
    """Take what a sum is added to for the sum until the step before, and so on.

    A sum of spikes times ``T - t`` is in no other trace.

    Args:
        values: the last value of each trace.
        times: the times of terms in each trace.
        first: the latest step at which a sum may begin.
    """
    return _walked(values, times, first) or _kept(values, times)


def _kept(values: Mapping[Size, Term], times: Mapping[Size, Times]) -> dict[tuple[Size, int], Any]:
    """Take a sum for itself until it is added to again: ``if t % 2 == 0: total += x[t]``."""
    members: dict[tuple[Size, int], Any] = {}
    for size, value in values.items():
        of = times[size].of
        added = []  # the sums, and when they were computed, the last one first
        term: Term | None = value
        while term is not None and (time := of(term)) is not None:
            added.append((time, term))
            before = (each for each in terms_in(term) if each.op is value.op)
            term = next((each for each in before if (of(each) or 0) < time), None)
        gaps = {later - time for (later, _), (time, _) in itertools.pairwise(added)}
        if len(gaps) != 1 or not size.steps - added[0][0] <= min(gaps) > added[-1][0]:
            return {}
        until = size.steps
        for time, term in added:
            members |= {(size, t): term for t in range(time, until)}
            until = time
    return members


def _walked(
    values: Mapping[Size, Term], times: Mapping[Size, Times], first: int
) -> dict[tuple[Size, int], Any]:
    """Take what a sum is added to at a step for the sum until the step before."""
    members: dict[tuple[Size, int], Any] = {}
    for size, value in values.items():
        is_at = times[size].is_at
        term: Term | None = value if is_at(value, size.steps - 1) else None
        t = size.steps
        while term is not None and t > 0:
            t -= 1
            members[size, t] = term
            before = (each for each in terms_in(term) if is_at(each, t - 1))
            term = next((each for each in before if each.op is value.op), None)
        if t >= first:
            return {}
    return members
