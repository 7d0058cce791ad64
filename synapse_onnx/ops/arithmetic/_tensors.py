"""Arithmetic of one step on tensors: the float, slayer and loihi regimes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.ops._neuron import per_channel
from synapse_onnx.ops.arithmetic._surrogates import PhaseSurrogate, Surrogate
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE, decay_state, to_fixed, to_float
from synapse_onnx.ops.arithmetic.loihi import clip, wrap

__all__ = ["Fixed", "Float", "Loihi", "Normed", "OnLoihi", "norm_in_float"]


class Float:
    """Arithmetic of the float regime on tensors; autograd differentiates it as it is."""

    def __init__(self, scale: float, tau: float, gradient: float, graded: bool) -> None:
        self.scale = scale
        self.surrogate = (tau, gradient, graded)

    def parameter(self, value: Tensor, like: Tensor, table: Any) -> Any:
        """Bring a parameter (1,), (C,) or (C, H, W) to the states' shape."""
        value = per_channel(value, like)
        return 1 - value if table.kept else value

    def start(self, state: Tensor) -> Any:
        """Bring a state to what the step works on; :meth:`last` brings it back."""
        return state

    def last(self, state: Any) -> Tensor:
        """Return the last state of a sequence as the op returns it."""
        result: Tensor = state
        return result

    def take(self, x: Tensor) -> Any:
        """Bring a current to the unit of the states."""
        return x

    def steps(self, x: Tensor) -> Sequence[Any]:
        """Return the current of every step of x (T, N, ...), in the unit of the states."""
        # unbind, for the gradient of an index is as large as the sequence, at every step
        steps: Sequence[Any] = self.take(x).unbind(0)
        return steps

    def give(self, state: Any) -> Any:
        """Bring a state to the unit of the currents, a float tensor."""
        return state

    def scaled(self, state: Any, factor: Any) -> Any:
        """Return state * factor; truncated towards zero in fixed point."""
        return state * factor

    def through_float(self, state: Any) -> Any:
        """Round a fixed-point state to float32, as lava-dl does between two functions."""
        return state

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        """Choose, element by element."""
        return torch.where(condition, yes, no)

    def raised(self, condition: Any, amount: Any, state: Any) -> Any:
        """Add an amount to a state where a condition holds."""
        return self.where(condition, state + amount, state)

    def reset(self, condition: Any, value: Any, state: Any) -> Any:
        """Set a state to a value where it spiked. In fixed point the gradient ignores it."""
        return torch.where(condition, value, state)

    def biased(self, value: Any, p: Any) -> Any:
        """Add the bias, where there is one."""
        return value

    def current(self, state: Any) -> Any:
        """Wrap a current round at 24 bits, on Loihi."""
        return state

    def voltage(self, state: Any) -> Any:
        """Keep a voltage within 24 bits, on Loihi."""
        return state

    def stack(self, values: Sequence[Any]) -> Any:
        """Stack what the steps gave, time first."""
        return torch.stack(list(values))

    def spike(self, fired: Any, voltage: Any, limit: Any) -> Any:
        """Return spikes where ``fired``: 1, or the voltage where spikes are graded.

        The surrogate gradient is that of ``voltage >= limit``.
        """
        v = self.give(voltage)
        return Surrogate.apply(v, self._level(limit, v), fired, *self.surrogate)  # type: ignore[no-untyped-call]

    def counted(self, state: Any, level: Any, most: Any) -> Any:
        """Return how many times a state holds a level, ``most`` at the most; floats alone."""
        times = torch.where(state >= level, torch.floor(state / level), 0)
        return torch.clamp(times, max=most)

    def raised_to(self, state: Any, lowest: Any) -> Any:
        """Raise a state to the lowest value that it may have, in sinabs' roundings; floats alone.

        Source: sinabs, ``layers/functional/lif.py``.
        """
        return torch.relu(state - lowest) + lowest

    def spikes_counted(self, count: Any, nearest: Any) -> Any:
        """Return the count, with the surrogate gradient of the nearest threshold; floats alone.

        Args:
            count: whole numbers of spikes.
            nearest: how far the voltage is above the nearest of their thresholds.
        """
        zero = torch.zeros((), dtype=nearest.dtype, device=nearest.device)
        return Surrogate.apply(nearest, zero, count.detach().clone(), *self.surrogate[:2], False)  # type: ignore[no-untyped-call]

    def phase_spike(self, fired: Any, real: Any, imag: Any, limit: Any) -> Any:
        """Return spikes of a resonator: those of :meth:`spike`, with the phase in the gradient."""
        r = self.give(real)
        level = self._level(limit, r)
        return PhaseSurrogate.apply(r, self.give(imag), level, fired, *self.surrogate)  # type: ignore[no-untyped-call]

    def _level(self, limit: Any, like: Tensor) -> Tensor:
        if isinstance(limit, Tensor):
            return limit
        return torch.tensor(limit / self.scale, dtype=like.dtype, device=like.device)


class Fixed(Float):
    """Arithmetic of the slayer regime on int64 tensors, in units of 1 / scale."""

    def parameter(self, value: Tensor, like: Tensor, table: Any) -> Any:
        if table.real:
            return per_channel(value * self.scale if table.level else value, like)
        if table.level:
            return per_channel(to_fixed(value, int(self.scale)), like)
        value = per_channel(value.to(torch.int64), like)
        return DECAY_ONE - value if table.kept else value

    def take(self, x: Tensor) -> Any:
        return to_fixed(x, int(self.scale))

    def give(self, state: Any) -> Any:
        return to_float(state, int(self.scale))

    def scaled(self, state: Any, factor: Any) -> Any:
        return decay_state(state, factor)

    def through_float(self, state: Any) -> Any:
        return state.to(torch.float32).to(torch.int64)


def norm_in_float(value: Tensor, bias: Tensor, gain: Tensor | int) -> Tensor:
    """Norm integers in float32."""
    return ((value.to(torch.float32) + bias.to(torch.float32)) * gain).to(torch.int64)


class Normed(Fixed):
    """Arithmetic of the slayer regime with a norm within the step: a bias, and perhaps a gain."""

    def biased(self, value: Any, p: Any) -> Any:
        return norm_in_float(value, p.bias, getattr(p, "gain", 1))


class OnLoihi:
    """What whole numbers and those with a gradient have in common on Loihi."""

    def through_float(self, state: Any) -> Any:
        """Return the state as it is."""
        return state  # there is no float on Loihi

    def biased(self, value: Any, p: Any) -> Any:
        """Add the bias."""
        return value + p.bias


class Loihi(OnLoihi, Fixed):
    """Arithmetic of the loihi regime: :class:`Fixed` in 24 bits (:mod:`.loihi`)."""

    def current(self, state: Any) -> Any:
        return wrap(state)

    def voltage(self, state: Any) -> Any:
        return clip(state)
