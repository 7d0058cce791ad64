"""Complex synapses: a real input, two weights, a pair (real, imag) of dendrite currents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from synapse_onnx._layer import Deployable
from synapse_onnx.errors import InputError
from synapse_onnx.synapse import layer
from synapse_onnx.synapse._weights import describe_together, freeze_together
from synapse_onnx.synapse.layer import GenericLayer, Hook, IntOrPair

__all__ = ["ComplexLayer", "Conv", "ConvTranspose", "Dense", "Pool", "Unpool"]


class ComplexLayer(Deployable):
    """Abstract complex synapse: two real synapses of the same geometry.

    A subclass has the arguments of its real synapse, and makes both parts with them.

    Args:
        make: function without arguments that makes a part; called for the real one first.

    Attributes:
        real: real synapse.
        imag: imaginary synapse.
        complex: True.
    """

    complex: bool = True

    real: GenericLayer
    imag: GenericLayer

    def __init__(self, make: Callable[[], GenericLayer]) -> None:
        super().__init__()
        self.real = make()
        self.imag = make()

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Return (real, imag) dendrite currents of an input, in one pass over it.

        Raises:
            ShapeError: wrong rank or channel count, or a kernel larger than the padded input.
            QuantizationError: the hook does not return a weight of the same shape.
        """
        real, imag = self.real.run(input, self.real, self.imag)
        return real, imag

    @property
    def in_channels(self) -> int:
        """Input channels."""
        return self.real.in_channels

    @property
    def out_channels(self) -> int:
        """Output channels."""
        return self.real.out_channels

    @property
    def weight_norm_enabled(self) -> bool:
        """Whether weight norm is enabled."""
        return self.real.weight_norm_enabled

    def enable_weight_norm(self) -> None:
        """Enable weight norm on both parts."""
        self.real.enable_weight_norm()
        self.imag.enable_weight_norm()

    def disable_weight_norm(self) -> None:
        """Disable weight norm on both parts."""
        self.real.disable_weight_norm()
        self.imag.disable_weight_norm()

    @property
    def grad_norm(self) -> float:
        """Norm of both gradients, sqrt(real**2 + imag**2)."""
        return math.hypot(self.real.grad_norm, self.imag.grad_norm)

    @property
    def pre_hook_fx(self) -> Hook | None:
        """The function applied to both weights before they are used.

        Raises:
            InputError: the two parts have different hooks.
        """
        # == and not "is": every access to a bound method makes a new object
        if self.real.pre_hook_fx != self.imag.pre_hook_fx:
            raise InputError(
                "the real and the imaginary synapse have different hooks; "
                "set pre_hook_fx on the complex synapse"
            )
        return self.real.pre_hook_fx

    @pre_hook_fx.setter
    def pre_hook_fx(self, fx: Hook | None) -> None:
        self.real.pre_hook_fx = fx
        self.imag.pre_hook_fx = fx

    @property
    def shape(self) -> torch.Size:
        """Shape of either weight, five axes."""
        return self.real.shape

    def freeze(self) -> None:
        """Turn this synapse into its deployment form, in place, both parts alike."""
        freeze_together(self.real, self.imag)

    def describe(self) -> dict[str, Any]:
        """Return kind, shape and quantisation of this frozen synapse."""
        return describe_together(self.real, self.imag)


class Dense(ComplexLayer):
    """Complex dense synapse.

    Args:
        in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx: see
            :class:`synapse_onnx.synapse.Dense`.

    Example:
        >>> real, imag = Dense(200, 10)(torch.zeros(4, 200, 50))
        >>> real.shape, imag.shape
        (torch.Size([4, 10, 50]), torch.Size([4, 10, 50]))
    """

    def __init__(
        self,
        in_neurons: int | Sequence[int],
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = None,
    ) -> None:
        super().__init__(
            lambda: layer.Dense(in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx)
        )


class _Convolution(ComplexLayer):
    part: ClassVar[Callable[..., GenericLayer]]

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
        super().__init__(
            lambda: type(self).part(
                in_features, out_features, kernel_size, stride, padding, dilation, groups,
                weight_scale, weight_norm, pre_hook_fx,
            )
        )  # fmt: skip


class Conv(_Convolution):
    """Complex convolution synapse.

    Args:
        in_features, out_features, kernel_size, stride: see :class:`synapse_onnx.synapse.Conv`.
        padding, dilation, groups, weight_scale, weight_norm, pre_hook_fx: likewise.
    """

    part = layer.Conv


class ConvTranspose(_Convolution):
    """Complex transposed convolution synapse.

    Args:
        in_features, out_features, kernel_size: see
            :class:`synapse_onnx.synapse.ConvTranspose`.
        stride, padding, dilation, groups, weight_scale, weight_norm, pre_hook_fx: likewise.
    """

    part = layer.ConvTranspose


class _Window(ComplexLayer):
    part: ClassVar[Callable[..., GenericLayer]]

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
        super().__init__(
            lambda: type(self).part(
                kernel_size, stride, padding, dilation, weight_scale, weight_norm, pre_hook_fx,
                merge_channels,
            )
        )  # fmt: skip


class Pool(_Window):
    """Complex pooling synapse.

    Args:
        kernel_size, stride, padding: see :class:`synapse_onnx.synapse.Pool`.
        dilation, weight_scale, weight_norm, pre_hook_fx, merge_channels: likewise.
    """

    part = layer.Pool


class Unpool(_Window):
    """Complex unpooling synapse.

    Args:
        kernel_size, stride, padding: see :class:`synapse_onnx.synapse.Unpool`.
        dilation, weight_scale, weight_norm, pre_hook_fx, merge_channels: likewise.
    """

    part = layer.Unpool
