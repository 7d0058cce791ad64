"""The dense synapse: every input is connected to every output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.ops import OpDef, conv, dense
from synapse_onnx.synapse._generic import GenericLayer
from synapse_onnx.synapse._geometry import count
from synapse_onnx.synapse._weights import Hook

__all__ = ["Dense"]


class Dense(nn.Conv3d, GenericLayer):
    """Dense synapse.

    Args:
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image, which makes a kernel of
            (H, W, 1).
        out_neurons: number of outputs.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight (out_neurons, C, H, W, 1) before use, for
            example ``synapse_onnx.quantize.q8``; None uses the weight as it is.

    Raises:
        InputError: ``in_neurons`` or ``out_neurons`` is not as described.

    Example:
        >>> import torch
        >>> Dense(200, 10)(torch.zeros(4, 200, 50)).shape
        torch.Size([4, 10, 50])
        >>> Dense((34, 34, 2), 10)(torch.zeros(4, 2, 34, 34, 50)).shape
        torch.Size([4, 10, 1, 1, 50])
    """

    ops = dense.OPS
    layout = "(N, C, T) or (N, C, H, W, T)"

    def __init__(
        self,
        in_neurons: int | Sequence[int],
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = None,
    ) -> None:
        if not isinstance(in_neurons, Sequence):
            sizes: tuple[int, ...] = (1, 1, in_neurons)
        else:
            sizes = (*in_neurons, 1) if len(in_neurons) == 2 else tuple(in_neurons)
        if len(sizes) != 3:
            raise InputError(f"in_neurons must be an int, (W, H) or (W, H, C), got {in_neurons!r}")
        width, height, channels = (count("in_neurons", size) for size in sizes)
        super().__init__(
            channels, count("out_neurons", out_neurons), (height, width, 1), bias=False
        )
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    forward = GenericLayer.forward
    extra_repr = GenericLayer.extra_repr

    def check(self, input: Tensor) -> None:
        """Take (N, C, T), and (N, C, H, W, T) with images no smaller than the kernel."""
        if input.dim() not in (3, 5):
            raise ShapeError(
                f"Dense: expected an input of shape {self.layout}, got {tuple(input.shape)}"
            )
        if input.dim() == 3 and self.kernel_size != (1, 1, 1):
            height, width, _ = self.kernel_size
            raise ShapeError(
                f"Dense: this synapse was made for images of (H, W) = ({height}, {width}) and "
                f"takes (N, C, H, W, T), got {tuple(input.shape)}"
            )
        self._check_channels(input)
        if input.dim() == 5:
            self._check_kernel(input.shape[2], input.shape[3])

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Flatten an image that the kernel covers; a larger one is convolved, as in lava-dl."""
        if input.dim() == 3 or tuple(input.shape[2:4]) != self.kernel_size[:2]:
            return input, lambda y: y
        return input.flatten(1, 3), lambda y: y.reshape(y.shape[0], y.shape[1], 1, 1, y.shape[2])

    def forms(self, x: Tensor) -> tuple[OpDef, ...]:
        """Dense ops for (N, C, T), convolutions for images larger than the kernel."""
        return self.ops if x.dim() == 3 else conv.OPS

    def geometry(self, x: Tensor) -> tuple[Any, ...]:
        """A dense op has no geometry."""
        return () if x.dim() == 3 else super().geometry(x)
