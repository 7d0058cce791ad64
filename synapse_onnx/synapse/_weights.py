"""Weights of a synapse: weight norm, the hook on them, and the integers of the frozen form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Deployable
from synapse_onnx.errors import InputError, QuantizationError
from synapse_onnx.grid import Grid, find_grid, is_power_of_two, stored_bits
from synapse_onnx.model.operators import FLOAT32_EXACT

__all__ = ["Hook", "Weights", "describe_together", "freeze_together"]

#: a function of the weight that returns the weight to use, of the same shape
Hook = Callable[[Tensor], Tensor]


class Weights(Deployable):
    """A layer with one weight of five axes, the last for time and of size 1 (lava-dl's format).

    Before :meth:`freeze` the weight is a float32 parameter, or follows from ``weight_g`` and
    ``weight_v`` under weight norm, and ``pre_hook_fx`` is applied at every use. The frozen form
    holds the weights in use, as integers times a scale where they lie on a grid. The attributes
    are described in ``GenericLayer``.
    """

    #: whether torch adds a bias within the sums, and a file after them: another rounding
    biased: bool = False
    #: axis of the output channels in the weight; None where one kernel serves all channels
    channel_axis: int | None = 0

    #: five axes; a Parameter, or integers in the frozen form, or computed under weight norm
    weight: Any
    bias: Any
    weight_g: Any
    weight_v: Any
    weight_scale: Tensor | None
    weight_high: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self._set_up(1, False, None)

    def _set_up(self, weight_scale: float, weight_norm: bool, pre_hook_fx: Hook | None) -> None:
        """Finish a constructor: scale the initial weight, set the hook, enable weight norm."""
        self.weight_norm_enabled = False
        self._pre_hook_fx = pre_hook_fx
        self.register_buffer("weight_scale", None)
        self.register_buffer("weight_high", None)
        if weight_scale != 1:
            with torch.no_grad():
                self.weight.mul_(weight_scale)
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


def freeze_together(*layers: Weights) -> None:
    """Freeze one synapse, or the two of a complex one, which must end in the same form.

    Raises:
        InputError: a weight is NaN or infinite.
        QuantizationError: a hook does not return a weight of the same shape.
    """
    if layers[0].weight_scale is not None:
        return  # frozen already
    weights = [_weight_in_use(layer) for layer in layers]
    grids = [_grid_of(layer, weight) for layer, weight in zip(layers, weights, strict=True)]
    for layer in layers:
        layer.disable_weight_norm()
        layer.pre_hook_fx = None
    known = [grid for grid in grids if grid is not None]
    if len(known) < len(layers):
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = nn.Parameter(weight, requires_grad=False)
        return
    dtype = max((grid.integers.dtype for grid in known), key=lambda d: d.itemsize)
    wide = any(
        _largest_sum(grid.integers, layer.fan_in_axes) >= FLOAT32_EXACT
        for layer, grid in zip(layers, known, strict=True)
    )
    for layer, grid in zip(layers, known, strict=True):
        _store(layer, grid, dtype, wide=wide)


def _weight_in_use(layer: Weights) -> Tensor:
    """Return a copy of the weight in use; refuse what no file can hold."""
    if layer.weight.dtype != torch.float32:
        raise InputError(
            f"{type(layer).__name__}: the weight is {layer.weight.dtype}, and models are "
            f"exported in float32; call .float() on the network first"
        )
    if not bool(torch.isfinite(layer.weight).all()):
        raise InputError(f"{type(layer).__name__}: the weight has NaN or infinite values")
    weight = layer.effective_weight.detach().clone()
    if not bool(torch.isfinite(weight).all()):
        raise InputError(f"{type(layer).__name__}: pre_hook_fx returned NaN or infinite weights")
    return weight


def _grid_of(layer: Weights, weight: Tensor) -> Grid | None:
    """Return the grid that a layer's weights are stored on; None keeps them float.

    Without a hook no grid was intended: it is used only where it changes no output (a pooling
    kernel of ones, for example), that is, where its scales are powers of two.
    """
    grid = find_grid(weight, layer.channel_axis)
    if grid is None or (layer.pre_hook_fx is None and not is_power_of_two(grid.scale)):
        return None
    return grid


def _store(layer: Weights, grid: Grid, dtype: torch.dtype, *, wide: bool) -> None:
    """Replace a layer's weight by integers and their scale; two bytes apart where sums are wide.

    Example: 12,345 is stored as 256 * 48 + 57. The low byte lies in -128 to 127, so that each part
    is a small integer of its own sign, and sums of each part stay below 2**24.
    """
    device = layer.weight.device
    integers = grid.integers.to(device=device, dtype=dtype)
    del layer.weight
    if wide:
        high = (integers.to(torch.int32) + 128) >> 8
        layer.weight_high = high.to(torch.int16)  # -128 to 128: one too many for int8
        integers = (integers.to(torch.int32) - 256 * high).to(torch.int8)
    layer.register_buffer("weight", integers)
    layer.weight_scale = grid.scale.to(device)


def _largest_sum(integers: Tensor, axes: Sequence[int]) -> int:
    """Return the largest ``sum(|w|)`` over the weights of one output."""
    return int(integers.to(torch.int64).abs().sum(dim=list(axes)).max())


def describe_together(*layers: Weights) -> dict[str, Any]:
    """Describe one frozen synapse, or the two of a complex one, for the metadata of a file.

    ``scales`` holds one list a part: the quantisation scale, or one an output channel.
    ``input_bound`` is the largest input, in units of its own grid, with which every sum of the
    quantised synapse is exact in float32.
    """
    first = layers[0]
    result: dict[str, Any] = {
        "kind": type(first).__name__,
        "complex": len(layers) == 2,
        "weight_shape": list(first.shape),
        "quantized": first.weight_scale is not None,
    }
    if first.weight_scale is None:
        return result
    parts = [
        part for each in layers for part in (each.weight, each.weight_high) if part is not None
    ]
    low, high = min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)
    sums = [_largest_sum(part, first.fan_in_axes) for part in parts]
    wide = first.weight_high is not None
    scales = [each.weight_scale for each in layers if each.weight_scale is not None]
    if first.biased or first.bias is not None:
        result["biased"] = True
    return result | {
        "bits": 16 if wide else stored_bits(low, high),
        "wide": wide,
        "scales": [scale.tolist() for scale in scales],
        "power_of_two": all(is_power_of_two(scale) for scale in scales),
        "input_bound": (FLOAT32_EXACT - 1) // max(1, *sums),
    }
