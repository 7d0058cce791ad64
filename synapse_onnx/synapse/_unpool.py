"""The unpooling synapse."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from synapse_onnx.ops import unpool
from synapse_onnx.synapse._generic import GenericLayer
from synapse_onnx.synapse._geometry import IntOrPair, geometry
from synapse_onnx.synapse._transposed import check_transposed
from synapse_onnx.synapse._weights import Hook
from synapse_onnx.synapse._window import Window, check_merged, merged

__all__ = ["Unpool"]


class Unpool(nn.ConvTranspose3d, Window):
    """Unpooling synapse: every input is spread over a window, by ``weight_scale``, not trained.

    Every channel is unpooled by itself. ``kernel_size``, ``stride``, ``padding`` and ``dilation``
    are ints or pairs (height, width), in pixels.

    Args:
        kernel_size: size of the window.
        stride: stride of the windows in the output; the kernel's size by default.
        padding: pixels cut off at both ends of both axes of the output.
        dilation: distance of the window's taps.
        weight_scale: the weight.
        weight_norm: split the weight into length and direction.
        pre_hook_fx: function applied to the weight (1, 1, height, width, 1) before use; None uses
            the weight as it is.
        merge_channels: lava-dl's arithmetic, bit for bit, on one axis of C * H rows; the same as
            ours where stride equals kernel and padding is 0.

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> Unpool((1, 2))(torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2, 1)).squeeze()
        tensor([1., 1., 3., 3.])
    """

    ops = unpool.OPS

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
        kernel, strides, cut, spread = geometry(kernel_size, stride, padding, dilation)
        super().__init__(1, 1, kernel, strides, cut, bias=False, dilation=spread)
        self._set_up_window(merge_channels)
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    forward = GenericLayer.forward  # type: ignore[assignment]
    extra_repr = GenericLayer.extra_repr

    def check(self, input: Tensor) -> None:
        """Also refuse padding that leaves no output."""
        super().check(input)
        rows = (input.shape[1] if self.merge_channels else 1) * input.shape[2]
        height = check_transposed(self, input, rows)
        if self.merge_channels:
            check_merged(self, input, height)

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Merge channels and rows with ``merge_channels``."""
        return merged(input) if self.merge_channels else (input, lambda y: y)
