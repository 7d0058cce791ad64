"""Scales of weights: of the largest weight, or those of the least error of a layer's current."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.grid import Rounded
from synapse_onnx.quantize._layers import channel_axis
from synapse_onnx.synapse import GenericLayer

__all__ = ["calibrated", "largest"]

#: parts of the largest weight that are tried as the end of the grid
_PARTS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4)

#: how much the change of the weights counts beside that of the current
_UNSEEN = 0.1


def largest(layer: Any, bits: int, *, per_channel: bool) -> Rounded:
    """Return the grid that ends at the largest weight of each output, or of all."""
    weight, axis = layer.weight.detach(), channel_axis(layer) if per_channel else None
    if axis is None:
        most = weight.abs().max().reshape([1] * weight.dim())
    else:
        others = [i for i in range(weight.dim()) if i != axis]
        most = weight.abs().amax(others, keepdim=True)
    scale = most / ((1 << (bits - 1)) - 1)
    return Rounded(torch.where(scale > 0, scale, torch.ones_like(scale)), bits)


@torch.no_grad()
def calibrated(layer: Any, bits: int, inputs: Sequence[Tensor], *, per_channel: bool) -> Rounded:
    """Return the grid, up to some part of the largest weight, with the least error of the current.

    That of output o is |L(x, rounded - weight)[o]|**2 / |L(x, weight)[o]|**2 over all inputs x. Of
    inputs that were silent it knows nothing, so a tenth of |rounded - weight|**2 / |weight|**2 is
    added: their weights are not clipped for the sake of the others.
    """
    whole = largest(layer, bits, per_channel=per_channel)
    alone = _without_bias(layer)
    weight, axis = layer.weight.detach(), channel_axis(layer) if per_channel else None
    best: Tensor | None = None
    scale = whole.scale

    def size(change: Tensor) -> Tensor:
        """Return the squared size of the current, and of the weight, for each output."""
        alone.weight.copy_(change)
        parts = [_squares(layer, alone(x), all_of_them=axis is None) for x in inputs]
        rows = change.double().square()
        rows = rows.sum().reshape(1) if axis is None else rows.movedim(axis, 0).flatten(1).sum(1)
        return torch.stack([torch.stack(parts).sum(0), rows])

    tiny = torch.finfo(torch.float64).tiny
    whole_size = size(weight).clamp(min=tiny)
    for part in _PARTS:
        rounded = Rounded(whole.scale * part, bits)
        currents, rows = size(rounded(weight) - weight) / whole_size
        error = currents + _UNSEEN * rows
        if best is None:
            best = error
            continue
        better = error < best
        best = torch.where(better, error, best)
        shape = [-1 if i == axis else 1 for i in range(weight.dim())]
        scale = torch.where(better.reshape(shape), rounded.scale, scale)
    return Rounded(scale, bits)


def _without_bias(layer: Any) -> Any:
    """Return a copy of a layer whose weight may be replaced, with no bias."""
    alone = copied_value(layer).requires_grad_(False)
    if isinstance(alone, GenericLayer):
        alone.pre_hook_fx = None
    elif alone.bias is not None:
        alone.bias.zero_()
    return alone


def _squares(layer: nn.Module, y: Tensor, *, all_of_them: bool) -> Tensor:
    """Return the sum of the squares of each output channel, or of all."""
    squares = y.double().square()
    if all_of_them:
        return squares.sum().reshape(1)
    axis: Any = -1
    if isinstance(layer, GenericLayer):
        axis = 1
    elif not isinstance(layer, nn.Linear):
        axis = y.dim() - len(layer.kernel_size) - 1  # type: ignore[arg-type]
    return squares.movedim(axis, 0).flatten(1).sum(1)
