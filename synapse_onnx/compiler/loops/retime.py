"""Fewer states: what a step reads of an earlier one is carried as far back as possible.

Where a step reads ``0.9 * mem`` of the step before, the state is the product, and it starts from
``0.9 * 0``. Where that is the same operator on what ``mem`` starts from, the state can be ``mem``::

    product[t] = mul(mem[t], 0.9)
    mem[t] = add(x[t], product[t - 1]; at 0: mul(zeros, 0.9))

    decayed[t] = mul(mem[t - 1]; at 0: zeros, 0.9)
    mem[t] = add(x[t], decayed[t])

The terms are the same, which the checks of :mod:`.find` see again.
"""

from __future__ import annotations

from typing import Any

from synapse_onnx.compiler.loops.form import (
    Apply,
    Family,
    Fixed,
    Form,
    Listed,
    Phases,
    Reference,
)
from synapse_onnx.compiler.loops.groups import grouped
from synapse_onnx.compiler.loops.numbers import Formula

__all__ = ["retime"]


class _CannotError(Exception):
    """A reference stays as it is."""


def retime(form: Form) -> None:
    """Move the delays of a form's loops to the arguments of what is delayed."""
    groups = grouped(form)
    loops = {family: group for family, group in groups.items() if group.recurrent}
    made: dict[Any, Family] = {}
    for family, group in loops.items():
        for slot in family.slots():
            if isinstance(slot, Reference):
                _retime(slot, set(group.families), made)


def _retime(slot: Reference, loop: set[Family], made: dict[Any, Family]) -> None:
    family = slot.family.found()
    if not slot.delay or set(slot.instead) != set(range(slot.delay)) or family not in loop:
        return
    key = (family, slot.delay, *(id(slot.instead[t]) for t in range(slot.delay)))
    if key not in made:
        try:
            made[key] = _delayed(slot, family, loop, made)
        except _CannotError:
            return
    slot.family, slot.delay, slot.instead = made[key], 0, {}


def _delayed(slot: Reference, family: Family, loop: set[Family], made: dict[Any, Family]) -> Family:
    """Return the family that computes from delayed arguments what the slot reads."""
    starts = [slot.instead[t] for t in range(slot.delay)]
    node = family.node
    if family.first or not isinstance(node, Apply):
        raise _CannotError
    for start in starts:
        same = isinstance(start, Apply) and start.op is node.op
        if (
            not same
            or len(start.args) != len(node.args)
            or start.kwargs.keys() != node.kwargs.keys()
        ):
            raise _CannotError
    args = [
        _delayed_slot(each, [start.args[i] for start in starts], loop)
        for i, each in enumerate(node.args)
    ]
    kwargs = {
        name: _delayed_slot(each, [start.kwargs[name] for start in starts], loop)
        for name, each in node.kwargs.items()
    }
    if not any(isinstance(each, Reference) for each in (*args, *kwargs.values())):
        raise _CannotError
    made_family = Family(dict(family.members), Apply(node.op, args, kwargs))
    made_family.shape, made_family.dtype = family.shape, family.dtype
    for each in made_family.slots():
        if isinstance(each, Reference):
            _retime(each, loop, made)
    return made_family


def _delayed_slot(slot: Any, starts: list[Any], loop: set[Family]) -> Any:
    if isinstance(slot, Listed):
        if not all(isinstance(start, list) and len(start) == len(slot.slots) for start in starts):
            raise _CannotError
        return Listed(
            [
                _delayed_slot(each, [start[i] for start in starts], loop)
                for i, each in enumerate(slot.slots)
            ]
        )
    if isinstance(slot, Reference):
        if slot.family.found() not in loop:
            raise _CannotError  # it would delay an input, which takes a state as well
        delay = len(starts)
        instead = dict(enumerate(starts)) | {t + delay: v for t, v in slot.instead.items()}
        return Reference(slot.family.found(), slot.delay + delay, instead)
    if isinstance(slot, Phases):
        raise _CannotError
    value = slot.value if isinstance(slot, Fixed) and not slot.instead else slot
    if isinstance(value, Formula) and value.changes:
        raise _CannotError
    if isinstance(slot, Fixed) and slot.instead:
        raise _CannotError
    if any(start is not value and not _equal(start, value) for start in starts):
        raise _CannotError
    return slot


def _equal(one: Any, other: Any) -> bool:
    plain = isinstance(one, int | float | Formula) or one is None
    return plain and type(one) is type(other) and bool(one == other)
