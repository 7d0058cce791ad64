"""Values of any shape, as the neurons of this package have them: (N, C) or (N, C, H, W).

The tokens of a transformer are (N, C, L): images with one pixel in a row, (N, C, L, 1). Sizes of 1
are put in, and of more than three sizes all after the second are one, so no number is moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

__all__ = ["as_before", "as_neurons", "shape_of_neurons"]


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
