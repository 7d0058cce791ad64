"""Dense synapse: every output neuron sees every input neuron.

y[n, o, t] = sum_c weight[o, c] * x[n, c, t]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
from torch import Tensor

from synapse_onnx.ops._synapse import ConvolutionArgs, Linear, register_forms, seeded, spikes

#: outputs from which a product of integers is faster than one of floats: with the casts to them,
#: and with a look at every input as well (``python -m benchmarks dense``)
_WORTH_CASTS, _WORTH_A_LOOK = 32, 128


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
        return "bytes if inputs are 0 to 127, else floats"

    def text(self, weights: Sequence[str], outputs: Sequence[str]) -> str:
        """One product over all time steps: (T, N, C) x (C, O) -> (T, N, O)."""
        total, split = _total(outputs)
        return "\n".join([*_matrix(weights, "matrix"), f"{total} = MatMul(x, matrix)", *split])

    def integer_text(self, weights: Sequence[str], outputs: Sequence[str]) -> str:
        """The same product of uint8 and int8 where it is exact and faster.

        Inputs of 0 to 127 with weights of 8 bits are exact on every CPU: without VNNI a pair of
        products is added in 16 bits, and 2 * 127 * 128 fits. The attribute ``integers`` says that
        weights have 8 bits and that this product may be taken. Inputs are spikes by construction
        (the attribute ``spikes``), or are looked at at every call. Few outputs are not worth the
        look, or not even the casts.
        """
        total, split = _total(outputs)
        lines = [
            *(f"{weight}_8 = Cast<to = 3>({weight})" for weight in weights),
            *_matrix([f"{weight}_8" for weight in weights], "bytes"),
            *(f"{weight}_f = Cast<to = 1>({weight})" for weight in weights),
            *_matrix([f"{weight}_f" for weight in weights], "matrix"),
            "high = Constant<value_float = 127.0>()",
            "zero = Constant<value_float = 0.0>()",
            "integers_i = Constant<value_int: int = @integers>()",
            "integers_b = Cast<to = 9>(integers_i)",
            "spikes_i = Constant<value_int: int = @spikes>()",
            "spikes_b = Cast<to = 9>(spikes_i)",
            "width_1 = Shape<start = 1>(bytes)",
            "width = Squeeze(width_1)",
            f"some = Constant<value_int = {_WORTH_CASTS}>()",
            f"many = Constant<value_int = {_WORTH_A_LOOK}>()",
            "worth_casts = GreaterOrEqual(width, some)",
            "worth_a_look = GreaterOrEqual(width, many)",
            "looked_at = And(integers_b, worth_a_look)",
            "of_spikes = And(integers_b, spikes_b)",
            "direct = And(of_spikes, worth_casts)",
            "indirect = Not(direct)",
            "look = And(looked_at, indirect)",
            # one If behind the other: ONNX Runtime 1.32 crashes where it settles one in another
            "exact = If(look) <",
            "then_branch = at_inputs () => (all_equal) {",
            "least = CastLike(zero, x)",
            "most = CastLike(high, x)",
            "between = Clip(x, least, most)",
            "levels = Cast<to = 2>(between)",
            "again = CastLike(levels, x)",
            "equal = Equal(again, x)",
            "equal_8 = Cast<to = 2>(equal)",
            "all_8 = ReduceMin<keepdims = 0>(equal_8)",
            "all_equal = Cast<to = 9>(all_8)",
            "},",
            "else_branch = at_none () => (known) { known = Identity(direct) }>",
            f"{total} = If(exact) <",
            "then_branch = of_integers () => (sum_f) {",
            "x_8 = Cast<to = 2>(x)",
            "sum_32 = MatMulInteger(x_8, bytes)",
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
