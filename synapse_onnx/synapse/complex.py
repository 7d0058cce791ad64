"""Complex synapses: a real input, two weights, a pair (real, imag) of dendrite currents."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from synapse_onnx._layer import Deployable
from synapse_onnx.errors import InputError
from synapse_onnx.synapse import layer
from synapse_onnx.synapse.layer import GenericLayer, Hook, describe_together, freeze_together

__all__ = ["ComplexLayer", "Conv", "ConvTranspose", "Dense", "Pool", "Unpool"]


class ComplexLayer(Deployable):
    """Abstract complex synapse: two real synapses of the same geometry.

    Subclasses name the real synapse in :attr:`make`; constructor arguments are its own, and both
    parts are made with them.

    Attributes:
        real: real synapse.
        imag: imaginary synapse.
        complex: True.
    """

    complex: bool = True
    make: ClassVar[type[GenericLayer]]

    real: GenericLayer
    imag: GenericLayer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.real = self.make(*args, **kwargs)
        self.imag = self.make(*args, **kwargs)

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
    """Complex dense synapse; arguments of :class:`synapse_onnx.synapse.Dense`.

    Example:
        >>> real, imag = Dense(200, 10)(torch.zeros(4, 200, 50))
        >>> real.shape, imag.shape
        (torch.Size([4, 10, 50]), torch.Size([4, 10, 50]))
    """

    make = layer.Dense


class Conv(ComplexLayer):
    """Complex convolution synapse; arguments of :class:`synapse_onnx.synapse.Conv`."""

    make = layer.Conv


class ConvTranspose(ComplexLayer):
    """Complex transposed convolution; arguments of :class:`synapse_onnx.synapse.ConvTranspose`."""

    make = layer.ConvTranspose


class Pool(ComplexLayer):
    """Complex pooling synapse; arguments of :class:`synapse_onnx.synapse.Pool`."""

    make = layer.Pool


class Unpool(ComplexLayer):
    """Complex unpooling synapse; arguments of :class:`synapse_onnx.synapse.Unpool`."""

    make = layer.Unpool
