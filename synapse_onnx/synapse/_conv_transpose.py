"""The transposed convolution synapse."""

from __future__ import annotations

from torch import Tensor, nn

from synapse_onnx.ops import conv_transpose
from synapse_onnx.synapse._generic import GenericLayer
from synapse_onnx.synapse._geometry import IntOrPair, check_groups, geometry
from synapse_onnx.synapse._transposed import check_transposed
from synapse_onnx.synapse._weights import Hook

__all__ = ["ConvTranspose"]


class ConvTranspose(nn.ConvTranspose3d, GenericLayer):
    """Transposed convolution synapse, the same at every time step.

    ``kernel_size``, ``stride``, ``padding`` and ``dilation`` are ints or pairs (height, width), in
    pixels.

    Args:
        in_features: input channels.
        out_features: output channels.
        kernel_size: size of the kernel.
        stride: stride of the output.
        padding: pixels cut off at both ends of both axes of the output.
        dilation: distance of the kernel's taps.
        groups: blocks of channels that are connected among themselves only.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight (in_features, out_features / groups, height,
            width, 1) before use; None uses the weight as it is.

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> ConvTranspose(8, 2, 2, stride=2)(torch.zeros(1, 8, 5, 6, 9)).shape
        torch.Size([1, 2, 10, 12, 9])
    """

    ops = conv_transpose.OPS
    channel_axis: int | None = 1

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
        kernel, strides, cut, spread = geometry(kernel_size, stride, padding, dilation)
        super().__init__(
            in_features,
            out_features,
            kernel,
            strides,
            cut,
            groups=groups,
            bias=False,
            dilation=spread,
        )
        if groups > 1:
            # the groups' outputs share axis 1 of the weight: a channel has no scale of its own
            self.channel_axis = None
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    forward = GenericLayer.forward  # type: ignore[assignment]
    extra_repr = GenericLayer.extra_repr

    @property
    def fan_in_axes(self) -> tuple[int, ...]:
        """One output sums over the input channels of all groups at most."""
        return (0, 2, 3, 4)

    def check(self, input: Tensor) -> None:
        """Also refuse padding that leaves no output."""
        super().check(input)
        check_transposed(self, input)
