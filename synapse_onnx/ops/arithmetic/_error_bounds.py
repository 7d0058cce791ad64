"""Fixed point beside a bound of its error: what roundings of the currents can change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.ops.arithmetic._tensors import Fixed, OnLoihi
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE, decay_state

__all__ = ["BoundedInteger", "ErrorBound", "LoihiErrorBound"]


class BoundedInteger:
    """Integers, and how many units each may be off; comparisons note where that could decide."""

    __slots__ = ("a", "off", "value")

    def __init__(self, a: ErrorBound, value: Any, off: Any) -> None:
        self.a, self.value, self.off = a, value, off

    def _of(self, other: Any) -> BoundedInteger:
        return other if isinstance(other, BoundedInteger) else BoundedInteger(self.a, other, 0)

    def __add__(self, other: Any) -> BoundedInteger:
        other = self._of(other)
        return BoundedInteger(self.a, self.value + other.value, self.off + other.off)

    def __sub__(self, other: Any) -> BoundedInteger:
        other = self._of(other)
        return BoundedInteger(self.a, self.value - other.value, self.off + other.off)

    def __mul__(self, factor: int) -> BoundedInteger:
        return BoundedInteger(self.a, self.value * factor, self.off * abs(factor))

    def __ge__(self, other: Any) -> Tensor:
        above = self - other
        # what is off by n is compared with n at the most below it, and n - 1 above
        self.a.undecided.append((above.value >= -above.off) & (above.value < above.off))
        reached: Tensor = above.value >= 0
        return reached

    def __lt__(self, other: Any) -> Tensor:
        reached: Tensor = self >= other
        return ~reached

    __radd__, __rmul__ = __add__, __mul__


class ErrorBound(Fixed):
    """Fixed point beside what roundings of its currents can change, until a spike differs.

    Of a sum of floats in another order a current may be a unit more or less. What follows from it
    is bounded step by step: the sum of two numbers may be off by what both are, a product that is
    cut down to whole units by the next whole number. All spikes are those of the exact currents.
    """

    def __init__(self, scale: float, rounding: float) -> None:
        super().__init__(scale, 1.0, 1.0, False)
        #: how far currents may be off, in units of 1 / scale
        self.rounding = rounding
        #: where each comparison could have come out otherwise, in order
        self.undecided: list[Tensor] = []
        #: how many units the heights of graded spikes may be off, time first
        self.height: Any = 0

    def start(self, state: Tensor) -> Any:
        return BoundedInteger(self, state, torch.zeros(state.shape, dtype=torch.float64))

    def last(self, state: Any) -> Tensor:
        off: Tensor = state.off
        return off

    def take(self, x: Tensor) -> Any:
        units = x.double() * self.scale
        ends = (units + self.rounding).trunc() - (units - self.rounding).trunc()
        return BoundedInteger(self, super().take(x), ends.nan_to_num())  # of what is infinite, too

    def steps(self, x: Tensor) -> Sequence[Any]:
        taken = self.take(x)
        pairs = zip(taken.value.unbind(0), taken.off.unbind(0), strict=True)
        return [BoundedInteger(self, value, off) for value, off in pairs]

    def give(self, state: Any) -> Any:
        return super().give(state.value)

    def scaled(self, state: Any, factor: Any) -> Any:
        off = (state.off * factor.abs() / DECAY_ONE).ceil()
        return BoundedInteger(self, decay_state(state.value, factor), off)

    def through_float(self, state: Any) -> Any:
        return BoundedInteger(self, super().through_float(state.value), state.off)

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        like = yes if isinstance(yes, BoundedInteger) else no
        yes, no = like._of(yes), like._of(no)
        return BoundedInteger(
            self,
            torch.where(condition, yes.value, no.value),
            torch.where(condition, yes.off, no.off),
        )

    def reset(self, condition: Any, value: Any, state: Any) -> Any:
        return self.where(condition, value, state)

    def stack(self, values: Sequence[Any]) -> Any:
        if not isinstance(values[0], BoundedInteger):
            return super().stack(values)
        value = torch.stack([one.value for one in values])
        return BoundedInteger(self, value, torch.stack([one.off for one in values]))

    def spike(self, fired: Any, voltage: Any, limit: Any) -> Any:
        self.height = voltage.off
        return fired

    def phase_spike(self, fired: Any, real: Any, imag: Any, limit: Any) -> Any:
        return self.spike(fired, real, limit)


class LoihiErrorBound(OnLoihi, ErrorBound):
    """The same beside what roundings can change, as long as 24 bits cut nothing off."""
