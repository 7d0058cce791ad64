"""The frozen form of weights: the integer grid that a hook left behind, and its description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError
from synapse_onnx.model.operators import FLOAT32_EXACT
from synapse_onnx.quantize import Grid, find_grid, is_power_of_two, stored_bits
from synapse_onnx.synapse._weights import Weights

__all__ = ["describe_together", "freeze_together"]


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
    sums = [_largest_sum(part, first.fan_in_axes) for part in parts]
    scales = [each.weight_scale for each in layers if each.weight_scale is not None]
    return result | {
        "bits": 16 if len(parts) > len(layers) else _bits(parts),
        "wide": first.weight_high is not None,
        "scales": [scale.tolist() for scale in scales],
        "power_of_two": all(is_power_of_two(scale) for scale in scales),
        "input_bound": (FLOAT32_EXACT - 1) // max(1, *sums),
    }


def _bits(parts: Sequence[Tensor]) -> int:
    low, high = min(int(p.min()) for p in parts), max(int(p.max()) for p in parts)
    return stored_bits(low, high)
