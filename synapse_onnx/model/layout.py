"""Layout of a model's inputs and outputs: (N, C, T), (N, C, H, W, T), or without T.

In the layout "TNC" time comes first: (T, N, C) and (T, N, C, H, W).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LAYOUTS", "axes_of", "has_time", "time_first", "time_last"]

#: layouts of a model's inputs and outputs
LAYOUTS = ("NCT", "TNC")


def has_time(rank: int) -> bool:
    """Whether a tensor of this rank is a sequence, with time as its last axis."""
    return rank in (3, 5)


def axes_of(layout: str, rank: int) -> tuple[int, int | None]:
    """Return the axes of batch and time; None for the time of a tensor without it."""
    if not has_time(rank):
        return 0, None
    return (1, 0) if layout == "TNC" else (0, rank - 1)


def time_last(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """View an array of a layout as (N, C[, H, W], T)."""
    return np.moveaxis(array, 0, -1) if layout == "TNC" and has_time(array.ndim) else array


def time_first(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """View an array (N, C[, H, W], T) in a layout."""
    return np.moveaxis(array, -1, 0) if layout == "TNC" and has_time(array.ndim) else array
