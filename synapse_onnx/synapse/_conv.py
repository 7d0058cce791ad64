"""The convolution synapse."""

from __future__ import annotations

from torch import Tensor, nn

from synapse_onnx.ops import conv
from synapse_onnx.synapse._generic import GenericLayer
from synapse_onnx.synapse._geometry import IntOrPair, check_groups, geometry
from synapse_onnx.synapse._weights import Hook

__all__ = ["Conv"]


class Conv(nn.Conv3d, GenericLayer):
    """Convolution synapse, the same at every time step.

    ``kernel_size``, ``stride``, ``padding`` and ``dilation`` are ints or pairs (height, width), in
    pixels.

    Args:
        in_features: input channels.
        out_features: output channels.
        kernel_size: size of the kernel.
        stride: stride.
        padding: zeros added at both ends of both axes.
        dilation: distance of the kernel's taps.
        groups: blocks of channels that are connected among themselves only.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight (out_features, in_features / groups, height,
            width, 1) before use; None uses the weight as it is.

    Attributes:
        kernel: the kernel, the same as ``kernel_size``: (height, width, 1).

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> Conv(2, 8, (3, 5), padding=(1, 2))(torch.zeros(1, 2, 16, 20, 9)).shape
        torch.Size([1, 8, 16, 20, 9])
    """

    ops = conv.OPS

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = None,
    ) -> None:
        check_groups(in_features, out_features, groups)
        super().__init__(
            in_features,
            out_features,
            *geometry(kernel_size, stride, padding, dilation),
            groups,
            bias=False,
        )
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    forward = GenericLayer.forward
    extra_repr = GenericLayer.extra_repr

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel: (height, width, 1)."""
        return self.kernel_size

    def check(self, input: Tensor) -> None:
        """Also refuse a kernel larger than the padded input."""
        super().check(input)
        self._check_kernel(input.shape[2], input.shape[3])
