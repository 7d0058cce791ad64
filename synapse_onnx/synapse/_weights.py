"""Weights of a synapse: weight norm, the hook on them, and the integers of the frozen form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Deployable
from synapse_onnx.errors import InputError, QuantizationError

__all__ = ["Hook", "Weights"]

#: a function of the weight that returns the weight to use, of the same shape
Hook = Callable[[Tensor], Tensor]


class Weights(Deployable):
    """A layer with one weight of five axes, the last for time and of size 1 (lava-dl's format).

    Before :meth:`freeze` the weight is a float32 parameter, or follows from ``weight_g`` and
    ``weight_v`` under weight norm, and ``pre_hook_fx`` is applied at every use. The frozen form
    holds the weights in use, as integers times a scale where they lie on a grid.

    Attributes:
        weight_norm_enabled: whether the weight is ``weight_g * weight_v / |weight_v|``, the norm
            taken over all axes but the first.
        weight: the weight before the hook, five axes (int8 or int16 in the quantised form).
        weight_scale: None, or in the quantised form the quantisation scale, float32 (1,) or
            (output channels,): ``weight in use = weight_scale * weight``, as in ONNX. The
            constructors' argument of this name is another thing, lava-dl's factor on the initial
            weights, and is not kept.
        weight_high: None, or the high bytes of integers whose sums float32 cannot hold in one
            piece, int16: ``weight in use = weight_scale * (256 * weight_high + weight)``.
    """

    #: axis of the output channels in the weight; None where one kernel serves all channels
    channel_axis: int | None = 0

    #: five axes; a Parameter, or integers in the frozen form, or computed under weight norm
    weight: Any
    weight_g: Any
    weight_v: Any

    def __init__(self) -> None:
        super().__init__()
        self.weight_norm_enabled = False
        self._pre_hook_fx: Hook | None = None
        self.weight_scale: Tensor | None
        self.weight_high: Tensor | None
        self.register_buffer("weight_scale", None)
        self.register_buffer("weight_high", None)

    def _set_up(self, weight_scale: float, weight_norm: bool, pre_hook_fx: Hook | None) -> None:
        """Finish a constructor: scale the initial weight, set the hook, enable weight norm."""
        if weight_scale != 1:
            with torch.no_grad():
                self.weight.mul_(weight_scale)
        self._pre_hook_fx = pre_hook_fx
        if weight_norm:
            self.enable_weight_norm()

    # -- weight norm -------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # with weight norm the weight is no parameter but follows from two
        if name == "weight" and "weight_v" in self.__dict__.get("_parameters", {}):
            return torch._weight_norm(self.weight_v, self.weight_g, 0)
        return super().__getattr__(name)

    def enable_weight_norm(self) -> None:
        """Split the weight into length ``weight_g`` and direction ``weight_v``."""
        if self.weight_norm_enabled:
            return
        self._refuse_if_frozen("weight norm")
        weight = self.weight.detach()
        grad = self.weight.requires_grad
        del self.weight
        length = torch.norm_except_dim(weight, 2, 0)
        self.weight_g = nn.Parameter(length, requires_grad=grad)
        self.weight_v = nn.Parameter(weight.clone(), requires_grad=grad)
        self.weight_norm_enabled = True

    def disable_weight_norm(self) -> None:
        """Fold ``weight_g`` and ``weight_v`` back into one weight."""
        if not self.weight_norm_enabled:
            return
        weight = self.weight.detach().clone()
        grad = self.weight_v.requires_grad
        del self.weight_g, self.weight_v
        self.weight = nn.Parameter(weight, requires_grad=grad)
        self.weight_norm_enabled = False

    @property
    def grad_norm(self) -> float:
        """Norm of the weight's gradient over the number of weights; 0 where there is none."""
        tensor = self.weight_g if self.weight_norm_enabled else self.weight
        if tensor.grad is None:
            return 0.0
        return float(torch.linalg.vector_norm(tensor.grad)) / int(tensor.grad.numel())

    # -- hook --------------------------------------------------------------------------------

    @property
    def pre_hook_fx(self) -> Hook | None:
        """The function applied to the weight before it is used, usually a quantiser."""
        return self._pre_hook_fx

    @pre_hook_fx.setter
    def pre_hook_fx(self, fx: Hook | None) -> None:
        if fx is not None:
            self._refuse_if_frozen("pre_hook_fx")
        self._pre_hook_fx = fx

    def _refuse_if_frozen(self, what: str) -> None:
        if self.weight_scale is not None:
            raise InputError(
                f"{type(self).__name__}: {what} cannot be set on frozen integer weights; set it on "
                f"the network before freeze()"
            )

    # -- the weight in use -------------------------------------------------------------------

    @property
    def shape(self) -> torch.Size:
        """Shape of the weight, five axes."""
        shape: torch.Size = self.weight.shape
        return shape

    @property
    def fan_in_axes(self) -> tuple[int, ...]:
        """Axes of the weight over which one output's sum runs."""
        return tuple(axis for axis in range(5) if axis != self.channel_axis)

    @property
    def effective_weight(self) -> Tensor:
        """The weight in use, float32: weight norm and hook applied, integers times their scale.

        Raises:
            QuantizationError: the hook returned no tensor, or one of another shape.
        """
        weight: Tensor = self.weight
        if self.weight_scale is not None:
            integers = weight.to(torch.float32)
            if self.weight_high is not None:
                integers = integers + 256 * self.weight_high.to(torch.float32)
            axis = self.channel_axis or 0
            return integers * self.weight_scale.reshape([-1 if i == axis else 1 for i in range(5)])
        if self._pre_hook_fx is None:
            return weight
        hooked = self._pre_hook_fx(weight)
        if not isinstance(hooked, Tensor):
            raise QuantizationError(
                f"pre_hook_fx must return a tensor, got {type(hooked).__name__}"
            )
        if hooked.shape != weight.shape:
            raise QuantizationError(
                f"pre_hook_fx returned shape {tuple(hooked.shape)} for a weight of shape "
                f"{tuple(weight.shape)}; it must keep the shape"
            )
        return hooked

    def weight_and_scale(self) -> tuple[Tensor, Tensor]:
        """Return integers and their scale in the quantised form, else the weight in use and 1."""
        if self.weight_scale is not None and self.weight_high is None:
            return self.weight, self.weight_scale
        return self.effective_weight, torch.ones(1, device=self.weight.device)
