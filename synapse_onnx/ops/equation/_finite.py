"""A loop of floats whose resets are products, tried before the one that chooses. ::

    tried_reached, tried_voltage = Scan<body = finite_step ( ... ) ... >(voltage, x)
    finite = Less(ReduceSumSquare<keepdims = 0>(tried_voltage), float_constant)
    s, last_voltage = If(finite) <
        then_branch = as_tried () => ( ... ) { ... },
        else_branch = exact () => ( ... ) { ... Scan<body = step ( ... ) ... }
    >

``v - spiked * v`` is what ``Where(spiked, 0, v)`` is, but for the sign of a zero, and ONNX
Runtime's Where takes as long as the rest of a step twice over. Zero times infinity is no zero:
where a number is not finite a product makes NaN of it. NaN and infinity stay what they are through
sums and products. So the last states show whether any step met one. That holds for an equation
only if every product with a spike, and every void state, reaches such a state in the same step,
which its step itself tells; others choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

import onnx_ir as ir

from synapse_onnx.ops._writer import BOOL, FLOAT, Signature, Writer
from synapse_onnx.ops.equation._arithmetic import Arithmetic, Operand
from synapse_onnx.ops.equation._interface import Interface
from synapse_onnx.ops.equation._loop import step_of
from synapse_onnx.ops.equation._omits import without
from synapse_onnx.ops.equation._values import write_values

__all__ = ["Finite", "witnesses"]

#: operators through which NaN and infinity stay what they are
_KEEPING = ("Add", "Sub", "Mul")


class Finite(Arithmetic):
    """:class:`Arithmetic` of floats, all of which are finite."""

    def reset(self, condition: Any, value: Any, state: Operand) -> Operand:
        """Write ``Sub(state, Mul(Cast<to = 1>(condition), state))``, and what it is set to. ::

        Sub(voltage, Mul(spiked, amount))  # where the value is ``voltage - amount``
        Sub(voltage, spiked)               # and the amount is 1
        """
        if condition is False:
            return state
        spiked = self.cast(condition, FLOAT)
        less = value.value.producer() if isinstance(value, Operand) else None
        if less is not None and less.op_type == "Sub" and less.inputs[0] is state.value:
            amount = less.inputs[1]
            made = None if amount is None else amount.producer()
            constant = made is not None and made.op_type == "Constant"
            if constant and amount is self.w.number(1, FLOAT):
                return state - spiked
            return state - spiked * Operand(self, amount)  # type: ignore[arg-type]
        kept = state - spiked * state
        return kept if not isinstance(value, Operand) and value == 0 else kept + spiked * value

    def raised(self, condition: Operand, amount: Operand, state: Any) -> Operand:
        """Write ``Add(state, Mul(Cast<to = 1>(condition), amount))``."""
        raised: Operand = self.cast(condition, FLOAT) * amount + state
        return raised


def witnesses(op: Interface, omits: Set[str] = frozenset()) -> list[str] | None:
    """Return states whose last values show whether all of a sequence was finite.

    Args:
        op: the op.
        omits: what its loop leaves out.

    Returns:
        Names of states; None if there are none that show it.
    """
    if op.fixed:
        return None
    w = Writer(Signature(op.name, op.inputs, op.outputs, op.attributes), 21)
    values = without(op, write_values(op, w), frozenset(omits))
    rows, graph = step_of(op.e, Finite(w, FLOAT), values)
    reached = {name: set(_kept_by(before)) for name, before, _ in rows}
    lasting = {name: after for name, _, after in rows if after in reached[name]}
    products = [value for node in graph if _is_masked(node) for value in node.outputs]
    void = [after for name, _, after in rows if name in omits]
    found: list[str] = []
    for value in (*products, *void):
        kept = set(_kept_by(value))
        shown = [name for name, after in lasting.items() if after in kept]
        if not shown:
            return None
        found += shown[-1:]
    return list(dict.fromkeys(found))


def _is_masked(node: ir.Node) -> bool:
    """Whether a node is a product with 0 or 1."""
    makers = [value.producer() for value in node.inputs if value is not None]
    return node.op_type == "Mul" and any(
        maker is not None
        and maker.op_type == "Cast"
        and maker.inputs[0] is not None
        and maker.inputs[0].dtype == BOOL
        for maker in makers
    )


def _kept_by(value: ir.Value) -> Iterator[ir.Value]:
    """Yield a value, and all that is not finite where it is not."""
    seen, todo = {value}, [value]
    while todo:
        each = todo.pop()
        yield each
        for use in each.uses():
            if use.node.op_type in _KEEPING:
                new = [y for y in use.node.outputs if y not in seen]
                seen.update(new)
                todo += new
