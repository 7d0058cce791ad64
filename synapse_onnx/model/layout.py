"""Layout of a model's inputs and outputs: (N, C, T), (N, C, H, W, T), or without T.

In the layout "TNC" time comes first: (T, N, C) and (T, N, C, H, W); in "NTC" after the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LAYOUTS", "axes_of", "has_time", "time_axis", "time_first", "time_last"]

#: layouts of a model's inputs and outputs
LAYOUTS = ("NCT", "TNC", "NTC")


def has_time(rank: int) -> bool:
    """Whether a tensor of this rank is a sequence, with time as its last axis."""
    return rank in (3, 5)


def axes_of(layout: str, rank: int) -> tuple[int, int | None]:
    """Return the axes of batch and time; None for the time of a tensor without it."""
    if not has_time(rank):
        return 0, None
    return int(layout == "TNC"), time_axis(layout, rank)


def time_axis(layout: str, rank: int) -> int:
    """Return the axis of time of a tensor that has it."""
    return {"TNC": 0, "NTC": 1}.get(layout, rank - 1)


def time_last(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """View an array of a layout as (N, C[, H, W], T)."""
    if layout == "NCT" or not has_time(array.ndim):
        return array
    return np.moveaxis(array, time_axis(layout, array.ndim), -1)


def time_first(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """View an array (N, C[, H, W], T) in a layout."""
    if layout == "NCT" or not has_time(array.ndim):
        return array
    return np.moveaxis(array, -1, time_axis(layout, array.ndim))
