"""Values that are computed at every k-th step, and kept until the next one.

What a step reads of the last step but one takes a state for each step between. Kept, it is one::

    v[t] = 0.9 * v[t - 2] + x[t]                at 0, 2, 4, ...
    out[t] = v[t] if t % 2 == 0 else v[t - 1]

    v[t] = 0.9 * kept[t - 1] + x[t]
    kept[t] = v[t] if t % 2 == 0 else kept[t - 1]
    out[t] = v[t] if t % 2 == 0 else kept[t - 1]
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from synapse_onnx.compiler.loops.form import (
    Apply,
    Family,
    Last,
    Listed,
    Phases,
    Reference,
    Stack,
    parts_of,
    same,
)

__all__ = ["hold"]


@dataclass(frozen=True)
class _Read:
    """A reference to a family, and the steps at which it is read; None of those that stay."""

    slot: Reference
    steps: frozenset[int] | None


#: a period for which a state for each step takes fewer operators
_SHORT = 3

#: so many steps show the phases of a stack
_STEPS = 64


def hold(outputs: list[Any]) -> None:
    """Keep the values of a form's families that have one at every k-th step alone."""
    reads: dict[Family, list[_Read]] = defaultdict(list)
    for part in parts_of(outputs):
        for read in _reads(part):
            reads[read.slot.family.found()].append(read)
    for family, found in reads.items():
        steps = sorted({t for _, t in family.members})
        period = math.gcd(*(t - steps[0] for t in steps))
        if period > _SHORT and isinstance(family.node, Apply):
            _hold(family, steps[0], period, found)


def _reads(part: Any) -> Iterator[_Read]:
    """Yield the references of a part of a form."""
    if isinstance(part, Last) and isinstance(part.slot, Reference):
        yield _Read(part.slot, None)
    elif isinstance(part, Last):
        yield from _in(part.slot, frozenset(range(_STEPS)))
    elif isinstance(part, Stack):
        if not isinstance(part.slot, Reference) or part.slot.delay:
            steps = range(part.start, part.start + _STEPS * part.stride, part.stride)
            yield from _in(part.slot, frozenset(steps))
    elif isinstance(part, Family) and isinstance(part.node, Apply):
        steps_of = frozenset(t for _, t in part.members)
        for slot in (*part.node.args, *part.node.kwargs.values()):
            yield from _in(slot, steps_of)


def _in(slot: Any, steps: frozenset[int]) -> Iterator[_Read]:
    if isinstance(slot, Reference):
        yield _Read(slot, steps)
    elif isinstance(slot, Listed):
        for each in slot.slots:
            yield from _in(each, steps)
    elif isinstance(slot, Phases):
        period = len(slot.slots)
        for phase, each in slot.known():
            yield from _in(each, frozenset(t for t in steps if t % period == phase))


def _hold(family: Family, first: int, period: int, reads: list[_Read]) -> None:
    """Keep a family's values from its first step on, if whoever reads it reads the last one."""
    late: list[Reference] = []
    starts: dict[int, Any] = {}
    for read in reads:
        slot = read.slot
        phases = {(t - first) % period for t in read.steps or ()}
        if len(phases) != 1 or any(t - slot.delay >= first for t in slot.instead):
            return
        (since,) = phases  # steps since the family's last one
        if slot.delay != (since or period):
            if slot.delay or since:
                return
            continue  # its own step reads it
        late.append(slot)
        starts |= {id(value): value for value in slot.instead.values()}
    if not late or len(starts) > 1:
        return
    start = dict.fromkeys([0], *starts.values()) if starts else {}
    held = Family(dict(family.members), shape=family.shape, dtype=family.dtype)
    kept = [Reference(held, 1, start) for _ in range(period)]
    kept[first % period] = Reference(family)
    held.node = Apply(same, [Phases(list[Any](kept))], {})
    for slot in late:  # the step before has the same
        slot.family, slot.delay, slot.instead = held, 1, start
