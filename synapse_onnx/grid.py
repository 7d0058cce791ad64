"""Grids of weights: hooks for ``pre_hook_fx``, and the grid that any hook leaves behind.

A hook maps float weights to the weights that a synapse uses. It may be any callable; the ones
here round to multiples of a scale, with the gradient passed straight through.

A quantisation scale is the distance of two neighbouring weights, as in ONNX: ``weight = scale *
integer``. (The argument ``scale`` of :class:`Quantizer` is lava-dl's: the integer that stands for a
weight of 1.0.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synapse_onnx.errors import InputError

__all__ = [
    "Grid",
    "Quantizer",
    "Rounded",
    "find_grid",
    "is_by_chance",
    "is_power_of_two",
    "q8",
    "round_to_grid",
    "stored_bits",
]


class _RoundToGrid(torch.autograd.Function):
    """Round in the forward pass, identity in the backward pass (straight-through estimator)."""

    @staticmethod
    def forward(context: Any, x: Tensor, scale: float | Tensor) -> Tensor:
        return torch.round(x / scale) * scale

    @staticmethod
    def backward(context: Any, *grads: Any) -> Any:
        return grads[0], None


def round_to_grid(x: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """Round to multiples of a scale, halves to even; the gradient passes straight through."""
    result: Tensor = _RoundToGrid.apply(x, scale)  # type: ignore[no-untyped-call]
    return result


#: with more, the distance of two weights is soon no float32
_LARGEST_SCALE = 1 << 100


@dataclass(frozen=True)
class Quantizer:
    """Weights of ``bits`` bits, multiples of ``2 / scale``, as lava-dl quantises them.

    ``Quantizer()`` is lava-dl's ``neuron.quantize_8bit`` at its default scale: even integers
    over 64, clamped to [-4, 254/64]. Its ``quantize_hook_fx``, whose ``num_bits`` counts
    without the sign, is ``Quantizer(bits=9)``.

    Args:
        scale: the integer that stands for a weight of 1.0; the stored integers are half of it, for
            lava-dl's weights are even.
        bits: width of the stored integer, sign included, 2 to 16.

    Raises:
        InputError: scale is no positive integer of at most 2**100, or bits not in 2 ... 16.
    """

    scale: float = 64
    bits: int = 8

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, Real) and 0 < self.scale < math.inf):
            raise InputError(f"Quantizer: scale must be positive, got {self.scale}")
        if self.scale != int(self.scale) or self.scale > _LARGEST_SCALE:
            raise InputError(
                f"Quantizer: scale must be an integer of at most 2**100, got {self.scale}"
            )
        if not (isinstance(self.bits, Integral) and 2 <= self.bits <= 16):
            raise InputError(f"Quantizer: bits must be 2 to 16, got {self.bits}")

    def __call__(self, weight: Tensor, descale: bool = False) -> Tensor:
        """Return quantised weights of the same shape; ``descale`` returns them times scale."""
        unit = 2 / self.scale  # the quantisation scale
        half = 1 << (self.bits - 1)
        result = round_to_grid(weight, unit).clamp(-half * unit, (half - 1) * unit)
        return result * self.scale if descale else result


_Q8 = Quantizer()


def q8(weight: Tensor, descale: bool = False) -> Tensor:
    """lava-dl's 8-bit weights: ``round(w * 32) / 32`` clamped to [-4, 254/64]."""
    return _Q8(weight, descale)


@dataclass(frozen=True, eq=False)
class Rounded:
    """A hook that rounds weights to given scales: ``scale * round(weight / scale)``, clamped.

    Args:
        scale: of a shape that multiplies the weight: one number, or one an output channel.
        bits: width of the integers, sign included; they lie in -(2**(bits - 1) - 1) to
            2**(bits - 1) - 1.
    """

    scale: Tensor
    bits: int

    def __call__(self, weight: Tensor) -> Tensor:
        """Return weights on the grid; the gradient passes straight through within its range."""
        scale, most = self.scale.to(weight.device), (1 << (self.bits - 1)) - 1
        return round_to_grid(weight.clamp(-most * scale, most * scale), scale)


@dataclass(frozen=True)
class Grid:
    """Weights as integers times scales: ``weight == scale * integers``, exactly.

    Attributes:
        integers: the shape of the weight, int8 or int16.
        scale: float32, shape (1,) or one an output channel.
        bits: 4, 8 or 16: the narrowest stored width that holds every integer.
    """

    integers: Tensor
    scale: Tensor
    bits: int


def is_power_of_two(scale: Tensor) -> bool:
    """Whether every scale is a power of two, so that multiplying by it is exact."""
    mantissa, _ = np.frexp(scale.detach().cpu().numpy())
    return bool((mantissa == 0.5).all())


def stored_bits(low: int, high: int) -> int:
    """Return the narrowest stored width, 4, 8 or 16 bits, of integers from low to high."""
    return next(b for b in (4, 8, 16) if -(1 << (b - 1)) <= low and high < 1 << (b - 1))


def is_by_chance(grid: Grid, channel_axis: int | None = 0) -> bool:
    """Whether floats that nobody has rounded may lie on a grid like this one.

    The largest magnitude always does, for its scale follows from it. A further magnitude hits one
    of the 2**bits places by chance once in 2**(24 - bits), and there are 2**bits scales to choose
    from. So two weights may lie on a grid of 16 bits, and nine on one of 8 bits never do.
    """
    integers = grid.integers.to(torch.int32).abs()
    if grid.scale.numel() > 1 and channel_axis is not None:
        rows = list(integers.movedim(channel_axis, 0).flatten(1))
    else:
        rows = [integers.flatten()]
    further = [max(0, len(torch.unique(row[row > 0])) - 1) for row in rows]
    evidence = sum((24 - grid.bits) * count - grid.bits for count in further if count)
    return evidence < _LEAST_EVIDENCE


#: what is taken for a purpose: a chance of 1 in 2**40
_LEAST_EVIDENCE = 40

_LARGEST = (1 << 15) - 1
#: how many counts are tried before a weight is taken to lie on no grid
_MOST_COUNTS = 256


def find_grid(weight: Tensor, channel_axis: int | None = 0, bits: int = 16) -> Grid | None:
    """Find the integer grid that a weight lies on, exactly, or return None.

    One scale for the whole tensor is tried first, then one for each output channel.

    Args:
        weight: float32, any shape, finite.
        channel_axis: axis of the output channels; None allows one scale a tensor only.
        bits: the widest integers that are wanted.
    """
    values = weight.detach().to("cpu", torch.float32)
    largest = (1 << (bits - 1)) - 1
    axis, fit = 0, _fit(values.reshape(1, -1), largest)
    if fit is None and channel_axis is not None and channel_axis < values.dim():
        axis = channel_axis
        values = values.movedim(axis, 0)
        fit = _fit(values.reshape(values.shape[0], -1), largest)
    if fit is None:
        return None
    scales, integers = torch.from_numpy(fit[0]), torch.from_numpy(fit[1])
    stored = stored_bits(int(integers.min()), int(integers.max()))
    integers = integers.to(torch.int16 if stored == 16 else torch.int8).reshape(values.shape)
    return Grid(integers.movedim(0, axis).contiguous(), scales, stored)


def _fit(rows: Tensor, most: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Fit one scale to every row; None where a row lies on no grid of integers up to ``most``."""
    scales, integers = np.empty(len(rows), np.float32), np.empty(rows.shape, np.int32)
    for i, row in enumerate(rows.numpy()):
        fit = _fit_row(row, most)
        if fit is None:
            return None
        scales[i], integers[i] = fit
    return scales, integers


def _fit_row(
    row: np.ndarray[Any, Any], most: int
) -> tuple[np.float32, np.ndarray[Any, Any]] | None:
    head = row[: 4 * (most + 1)]  # of most weights a few are enough to see that there is no grid
    if np.unique(np.abs(head[head != 0])).size > most + 1:
        return None
    distinct = np.unique(np.abs(row[row != 0])).astype(np.float64)
    if distinct.size == 0:
        return np.float32(1), np.zeros(row.shape, np.int32)
    if distinct.size > most + 1:
        return None
    for candidate in _candidates(distinct):
        # a quotient near an integer is not enough: the float32 product must be the weight
        scale = np.float32(candidate)
        if scale == 0 or not np.isfinite(scale):
            continue
        integers = np.rint(row.astype(np.float64) / float(scale))
        if integers.min() < -most - 1 or integers.max() > most:
            continue
        if np.array_equal(integers.astype(np.float32) * scale, row):
            return scale, integers.astype(np.int32)
    return None


def _candidates(distinct: np.ndarray[Any, Any]) -> Iterator[float]:
    """Yield scales worth trying for some distinct magnitudes, ascending, best first."""
    largest = float(distinct[-1])
    # binary grids: the exact common divisor of the weights, as integers over a power of two; its
    # power of two comes first, for it multiplies exactly, though it may cost a bit
    exponent = 24 - math.frexp(largest)[1]
    scaled = distinct * 2.0**exponent
    if np.array_equal(scaled, np.rint(scaled)):
        divisor = int(np.gcd.reduce(scaled.astype(np.int64)))
        yield (divisor & -divisor) * 2.0**-exponent
    # other grids (max / 127, say): the largest weight is some count times the scale, and the count
    # must make every other weight a whole multiple too, up to the rounding of the weights
    counts = np.arange(1, _LARGEST + 2, dtype=np.float64)
    for ratio in distinct[np.linspace(0, distinct.size - 1, 32).astype(int)] / largest:
        wholes = counts * ratio
        counts = counts[np.abs(wholes - np.rint(wholes)) <= counts * 2.0**-22]
    # several counts are left where the integers have a common divisor, or are few
    for count in counts[:_MOST_COUNTS]:
        scale = np.float32(largest / count)
        # the largest weight was rounded, so the scale is known up to a neighbour or two
        yield float(scale)
        for end in (np.float32(0), np.float32(np.inf)):
            near = scale
            for _ in range(2):
                near = np.nextafter(near, end)
                yield float(near)
