"""Fixed point that carries a gradient: integers beside the real numbers that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.ops._neuron import per_channel
from synapse_onnx.ops.arithmetic._tensors import Fixed, OnLoihi, norm_in_float
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE, decay_state
from synapse_onnx.ops.arithmetic.loihi import clip, wrap

__all__ = ["Dual", "LoihiDual", "NormedDual", "Pair"]


class _Straight(torch.autograd.Function):
    """Another number, to the last bit, with the gradient of this one."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, true: Tensor) -> Tensor:
        return true.view_as(true)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Pair:
    """Integers in units of 1 / scale, and the real numbers that they stand for, with gradient."""

    __slots__ = ("real", "scale", "value")

    def __init__(self, value: Any, real: Any, scale: float) -> None:
        self.value, self.real, self.scale = value, real, scale

    def _of(self, other: Any) -> Pair:
        return other if isinstance(other, Pair) else Pair(other, other / self.scale, self.scale)

    def __add__(self, other: Any) -> Pair:
        other = self._of(other)
        return Pair(self.value + other.value, self.real + other.real, self.scale)

    def __sub__(self, other: Any) -> Pair:
        other = self._of(other)
        return Pair(self.value - other.value, self.real - other.real, self.scale)

    def __rsub__(self, other: Any) -> Pair:
        return self._of(other) - self

    def __mul__(self, factor: int) -> Pair:
        return Pair(self.value * factor, self.real * factor, self.scale)

    def __ge__(self, other: Any) -> Tensor:
        fired: Tensor = self.value >= self._of(other).value
        return fired

    def __lt__(self, other: Any) -> Tensor:
        below: Tensor = self.value < self._of(other).value
        return below

    __radd__, __rmul__ = __add__, __mul__

    def exact(self) -> Pair:
        """The same gradient at the number that the integer stands for."""
        true = self.value.to(self.real.dtype) / self.scale
        return Pair(self.value, _Straight.apply(self.real, true), self.scale)  # type: ignore[no-untyped-call]


class Dual(Fixed):
    """Fixed point that carries the gradient of the real-valued recurrence beside the integers.

    Rounding passes the gradient on (straight through), and so does a reset, as in slayer.
    """

    def parameter(self, value: Tensor, like: Tensor, table: Any) -> Any:
        real = per_channel(value, like)
        whole = super().parameter(value, like, table)
        if table.real:
            return Pair(whole, real, 1)
        if table.level:
            return Pair(whole, real, self.scale).exact()
        return Pair(whole, 1 - real / DECAY_ONE if table.kept else real / DECAY_ONE, DECAY_ONE)

    def start(self, state: Tensor) -> Any:
        return Pair(state, super().give(state), self.scale)

    def last(self, state: Any) -> Tensor:
        result: Tensor = state.value
        return result

    def take(self, x: Tensor) -> Any:
        return Pair(super().take(x.detach()), x, self.scale).exact()

    def steps(self, x: Tensor) -> Sequence[Any]:
        taken = self.take(x)
        pairs = zip(taken.value.unbind(0), taken.real.unbind(0), strict=True)
        return [Pair(value, real, self.scale) for value, real in pairs]

    def give(self, state: Any) -> Any:
        return state.exact().real  # a sum of rounded numbers is not the rounded sum

    def scaled(self, state: Any, factor: Any) -> Any:
        value = decay_state(state.value, factor.value)
        return Pair(value, state.real * factor.real, self.scale).exact()

    def through_float(self, state: Any) -> Any:
        return Pair(super().through_float(state.value), state.real, self.scale)

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        like = yes if isinstance(yes, Pair) else no
        yes, no = like._of(yes), like._of(no)
        return Pair(
            torch.where(condition, yes.value, no.value),
            torch.where(condition, yes.real, no.real),
            self.scale,
        )

    def reset(self, condition: Any, value: Any, state: Any) -> Any:
        after = torch.where(condition, state._of(value).value, state.value)
        return Pair(after, state.real, self.scale).exact()

    def stack(self, values: Sequence[Any]) -> Any:
        if not isinstance(values[0], Pair):
            return super().stack(values)
        value = torch.stack([pair.value for pair in values])
        return Pair(value, torch.stack([pair.real for pair in values]), self.scale)


class NormedDual(Dual):
    """The same with a gradient."""

    def biased(self, value: Any, p: Any) -> Any:
        gain = getattr(p, "gain", Pair(1, 1, 1))
        whole = norm_in_float(value.value, p.bias.value, gain.value)
        return Pair(whole, (value.real + p.bias.real) * gain.real, self.scale)


class LoihiDual(OnLoihi, Dual):
    """The same with a gradient, which passes straight through what 24 bits cut off."""

    def current(self, state: Any) -> Any:
        return Pair(wrap(state.value), state.real, self.scale).exact()

    def voltage(self, state: Any) -> Any:
        return Pair(clip(state.value), state.real, self.scale).exact()
