"""Values of any shape, as the neurons of this package have them: (N, C) or (N, C, H, W).

The tokens of a transformer are (N, C, L): images with one pixel in a row, (N, C, L, 1). Sizes of 1
are put in, and of more than three sizes all after the second are one, so no number is moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["as_before", "as_neurons", "shape_of_neurons", "through"]


def shape_of_neurons(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return (C,) or (C, H, W) of the sizes of a value, without its batch."""
    if len(sizes) < 2:
        return tuple(sizes) or (1,)
    return *sizes[:2], math.prod(sizes[2:])


def as_neurons(sequence: Tensor) -> Tensor:
    """Return a sequence (T, N, ...) as (T, N, C) or (T, N, C, H, W)."""
    if sequence.dim() in (2, 4):
        return sequence.unsqueeze(-1)
    return sequence.flatten(4) if sequence.dim() > 5 else sequence


def as_before(sequence: Tensor, like: Tensor) -> Tensor:
    """Return what neurons made of a sequence in the shape that the sequence had."""
    if like.dim() in (2, 4):
        return sequence.squeeze(-1)
    return sequence.reshape(like.shape) if like.dim() > 5 else sequence


def through(layer: nn.Module, x: Tensor, axes: int = 0) -> Tensor:
    """Return what a layer of this package makes of a sequence (T, N, ...).

    A synapse reads the last ``axes``, (C,), (C, L) or (C, H, W), and takes whatever comes before
    them, as (T * N, C, H, W), for one step.
    """
    if not axes:
        return as_before(layer(as_neurons(x).movedim(0, -1)).movedim(-1, 0), x)
    if axes == 2:  # (C, L): images of one column
        return through(layer, x.unsqueeze(-1), 3).squeeze(-1)
    before = x.shape[:-axes]
    images = x
    for _ in range(2 - len(before)):
        images = images.unsqueeze(0)
    if len(before) > 2:
        images = images.flatten(0, len(before) - 2)
    y: Tensor = layer(images.movedim(0, -1)).movedim(-1, 0)
    for _ in range(2 - len(before)):
        y = y.squeeze(0)
    return y.reshape([*before, *y.shape[2:]]) if len(before) > 2 else y
