"""Dense synapse: every output neuron sees every input neuron.

y[n, o, t] = sum_c weight[o, c] * x[n, c, t]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from synapse_onnx.ops._synapse import ConvolutionArgs, Linear, register_forms, seeded, spikes


class Dense(Linear):
    """x (N, C, T), weight (O, c, h, w, 1) with c*h*w = C -> y (N, O, T)."""

    name = "Dense"
    step_shape = (-1, 1)

    def images(self, x: Tensor) -> Tensor:
        """(N, C, T) -> (N, C, 1, 1, T)."""
        return x.reshape(x.shape[0], x.shape[1], 1, 1, x.shape[2])

    def kernel(self, weight: Tensor) -> Tensor:
        """(O, C, H, W, 1) -> (O, C * H * W, 1, 1, 1): an image's pixels are inputs like others."""
        return weight.reshape(weight.shape[0], -1, 1, 1, 1)

    def restore(self, y: Tensor, x: Tensor) -> Tensor:
        """(N, O, 1, 1, T) -> (N, O, T)."""
        return y.reshape(y.shape[0], y.shape[1], y.shape[4])

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

    def text(self, weights: Sequence[str], outputs: Sequence[str]) -> str:
        """One product over all time steps: (T, N, C) x (C, O) -> (T, N, O)."""
        lines = [f"{w}_2 = Flatten<axis = 1>({w})" for w in weights]
        if len(weights) == 1:
            lines.append(f"matrix = Transpose<perm = [1, 0]>({weights[0]}_2)")
            lines.append(f"{outputs[0]} = MatMul(x, matrix)")
        else:
            lines.append(f"rows = Concat<axis = 0>({', '.join(f'{w}_2' for w in weights)})")
            lines.append("matrix = Transpose<perm = [1, 0]>(rows)")
            lines.append("pair = MatMul(x, matrix)")
            lines.append(f"{', '.join(outputs)} = Split<axis = -1, num_outputs = 2>(pair)")
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


OPS = register_forms(Dense(), __doc__)
