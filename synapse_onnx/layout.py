"""Layout of tensors at the border: (N, C, T) and (N, C, H, W, T); without time (N, C[, H, W])."""

from __future__ import annotations

__all__ = ["has_time"]


def has_time(rank: int) -> bool:
    """Whether a tensor of this rank is a sequence, with time as its last axis."""
    return rank in (3, 5)
