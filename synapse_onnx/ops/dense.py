"""Dense synapse: every output neuron sees every input neuron.

y[n, o, t] = sum_c weight[o, c] * x[n, c, t]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from torch import Tensor

from synapse_onnx.ops._synapse import ConvolutionArgs, Linear, register_forms, seeded, spikes

#: outputs from which a product of integers is faster than one of floats: with the casts to them,
#: with a look at every input as well, and with two (``python -m benchmarks dense``)
_WORTH_CASTS, _WORTH_A_LOOK, _WORTH_A_SECOND_LOOK = 32, 128, 256

#: steps of an input in which values that are no integers are to show
_STEPS = 4

#: what a sum of two products of bytes may reach, which is held in 16 bits without VNNI
_LARGEST_PAIR = 2**15 - 1


def _all_equal(a: str, b: str, flag: str) -> str:
    """ONNX statements for whether two values are equal everywhere."""
    return f"""
    {flag}_each = Equal({a}, {b})
    {flag}_each_8 = Cast<to = 2>({flag}_each)
    {flag}_8 = ReduceMin<keepdims = 0>({flag}_each_8)
    {flag} = Cast<to = 9>({flag}_8)
    """


#: `direct`: inputs are spikes, `direct_8`, by construction; `look`: they may be bytes. What is no
#: byte has no steps instead, in a shape that any branch takes.
_WHAT_IS_KNOWN = f"""
    integers_i = Constant<value_int: int = @integers>()
    integers_b = Cast<to = 9>(integers_i)
    spikes_i = Constant<value_int: int = @spikes>()
    spikes_b = Cast<to = 9>(spikes_i)
    width_1 = Shape<start = 1>(bytes)
    width = Squeeze(width_1)
    few = Constant<value_int = {_WORTH_CASTS}>()
    worth_casts = GreaterOrEqual(width, few)
    of_spikes = And(integers_b, spikes_b)
    direct = And(of_spikes, worth_casts)
    no_steps = Constant<value_ints = [0, 1]>()
    channels = Shape<end = 1>(bytes)
    no_shape = Concat<axis = 0>(no_steps, channels)
    none_8 = ConstantOfShape<value = uint8[1] {{0}}>(no_shape)
    direct_8 = If(direct) <
        then_branch = of_spikes () => (x_as_8) {{ x_as_8 = Cast<to = 2>(x) }},
        else_branch = of_others () => (no_8) {{ no_8 = Identity(none_8) }}
    >
"""

#: `counts`: inputs, `counts_8`, are known or found to be 0 to `high`
_LOOK_AT_COUNTS = f"""
    magnitudes = Abs(matrix)
    largest = ReduceMax<keepdims = 0>(magnitudes)
    one = Constant<value_float = 1.0>()
    largest_or_1 = Max(largest, one)
    two = Constant<value_float = 2.0>()
    pairs = Mul(largest_or_1, two)
    most_16 = Constant<value_float = {float(_LARGEST_PAIR)}>()
    fitting = Div(most_16, pairs)
    most_8 = Constant<value_float = 255.0>()
    bounded = Min(fitting, most_8)
    high = Floor(bounded)
    zero = Constant<value_float = 0.0>()
    many = Constant<value_int = {_WORTH_A_LOOK}>()
    worth_a_look = GreaterOrEqual(width, many)
    looked_at = And(integers_b, worth_a_look)
    indirect = Not(direct)
    look = And(looked_at, indirect)
    counts, counts_8 = If(look) <
        then_branch = at_inputs () => (all_equal, levels) {{
            least = CastLike(zero, x)
            most = CastLike(high, x)
            between = Clip(x, least, most)
            levels = Cast<to = 2>(between)
            again = CastLike(levels, x)
            {_all_equal("again", "x", "all_equal")}
        }},
        else_branch = at_none () => (known, known_8) {{
            known = Identity(direct)
            known_8 = Identity(direct_8)
        }}
    >
"""

#: `exact`: inputs are counts or signed; less `origin`, they are `x_8`. Values that are no integers
#: mostly show it in a few steps.
_LOOK_AT_SIGNED = f"""
    halved = Div(high, two)
    middle = Ceil(halved)
    low = Neg(middle)
    above = Sub(high, middle)
    more = Constant<value_int = {_WORTH_A_SECOND_LOOK}>()
    worth_two_looks = GreaterOrEqual(width, more)
    may_be_signed = And(look, worth_two_looks)
    no_counts = Not(counts)
    look_again = And(may_be_signed, no_counts)
    signed, x_8 = If(look_again) <
        then_branch = at_others () => (found, found_8) {{
            begin = Constant<value_ints = [0]>()
            end = Constant<value_ints = [{_STEPS}]>()
            some = Slice(x, begin, end)
            some_f = Cast<to = 1>(some)
            below = Floor(some_f)
            {_all_equal("below", "some_f", "whole")}
            found, found_8 = If(whole) <
                then_branch = at_signed () => (all_equal_s, levels_s) {{
                    x_s = Cast<to = 1>(x)
                    between_s = Clip(x_s, low, above)
                    raised = Add(between_s, middle)
                    levels_s = Cast<to = 2>(raised)
                    floats_s = Cast<to = 1>(levels_s)
                    again_s = Sub(floats_s, middle)
                    {_all_equal("again_s", "x_s", "all_equal_s")}
                }},
                else_branch = at_fractions () => (not_whole, no_levels) {{
                    not_whole = Identity(whole)
                    no_levels = Identity(none_8)
                }}
            >
        }},
        else_branch = at_counts () => (not_looked, those) {{
            not_looked = Identity(look_again)
            those = Identity(counts_8)
        }}
    >
    middle_or_0 = Where(signed, middle, zero)
    origin = Cast<to = 2>(middle_or_0)
    exact = Or(counts, signed)
"""


class Dense(Linear):
    """x (N, C, T), weight (O, c, h, w, 1) with c*h*w = C -> y (N, O, T)."""

    name = "Dense"
    step_shape = (-1, 1)
    quantized_attributes = ("integers", "spikes")

    def images(self, x: Tensor) -> Tensor:
        """(N, C, T) -> (N, C, 1, 1, T)."""
        return x.reshape(x.shape[0], x.shape[1], 1, 1, x.shape[2])

    def kernel(self, weight: Tensor) -> Tensor:
        """(O, C, H, W, 1) -> (O, C * H * W, 1, 1, 1): an image's pixels are inputs like others."""
        return weight.reshape(weight.shape[0], -1, 1, 1, 1)

    def restore(self, y: Tensor, x: Tensor) -> Tensor:
        """(N, O, 1, 1, T) -> (N, O, T)."""
        return y.reshape(y.shape[0], y.shape[1], y.shape[4])

    def shape(self, x: Tensor, weight: Tensor, *geometry: Any) -> Sequence[int]:
        """(N, O, T)."""
        return (x.shape[0], weight.shape[0], x.shape[2])

    def convolution(self, *geometry: Any) -> ConvolutionArgs:
        """Return a 1x1 convolution."""
        return ConvolutionArgs([1, 1, 1], [0, 0, 0], [1, 1, 1], False, 1)

    def scale_text(self, total: str, step: str, out: str) -> str:
        """A step per output stands on the last axis as it is.

        The Unsqueeze keeps ONNX Runtime from folding a single step into the product
        (MatMulScaleFusion): its matrix kernel would round once a block of the sum.
        """
        return f"""
        {out}_axis = Constant<value_ints = [0]>()
        {out}_up = Unsqueeze({total}, {out}_axis)
        {out}_scaled = Mul({out}_up, {step})
        {out} = Squeeze({out}_scaled, {out}_axis)
        """

    def facts(self, weights: Sequence[Any]) -> dict[str, int]:
        """Return whether weights are bytes, and that nothing is known of inputs."""
        return {"integers": int(all(w.dtype == ir.DataType.INT8 for w in weights)), "spikes": 0}

    def arithmetic(self, values: Mapping[str, Any], weights: Sequence[onnx.TensorProto]) -> str:
        """Say when the product is one of bytes; see :meth:`integer_text`."""
        width = sum(weight.dims[0] for weight in weights)
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

    def text(self, weights: Sequence[str], outputs: Sequence[str]) -> str:
        """One product over all time steps: (T, N, C) x (C, O) -> (T, N, O)."""
        total, split = _total(outputs)
        return "\n".join([*_matrix(weights, "matrix"), f"{total} = MatMul(x, matrix)", *split])

    def form(
        self, values: Mapping[str, Any], weights: Sequence[onnx.TensorProto]
    ) -> frozenset[str]:
        """Return which of "bytes", "looks" and "signed" a node has no use for, with all behind."""
        if not weights:
            return frozenset()
        width = sum(weight.dims[0] for weight in weights)
        least = _WORTH_CASTS if values["spikes"] else _WORTH_A_LOOK
        if not values["integers"] or width < least:
            return frozenset({"bytes", "looks", "signed"})
        if values["spikes"]:
            return frozenset({"looks", "signed"})
        return frozenset() if width >= _WORTH_A_SECOND_LOOK else frozenset({"signed"})

    def integer_text(
        self, weights: Sequence[str], outputs: Sequence[str], left: frozenset[str] = frozenset()
    ) -> str:
        """The same product of uint8 and int8 where it is exact and faster.

        Without VNNI a CPU adds a pair of products in 16 bits, so that bytes up to h are exact where
        2 h max|weight| < 2**15: up to 127 with weights of 8 bits, and 255 with those of 7. Signed
        inputs take as many levels, raised by half of them, which MatMulInteger takes off again as
        its zero point. The attribute ``integers`` says that weights have 8 bits and that this
        product may be taken. Inputs are spikes by construction (the attribute ``spikes``), or are
        looked at at every call, for counts and then for signed integers. Few outputs are not worth
        the looks, or not even the casts. ``left`` is what no node of a file needs.

        No product stands in an If within another: ONNX Runtime would not pack its weights at load.
        """
        total, split = _total(outputs)
        lines = [
            *(f"{weight}_f = Cast<to = 1>({weight})" for weight in weights),
            *_matrix([f"{weight}_f" for weight in weights], "matrix"),
        ]
        if "bytes" in left:
            return "\n".join(
                [*lines, "x_f = Cast<to = 1>(x)", f"{total} = MatMul(x_f, matrix)", *split]
            )
        lines += [
            *(f"{weight}_8 = Cast<to = 3>({weight})" for weight in weights),
            *_matrix([f"{weight}_8" for weight in weights], "bytes"),
            _WHAT_IS_KNOWN,
        ]
        exact, product = "direct", "direct_8, bytes"
        if "looks" not in left:
            lines.append(_LOOK_AT_COUNTS)
            exact, product = "counts", "counts_8, bytes"
        if "signed" not in left:
            lines.append(_LOOK_AT_SIGNED)
            exact, product = "exact", "x_8, bytes, origin"
        lines += [
            f"{total} = If({exact}) <",
            "then_branch = of_integers () => (sum_f) {",
            f"sum_32 = MatMulInteger({product})",
            "sum_f = Cast<to = 1>(sum_32)",
            "},",
            "else_branch = of_floats () => (sum_of_floats) {",
            "x_f = Cast<to = 1>(x)",
            "sum_of_floats = MatMul(x_f, matrix)",
            "}>",
            *split,
        ]
        return "\n".join(lines)

    def samples(self) -> Sequence[tuple[str, Tensor, Tensor, tuple[Any, ...]]]:
        """Spikes and real values; one neuron and several."""
        draw = seeded(0)
        return [
            ("spikes", spikes(1, 3, 20, 9), draw(6, 20, 1, 1, 1), ()),
            # more inputs than one block of a matrix kernel: a step folded into it would show
            ("long-sum", spikes(4, 2, 1500, 6), draw(5, 1500, 1, 1, 1), ()),
            ("image", spikes(3, 2, 12, 4), draw(3, 2, 3, 2, 1), ()),
            ("one-neuron", spikes(2, 1, 1, 1), draw(1, 1, 1, 1, 1), ()),
        ]


def _levels(weights: Sequence[onnx.TensorProto]) -> int:
    """Return the largest byte with which two products fit 16 bits; see ``integer_text``."""
    arrays = (onnx.numpy_helper.to_array(weight).astype(np.int32) for weight in weights)
    largest = max(int(np.abs(array).max(initial=1)) for array in arrays)
    return min(_LARGEST_PAIR // (2 * largest), 255)


def _matrix(weights: Sequence[str], name: str) -> list[str]:
    """ONNX statements for a matrix (C, O) of the weights of all outputs, none of them int4."""
    lines = [f"{w}_2 = Flatten<axis = 1>({w})" for w in weights]
    rows = f"{weights[0]}_2"
    if len(weights) == 2:
        rows = f"{name}_rows"
        lines.append(f"{rows} = Concat<axis = 0>({', '.join(f'{w}_2' for w in weights)})")
    return [*lines, f"{name} = Transpose<perm = [1, 0]>({rows})"]


def _total(outputs: Sequence[str]) -> tuple[str, list[str]]:
    """Return the name of the product, and ONNX statements that give its halves to two outputs."""
    if len(outputs) == 1:
        return outputs[0], []
    return "total", [f"{', '.join(outputs)} = Split<axis = -1, num_outputs = 2>(total)"]


OPS = register_forms(Dense(), __doc__)
