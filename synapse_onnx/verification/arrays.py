"""Comparing two arrays: differences, tolerances, the first place that differs, a report's row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.report.result import Row
from synapse_onnx.verification.agreement import Agreement

__all__ = ["RTOL", "Tolerance", "compare_values", "difference", "first_place", "largest"]

#: default tolerance of float values, relative to the largest reference value
RTOL = 1e-5


def difference(reference: NDArray[Any], array: NDArray[Any]) -> NDArray[np.float64]:
    """Return absolute differences; NaN on both sides is none, on one side an infinite one."""
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
    """

    rtol: float
    atol: float
    #: address of a tensor of torch's that holds sums of floats -> largest sum of magnitudes. A
    #: tensor passes from layer to layer, and to the output, as it is
    _sums: dict[int, float] = field(default_factory=dict)

    def remember_sums(self, tensor: Tensor, magnitudes: Tensor) -> None:
        """Take note that a tensor holds sums of terms of these magnitudes."""
        self._sums[tensor.data_ptr()] = largest(magnitudes.numpy())

    def of(self, reference: NDArray[Any]) -> float:
        """Return the largest difference allowed of values that are not exact."""
        scale = max(largest(reference), self._sums.get(reference.ctypes.data, 0.0))
        return self.atol + self.rtol * scale


def compare_values(
    name: str,
    kind: str,
    reference: NDArray[Any],
    array: NDArray[Any],
    tolerance: Tolerance,
    agreement: Agreement | None,
    *,
    exact: bool,
    spiking: bool,
) -> tuple[Row, tuple[int, ...] | None]:
    """Compare two arrays of one shape.

    Args:
        name: path of the layer, or name of the output.
        kind: class of the layer, "output" or "stream".
        reference: what is expected.
        array: what ONNX Runtime returned.
        tolerance: of values that are not exact.
        agreement: which values that are not exact are comparable; None for all.
        exact: whether equality is demanded.
        spiking: whether these are spikes, whose flips are counted.

    Returns:
        The row, and the place of the first difference that counts, or None.
    """
    off = difference(reference, array)
    allowed = 0.0 if exact else tolerance.of(reference)
    wrong = off > allowed
    if agreement is not None and not exact:
        wrong &= agreement.covers(reference)
    first = first_place(wrong)
    row = Row(
        name,
        kind,
        exact,
        ok=first is None,
        max_abs_diff=float(off.max(initial=0)),
        tolerance=allowed,
        spike_flips=int((reference != array).sum()) if spiking else None,
        values=reference.size,
        spikes=(
            (int(np.count_nonzero(reference)), int(np.count_nonzero(array))) if spiking else None
        ),
    )
    return row, first
