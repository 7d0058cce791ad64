"""Comparing arrays: differences, tolerances, the first place, how long trajectories agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.model.layout import has_time

__all__ = ["RTOL", "Agreement", "Tolerance", "difference", "first_place", "largest"]

#: default tolerance of float values, relative to the largest reference value
RTOL = 1e-5

#: sums of a thousand float32 below 2**-126 are off by this much, whatever their size
_SMALLEST = 1000 * 2.0**-149


def difference(reference: NDArray[Any], array: NDArray[Any]) -> NDArray[np.float64]:
    """Return absolute differences; NaN on both sides is none, on one side an infinite one."""
    if np.array_equal(reference, array):  # most are, and all that follows is slow
        return np.zeros(reference.shape)
    same = (reference == array) | (np.isnan(reference) & np.isnan(array))
    with np.errstate(invalid="ignore"):
        distance = np.where(same, 0.0, np.abs(reference.astype(np.float64) - array))
    return np.where(np.isnan(distance), np.inf, distance)


def largest(array: NDArray[Any]) -> float:
    """Return the largest magnitude among finite values; 0 where there are none."""
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))


def first_place(mask: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Return the index of the first true value, earliest in time (the last axis) first."""
    if not mask.any():
        return None
    if mask.ndim == 0:
        return ()
    places = np.argwhere(mask)
    order = np.lexsort([*places[:, ::-1].T[1:], places[:, -1]])
    return tuple(int(i) for i in places[order[0]])


@dataclass
class Tolerance:
    """How far values may be from torch's, in one run.

    Attributes:
        rtol: relative tolerance.
        atol: absolute tolerance, added to it.
        largest_value: the largest value in the network, of which values that are zero throughout
            may be what remains, as the deviation of equal values.
    """

    rtol: float
    atol: float
    largest_value: float = 0.0
    #: address of a tensor of torch's that holds sums of floats -> largest sum of magnitudes. A
    #: tensor passes from layer to layer, and to the output, as it is
    _sums: dict[int, float] = field(default_factory=dict)

    def remember_sums(self, tensor: Tensor, magnitudes: Tensor) -> None:
        """Take note that a tensor holds sums of terms of these magnitudes."""
        self.remember(tensor, largest(magnitudes.numpy()))

    def remember(self, tensor: Tensor, scale: float) -> None:
        """Take note that the values of a tensor follow from some as large as this."""
        self._sums[tensor.data_ptr()] = scale

    def of(self, reference: NDArray[Any]) -> float:
        """Return the largest difference allowed of values that are not exact."""
        scale = max(largest(reference), self._sums.get(reference.ctypes.data, 0.0))
        relative = self.rtol * (scale or self.largest_value)
        return self.atol + (max(relative, _SMALLEST) if relative else 0.0)


class Agreement:
    """The common prefix of the trajectories of torch and ONNX Runtime, for each sample.

    One rounding can flip a spike. From there on the two networks have different inputs, and values
    that differ show no fault. So every sample counts up to its first flip.

    Steps are those of the network's input. A value with fewer steps holds bins of them, after a
    time decimation by 4 say: a bin is comparable while all of its steps are. A value with another
    batch size, after a reshape of the user's, may come from any sample: it counts up to the first
    flip of all.

    Args:
        samples: size of the batch.
        steps: steps of the network's input.
    """

    def __init__(self, samples: int, steps: int) -> None:
        self._steps = steps
        self._until = np.full(samples, steps)

    def covers(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values (N, ...[, T]) are comparable; without time, those of whole samples.

        Returns:
            bool, of the shape of the values.
        """
        until: Any = self._until.min()
        if self._has_batch_of(values):
            until = self._until.reshape(-1, *(1,) * (values.ndim - 1))
        bins = values.shape[-1] if has_time(values.ndim) else 1
        ends: Any = self._steps
        if bins > 1:  # the longest that give this number of bins; the last one may be cut short
            width = -(-self._steps // (bins - 1)) - 1
            ends = np.minimum(np.arange(1, bins + 1) * max(width, 1), self._steps)
        return np.broadcast_to(ends <= until, values.shape)

    def end_at(self, flipped: NDArray[np.bool_]) -> None:
        """End the prefixes where values (N, ..., T) are flipped."""
        width = -(-self._steps // flipped.shape[-1])  # the shortest that bins can be
        for sample, *_, t in np.argwhere(flipped):
            ended = self._until[sample:][:1] if self._has_batch_of(flipped) else self._until
            np.minimum(ended, t * width, out=ended)

    def _has_batch_of(self, values: NDArray[Any]) -> bool:
        return values.shape[:1] == self._until.shape
