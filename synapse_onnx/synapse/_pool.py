"""The pooling synapse."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from synapse_onnx.ops import pool
from synapse_onnx.synapse._generic import GenericLayer
from synapse_onnx.synapse._geometry import IntOrPair, geometry
from synapse_onnx.synapse._weights import Hook
from synapse_onnx.synapse._window import Window, check_merged, merged

__all__ = ["Pool"]


class Pool(nn.Conv3d, Window):
    """Sum pooling synapse: one kernel, ``weight_scale`` everywhere, not trained.

    Every channel is pooled by itself, whatever kernel, stride, padding and dilation. Where
    height or width is no multiple of the kernel, zeros are added at the bottom or right up to
    the next multiple, so that no spike is lost.

    ``kernel_size``, ``stride``, ``padding`` and ``dilation`` are ints or pairs (height, width), in
    pixels.

    Args:
        kernel_size: size of the window.
        stride: stride of the window; the kernel's size by default.
        padding: zeros added at both ends of both axes.
        dilation: distance of the window's taps.
        weight_scale: the weight.
        weight_norm: split the weight into length and direction.
        pre_hook_fx: function applied to the weight (1, 1, height, width, 1) before use; None uses
            the weight as it is.
        merge_channels: lava-dl's arithmetic, bit for bit: channels and rows are one axis of
            C * H rows, and ``H % kernel`` (not ``-H % kernel``) zeros are added. The result is
            the same as ours for a kernel of 2 or a size that the kernel divides, with no padding
            and stride equal to the kernel; otherwise windows run across channels. For networks
            that were trained with it (lava-dl issues 101 and 293).

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> Pool(2)(torch.ones(1, 1, 3, 4, 1)).squeeze()
        tensor([[4., 4.],
                [2., 2.]])
    """

    ops = pool.OPS

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = None,
        merge_channels: bool = False,
    ) -> None:
        super().__init__(1, 1, *geometry(kernel_size, stride, padding, dilation), bias=False)
        self._set_up_window(merge_channels)
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    forward = GenericLayer.forward
    extra_repr = GenericLayer.extra_repr

    def _missing(self, input: Tensor) -> tuple[int, int]:
        """Rows and columns of zeros to add at the bottom and right."""
        sizes = zip(input.shape[2:4], self.kernel_size[:2], strict=True)
        if self.merge_channels:
            below, right = (size % kernel for size, kernel in sizes)
        else:
            below, right = (-size % kernel for size, kernel in sizes)
        return below, right

    def check(self, input: Tensor) -> None:
        """Also refuse a window larger than the padded input."""
        super().check(input)
        below, right = self._missing(input)
        rows = (input.shape[1] if self.merge_channels else 1) * (input.shape[2] + below)
        self._check_kernel(rows, input.shape[3] + right)
        if self.merge_channels:
            reach = self.dilation[0] * (self.kernel_size[0] - 1) + 1
            padded = rows + 2 * int(self.padding[0])
            check_merged(self, input, (padded - reach) // self.stride[0] + 1)

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Add the missing rows and columns; merge channels and rows with ``merge_channels``."""
        below, right = self._missing(input)
        x = nn.functional.pad(input, (0, 0, 0, right, 0, below)) if below or right else input
        return merged(x) if self.merge_channels else (x, lambda y: y)
