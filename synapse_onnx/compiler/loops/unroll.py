"""A form unrolled again, to terms: it must give the very terms of a trace."""

from __future__ import annotations

from typing import Any

from synapse_onnx.compiler.loops.form import (
    Apply,
    Entry,
    Family,
    Fixed,
    Form,
    Last,
    Leaf,
    Listed,
    Phases,
    Reference,
    Stack,
    same,
)
from synapse_onnx.compiler.loops.numbers import Formula
from synapse_onnx.compiler.loops.reading import CAT, COMMUTATIVE, SELECT, STACK
from synapse_onnx.compiler.loops.refusals import NoLoopError
from synapse_onnx.compiler.loops.terms import Pool, Size, Term

__all__ = ["unrolled"]


def unrolled(form: Form, size: Size, pool: Pool) -> list[Any]:
    """Return the outputs of a form at a size, as terms of a pool."""
    unroll = _Unroll(size, pool)
    return [unroll.whole(output) for output in form.outputs]


class _Unroll:
    def __init__(self, size: Size, pool: Pool) -> None:
        self._size = size
        self._pool = pool
        self._wholes: dict[int, Any] = {}
        self._steps: dict[tuple[int, int], Term] = {}

    def _number(self, formula: Formula, t: int = 0) -> int | float:
        number: int | float = formula.at(self._size.steps, self._size.batch, t)
        return number

    def whole(self, value: Any) -> Any:
        if isinstance(value, Formula):
            return self._number(value)
        if isinstance(value, list):
            return tuple(map(self.whole, value))
        if not isinstance(value, Leaf | Apply | Stack | Last):
            return value
        if id(value) not in self._wholes:
            self._wholes[id(value)] = self._made(value)
        return self._wholes[id(value)]

    def _made(self, value: Any) -> Any:
        steps = self._size.steps
        if isinstance(value, Leaf):
            return value.term
        if isinstance(value, Last):
            return self._slot(value.slot, steps - 1)
        if isinstance(value, Stack):
            stacked = range(value.start, steps, value.stride)
            parts = tuple(self._slot(value.slot, t) for t in stacked)
            return self._pool.make(CAT if value.joined else STACK, (parts, value.axis))
        args = tuple(self.whole(each) for each in value.args)
        return self._pool.make(
            value.op, args, {name: self.whole(each) for name, each in value.kwargs.items()}
        )

    def _slot(self, slot: Any, t: int) -> Any:
        if isinstance(slot, Listed):
            return tuple(self._slot(each, t) for each in slot.slots)
        if isinstance(slot, Phases):
            return self._slot(slot.slots[t % len(slot.slots)], t)
        if isinstance(slot, Reference | Fixed) and t in slot.instead:
            return self.whole(slot.instead[t])
        if isinstance(slot, Reference):
            return self._step(slot.family, t - slot.delay)
        if isinstance(slot, Fixed):
            return self.whole(slot.value)
        return self._number(slot, t) if isinstance(slot, Formula) else slot

    def _step(self, family: Family, t: int) -> Any:
        """Return the value of a family at a step, of which it has none before the first."""
        family = family.found()
        if t < 0:
            raise NoLoopError("a value is read before the first step")
        if (id(family), t) not in self._steps:
            self._steps[id(family), t] = self._step_term(family, t)
        return self._steps[id(family), t]

    def _step_term(self, family: Family, t: int) -> Any:
        node = family.node
        if t in family.first:
            return self._slot(family.first[t], t)
        if isinstance(node, Entry):
            index = min(t + node.ahead, self._size.steps - 1)
            return self._pool.make(SELECT, (self.whole(node.source), node.axis, index))
        args = tuple(self._slot(slot, t) for slot in node.args)
        if node.op is same:
            return args[0]
        if node.op in COMMUTATIVE and not isinstance(args[0], Term):
            args = args[::-1]  # torch writes 0 + x as x + 0
        return self._pool.make(
            node.op, args, {name: self._slot(slot, t) for name, slot in node.kwargs.items()}
        )
