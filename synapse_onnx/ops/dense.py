"""Dense synapse: every output neuron sees every input neuron.

y[n, o, t] = sum_c weight[o, c] * x[n, c, t]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
from torch import Tensor

from synapse_onnx.ops._bytes import as_floats, byte_product, said, unneeded
from synapse_onnx.ops._linear import ConvolutionArgs, Linear
from synapse_onnx.ops._synapse import register_synapse, seeded, spikes
from synapse_onnx.ops._writer import FLOAT, INT8, Writer


class Dense(Linear):
    """x (N, C, T), weight (O, c, h, w, 1) with c*h*w = C -> y (N, O, T)."""

    name = "Dense"
    biased = True
    scale_shape = (-1, 1)
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

    def scaled(self, w: Writer, total: ir.Value, scale: ir.Value, name: str) -> ir.Value:
        """Write a scale an output, which lies on the last axis as it is. ::

            y = Squeeze(Mul(Unsqueeze(y_sum, axis), weight_scale), axis)

        The Unsqueeze keeps ONNX Runtime from folding a single scale into the product
        (MatMulScaleFusion): its matrix kernel would round once a block of the sum.
        """
        axis = w.ints(0, name="axis")
        up = w.op("Unsqueeze", total, axis, name=f"{name}_up")
        return w.op("Squeeze", w.op("Mul", up, scale, name=f"{name}_scaled"), axis, name=name)

    def facts(self, weights: Sequence[Any]) -> dict[str, int]:
        """Return whether weights are bytes, and that nothing is known of inputs."""
        return {"integers": int(all(w.dtype == ir.DataType.INT8 for w in weights)), "spikes": 0}

    def arithmetic(self, values: Mapping[str, Any], weights: Sequence[onnx.TensorProto]) -> str:
        """Say when the product is one of bytes; see :mod:`._bytes`."""
        return said(values, weights)

    def omits(
        self, values: Mapping[str, Any], weights: Sequence[onnx.TensorProto]
    ) -> frozenset[str]:
        """Return which of "bytes", "looks" and "signed" a node has no use for."""
        return unneeded(values, weights) if weights else frozenset()

    def product(
        self, w: Writer, weights: Sequence[ir.Value], names: Sequence[str]
    ) -> list[ir.Value]:
        """Write one product over all time steps: (T, N, C) x (C, O) -> (T, N, O). ::

        y = MatMul(x, Transpose<perm = [1, 0]>(Flatten<axis = 1>(weight_f)))
        """
        total = w.op("MatMul", w.input("x", FLOAT), _matrix(w, weights, "matrix"), name=names[0])
        return _halves(w, total, names)

    def integer_product(
        self, w: Writer, weights: Sequence[str], names: Sequence[str]
    ) -> list[ir.Value]:
        """Write a product of bytes where it is exact and faster, and one of floats elsewhere.

        The attribute ``integers`` says that weights have 8 bits and that a product of bytes may be
        taken; ``w.omitted`` is what no node of a file needs.
        """
        floats, eights = (
            [
                w.op("Cast", w.input(weight), to=int(dtype), dtype=dtype, name=f"{weight}_{suffix}")
                for weight in weights
            ]
            for dtype, suffix in ((FLOAT, "f"), (INT8, "8"))
        )
        matrix = _matrix(w, floats, "matrix")
        if "bytes" in w.omitted:
            total = w.op("MatMul", as_floats(w), matrix, name=names[0])
        else:
            total = byte_product(w, matrix, _matrix(w, eights, "matrix_8"), names[0])
        return _halves(w, total, names)

    def samples(self) -> Sequence[tuple[str, Tensor, Tensor, tuple[Any, ...]]]:
        """Spikes and real values; one neuron and several."""
        draw = seeded(0)
        return [
            ("spikes", spikes(1, 3, 20, 9), draw(6, 20, 1, 1, 1), ()),
            # more inputs than one block of a matrix kernel: a scale folded into it would show
            ("long-sum", spikes(4, 2, 1500, 6), draw(5, 1500, 1, 1, 1), ()),
            ("image", spikes(3, 2, 12, 4), draw(3, 2, 3, 2, 1), ()),
            ("one-neuron", spikes(2, 1, 1, 1), draw(1, 1, 1, 1, 1), ()),
        ]


def _matrix(w: Writer, weights: Sequence[ir.Value], name: str) -> ir.Value:
    """Write a matrix (C, O) of the weights of all outputs, none of them int4."""
    rows = [w.op("Flatten", weight, axis=1, name=f"{weight.name}_rows") for weight in weights]
    both = rows[0] if len(rows) == 1 else w.op("Concat", *rows, axis=0, name=f"{name}_rows")
    return w.op("Transpose", both, perm=[1, 0], name=name)


def _halves(w: Writer, total: ir.Value, names: Sequence[str]) -> list[ir.Value]:
    """Write ``real, imag = Split<axis = -1, num_outputs = 2>(total)`` where there are two."""
    return [total] if len(names) == 1 else w.split(total, -1, names)


OPS = register_synapse(Dense(), __doc__)
