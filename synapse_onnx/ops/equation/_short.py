"""A loop whose products are exact in float32, tried before those in 32 and 64 bits. ::

    tried_bits, tried_current, tried_voltage, exact = If(likely) <
        then_branch = short () => ( ... ) { ... Scan<body = short_step ( ... ) ... },
        else_branch = untried () => ( ... ) { ... }
    >
    s, last_current, last_voltage = If(exact) < ... >

15/16 has four bits, so its product with a state below 2**20 has 24 and is exact in float32; a cast
to an integer truncates it. Bounds prove this for most states. A reset keeps a voltage low, and the
bounds say little about how far it falls. The loop therefore returns its lowest value. All states
are right up to the first inexact product, and so is the state in that product: the lowest value
shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import onnx_ir as ir

from synapse_onnx.ops._writer import BOOL, FLOAT, INT32
from synapse_onnx.ops.equation._arithmetic import Operand, Short
from synapse_onnx.ops.equation._bounds import LEAST_ODD_PART, SHORT_LIMIT, Bounds, all_of
from synapse_onnx.ops.equation._interface import Interface
from synapse_onnx.ops.equation._loop import Values, write_loop
from synapse_onnx.ops.equation._values import narrow_values

__all__ = ["Tried", "may_be_short", "try_short"]

#: the loop is tried where states may fall below what is exact, by bounds, but not by more than this
_TRIED_BEYOND = 4

#: of fewer neurons than this the time is that of the nodes, not of their numbers
_FEW_NEURONS = 1 << 11


class Tried(NamedTuple):
    """What a loop that was tried gave: spikes, last states, and whether they are right."""

    bits: Operand
    last: list[Operand]
    exact: Operand


def may_be_short(op: Interface, values: Values) -> bool:
    """Whether an op has decays that often have few bits, and multiplies what resets keep low."""
    e = op.e
    return e.has_upper_bounds and isinstance(values.p[e.memory[e.membrane]], Operand)


def try_short(
    op: Interface,
    a: Short,
    values: Values,
    bounds: Mapping[str, Operand],
    starts: SimpleNamespace,
    finite: Operand,
    name: str,
) -> Tried:
    """Write the loop, which is run where it is likely to be exact.

    Args:
        op: the op; it gives spikes, as bits.
        a: the arithmetic.
        values: what the steps compute with, in 64 bits.
        bounds: those of the states over the whole sequence.
        starts: bounds of the states that it starts from.
        finite: whether all currents are finite.
        name: of the graph of a step.
    """
    w, b = a.w, Bounds(a.w, values.currents[0].value)
    kept = {state: values.p.get(op.e.memory.get(state, "")) for state in op.states}
    # a state that is not multiplied must fit all the same: in 24 bits on Loihi, in int32 for a norm
    odd = {
        state: b.odd_part(fraction) if isinstance(fraction, Operand) else LEAST_ODD_PART
        for state, fraction in kept.items()
    }
    upper = op.e.upper_bounds(b, starts, SimpleNamespace(**values.c))
    likely = [a.op("Greater", a.op("Size", values.states[0]), _FEW_NEURONS), finite]
    for state, unit in odd.items():
        if state in upper:
            likely.append(upper[state] * unit < SHORT_LIMIT)
        beyond = _TRIED_BEYOND if state in upper else 1
        likely.append(bounds[state] * unit < beyond * SHORT_LIMIT)
    starting = dict(zip(op.states, values.states, strict=True))
    states = [a.cast(x, FLOAT if state in upper else INT32) for state, x in starting.items()]
    inverted = False

    def short() -> Sequence[ir.Value]:
        nonlocal inverted
        lowest = {state: a.cast(starting[state], INT32) for state in upper}
        narrow = narrow_values(op, a, values)._replace(states=states, watched=lowest)
        (bits,), last = write_loop(op.e, a, narrow, op.e.fires, name)
        inverted = bits.inverted
        seen = zip(upper, last[len(states) :], strict=True)
        exact = all_of([b.largest(value) * odd[state] < SHORT_LIMIT for state, value in seen])
        return [x.value for x in (bits, *last[: len(states)], exact)]

    def untried() -> Sequence[ir.Value]:
        start = w.ints(0, name="zero_steps")
        nothing = w.op("Slice", values.currents[0].value, start, start, name="nothing")
        return [w.cast(nothing, BOOL), *(x.value for x in states), w.number(0, BOOL, "false")]

    names = ["tried_bits", *(f"tried_{state}" for state in op.states), "exact"]
    results = w.choose(all_of(likely).value, ("short", short), ("untried", untried), names)
    bits, *last, exact = (Operand(a, value) for value in results)
    bits.inverted = inverted
    return Tried(bits, last, exact)
