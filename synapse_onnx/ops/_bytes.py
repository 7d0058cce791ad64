"""A dense product of bytes in the place of one of floats, where it is exact and faster.

Without VNNI a CPU adds a pair of products in 16 bits, so that bytes up to h are exact where
2 h max|weight| < 2**15: up to 127 with weights of 8 bits, and 255 with those of 7. Signed inputs
take as many levels, raised by half of them, which MatMulInteger takes off again as its zero point.

Inputs are spikes by construction (the attribute ``spikes``), or the body looks at them at every
call: whether they are counts, and then whether they are signed integers. Few outputs are not worth
the looks, or not even the casts. The choices are written one after the other, and the product in a
choice of its own: ONNX Runtime 1.32 crashes where it settles three choices in one another at load,
and packs no weights of a product in a choice within a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir

from synapse_onnx.ops._writer import BOOL, FLOAT, UINT8, Writer

__all__ = ["as_floats", "byte_product", "said", "unneeded"]

#: outputs from which a product of bytes is faster than one of floats: with the casts to them, with
#: a look at every input as well, and with two (``python -m benchmarks dense``)
_WORTH_CASTS, _WORTH_A_LOOK, _WORTH_A_SECOND_LOOK = 32, 128, 256

#: steps of an input in which values that are no integers are to show
_STEPS = 4

#: what a sum of two products of bytes may reach, which is held in 16 bits without VNNI
_LARGEST_PAIR = 2**15 - 1


def unneeded(values: Mapping[str, Any], weights: Sequence[onnx.TensorProto]) -> frozenset[str]:
    """Return which of "bytes", "looks" and "signed" a node has no use for.

    Args:
        values: the node's attributes, ``integers`` and ``spikes``.
        weights: its weights, whose outputs are computed together.
    """
    width = _width(weights)
    if not values["integers"] or width < (_WORTH_CASTS if values["spikes"] else _WORTH_A_LOOK):
        return frozenset({"bytes", "looks", "signed"})
    if values["spikes"]:
        return frozenset({"looks", "signed"})
    return frozenset() if width >= _WORTH_A_SECOND_LOOK else frozenset({"signed"})


def said(values: Mapping[str, Any], weights: Sequence[onnx.TensorProto]) -> str:
    """Say when a node's product is one of bytes, or why it is not; arguments as above."""
    width = _width(weights)
    if not values["integers"]:
        return "floats; the weights are no bytes"
    if width < _WORTH_CASTS:
        return f"floats; faster under {_WORTH_CASTS} outputs"
    if values["spikes"]:
        return "bytes"
    if width < _WORTH_A_LOOK:
        return f"floats; faster under {_WORTH_A_LOOK} outputs where inputs may not be spikes"
    high = _levels(weights)
    taken = f"0 to {high}"
    if width >= _WORTH_A_SECOND_LOOK:
        taken += f" or {-(high - high // 2)} to {high // 2}"
    return f"bytes if inputs are {taken}, else floats"


def _width(weights: Sequence[onnx.TensorProto]) -> int:
    """Return the number of outputs of all weights."""
    return sum(weight.dims[0] for weight in weights)


def _levels(weights: Sequence[onnx.TensorProto]) -> int:
    """Return the largest byte with which two products fit 16 bits."""
    arrays = (onnx.numpy_helper.to_array(weight).astype(np.int32) for weight in weights)
    largest = max(int(np.abs(array).max(initial=1)) for array in arrays)
    return min(_LARGEST_PAIR // (2 * largest), 255)


def byte_product(w: Writer, matrix: ir.Value, matrix_8: ir.Value, name: str) -> ir.Value:
    """Write the product of ``x`` (T, N, C) with a matrix (C, O), given in floats and in bytes. ::

    y = If(exact) <
        then_branch = of_integers () => (sum_f) {
            sum_32 = MatMulInteger(x_8, matrix_8, origin)
            sum_f = Cast<to = 1>(sum_32)
        },
        else_branch = of_floats () => (sum_of_floats) { sum_of_floats = MatMul(x_f, matrix) }
    >
    """
    looks = _Looks(w, matrix, matrix_8)
    exact, operands = looks.direct, [looks.direct_8, matrix_8]
    if "looks" not in w.omitted:
        exact, operands[0] = looks.at_counts()
        if "signed" not in w.omitted:
            exact, operands[0], origin = looks.at_signed(exact, operands[0])
            operands.append(origin)

    def of_integers() -> list[ir.Value]:
        return [w.cast(w.op("MatMulInteger", *operands, name="sum_32"), FLOAT, "sum_f")]

    def of_floats() -> list[ir.Value]:
        return [w.op("MatMul", as_floats(w), matrix, name="sum_of_floats")]

    return w.choose(exact, ("of_integers", of_integers), ("of_floats", of_floats), [name])[0]


def as_floats(w: Writer) -> ir.Value:
    """Write ``x_f = Cast<to = 1>(x)``: an input may come as bytes."""
    return w.op("Cast", w.input("x"), to=int(FLOAT), dtype=FLOAT, name="x_f")


class _Looks:
    """What is known of an input, and what a look at it finds out.

    Attributes:
        direct: whether inputs are spikes by construction, and outputs are worth the casts.
        direct_8: these spikes as bytes. Inputs that are no bytes have no steps instead, in a shape
            that any branch takes.
    """

    def __init__(self, w: Writer, matrix: ir.Value, matrix_8: ir.Value) -> None:
        self.w, self.x, self.matrix = w, w.input("x"), matrix
        self.integers = w.cast(w.attribute("integers", int), BOOL, "has_integers")
        spikes = w.cast(w.attribute("spikes", int), BOOL, "has_spikes")
        self.width = w.op("Squeeze", w.op("Shape", matrix_8, start=1), name="width")
        of_spikes = w.op("And", self.integers, spikes, name="of_spikes")
        self.direct = w.op("And", of_spikes, self._is_worth(_WORTH_CASTS, "casts"), name="direct")
        channels = w.op("Shape", matrix_8, end=1, name="channels")
        shape = w.op("Concat", w.ints(0, 1, name="no_steps"), channels, axis=0, name="no_shape")
        nothing = ir.tensor(np.zeros(1, np.uint8))
        self.none_8 = w.op("ConstantOfShape", shape, value=nothing, dtype=UINT8, name="none_8")
        (self.direct_8,) = w.choose(
            self.direct,
            ("of_spikes", lambda: [self._bytes(self.x, "x_as_8")]),
            ("of_others", lambda: [self.none_8]),
            ["direct_8"],
        )

    def at_counts(self) -> tuple[ir.Value, ir.Value]:
        """Write whether inputs are 0 to ``high``, known or seen, and the inputs as bytes."""
        w, one = self.w, self._number(1.0)
        largest = w.op("ReduceMax", w.op("Abs", self.matrix), keepdims=0, name="largest")
        pairs = w.op("Mul", w.op("Max", largest, one), self._number(2.0), name="pairs")
        fitting = w.op("Div", self._number(_LARGEST_PAIR), pairs, name="fitting")
        bounded = w.op("Min", fitting, self._number(255.0), name="bounded")
        self.high = w.op("Floor", bounded, name="high")
        wanted = w.op("And", self.integers, self._is_worth(_WORTH_A_LOOK, "a_look"))
        self.look = w.op("And", wanted, w.op("Not", self.direct, name="indirect"), name="look")

        def at_inputs() -> list[ir.Value]:
            least = w.op("CastLike", self._number(0.0), self.x, name="least")
            most = w.op("CastLike", self.high, self.x, name="most")
            counts = self._bytes(w.op("Clip", self.x, least, most, name="between"), "levels")
            again = w.op("CastLike", counts, self.x, name="again")
            return [self._all_equal(again, self.x), counts]

        self.counts, counts_8 = w.choose(
            self.look,
            ("at_inputs", at_inputs),
            ("at_none", lambda: [self.direct, self.direct_8]),
            ["counts", "counts_8"],
        )
        return self.counts, counts_8

    def at_signed(
        self, counts: ir.Value, counts_8: ir.Value
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Write whether inputs are counts or signed integers; as bytes, raised by an origin.

        Values that are no integers mostly show it in a few steps.
        """
        w = self.w
        middle = w.op("Ceil", w.op("Div", self.high, self._number(2.0), name="half"), name="middle")
        low = w.op("Neg", middle, name="low")
        most = w.op("Sub", self.high, middle, name="above")
        worth = self._is_worth(_WORTH_A_SECOND_LOOK, "two_looks")
        may_be_signed = w.op("And", self.look, worth, name="may_be_signed")
        no_counts = w.op("Not", counts, name="no_counts")
        look_again = w.op("And", may_be_signed, no_counts, name="look_again")

        def at_all_steps() -> list[ir.Value]:
            x = as_floats(w)
            raised = w.op("Add", w.op("Clip", x, low, most, name="between"), middle, name="raised")
            signed_8 = self._bytes(raised, "signed_levels")
            again = w.op("Sub", w.cast(signed_8, FLOAT), middle, name="again")
            return [self._all_equal(again, x), signed_8]

        def at_others() -> list[ir.Value]:
            begin, end = w.ints(0, name="begin"), w.ints(_STEPS, name="end")
            some = w.op("Slice", self.x, begin, end, name="some")
            some_f = w.op("Cast", some, to=int(FLOAT), dtype=FLOAT, name="some_f")
            whole = self._all_equal(w.op("Floor", some_f, name="below"), some_f)
            return w.choose(
                whole,
                ("at_signed", at_all_steps),
                ("at_fractions", lambda: [whole, self.none_8]),
                ["is_signed", "signed_8"],
            )

        signed, x_8 = w.choose(
            look_again,
            ("at_others", at_others),
            ("at_counts", lambda: [look_again, counts_8]),
            ["signed", "x_8"],
        )
        origin = w.op("Where", signed, middle, self._number(0.0), dtype=FLOAT, name="middle_or_0")
        exact = w.op("Or", counts, signed, name="exact")
        return exact, x_8, self._bytes(origin, "origin")

    def _number(self, value: float) -> ir.Value:
        return self.w.number(value, FLOAT)

    def _is_worth(self, outputs: int, what: str) -> ir.Value:
        """Write ``worth_casts = GreaterOrEqual(width, int64_32)``."""
        least = self.w.number(outputs, ir.DataType.INT64)
        return self.w.op("GreaterOrEqual", self.width, least, name=f"worth_{what}")

    def _bytes(self, value: ir.Value, name: str) -> ir.Value:
        """Write ``name = Cast<to = 2>(value)``."""
        return self.w.op("Cast", value, to=int(UINT8), dtype=UINT8, name=name)

    def _all_equal(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Write ``all_equal = Cast<to = 9>(ReduceMin(Cast<to = 2>(Equal(a, b))))``."""
        each = self._bytes(self.w.op("Equal", a, b, name="equal"), "equal_8")
        least = self.w.op("ReduceMin", each, keepdims=0, name="all_equal_8")
        return self.w.cast(least, BOOL, "all_equal")
