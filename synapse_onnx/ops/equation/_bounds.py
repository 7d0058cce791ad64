"""Bounds of states over a whole sequence, which a body computes before it chooses a loop."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from synapse_onnx.ops._writer import DOUBLE, FLOAT, Writer
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE
from synapse_onnx.ops.equation._arithmetic import Arithmetic, Operand

__all__ = [
    "LEAST_ODD_PART",
    "NARROW_LIMIT",
    "SHORT_LIMIT",
    "WHOLE_LIMIT",
    "Bounds",
    "all_of",
    "finite",
]

#: states below this are computed in 32 bits: half of what float32 holds exactly
NARROW_LIMIT = 1 << 23

#: states below this are kept whole by a product with 4096 in 64 bits, and their sums are exact; no
#: state below it reaches such a level
WHOLE_LIMIT = 1 << 51

#: products below this are exact in float32
SHORT_LIMIT = 1 << 24

#: the odd part of a fraction counts as this at the least: below half of 2**24 no state is wrapped
#: or cut off at 24 bits either
LEAST_ODD_PART = 2

#: sums of squares of float32 beyond this may be infinite, or NaN
_FINITE = 3e38


class Bounds:
    """What :meth:`Equation.bounds` computes with: bounds of magnitudes, as float64 scalars.

    Args:
        w: the writer of the body.
        sequence: a sequence, time first.
    """

    def __init__(self, w: Writer, sequence: ir.Value) -> None:
        self._a, self._sequence = Arithmetic(w, DOUBLE), sequence

    def largest(self, value: Any, scale: Operand | None = None) -> Operand:
        """Bound |value|, a tensor, or a fraction that is the number 0 or 1. ::

            size_of_voltage = ReduceMax(Abs(Cast<to = 11>(voltage)))
            most_x_scaled = Mul(ReduceMax(x), scale_float)
            least_x_scaled = Mul(ReduceMin(x), scale_float)
            size_of_x = Max(Cast(most_x_scaled), Sub(double_0, Cast(least_x_scaled)))

        Integers become floats first, for the least of them has no absolute value. Sequences have no
        copy without signs.

        Args:
            value: the tensor or the number.
            scale: what multiplies all of a sequence of float32. Rounding is monotonic, so that the
                largest product is that of the largest value.
        """
        a = self._a
        if not isinstance(value, Operand):
            return a.operand(value * DECAY_ONE)
        name = f"size_of_{value.value.name}"
        if value.dtype != FLOAT:
            size = a.op("Abs", a.cast(value, DOUBLE))
            return a.op("ReduceMax", size, keepdims=0, name=name)
        most, least = (
            a.op(operator, value, keepdims=0, name=f"{stem}_{value.value.name}")
            for operator, stem in (("ReduceMax", "most"), ("ReduceMin", "least"))
        )
        if scale is not None:
            most, least = (
                a.op("Mul", end, scale, name=f"{end.value.name}_scaled") for end in (most, least)
            )
        return a.op("Max", a.cast(most, DOUBLE), 0 - a.cast(least, DOUBLE), name=name)

    def odd_part(self, fraction: Operand) -> Operand:
        """Bound a fraction in 4096ths without the zeros that its bits end in: 15 of 3840. ::

            odd_part = Div(kept, Max(BitwiseAnd(kept, Sub(int64_0, kept)), int64_1))

        It is :data:`LEAST_ODD_PART` at the least.
        """
        a = self._a
        # the last bit of n that is set is n & -n; of zero there is none
        last = a.op("Max", a.op("BitwiseAnd", fraction, 0 - fraction), 1)
        odd = a.op("Div", fraction, last, name=f"odd_part_of_{fraction.value.name}")
        return a.op("Max", self.largest(odd), LEAST_ODD_PART)

    def size(self, level: Operand) -> Operand:
        """Bound |level|, a constant: ``Abs(Cast<to = 11>(level))``."""
        return self._a.op("Abs", self._a.cast(level, DOUBLE))

    def met(self, level: Operand) -> Operand:
        """Return 0 for a level that no state below 2**23 reaches, else 1."""
        return self._a.cast(level < NARROW_LIMIT, DOUBLE)

    def larger(self, *values: Operand) -> Operand:
        """Return the largest of several bounds, and of zero: ``Max(a, b, double_0)``."""
        return self._a.op("Max", *values, 0)

    def length(self, real: Operand, imag: Operand) -> Operand:
        """Bound |real + i imag| from bounds of its parts: ``Sqrt(real * real + imag * imag)``."""
        return self._a.op("Sqrt", real * real + imag * imag)

    def filtered(self, start: Operand, drive: Operand, kept: Operand) -> Operand:
        """Bound y[t] = kept y[t-1] + drive[t], kept in 4096ths, from |start| and |drive|.

        It is start + drive * min(T, 1 / (1 - kept)), and beyond all limits where kept is above one.
        """
        a = self._a
        shape = a.w.op("Shape", self._sequence, start=0, end=1, name="steps_of_time")
        steps = a.cast(a.op("Squeeze", a.operand(shape), name="steps"), DOUBLE)
        lost = a.op("Sub", DECAY_ONE, kept, name="lost")
        # nothing is divided by zero: what is lost counts as 2**-30 at the least, for 2**42 steps
        memory = a.op("Div", DECAY_ONE, a.op("Max", lost, 2.0**-30), name="memory")
        remembered = a.op("Min", steps, memory, name="remembered")
        grows = a.cast(a.op("Less", lost, 0, name="grows"), DOUBLE)
        return start + drive * remembered + grows * 2.0**60


def all_of(conditions: Sequence[Operand]) -> Operand:
    """Write ``And(And(a, b), c)``."""
    return functools.reduce(operator.and_, conditions)


def finite(a: Arithmetic, values: Sequence[Operand]) -> Operand:
    """Write whether float tensors hold neither NaN, which a maximum may overlook, nor infinity. ::

    Less(ReduceSumSquare<keepdims = 0>(x), float_constant)
    """
    sums = [a.op("ReduceSumSquare", value, keepdims=0, name="squares") for value in values]
    return all_of([total < _FINITE for total in sums])
