"""What transposed convolution and unpooling share: the size of their output."""

from __future__ import annotations

from torch import Tensor

from synapse_onnx.errors import ShapeError
from synapse_onnx.synapse._generic import GenericLayer

__all__ = ["check_transposed"]


def check_transposed(layer: GenericLayer, input: Tensor, rows: int | None = None) -> int:
    """Refuse padding that leaves no output; return the output's height.

    Args:
        layer: a synapse whose kernel is spread over the output.
        input: spikes (N, C, H, W, T).
        rows: height of the input, where it is not H.
    """
    heights: list[int] = []
    for axis, size in enumerate((rows or input.shape[2], input.shape[3])):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        out = (size - 1) * layer.stride[axis] - 2 * layer.padding[axis] + reach
        heights.append(out)
        if out < 1:
            raise ShapeError(
                f"{type(layer).__name__}: padding {layer.padding[axis]} leaves no output in "
                f"{('height', 'width')[axis]} for an input of {size}; give a larger input or less "
                f"padding"
            )
    return heights[0]
