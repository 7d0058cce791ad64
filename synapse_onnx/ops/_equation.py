"""Neurons stated once: one step of an equation becomes torch ops and ONNX functions.

An :class:`Equation` declares its parameters, states and constants in tables and states one step
of the neuron in plain operators. :func:`register_equation` derives from it, for every numeric
regime (slayer's fixed point, floats, Loihi's 24 bits),

=====================  ====================================================================
``X``                  currents -> spikes and last states: the neuron as one node
``XDynamics``          currents -> traces of its variables and last states, for readouts
``RecurrentX``         currents and weights -> spikes, fed back within the loop over time
=====================  ====================================================================

each with torch op, fake kernel, surrogate gradient, symbolic function, ONNX body and samples.
The step runs on tensors (:class:`Fixed`, :class:`Float`), on tensors that carry a gradient beside
the integer (:class:`Dual`), and on names (:class:`Text`), which writes the body of the Scan.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import onnx
import onnx.numpy_helper
import torch
from torch import Tensor

from synapse_onnx.errors import RegistryError
from synapse_onnx.ops._neuron import (
    broadcast_text,
    drive,
    per_channel,
    per_neuron_text,
    register_composed_gradient,
    time_back,
    time_major,
)
from synapse_onnx.ops._registry import TORCH_NAMESPACE, OpDef, Sample, register
from synapse_onnx.ops._symbolic import node, time_first, time_last
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE, decay_state, to_fixed, to_float
from synapse_onnx.ops.arithmetic.loihi import STATE_LIMIT, clip, wrap

__all__ = ["REGIMES", "Equation", "Parameter", "State", "register_equation"]

#: numeric regimes: lava-dl's fixed point on the CPU, plain float32, Loihi's 24-bit states; and
#: what the names of their ops end in
REGIMES = {"slayer": "", "float": "Float", "loihi": "Loihi"}

#: element types of ONNX
_FLOAT, _INT32, _INT64, _BOOL, _DOUBLE = 1, 6, 7, 9, 11

#: literals of ONNX text
_LITERALS = {_FLOAT: "float", _INT32: "int32", _INT64: "int64", _DOUBLE: "double"}

#: states below this are computed in 32 bits: half of what float32 holds exactly
_NARROW_LIMIT = 1 << 23

#: states below this are kept whole by a product with 4096 in 64 bits, and their sums are exact; no
#: state below it reaches such a level
_WHOLE_LIMIT = 1 << 51

#: products below this, in units of the last bit of their decay, are exact in float32; a loop that
#: takes them so is tried where the bound of its states is this many times as large at the most, and
#: where there are more neurons than this
_SHORT_LIMIT, _SHORT_TRY, _SHORT_NEURONS = 1 << 24, 4, 1 << 11


@dataclass(frozen=True)
class Parameter:
    """One parameter of a neuron, shared or one a channel.

    Attributes:
        name: name of the torch parameter.
        doc: what it is.
        kept: whether the step gets 1 - value, the fraction kept, instead of the value.
        level: whether it is a number in the unit of the states, not a fraction; (1,), (C,), or one
            a neuron, (C, H, W).
        typical: a usual value, for samples.
        jitter: with ``shared_param=False`` a single number is spread by this fraction.
        real: whether it stays a float32 in fixed point, where a norm computes with it; one value,
            one a channel, or one a neuron.
    """

    name: str
    doc: str
    kept: bool = True
    level: bool = False
    typical: float = 0.1
    jitter: float = 0.0
    real: bool = False


#: what Loihi adds at every step, and what slayer does where a frozen norm stands within the step
BIAS = Parameter("bias", "added at every step", kept=False, level=True, typical=0.125)

#: a norm that stands within the step, y = (x + bias) gain, in float32
NORM = (
    replace(BIAS, doc="minus the mean of a norm", real=True),
    Parameter("gain", "what a norm divides by, inverted", kept=False, typical=0.5, real=True),
)

#: what the names of the spikes' forms with a norm within the step end in: whole means alone, or any
_NORMED = {"biased": "Biased", "normed": "Normed"}


@dataclass(frozen=True)
class State:
    """One state of a neuron; a sequence starts from zero, or from the constant named ``start``."""

    name: str
    doc: str
    start: str = ""


class Equation(ABC):
    """A neuron's equation; see the module's docstring.

    Attributes:
        name: name of the node.
        doc: the equation, for the function in the file.
        currents: ("x",), or ("x_real", "x_imag") where currents are complex.
        parameters, states: the tables.
        constants: names of levels: integers in units of 1 / scale in fixed point, else floats.
        traces: names of the variables that ``dynamics`` returns, in order.
        fires: names of the variables that :meth:`fire` reads.
        membrane: the variable that must reach the threshold.
        readout: the variable that is the output of neurons that never spike.
        phase: whether a spike also needs the imaginary part to pass zero.
        biased: whether its step has a place for Loihi's bias.
        normed: whether that place is where slayer's norm stands, within the step: the spikes have
            two forms more then, of the slayer regime: "biased", where the norm is a whole number to
            be added, and "normed", where it is a sum and a product in float32.
        regimes: numeric regimes that it is for.
        samples: constants of sample calls, as floats.
        memory: state -> the fraction of it that is kept every step, and that multiplies nothing
            else: where it is zero the state is void.
        short: whether these fractions often have few bits, as 15/16 has: it may have a loop in
            :class:`Short`. They are all of its products then.
    """

    name: ClassVar[str]
    doc: ClassVar[str]
    currents: ClassVar[tuple[str, ...]] = ("x",)
    parameters: ClassVar[tuple[Parameter, ...]]
    states: ClassVar[tuple[State, ...]]
    constants: ClassVar[tuple[str, ...]] = ("threshold",)
    traces: ClassVar[tuple[str, ...]]
    fires: ClassVar[tuple[str, ...]]
    membrane: ClassVar[str] = "voltage"
    readout: ClassVar[str] = "voltage"
    phase: ClassVar[bool] = False
    biased: ClassVar[bool] = False
    normed: ClassVar[bool] = False
    regimes: ClassVar[tuple[str, ...]] = tuple(REGIMES)
    samples: ClassVar[Mapping[str, float]] = {"threshold": 0.75}
    memory: ClassVar[Mapping[str, str]] = {}
    short: ClassVar[bool] = False

    @abstractmethod
    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """State one time step.

        Args:
            a: the arithmetic: ``scaled(state, factor)``, ``through_float(state)``,
                ``where(condition, yes, no)``, ``reset(condition, value, state)``,
                ``raised(condition, amount, state)``; ``biased(value, p)``, where there is a
                bias; what Loihi alone does: ``current(state)``, ``voltage(state)``.
            x: currents, by name.
            p: parameters, by name.
            s: states before the step, by name.
            c: constants, by name.

        Returns:
            (states after the step, variables of this step), each by name.
        """

    @abstractmethod
    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Return the spikes of the variables ``v``, with ``a.spike`` or ``a.phase_spike``."""

    def reach(self, r: Any, x: Any, p: Any, s: Any, c: Any) -> dict[str, Any]:
        """Bound every state of a whole sequence, by name; overridden where bounds are known.

        They hold for the variables, too. Below 2**23 the ONNX body takes its loop in 32 bits,
        which gives the same integers.

        Args:
            r: ``filtered(start, drive, kept)`` bounds y[t] = kept y[t-1] + drive[t],
                ``length(real, imag)`` a complex number, ``size(level)`` a constant; where
                ``met(level)`` is 0 instead of 1, no state reaches that level or some bound is
                beyond 2**23.
            x: bounds of the currents, by name.
            p: bounds of the parameters, by name; fractions in 4096ths.
            s: bounds of the states that the sequence starts from, by name.
            c: constants, by name.
        """
        raise NotImplementedError

    def above(self, r: Any, s: Any, c: Any) -> dict[str, Any]:
        """Bound from above, by name, the states that resets keep low.

        Args:
            r: as in :meth:`reach`.
            s: bounds of the states that the sequence starts from, by name.
            c: constants, by name.
        """
        return {}

    def table(self, regime: str) -> tuple[Parameter, ...]:
        """Return the parameters in a regime."""
        if regime == "normed":
            return (*self.parameters, *NORM)
        biased = self.biased and regime in ("loihi", "biased")
        return (*self.parameters, BIAS) if biased else self.parameters

    def op(self, kind: str, regime: str) -> Form:
        """Return a registered op: kind "spikes", "dynamics" or "recurrent", of a regime.

        With ``normed`` there are spikes of the regimes "biased" and "normed", too.
        """
        return _FORMS[self.name, kind, regime]


class _Surrogate(torch.autograd.Function):
    """Spikes where ``voltage >= limit``, with slayer's gradient; the limit's is its negative."""

    @staticmethod
    def forward(
        ctx: Any, voltage: Tensor, limit: Tensor, fired: Tensor, tau: float, scale: float,
        graded: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(voltage, limit)
        ctx.constants = tau, scale, graded
        return torch.where(fired, voltage, 0) if graded else fired.to(voltage.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        voltage, limit = ctx.saved_tensors
        tau, scale, graded = ctx.constants
        distance = voltage - limit
        if graded:
            slope = scale * torch.exp(distance.clamp(max=0) / tau)
        else:
            slope = scale / (2 * tau) * torch.exp(-distance.abs() / tau)
        grad = grads[0] * slope
        return grad, (-grad).sum_to_size(limit.shape), None, None, None, None


class _PhaseSurrogate(torch.autograd.Function):
    """Spikes where the phase passes zero with ``real >= limit``, with slayer's gradient.

    Source: lava-dl, ``slayer/spike/complex.py``.
    """

    @staticmethod
    def forward(
        ctx: Any, real: Tensor, imag: Tensor, limit: Tensor, fired: Tensor, tau: float,
        scale: float, graded: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(real, imag, limit)
        ctx.constants = tau, scale, graded
        return torch.where(fired, real, 0) if graded else fired.to(real.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        real, imag, limit = ctx.saved_tensors
        tau, scale, graded = ctx.constants
        above = real - limit
        if graded:
            near_real = torch.exp(above.clamp(max=0) / tau)
        else:
            near_real = torch.exp(-above.abs() / tau) / (2 * tau)
        near_imag = torch.exp(-imag.abs() / tau) / (2 * tau)
        step = (1 + above.sign() * (1 - 2 * tau * near_real)) / 2
        grad_real = grads[0] * scale * near_real * near_imag
        grad_imag = grads[0] * -scale / tau * imag.sign() * near_imag * step
        grad_limit = (-grad_real).sum_to_size(limit.shape)
        return grad_real, grad_imag, grad_limit, None, None, None, None


class Float:
    """Arithmetic of the float regime on tensors; autograd differentiates it as it stands."""

    def __init__(self, scale: float, tau: float, gradient: float, graded: bool) -> None:
        self.scale = scale
        self.surrogate = (tau, gradient, graded)

    def parameter(self, value: Tensor, like: Tensor, table: Parameter) -> Any:
        """Bring a parameter (1,), (C,) or (C, H, W) to the states' shape."""
        value = per_channel(value, like)
        return 1 - value if table.kept else value

    def start(self, state: Tensor) -> Any:
        """Bring a state to what the step works on; :meth:`last` brings it back."""
        return state

    def last(self, state: Any) -> Tensor:
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
        return _Surrogate.apply(v, self._level(limit, v), fired, *self.surrogate)  # type: ignore[no-untyped-call]

    def phase_spike(self, fired: Any, real: Any, imag: Any, limit: Any) -> Any:
        """Return spikes of a resonator: those of :meth:`spike`, with the phase in the gradient."""
        r = self.give(real)
        level = self._level(limit, r)
        return _PhaseSurrogate.apply(r, self.give(imag), level, fired, *self.surrogate)  # type: ignore[no-untyped-call]

    def _level(self, limit: Any, like: Tensor) -> Tensor:
        if isinstance(limit, Tensor):
            return limit
        return torch.tensor(limit / self.scale, dtype=like.dtype, device=like.device)


class Fixed(Float):
    """Arithmetic of the slayer regime on int64 tensors, in units of 1 / scale."""

    def parameter(self, value: Tensor, like: Tensor, table: Parameter) -> Any:
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


class _Straight(torch.autograd.Function):
    """Another number, to the last bit, with the gradient of this one."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, true: Tensor) -> Tensor:
        return true.view_as(true)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Pair:
    """Integers in units of 1 / scale, and the real numbers that they stand for, with gradient."""

    __slots__ = ("real", "scale", "value")

    def __init__(self, value: Any, real: Any, scale: float) -> None:
        self.value, self.real, self.scale = value, real, scale

    def _of(self, other: Any) -> _Pair:
        return other if isinstance(other, _Pair) else _Pair(other, other / self.scale, self.scale)

    def __add__(self, other: Any) -> _Pair:
        other = self._of(other)
        return _Pair(self.value + other.value, self.real + other.real, self.scale)

    def __sub__(self, other: Any) -> _Pair:
        other = self._of(other)
        return _Pair(self.value - other.value, self.real - other.real, self.scale)

    def __rsub__(self, other: Any) -> _Pair:
        return self._of(other) - self

    def __mul__(self, factor: int) -> _Pair:
        return _Pair(self.value * factor, self.real * factor, self.scale)

    def __ge__(self, other: Any) -> Tensor:
        fired: Tensor = self.value >= self._of(other).value
        return fired

    def __lt__(self, other: Any) -> Tensor:
        below: Tensor = self.value < self._of(other).value
        return below

    __radd__, __rmul__ = __add__, __mul__

    def exact(self) -> _Pair:
        """The same gradient at the number that the integer stands for."""
        true = self.value.to(self.real.dtype) / self.scale
        return _Pair(self.value, _Straight.apply(self.real, true), self.scale)  # type: ignore[no-untyped-call]


class Dual(Fixed):
    """Fixed point that carries the gradient of the real-valued recurrence beside the integers.

    Rounding passes the gradient on (straight through), and so does a reset, as in slayer.
    """

    def parameter(self, value: Tensor, like: Tensor, table: Parameter) -> Any:
        real = per_channel(value, like)
        whole = super().parameter(value, like, table)
        if table.real:
            return _Pair(whole, real, 1)
        if table.level:
            return _Pair(whole, real, self.scale).exact()
        return _Pair(whole, 1 - real / DECAY_ONE if table.kept else real / DECAY_ONE, DECAY_ONE)

    def start(self, state: Tensor) -> Any:
        return _Pair(state, super().give(state), self.scale)

    def last(self, state: Any) -> Tensor:
        result: Tensor = state.value
        return result

    def take(self, x: Tensor) -> Any:
        return _Pair(super().take(x.detach()), x, self.scale).exact()

    def steps(self, x: Tensor) -> Sequence[Any]:
        taken = self.take(x)
        pairs = zip(taken.value.unbind(0), taken.real.unbind(0), strict=True)
        return [_Pair(value, real, self.scale) for value, real in pairs]

    def give(self, state: Any) -> Any:
        return state.exact().real  # a sum of rounded numbers is not the rounded sum

    def scaled(self, state: Any, factor: Any) -> Any:
        value = decay_state(state.value, factor.value)
        return _Pair(value, state.real * factor.real, self.scale).exact()

    def through_float(self, state: Any) -> Any:
        return _Pair(super().through_float(state.value), state.real, self.scale)

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        like = yes if isinstance(yes, _Pair) else no
        yes, no = like._of(yes), like._of(no)
        return _Pair(
            torch.where(condition, yes.value, no.value),
            torch.where(condition, yes.real, no.real),
            self.scale,
        )

    def reset(self, condition: Any, value: Any, state: Any) -> Any:
        after = torch.where(condition, state._of(value).value, state.value)
        return _Pair(after, state.real, self.scale).exact()

    def stack(self, values: Sequence[Any]) -> Any:
        if not isinstance(values[0], _Pair):
            return super().stack(values)
        value = torch.stack([pair.value for pair in values])
        return _Pair(value, torch.stack([pair.real for pair in values]), self.scale)


class _Unsure:
    """Integers, and how many units each may be off; comparisons note where that could decide."""

    __slots__ = ("a", "off", "value")

    def __init__(self, a: Unsure, value: Any, off: Any) -> None:
        self.a, self.value, self.off = a, value, off

    def _of(self, other: Any) -> _Unsure:
        return other if isinstance(other, _Unsure) else _Unsure(self.a, other, 0)

    def __add__(self, other: Any) -> _Unsure:
        other = self._of(other)
        return _Unsure(self.a, self.value + other.value, self.off + other.off)

    def __sub__(self, other: Any) -> _Unsure:
        other = self._of(other)
        return _Unsure(self.a, self.value - other.value, self.off + other.off)

    def __mul__(self, factor: int) -> _Unsure:
        return _Unsure(self.a, self.value * factor, self.off * abs(factor))

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


class Unsure(Fixed):
    """Fixed point beside what roundings of its currents can change, until a spike differs.

    Of a sum of floats in another order a current may be a unit more or less. What follows from it
    is bounded step by step: the sum of two numbers may be off by what both are, a product that is
    cut down to whole units by the next whole number. All spikes are those of the currents given.
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
        return _Unsure(self, state, torch.zeros(state.shape, dtype=torch.float64))

    def last(self, state: Any) -> Tensor:
        off: Tensor = state.off
        return off

    def take(self, x: Tensor) -> Any:
        units = x.double() * self.scale
        ends = (units + self.rounding).trunc() - (units - self.rounding).trunc()
        return _Unsure(self, super().take(x), ends.nan_to_num())  # of what is infinite, too

    def steps(self, x: Tensor) -> Sequence[Any]:
        taken = self.take(x)
        pairs = zip(taken.value.unbind(0), taken.off.unbind(0), strict=True)
        return [_Unsure(self, value, off) for value, off in pairs]

    def give(self, state: Any) -> Any:
        return super().give(state.value)

    def scaled(self, state: Any, factor: Any) -> Any:
        off = (state.off * factor.abs() / DECAY_ONE).ceil()
        return _Unsure(self, decay_state(state.value, factor), off)

    def through_float(self, state: Any) -> Any:
        return _Unsure(self, super().through_float(state.value), state.off)

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        like = yes if isinstance(yes, _Unsure) else no
        yes, no = like._of(yes), like._of(no)
        return _Unsure(
            self,
            torch.where(condition, yes.value, no.value),
            torch.where(condition, yes.off, no.off),
        )

    def reset(self, condition: Any, value: Any, state: Any) -> Any:
        return self.where(condition, value, state)

    def stack(self, values: Sequence[Any]) -> Any:
        if not isinstance(values[0], _Unsure):
            return super().stack(values)
        value = torch.stack([one.value for one in values])
        return _Unsure(self, value, torch.stack([one.off for one in values]))

    def spike(self, fired: Any, voltage: Any, limit: Any) -> Any:
        self.height = voltage.off
        return fired

    def phase_spike(self, fired: Any, real: Any, imag: Any, limit: Any) -> Any:
        return self.spike(fired, real, limit)


class _OnLoihi:
    """What whole numbers and those with a gradient have in common on Loihi."""

    def through_float(self, state: Any) -> Any:
        return state  # there is no float on Loihi

    def biased(self, value: Any, p: Any) -> Any:
        return value + p.bias


def _norm_in_float(value: Tensor, bias: Tensor, gain: Tensor | int) -> Tensor:
    """Norm integers in float32."""
    return ((value.to(torch.float32) + bias.to(torch.float32)) * gain).to(torch.int64)


class Normed(Fixed):
    """Arithmetic of the slayer regime with a norm within the step: a bias, and perhaps a gain."""

    def biased(self, value: Any, p: Any) -> Any:
        return _norm_in_float(value, p.bias, getattr(p, "gain", 1))


class NormedDual(Dual):
    """The same with a gradient."""

    def biased(self, value: Any, p: Any) -> Any:
        gain = getattr(p, "gain", _Pair(1, 1, 1))
        whole = _norm_in_float(value.value, p.bias.value, gain.value)
        return _Pair(whole, (value.real + p.bias.real) * gain.real, self.scale)


class Loihi(_OnLoihi, Fixed):
    """Arithmetic of the loihi regime: :class:`Fixed` in 24 bits; see :mod:`.arithmetic.loihi`."""

    def current(self, state: Any) -> Any:
        return wrap(state)

    def voltage(self, state: Any) -> Any:
        return clip(state)


class LoihiDual(_OnLoihi, Dual):
    """The same with a gradient, which passes straight through what 24 bits cut off."""

    def current(self, state: Any) -> Any:
        return _Pair(wrap(state.value), state.real, self.scale).exact()

    def voltage(self, state: Any) -> Any:
        return _Pair(clip(state.value), state.real, self.scale).exact()


class LoihiUnsure(_OnLoihi, Unsure):
    """The same beside what roundings can change, as long as 24 bits cut nothing off."""


#: regime -> its arithmetic on tensors, and the one that autograd follows
_ARITHMETICS: dict[str, tuple[type[Float], type[Float]]] = {
    "slayer": (Fixed, Dual),
    "float": (Float, Float),
    "loihi": (Loihi, LoihiDual),
    "biased": (Normed, NormedDual),
    "normed": (Normed, NormedDual),
}


def _is_nothing(value: Any) -> bool:
    """Whether a value is the number zero itself."""
    return not isinstance(value, _Name) and value == 0


def _is_all(value: Any) -> bool:
    """Whether a fraction is the number one itself."""
    return not isinstance(value, _Name) and value == 1


#: a level that no state reaches
_NEVER = math.inf


class _Name:
    """A value in ONNX text; its operators write statements."""

    def __init__(self, text: Text, name: str, kind: int) -> None:
        self.text, self.name, self.kind = text, name, kind
        #: whether it is written as its opposite
        self.opposite = False

    def __add__(self, other: Any) -> _Name:
        # nothing is left of a void state, and nothing is written for its sum
        return self if _is_nothing(other) else self.text.operation("Add", self, other)

    def __sub__(self, other: Any) -> _Name:
        return self if _is_nothing(other) else self.text.operation("Sub", self, other)

    def __rsub__(self, other: Any) -> _Name:
        return self.text.operation("Sub", other, self)

    def __mul__(self, other: Any) -> _Name:
        return self.text.operation("Mul", self, other)

    def __ge__(self, other: Any) -> Any:
        if other is _NEVER:
            return False
        return self.text.operation("GreaterOrEqual", self, other, kind=_BOOL)

    def __lt__(self, other: Any) -> _Name:
        return self.text.operation("Less", self, other, kind=_BOOL)

    def __and__(self, other: Any) -> _Name:
        return self.text.operation("And", self, other, kind=_BOOL)

    __radd__, __rmul__ = __add__, __mul__


class Text:
    """Arithmetic that writes ONNX statements instead of computing."""

    def __init__(self, kind: int, *, loihi: bool = False) -> None:
        self.kind, self.loihi = kind, loihi
        #: statements before the loop, and the list that is written to
        self.before: list[str] = []
        self.lines = self.before
        self.inside = False
        #: whether the loop gives spikes, 0 or 1, instead of the variables that they follow from
        self.bits = False
        #: what names begin with that are no statement's own; and those of a body's special form
        self.scope = self.form = ""
        self._count = 0
        self._numbers: dict[tuple[int, float], _Name] = {}
        #: name of "value >= limit" -> (value, limit)
        self._reached: dict[str, tuple[Any, ...]] = {}
        #: calls within the loop -> their value: none is written twice there
        self.calls: dict[str, _Name] = {}

    def name(self, name: str, kind: int | None = None) -> _Name:
        return _Name(self, name, self.kind if kind is None else kind)

    def fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def write(self, call: str, kind: int, stem: str = "v") -> _Name:
        """Write one statement and return its value."""
        if self.inside and call in self.calls:
            return self.calls[call]
        value = self.name(self.fresh(stem), kind)
        self.lines.append(f"{value.name} = {call}")
        if self.inside:
            self.calls[call] = value
        return value

    def operation(self, operator: str, *values: Any, kind: int | None = None) -> _Name:
        """Write an operation; numbers among the values become constants before the loop."""
        like = next(value.kind for value in values if isinstance(value, _Name))
        names = [
            (value if isinstance(value, _Name) else self.number(value, like)).name
            for value in values
        ]
        result = self.write(f"{operator}({', '.join(names)})", like if kind is None else kind)
        if operator == "GreaterOrEqual":
            self._reached[result.name] = values
        return result

    def number(self, value: float, kind: int) -> _Name:
        key = (kind, value)
        if key not in self._numbers:
            name = self.fresh("number")
            whole = kind in (_INT32, _INT64)
            literal = f"{_LITERALS[kind]} {{{int(value) if whole else float(value)}}}"
            self.before.append(f"{name} = Constant<value = {literal}>()")
            self._numbers[key] = self.name(name, kind)
        return self._numbers[key]

    def choice(
        self, condition: str, count: int, yes: tuple[str, list[str]], no: tuple[str, list[str]]
    ) -> list[str]:
        """Write an If with a number of results; a branch is its statements and its results."""
        chosen = [self.fresh("chosen") for _ in range(count)]
        branches = ",\n".join(
            f"{kind}_branch = {self.fresh(kind)} () => ({', '.join(names)}) {{\n{lines}\n}}"
            for kind, (lines, names) in (("then", self._made(*yes)), ("else", self._made(*no)))
        )
        self.lines.append(f"{', '.join(chosen)} = If({condition}) <\n{branches}\n>")
        return chosen

    def _made(self, lines: str, names: list[str]) -> tuple[str, list[str]]:
        """Copy the results that a branch does not make itself: it may not hand on others."""
        made = {name for line in lines.split("\n") for name in line.partition(" = ")[0].split(", ")}
        results = []
        for name in names:
            results.append(name if name in made else self.fresh("v"))
            if name not in made:
                lines += f"\n{results[-1]} = Identity({name})"
        return lines, results

    def cast(self, value: _Name, kind: int) -> _Name:
        return value if value.kind == kind else self.write(f"Cast<to = {kind}>({value.name})", kind)

    def take(self, x: _Name) -> _Name:
        return x if self.kind == _FLOAT else self.whole(x * self.name("scale_f", _FLOAT))

    def whole(self, x: _Name) -> _Name:
        """Cut a current in the unit of the states down to what states are: integers, or floats."""
        return self.cast(x, self.kind)

    def give(self, state: _Name) -> _Name:
        if state.kind == _FLOAT:
            return state
        return self.operation("Div", self.cast(state, _FLOAT), self.name("scale_f", _FLOAT))

    def scaled(self, state: _Name, factor: Any) -> Any:
        if _is_nothing(factor):
            return 0
        if _is_all(factor):
            return state
        product = state * factor
        if self.kind == _FLOAT:
            return product
        return self.operation("Div", product, DECAY_ONE)  # an integer Div truncates towards zero

    def through_float(self, state: _Name) -> _Name:
        if self.kind == _FLOAT or self.loihi:
            return state
        return self.cast(self.cast(state, _FLOAT), _INT64)

    def where(self, condition: _Name, yes: Any, no: Any) -> _Name:
        kind = next(v.kind for v in (yes, no) if isinstance(v, _Name))
        names = [(v if isinstance(v, _Name) else self.number(v, kind)).name for v in (yes, no)]
        return self.write(f"Where({condition.name}, {', '.join(names)})", kind)

    def raised(self, condition: _Name, amount: _Name, state: Any) -> _Name:
        if self.kind == _FLOAT:
            return self.where(condition, state + amount, state)
        # as in a reset, a product is faster than a Where
        added = self.cast(condition, amount.kind) * amount
        return added if _is_nothing(state) else self.operation("Add", state, added)

    def reset(self, condition: Any, value: Any, state: _Name) -> _Name:
        if condition is False:
            return state
        compared = self._reached.get(condition.name)
        if self.kind == _FLOAT or compared is None or isinstance(value, _Name) or value != 0:
            return self.where(condition, value, state)
        # integers: a product with 0 or 1 is much faster than ONNX Runtime's Where
        return self.kept(self.operation("Less", *compared, kind=_BOOL), state)

    def kept(self, below: _Name, state: _Name) -> _Name:
        """Return a state where a condition holds, and zero elsewhere."""
        return self.cast(below, state.kind) * state

    def biased(self, value: _Name, p: Any) -> _Name:
        bias: _Name | None = getattr(p, "bias", None)
        if bias is None:
            return value
        if self.loihi:
            return value + bias
        # in float32, where the norm that it stands for computes
        normed = self.cast(value, _FLOAT) + self.cast(bias, _FLOAT)
        return self.cast(normed * p.gain if hasattr(p, "gain") else normed, self.kind)

    def current(self, state: _Name) -> _Name:
        if not self.loihi:
            return state
        high = self.operation("Greater", state, STATE_LIMIT, kind=_BOOL)
        over = self.where(high, state - 2 * STATE_LIMIT, state)
        low = self.operation("LessOrEqual", over, -STATE_LIMIT, kind=_BOOL)
        return self.where(low, state + 2 * STATE_LIMIT, over)

    def voltage(self, state: _Name) -> _Name:
        if not self.loihi:
            return state
        ends = self.number(1 - STATE_LIMIT, _INT64), self.number(STATE_LIMIT - 1, _INT64)
        return self.write(f"Clip({state.name}, {ends[0].name}, {ends[1].name})", _INT64)

    def spike(self, fired: _Name, voltage: _Name, limit: Any) -> _Name:
        del limit  # it shapes the gradient alone
        if self.inside and self.bits:
            return self._bit(fired)
        zero = self.number(0, _FLOAT)
        if self.inside:  # a choice costs less there than a subgraph
            height = self.where(fired, self.give(voltage), zero)
            return self.where(self.name("is_graded", _BOOL), height, self.cast(fired, _FLOAT))
        outer, branch = self.lines, self.fresh("graded")
        self.lines = []
        height = self.where(fired, self.give(voltage), zero)
        body, self.lines = "\n".join(self.lines), outer
        return self.write(
            f"If(is_graded) <\n"
            f"then_branch = {branch} () => ({height.name}) {{\n{body}\n}},\n"
            f"else_branch = counted () => (count) {{ count = Cast<to = 1>({fired.name}) }}\n>",
            _FLOAT,
        )

    def _bit(self, fired: _Name) -> _Name:
        """Return a condition as 0 or 1, or its opposite where a reset has that already."""
        compared = self._reached.get(fired.name, ())
        names = [(v if isinstance(v, _Name) else self.number(v, self.kind)).name for v in compared]
        below = self.calls.get(f"Less({', '.join(names)})")
        bit = fired if below is None else below
        bit = self.calls.get(f"Cast<to = {_FLOAT}>({bit.name})", bit)
        result = self.name(bit.name, bit.kind)
        result.opposite = below is not None
        return result

    def phase_spike(self, fired: _Name, real: _Name, imag: _Name, limit: Any) -> _Name:
        del imag
        return self.spike(fired, real, limit)


class Narrow(Text):
    """:class:`Text` on int32 states below 2**23, which no float32 rounds and 24 bits hold.

    A product with a decay is exact in float64, and casting it to an integer truncates it towards
    zero: ONNX Runtime's integer Div, one division an element, takes several times as long.
    """

    #: type of the products with a decay
    product = _DOUBLE
    prefix = "narrow_"

    def __init__(self, before: list[str], form: str = "") -> None:
        super().__init__(_INT32)
        self.before = before
        self.lines = []
        self.form, self.scope = form, f"{form}{self.prefix}"

    def fresh(self, stem: str) -> str:
        return super().fresh(f"{self.scope}{stem}")

    def give(self, state: _Name) -> _Name:
        # what is compared in the loop needs no unit: all of it is exact as it is
        return state if self.inside and self.bits else super().give(state)

    def narrowed(self, value: Any) -> Any:
        """Bring a level from int64 to int32; what no state reaches stays so."""
        if value is _NEVER:
            return value
        most = self.number((1 << 31) - 1, _INT64)
        return self.cast(self.write(f"Min({value.name}, {most.name})", _INT64), _INT32)

    def fraction(self, value: Any) -> Any:
        """Bring a fraction from int64 in 4096ths to the type of the products."""
        if not isinstance(value, _Name):
            return value
        return self.cast(value, self.product) * self.number(1 / DECAY_ONE, self.product)

    def scaled(self, state: _Name, factor: Any) -> Any:
        if _is_nothing(factor):
            return 0
        if _is_all(factor):
            return state
        return self.cast(self.cast(state, self.product) * factor, _INT32)

    def through_float(self, state: _Name) -> _Name:
        return state

    def biased(self, value: _Name, p: Any) -> _Name:
        if hasattr(p, "gain"):
            return super().biased(value, p)
        return value + p.bias if hasattr(p, "bias") else value


class Short(Narrow):
    """:class:`Narrow` for fractions of few bits, whose products are exact in float32.

    ONNX Runtime's casts from integers to float32 take a third of those to float64; a state that is
    reset stays in float32.
    """

    product = _FLOAT
    prefix = "short_"

    def kept(self, below: _Name, state: _Name) -> _Name:
        return self.cast(below, _FLOAT) * self.cast(state, _FLOAT)


class Reach:
    """Bounds of values over a whole sequence, as float64 scalars in ONNX text."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self._steps: _Name | None = None

    @property
    def steps(self) -> _Name:
        """The number of time steps."""
        if self._steps is None:
            scalar = self.text.write("Squeeze(steps_of_time)", _INT64)
            self._steps = self.text.cast(scalar, _DOUBLE)
        return self._steps

    def finite(self, values: Sequence[_Name]) -> _Name:
        """Whether float tensors hold neither NaN, which a maximum may overlook, nor infinity."""
        most = self.text.number(3e38, _FLOAT)
        sums = [
            self.text.write(f"ReduceSumSquare<keepdims = 0>({value.name})", _FLOAT) < most
            for value in values
        ]
        return functools.reduce(operator.and_, sums)

    def largest(self, value: Any) -> _Name:
        """Bound |value|, a tensor, or a fraction that is nothing, or all."""
        if not isinstance(value, _Name):
            return self.text.number(value * DECAY_ONE, _DOUBLE)
        # extremes first: the least integer has no absolute value
        ends = [
            self.text.cast(
                self.text.write(f"{kind}<keepdims = 0>({value.name})", value.kind), _DOUBLE
            )
            for kind in ("ReduceMax", "ReduceMin")
        ]
        return self.text.operation("Max", ends[0], 0 - ends[1])

    def size(self, level: _Name) -> _Name:
        """Bound |level|, a constant."""
        return self.text.write(f"Abs({self.text.cast(level, _DOUBLE).name})", _DOUBLE)

    def met(self, level: _Name) -> _Name:
        """Return 0 for a level that no state below 2**23 reaches, else 1."""
        return self.text.cast(level < self.text.number(_NARROW_LIMIT, _INT64), _DOUBLE)

    def larger(self, *values: _Name) -> _Name:
        """Return the largest of several bounds, and of zero."""
        return self.text.operation("Max", *values, 0)

    def length(self, real: _Name, imag: _Name) -> _Name:
        """Bound |real + i imag| from bounds of its parts."""
        return self.text.write(f"Sqrt({(real * real + imag * imag).name})", _DOUBLE)

    def filtered(self, start: _Name, drive: _Name, kept: _Name) -> _Name:
        """Bound y[t] = kept y[t-1] + drive[t], kept in 4096ths, from |start| and |drive|.

        It is start + drive * min(T, 1 / (1 - kept)), and beyond all limits where kept is above one.
        """
        text = self.text
        lost = DECAY_ONE - kept
        # nothing is divided by zero: what is lost counts as 2**-30 at the least, for 2**42 steps
        least = text.operation("Max", lost, 2.0**-30)
        memory = text.operation("Div", text.number(DECAY_ONE, _DOUBLE), least)
        grows = text.cast(lost < text.number(0, _DOUBLE), _DOUBLE)
        return start + drive * text.operation("Min", self.steps, memory) + grows * 2.0**60

    def odd_part(self, fraction: _Name) -> _Name:
        """Bound a fraction in 4096ths, an integer tensor, without the zeros at its bits' end."""
        text = self.text
        # the last bit of n that is set is n & -n; of zero there is none
        last = text.operation("BitwiseAnd", fraction, 0 - fraction)
        unit = text.operation("Max", last, 1)
        return self.largest(text.operation("Div", fraction, unit))


# -- running an equation on tensors -------------------------------------------------------------


def _run(
    e: Equation, a: Any, currents: Sequence[Tensor], p: SimpleNamespace,
    states: Sequence[Tensor], constants: Mapping[str, float], wanted: Sequence[str],
) -> tuple[dict[str, Any], tuple[Tensor, ...]]:  # fmt: skip
    """Run over (N, C[, H, W], T); return the wanted variables, time first, and the last states."""
    c = SimpleNamespace(**constants)
    now = {state.name: a.start(value) for state, value in zip(e.states, states, strict=True)}
    inputs = [a.steps(time_major(x)) for x in currents]
    steps: list[dict[str, Any]] = []
    for values in zip(*inputs, strict=True):
        x = dict(zip(e.currents, values, strict=True))
        now, variables = e.step(a, SimpleNamespace(**x), p, SimpleNamespace(**now), c)
        steps.append({name: variables[name] for name in wanted})
    traces = {name: a.stack([step[name] for step in steps]) for name in wanted}
    return traces, tuple(a.last(now[state.name]) for state in e.states)


def _spikes(
    e: Equation, a: Any, currents: Any, p: Any, states: Any, constants: Any
) -> tuple[Tensor, ...]:
    traces, last = _run(e, a, currents, p, states, constants, e.fires)
    return time_back(e.fire(a, SimpleNamespace(**traces), SimpleNamespace(**constants))), *last


def _dynamics(
    e: Equation, a: Any, currents: Any, p: Any, states: Any, constants: Any
) -> tuple[Tensor, ...]:
    traces, last = _run(e, a, currents, p, states, constants, e.traces)
    return *(time_back(a.give(traces[name])) for name in e.traces), *last


def _recurrent(
    e: Equation, a: Any, currents: Sequence[Tensor], weights: Sequence[Tensor],
    steps: Sequence[Tensor], spikes: Tensor, p: Any, states: Any, constants: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Run with feedback: current[t] = x[t] + step * (weight @ spikes[t-1])."""
    c = SimpleNamespace(**constants)
    now = {state.name: a.start(value) for state, value in zip(e.states, states, strict=True)}
    inputs = [time_major(x).unbind(0) for x in currents]
    matrices = [weight.flatten(1).to(spikes.dtype).T for weight in weights]
    scales = [step.flatten() for step in steps]
    outputs = []
    for values in zip(*inputs, strict=True):
        x = {
            name: a.take(current + (spikes @ matrix) * scale)
            for name, current, matrix, scale in zip(
                e.currents, values, matrices, scales, strict=True
            )
        }
        now, variables = e.step(a, SimpleNamespace(**x), p, SimpleNamespace(**now), c)
        spikes = e.fire(a, SimpleNamespace(**variables), c)
        outputs.append(spikes)
    last = (a.last(now[state.name]) for state in e.states)
    return time_back(torch.stack(outputs)), spikes.detach().clone(), *last


# -- from an equation to ops ---------------------------------------------------------------------


class _Parts(NamedTuple):
    """What a body computes with: currents, states, parameters, levels, and what is fed back."""

    inputs: Sequence[_Name]
    states: Sequence[_Name]
    p: Mapping[str, Any]
    c: SimpleNamespace
    fed: Sequence[tuple[str, _Name]]
    #: parameters and levels as they are, where a form puts numbers in their place
    plain: tuple[Mapping[str, Any], SimpleNamespace] | None = None


class _Carried(NamedTuple):
    """What a loop hands on: its name, that within a step, where it starts, and the next value."""

    name: str
    into: str
    start: str
    value: _Name


class Form:
    """One op of an equation: what it takes and gives, in one regime."""

    def __init__(self, e: Equation, regime: str, kind: str) -> None:
        self.e, self.regime, self.kind = e, regime, kind
        self.fixed = fixed = regime != "float"
        self.name = {
            "spikes": e.name,
            "dynamics": f"{e.name}Dynamics",
            "recurrent": f"Recurrent{e.name}",
        }[kind] + {**REGIMES, **_NORMED}[regime]
        recurrent = kind == "recurrent"
        self.weights = tuple(f"weight_{x}" for x in e.currents) if recurrent else ()
        self.steps = tuple(f"step_{x}" for x in e.currents) if recurrent else ()
        self.carried = ("spikes",) if recurrent else ()
        self.table = e.table(regime)
        self.parameters = tuple(parameter.name for parameter in self.table)
        self.states = tuple(state.name for state in e.states)
        self.inputs = (
            *e.currents, *self.weights, *self.steps, *self.carried, *self.parameters, *self.states,
        )  # fmt: skip
        self.sequences = (
            tuple(f"{name}_trace" for name in e.traces) if kind == "dynamics" else ("s",)
        )
        self.outputs = (
            *self.sequences,
            *(f"last_{name}" for name in (*self.carried, *self.states)),
        )
        spiking = kind != "dynamics"
        self.constants = (*(("scale",) if fixed else ()), *e.constants)
        level = int if fixed else float
        self.attributes: dict[str, Any] = dict.fromkeys(self.constants, level)
        if spiking:
            self.attributes["graded"] = int
        names = (*self.inputs, *self.constants)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RegistryError(
                f"equation {e.name}: {', '.join(twice)} names two things; currents, parameters, "
                f"states and constants need names of their own"
            )
        self.tail = (*self.constants, *(("tau", "gradient", "graded") if spiking else ()))

    # -- torch -----------------------------------------------------------------------------------

    @property
    def torch_name(self) -> str:
        letters = (f"_{c.lower()}" if c.isupper() else c for c in self.name)
        return "".join(letters).lstrip("_")

    @property
    def schema(self) -> str:
        kinds = {"scale": "int", "tau": "float", "gradient": "float", "graded": "bool"}
        level = "int" if self.fixed else "float"
        arguments = [f"Tensor {name}" for name in self.inputs]
        arguments += [f"{kinds.get(name, level)} {name}" for name in self.tail]
        return f"({', '.join(arguments)}) -> ({', '.join(['Tensor'] * len(self.outputs))})"

    def compute(
        self, *args: Any, gradient: bool = False, arithmetic: Float | None = None
    ) -> tuple[Tensor, ...]:
        """Run the op; with ``gradient`` on values that autograd follows, or on others."""
        values = dict(zip((*self.inputs, *self.tail), args, strict=True))

        def pick(names: Sequence[str]) -> list[Any]:
            return [values[name] for name in names]

        surrogate = pick(self.tail[-3:]) if self.kind != "dynamics" else [1.0, 1.0, False]
        usual = _ARITHMETICS[self.regime][gradient]
        a = arithmetic or usual(values.get("scale", 1), *surrogate)
        constants = {name: values[name] for name in self.e.constants}
        currents = pick(self.e.currents)
        states = pick(self.states)
        parameters = {
            parameter.name: a.parameter(values[parameter.name], states[0], parameter)
            for parameter in self.table
        }
        rest = (SimpleNamespace(**parameters), states, constants)
        if self.kind == "recurrent":
            fed = (pick(self.weights), pick(self.steps), values["spikes"])
            return _recurrent(self.e, a, currents, *fed, *rest)
        return (_spikes if self.kind == "spikes" else _dynamics)(self.e, a, currents, *rest)

    def unsure(self, *args: Any, rounding: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Say what roundings of the currents can change, of spikes in fixed point.

        Args:
            args: those of the op.
            rounding: how far currents may be off, in units of the states.

        Returns:
            Where they could decide on a spike (N, C[, H, W], T); how many units the heights of
            graded spikes may be off, likewise; and how many units each last state, by name.
        """
        a = (LoihiUnsure if self.regime == "loihi" else Unsure)(args[len(self.inputs)], rounding)
        fired, *states = self.compute(*args, arithmetic=a)
        # comparisons of single steps, the same number in each, and those of the spikes of all
        single = torch.stack([where for where in a.undecided if where.dim() < fired.dim()])
        near = single.reshape(fired.shape[-1], -1, *single.shape[1:]).any(dim=1)
        for where in a.undecided:
            if where.dim() == fired.dim():
                near |= where
        return time_back(near), time_back(a.height), dict(zip(self.states, states, strict=True))

    def fake(self, *args: Any) -> tuple[Tensor, ...]:
        values = dict(zip((*self.inputs, *self.tail), args, strict=True))
        x = values[self.e.currents[0]]
        sequences = [
            torch.empty_like(x, memory_format=torch.contiguous_format) for _ in self.sequences
        ]
        last = [torch.empty_like(values[name]) for name in (*self.carried, *self.states)]
        return *sequences, *last

    def __call__(self, *args: Any) -> tuple[Tensor, ...]:
        """Run the torch op: one node where it is traced."""
        result: tuple[Tensor, ...] = self.overload(*args)
        return result

    def register(self) -> None:
        """Register the torch op and its ONNX twin."""
        name = f"{TORCH_NAMESPACE}::{self.torch_name}"

        def forward(*args: Any) -> tuple[Tensor, ...]:
            # an output must not be an input: a state that no step changes is copied
            return tuple(y.clone() if any(y is x for x in args) else y for y in self.compute(*args))

        op = torch.library.custom_op(name, forward, mutates_args=(), schema=self.schema)
        op.register_fake(self.fake)
        register_composed_gradient(
            op, lambda *args: self.compute(*args, gradient=True), tensors=len(self.inputs)
        )
        self.overload = getattr(getattr(torch.ops, TORCH_NAMESPACE), self.torch_name).default
        register(
            OpDef(
                name=self.name,
                torch_op=self.overload,
                inputs=self.inputs,
                outputs=self.outputs,
                attributes=self.attributes,
                symbolic=self.symbolic,
                body=self.body,
                samples=self.samples,
                doc=self.doc,
                exact=(None if self.kind == "recurrent" else True) if self.fixed else False,
                spikes=self.kind != "dynamics",
                arithmetic=self.arithmetic,
                form=self.form,
            )
        )

    @property
    def doc(self) -> str:
        notes = {
            "spikes": "",
            "dynamics": " It returns the variables over time and no spikes.",
            "recurrent": " A current is x[t] + step * (weight @ s[t-1]): spikes are fed back.",
        }
        bits = ""
        if self.regime == "loihi":
            bits = " States have 24 bits: a current wraps round, a voltage stays at the end."
            if self.e.biased:
                bits += " bias is added where a norm stands in training."
        elif self.regime == "biased":
            bits = " bias, minus the mean of a norm, is added between the states."
        elif self.regime == "normed":
            bits = " Between the states stands a norm: (u + bias) * gain, in float32."
        return f"{self.e.doc}{notes[self.kind]}{bits}"

    def arithmetic(
        self, attributes: Mapping[str, Any], constants: Mapping[str, onnx.TensorProto]
    ) -> str:
        """Say in which numbers the states are computed, see :meth:`_loops`, and which are not."""
        form = self.form(attributes, constants)
        said = [self._bits, *(f"keeps no {name}" for name in self.states if name in form)]
        said += [f"sums {name} up, without a loop" for name in self._summed(form)]
        for state, name in self.e.memory.items():
            kept = self._fractions(constants[name], name) if name in constants else None
            if kept is not None and kept.any() and not kept.all():
                said.append(f"keeps {state}: not all channels lose all of it")
        return "; ".join(said)

    @property
    def _bits(self) -> str:
        if not self.fixed:
            return "floats"
        if self.kind == "recurrent":
            return "64 bits; nothing bounds the spikes that are fed back"
        if type(self.e).reach is Equation.reach:
            return "64 bits; nothing bounds its states"
        return "32 bits if states fit, else 64"

    # -- ONNX ------------------------------------------------------------------------------------

    def symbolic(self, *args: Any) -> Any:
        values = dict(zip((*self.inputs, *self.tail), args, strict=True))
        rank = len(values[self.e.currents[0]].shape)
        tensors = [
            time_first(values[name]) if name in self.e.currents else values[name]
            for name in self.inputs
        ]
        attributes = {
            name: int(values[name]) if kind is int else float(values[name])
            for name, kind in self.attributes.items()
        }
        outputs = node(self.name, *tensors, **attributes)
        count = len(self.sequences)
        return *(time_last(y, rank) for y in outputs[:count]), *outputs[count:]

    def body(self, opset: int, *special: frozenset[str], single: bool = False) -> str:
        """Return the statements; with forms of their own for some nodes, see :meth:`form`.

        With ``single`` there is one for a single step as well, where that is faster.
        Which nodes these are is asked within the body, from their parameters: where those are
        constants, ONNX Runtime settles it when it loads the model.
        """
        del opset  # the operators are the same from 21 on
        a = Text(_INT64 if self.fixed else _FLOAT, loihi=self.regime == "loihi")
        e = self.e
        c = self._constants(a)
        states = [a.name(name) for name in self.states]
        p = self._parameters(a)
        recurrent = self.kind == "recurrent"
        inputs = [a.name(name, _FLOAT) for name in e.currents]
        fed = [self._feedback(a, name) for name in e.currents] if recurrent else []

        parts = _Parts(inputs, states, p, c, fed)
        # the most first: what suits a node without both suits one without either
        forms = sorted(filter(None, special), key=lambda form: (-len(form), sorted(form)))
        # bounds are what a loop of one step spends its time on; only loops in fixed point have them
        single = single and self.fixed and not recurrent
        if self.fixed and self.kind == "spikes" and (forms or single):
            found = self._in_turn(a, parts, forms, single=single)
        elif single:
            found = self._single_or(a, parts, lambda: self._nested(a, parts, forms))
        else:
            found = self._nested(a, parts, forms)
        for name, value in zip(self.outputs, found, strict=True):
            a.lines.append(f"{name} = Identity({value})")
        return "\n".join(a.before)

    def _single_or(self, a: Text, parts: _Parts, write: Callable[[], list[str]]) -> list[str]:
        """Write a choice: one step without a loop, or what is for any number of steps."""
        sizes = [a.write(f"Size({name})", _INT64) for name in (self.e.currents[0], self.states[0])]
        # an empty batch has no size that tells of its steps
        most = a.operation("Max", sizes[1], 1)
        is_single = a.operation("Equal", sizes[0], most, kind=_BOOL)
        branches = _branch(a, lambda: self._single(a, parts)), _branch(a, write)
        return a.choice(is_single.name, len(self.outputs), *branches)

    def _single(self, a: Text, parts: _Parts) -> list[str]:
        """Write one step in 64 bits; return the names of the op's outputs."""
        time, first = a.write("Constant<value_ints = [0]>()", _INT64), a.number(0, _INT64)
        x = {
            name: a.take(a.write(f"Gather({current.name}, {first.name})", _FLOAT))
            for name, current in zip(self.e.currents, parts.inputs, strict=True)
        }
        before = dict(zip(self.states, parts.states, strict=True))
        outer, a.lines, a.inside, a.calls = a.lines, [], True, {}
        now = [SimpleNamespace(**values) for values in (x, parts.p, before)]
        after, variables = self.e.step(a, now[0], now[1], now[2], parts.c)
        names = self.e.fires if self.kind == "spikes" else self.e.traces
        wanted = [variables[name] for name in names]
        lines = _needed(a.lines, [value.name for value in (*after.values(), *wanted)])
        a.lines, a.inside = outer, False
        a.lines.extend(lines)
        sequences = [
            a.write(f"Unsqueeze({name}, {time.name})", _FLOAT).name
            for name in self._behind(a, wanted, parts.c)
        ]
        return [*sequences, *_copied(a, [after[name].name for name in self.states])]

    def _nested(self, a: Text, parts: _Parts, forms: Sequence[frozenset[str]]) -> list[str]:
        """Write the forms, each in the choice for the one before; return the op's outputs."""
        if not forms:
            return self._either(a, parts)
        suits = self._suits(a, parts, forms[0])
        yes = _branch(a, lambda: self._without(a, parts, forms[0], self._either))
        no = _branch(a, lambda: self._nested(a, parts, forms[1:]))
        return a.choice(suits.name, len(self.outputs), yes, no)

    def _in_turn(
        self, a: Text, parts: _Parts, forms: Sequence[frozenset[str]], *, single: bool
    ) -> list[str]:
        """Write the forms one behind the other: constants may settle all of the choices.

        Of two such choices, one in the other, ONNX Runtime 1.32 loses the names in the inner one
        that a third within them reads.
        """
        graded = a.name("is_graded", _BOOL)
        ways: list[tuple[_Name, Callable[[], list[str]]]] = [
            (graded, lambda: self._special(a, parts, "graded_", self._numbers))
        ]
        left = a.write(f"Not({graded.name})", _BOOL)
        for form in forms:
            suits = self._suits(a, parts, form)
            ways.append(
                (left & suits, functools.partial(self._without, a, parts, form, self._spikes))
            )
            left = left & a.write(f"Not({suits.name})", _BOOL)
        ways.append((left, lambda: self._spikes(a, parts)))
        found = [self.e.currents[0], *self.states]  # of the right types, and taken by no one
        for condition, way in ways:
            # within, for what a settled choice gives would be copied once more in a branch
            write = functools.partial(self._single_or, a, parts, way) if single else way
            branches = _branch(a, write), _branch(a, functools.partial(_copied, a, found))
            found = a.choice(condition.name, len(self.outputs), *branches)
        return found

    def _without(
        self, a: Text, parts: _Parts, form: frozenset[str], write: Callable[..., list[str]]
    ) -> list[str]:
        """Write a body for nodes without some states, resets or fractions."""
        lost = {self.e.memory[state]: 0 for state in self.states if state in form}
        kept = {self.e.memory[state]: 1 for state in self._summed(form)}
        never = {name: _NEVER for name in self.e.constants if _never(name) in form}
        name = "".join(f"{'no_' * (part in self.states)}{part}_" for part in sorted(form))
        given = parts._replace(
            p={**parts.p, **lost, **kept}, c=SimpleNamespace(**{**vars(parts.c), **never})
        )
        if never:
            given = given._replace(plain=(parts.p, parts.c))
        return self._special(a, given, name, write)

    def _special(
        self, a: Text, parts: _Parts, name: str, write: Callable[..., list[str]]
    ) -> list[str]:
        """Write a form whose names begin with a name of its own."""
        a.form = a.scope = name
        found = write(a, parts)
        a.form = a.scope = ""
        return found

    def _either(self, a: Text, parts: _Parts) -> list[str]:
        """Write the body for graded spikes and for others, where there are spikes."""
        if self.kind != "spikes":
            return self._numbers(a, parts)
        loops = self._loops(a, parts)
        branches = _branch(a, loops), _branch(a, lambda: _in_bits(a, loops))
        return a.choice("is_graded", len(self.outputs), *branches)

    def _numbers(self, a: Text, parts: _Parts) -> list[str]:
        """Write the body where the loop gives variables, or has feedback."""
        if self.kind == "recurrent":
            return self._over_time(a, *parts[:5])
        return self._loops(a, parts)()

    def _spikes(self, a: Text, parts: _Parts) -> list[str]:
        """Write the body where the loop gives spikes, 0 or 1."""
        return _in_bits(a, self._loops(a, parts))

    def _suits(self, a: Text, parts: _Parts, form: frozenset[str]) -> _Name:
        """Write whether a form computes a node: what it leaves out, no neuron has."""
        r, suits = Reach(a), []
        for name in sorted(form & set(self.states)):
            kept = parts.p[self.e.memory[name]]
            if self.fixed:
                most = r.largest(kept)
            else:  # NaN would be overlooked by a maximum
                most = a.write(f"ReduceL1<keepdims = 0>({kept.name})", _FLOAT)
            suits.append(a.operation("Equal", most, 0, kind=_BOOL))
        for name in self._summed(form):
            most = r.largest(parts.p[self.e.memory[name]] - DECAY_ONE)
            suits.append(a.operation("Equal", most, 0, kind=_BOOL))
        for name, level in vars(parts.c).items():
            if _never(name) in form:
                suits.append(level >= _WHOLE_LIMIT)
        if not self.fixed:  # zero times infinity is no zero
            starts = [state for state in parts.states if state.name in form]
            lost = self._lost(a, form, parts.inputs, parts.p, parts.c)
            suits.append(r.finite([*lost.values(), *starts]))
        return functools.reduce(operator.and_, suits)

    def _over_time(
        self, a: Text, inputs: Sequence[_Name], states: Sequence[_Name],
        p: Mapping[str, _Name], c: SimpleNamespace, fed: Sequence[tuple[str, _Name]] = (),
    ) -> list[str]:  # fmt: skip
        """Write the loop over time and what follows it; return the names of the op's outputs."""
        traces, last = self._loop(a, inputs, states, p, c, fed)
        return [*self._behind(a, traces, c), *(state.name for state in last)]

    def _behind(self, a: Text, traces: Sequence[_Name], c: SimpleNamespace) -> list[str]:
        """Write what follows the loop over time; return the names of the op's sequences."""
        if a.bits:
            (bits,) = traces
            if bits.kind == _FLOAT:
                return [(1 - bits if bits.opposite else bits).name]
            fired = a.write(f"Not({bits.name})", _BOOL) if bits.opposite else bits
            return [a.cast(fired, _FLOAT).name]
        if self.kind == "spikes":
            named = dict(zip(self.e.fires, traces, strict=True))
            return [self.e.fire(a, SimpleNamespace(**named), c).name]
        return [a.give(trace).name for trace in traces]

    def _lost(
        self,
        a: Text,
        form: frozenset[str],
        inputs: Sequence[_Name],
        p: Mapping[str, Any],
        c: SimpleNamespace,
    ) -> dict[str, _Name]:
        """Write the void states of all time steps, by name: those that follow from no state."""
        outer, a.lines, a.inside, a.calls = a.lines, [], True, {}
        x = dict(zip(self.e.currents, inputs, strict=True))
        before = {name: a.name(f"{name}_before") for name in self.states}
        kept = {**p, **dict.fromkeys((self.e.memory[name] for name in form), 0)}
        now = [SimpleNamespace(**values) for values in (x, kept, before)]
        after, _ = self.e.step(a, now[0], now[1], now[2], c)
        found, lines = {}, a.lines
        a.lines, a.inside = outer, False
        for name in sorted(form):
            needed = _needed(lines, [after[name].name])
            if not any(_reads(line) & {v.name for v in before.values()} for line in needed):
                found[name] = after[name]
                a.lines.extend(line for line in needed if line not in a.lines)
        return found

    def _hoisted(
        self, a: Text, lines: Sequence[str], rows: Sequence[_Carried], sequences: dict[str, str]
    ) -> list[str]:
        """Write before the loop what follows from no state, for all of time; return the rest.

        A state that is the one before and what comes in is a sum over time, and needs no loop.

        Args:
            a: the arithmetic, whose statements are those before the loop.
            lines: the statements of one step.
            rows: what the loop hands on from step to step.
            sequences: names of a step's values -> those of the sequences that they come from; what
                is computed before the loop is added.
        """
        stay, turning = [], {row.into for row in rows}
        for line in lines:
            name, _, call = line.partition(" = ")
            row = next((row for row in rows if row.value.name == name), None)
            if row is not None and self._is_sum(call, row, lines, sequences):
                (added,) = _reads(call) & sequences.keys()
                kind, time = row.value.kind, a.number(0, _INT64)
                total = a.write(f"CumSum({sequences[added]}, {time.name})", kind)
                sequences[name] = a.write(f"Add({total.name}, {row.start})", kind).name
                turning.discard(row.into)
            elif _reads(call) & turning:
                turning.add(name)
                stay.append(line)
            elif _reads(call) & sequences.keys():
                whole = re.sub(r"\w+", lambda word: sequences.get(word[0], word[0]), call)
                sequences[name] = f"{name}_all"
                a.lines.append(f"{name}_all = {whole}")
            else:
                a.lines.append(line)
        return stay

    def _is_sum(
        self, call: str, row: _Carried, lines: Sequence[str], sequences: Mapping[str, str]
    ) -> bool:
        """Whether a state is summed up: nothing but what it was, and a sequence."""
        readers = [line for line in lines if row.into in _reads(line.partition(" = ")[2])]
        terms = re.fullmatch(r"Add\((\w+), (\w+)\)", call)
        if terms is None or len(readers) > 1 or row.into not in terms.groups():
            return False
        return any(term in sequences for term in terms.groups())

    def _at_the_end(self, a: Text, row: _Carried, sequences: Mapping[str, str]) -> _Name:
        """Write the last of a state that no step reads, in its shape."""
        if row.value.name in sequences:
            last = a.number(-1, _INT64)
            call = f"Gather({sequences[row.value.name]}, {last.name})"
        else:
            shape = a.write(f"Shape({row.start})", _INT64)
            call = f"Expand({row.value.name}, {shape.name})"
        return a.write(call, row.value.kind)

    def _trace(
        self, a: Text, value: _Name, sequences: Mapping[str, str], turning: set[str]
    ) -> _Name:
        """Return a value over time: what the loop gives, or what stands before it."""
        if value.name in turning:
            found = a.name(a.fresh("trace"), value.kind)
        elif value.name in sequences:
            found = a.name(sequences[value.name], value.kind)
        elif self.kind == "dynamics":
            shape = a.write(f"Shape({self.e.currents[0]})", _INT64)
            found = a.write(f"Expand({value.name}, {shape.name})", value.kind)
        else:
            return value
        found.opposite = value.opposite
        return found

    def _loop(
        self, a: Text, inputs: Sequence[_Name], states: Sequence[_Name],
        p: Mapping[str, _Name], c: SimpleNamespace, fed: Sequence[tuple[str, _Name]] = (),
        watched: Mapping[str, _Name] = MappingProxyType({}),
    ) -> tuple[list[_Name], list[_Name]]:  # fmt: skip
        """Write the loop over time; return its traces and the last states.

        Behind the states come the least values of the watched variables, from those given on.
        """
        e, recurrent, outer = self.e, self.kind == "recurrent", a.lines
        if not recurrent:
            inputs = [a.whole(x) for x in inputs]
        a.lines, a.inside, a.calls = [], True, {}
        x = {
            name: a.name(f"{a.scope}{name}_t", value.kind)
            for name, value in zip(e.currents, inputs, strict=True)
        }
        taken = [value.name for value in x.values()]
        if recurrent:
            x = {
                name: a.take(x[name] + a.write(f"MatMul(spikes_before, {matrix})", _FLOAT) * step)
                for name, (matrix, step) in zip(e.currents, fed, strict=True)
            }
        before = {
            name: a.name(f"{a.scope}{name}_before", state.kind)
            for name, state in zip(self.states, states, strict=True)
        }
        now = [SimpleNamespace(**values) for values in (x, p, before)]
        after, variables = (
            {name: v if isinstance(v, _Name) else a.number(v, a.kind) for name, v in found.items()}
            for found in e.step(a, now[0], now[1], now[2], c)
        )
        if recurrent:
            s = e.fire(a, SimpleNamespace(**variables), c)
            carried, wanted = [s], [s]
        elif a.bits:
            carried, wanted = [], [e.fire(a, SimpleNamespace(**variables), c)]
        else:
            carried = []
            wanted = [variables[name] for name in (e.fires if self.kind == "spikes" else e.traces)]
        lowest = {
            name: a.operation("Min", a.name(f"least_{name}_before", value.kind), variables[name])
            for name, value in watched.items()
        }
        names = (*self.carried, *self.states, *(f"least_{name}" for name in watched))
        kept = (*carried, *(after[name] for name in self.states), *lowest.values())
        starts = (*self.carried, *(v.name for v in (*states, *watched.values())))
        into = (
            *(f"{name}_before" for name in self.carried),
            *(value.name for value in before.values()),
            *(f"least_{name}_before" for name in watched),
        )
        rows = [_Carried(*row) for row in zip(names, into, starts, kept, strict=True)]
        lines = _needed(a.lines, [value.name for value in (*kept, *wanted)])
        a.lines, a.inside = outer, False
        sequences = dict(zip(taken, (value.name for value in inputs), strict=True))
        if not all(isinstance(value, _Name) for value in p.values()):  # else there is little to win
            lines = self._hoisted(a, lines, rows, sequences)
        return self._scan(a, lines, rows, wanted, sequences)

    def _scan(
        self, a: Text, lines: list[str], rows: Sequence[_Carried], wanted: Sequence[_Name],
        sequences: Mapping[str, str],
    ) -> tuple[list[_Name], list[_Name]]:  # fmt: skip
        """Write a Scan over statements; without those that no step needs, of what it hands on.

        Returns:
            What is wanted over time, and the last of every row.
        """
        read = {name for line in lines for name in _reads(line)}
        turning = {*(row.into for row in rows), *(line.partition(" = ")[0] for line in lines)}
        within = [row for row in rows if row.value.name in turning or row.into in read]
        traced = [value for value in wanted if value.name in turning]
        results: list[str] = []
        for value in (*(row.value for row in within), *traced):
            # each output of the loop is a value of its own, made within it
            made = any(line.startswith(f"{value.name} = ") for line in lines)
            if made and value.name not in results:
                results.append(value.name)
            else:
                results.append(a.fresh("v"))
                lines.append(f"{results[-1]} = Identity({value.name})")
        last = [
            a.name(f"{a.scope}final_{row.name}", row.value.kind)
            if row in within
            else self._at_the_end(a, row, sequences)
            for row in rows
        ]
        traces = [self._trace(a, value, sequences, turning) for value in wanted]
        gives = [value.name for value, row in zip(last, rows, strict=True) if row in within]
        gives += [trace.name for trace, v in zip(traces, wanted, strict=True) if v.name in turning]
        if gives:
            read = {name for line in lines for name in _reads(line)}
            moving = [name for name in sequences if name in read] or list(sequences)[:1]
            arguments = [*(row.into for row in within), *moving]
            feeds = [*(row.start for row in within), *(sequences[name] for name in moving)]
            loop = "\n".join(lines)
            a.lines.append(
                f"{', '.join(gives)} = Scan<num_scan_inputs = {len(moving)},\n"
                f"body = {a.scope}step ({', '.join(arguments)}) => ({', '.join(results)}) {{\n"
                f"{loop}\n}}>({', '.join(feeds)})"
            )
        return traces, last

    def _loops(self, a: Text, parts: _Parts) -> Callable[[], list[str]]:
        """Return what writes the loop over time and returns the names of the op's outputs.

        Where the equation bounds its states, it writes two loops and the choice: in 32 bits where
        every state is proved to fit, from the currents of this very call. A form without resets
        holds below a bound, too, and there is a third for what is beyond it.
        """
        inputs, states, p, c = parts[:4]
        if self.fixed:
            inputs = [x * a.name("scale_f", _FLOAT) for x in inputs]
        if not self.fixed or type(self.e).reach is Equation.reach:
            return lambda: self._over_time(a, inputs, states, p, c)
        narrow, r = Narrow(a.before, a.form), Reach(a)
        a.lines.append(f"steps_of_time = Shape<start = 0, end = 1>({inputs[0].name})")
        named = [
            SimpleNamespace(**dict(zip(names, map(r.largest, values), strict=True)))
            for names, values in (
                (self.e.currents, inputs), (self.parameters, p.values()), (self.states, states),
            )
        ]  # fmt: skip
        bounds = self.e.reach(r, named[0], named[1], named[2], c)

        def below(limit: int) -> list[_Name]:
            most = a.number(limit, _DOUBLE)
            return [bound < most for bound in dict.fromkeys(bounds.values())]

        narrow_fits = below(_NARROW_LIMIT)
        real = [p[parameter.name] for parameter in self.table if parameter.real]
        finite = r.finite([*inputs, *real])
        fits = functools.reduce(operator.and_, [*narrow_fits, finite])

        def in_32_bits() -> list[str]:
            narrow.bits = a.bits
            start, parameters, levels = self._narrowed(narrow, states, p, c)
            traces, last = self._loop(narrow, inputs, start, parameters, levels)
            return [*self._behind(narrow, traces, levels), *self._widened(narrow, last)]

        def in_64_bits(p: Mapping[str, Any], c: SimpleNamespace, name: str = "wide_") -> list[str]:
            a.scope = f"{a.form}{name}"
            found = self._over_time(a, inputs, states, p, c)
            a.scope = a.form
            return found

        def without_bounds() -> list[str]:
            if parts.plain is None:
                return in_64_bits(p, c)
            holds = functools.reduce(operator.and_, [*below(_WHOLE_LIMIT), finite])
            yes = _branch(a, lambda: in_64_bits(p, c))
            no = _branch(a, functools.partial(in_64_bits, *parts.plain, "plain_"))
            return a.choice(holds.name, len(self.outputs), yes, no)

        def choose() -> list[str]:
            branches = _branch(narrow, in_32_bits), _branch(a, without_bounds)
            return a.choice(fits.name, len(self.outputs), *branches)

        def choose_short() -> list[str]:
            # without a membrane there is nothing to watch, and little to multiply
            if not (a.bits and self.e.short) or _is_nothing(p[self.e.memory[self.e.membrane]]):
                return choose()
            short, results, held = self._try_short(
                a, r, bounds, named, finite, inputs, states, p, c
            )
            bits, *last = results

            def in_short() -> list[str]:
                return [*self._behind(short, [bits], c), *self._widened(short, last)]

            branches = _branch(short, in_short), _branch(a, choose)
            return a.choice(held, len(self.outputs), *branches)

        return choose_short

    def _try_short(
        self, a: Text, r: Reach, bounds: Mapping[str, _Name], named: Sequence[SimpleNamespace],
        finite: _Name, inputs: Sequence[_Name], states: Sequence[_Name],
        p: Mapping[str, _Name], c: SimpleNamespace,
    ) -> tuple[Short, list[_Name], str]:  # fmt: skip
        """Write the loop in :class:`Short`, which is run where it is likely to be exact.

        Bounds prove it for some products. Of a state that resets keep low they know how high it
        rises, and not well how low it falls: the loop itself tells. Up to the first product that
        is not exact all states are right, the one that is multiplied there among them.

        Returns:
            The arithmetic, spikes and last states, and the name of the condition that they hold.
        """
        short, limit = Short(a.before, a.form), a.number(_SHORT_LIMIT, _DOUBLE)
        # 2 at the least: what is smaller than half the limit is not cut off at 24 bits either
        odd = {
            name: a.operation("Max", r.odd_part(p[q]), 2)
            for name, q in self.e.memory.items()
            if not _is_nothing(p[q])
        }
        levels = {name: a.cast(value, _DOUBLE) for name, value in vars(c).items()}
        above = self.e.above(r, named[2], SimpleNamespace(**levels))

        def is_likely() -> list[str]:
            likely = [finite]
            for name, unit in odd.items():
                if name in above:
                    likely.append(above[name] * unit < limit)
                tried = _SHORT_TRY * _SHORT_LIMIT if name in above else _SHORT_LIMIT
                likely.append(bounds[name] * unit < a.number(tried, _DOUBLE))
            return [functools.reduce(operator.and_, likely).name]

        def is_not() -> list[str]:
            return [a.write(f"Cast<to = {_BOOL}>({a.number(0, _INT64).name})", _BOOL).name]

        # few neurons: nothing to win, and streams of single steps would pay for the question
        size = a.write(f"Size({states[0].name})", _INT64)
        many = a.operation("Greater", size, _SHORT_NEURONS, kind=_BOOL)
        (attempt,) = a.choice(many.name, 1, _branch(a, is_likely), _branch(a, is_not))

        def try_it() -> list[str]:
            short.bits = True
            start, parameters, constants = self._narrowed(short, states, p, c)
            watched = {name: short.cast(states[self.states.index(name)], _INT32) for name in above}
            traces, last = self._loop(short, inputs, start, parameters, constants, watched=watched)
            least = last[len(start) :]
            seen = Reach(short)
            holds = [
                seen.largest(value) * odd[name] < limit
                for name, value in zip(above, least, strict=True)
            ]
            results.extend([traces[0], *last[: len(start)]])
            return [*(v.name for v in results), functools.reduce(operator.and_, holds).name]

        def leave_it() -> list[str]:
            nothing = f"{a.form}nothing"
            short.before.append(f"{nothing} = Constant<value_ints = [0]>()")
            none = short.write(f"Slice({inputs[0].name}, {nothing}, {nothing})", _FLOAT)
            same = [
                short.write(f"Cast<to = {value.kind}>({state.name})", value.kind)
                for state, value in zip(states, results[1:], strict=True)
            ]
            no = short.write(f"Cast<to = {_BOOL}>({short.number(0, _INT64).name})", _BOOL)
            return [v.name for v in (none, *same, no)]

        results: list[_Name] = []
        tried = _branch(short, try_it)
        *names, held = a.choice(attempt, len(results) + 1, tried, _branch(short, leave_it))
        found = [short.name(name, value.kind) for name, value in zip(names, results, strict=True)]
        found[0].opposite = results[0].opposite
        return short, found, held

    def _narrowed(
        self, text: Narrow, states: Sequence[_Name], p: Mapping[str, _Name], c: SimpleNamespace
    ) -> tuple[list[_Name], dict[str, _Name], SimpleNamespace]:
        """Bring states, parameters and levels to an arithmetic of 32 bits."""

        def brought(parameter: Parameter) -> Any:
            value = p[parameter.name]
            if parameter.real:
                return value
            return text.narrowed(value) if parameter.level else text.fraction(value)

        parameters = {parameter.name: brought(parameter) for parameter in self.table}
        # a step on paper tells in which types the states come out
        paper = type(text)([], text.form)
        x = SimpleNamespace(**{name: paper.name(name) for name in self.e.currents})
        s = SimpleNamespace(**{name: paper.name(name) for name in self.states})
        q = {
            name: paper.name(name, value.kind) if isinstance(value, _Name) else value
            for name, value in parameters.items()
        }
        levels = SimpleNamespace(
            **{name: v if v is _NEVER else paper.name(name) for name, v in vars(c).items()}
        )
        after, _ = self.e.step(paper, x, SimpleNamespace(**q), s, levels)
        start = [
            text.cast(state, after[name].kind)
            for name, state in zip(self.states, states, strict=True)
        ]
        constants = {name: text.narrowed(value) for name, value in vars(c).items()}
        return start, parameters, SimpleNamespace(**constants)

    def _widened(self, text: Narrow, last: Sequence[_Name]) -> list[str]:
        """Bring the last states to 64 bits."""
        return [text.cast(state, _INT64).name for state in last]

    def _parameters(self, a: Text) -> dict[str, _Name]:
        """Bring the parameters to the shape and the unit of the states, before the loop."""
        fractions = [p.name for p in self.table if not (p.level or p.real)]
        a.before.append(broadcast_text(self.states[0], fractions, a.kind))
        found = {}
        for parameter in self.table:
            if parameter.level or parameter.real:
                a.before.append(per_neuron_text(parameter.name))
                value = a.name(f"{parameter.name}_b", _FLOAT)
                if not parameter.real:
                    value = a.take(value)
                elif parameter.level:
                    value = value * a.name("scale_f", _FLOAT)
                found[parameter.name] = value
            else:
                value = a.name(f"{parameter.name}_b")
                one = DECAY_ONE if self.fixed else 1
                found[parameter.name] = one - value if parameter.kept else value
        return found

    def _constants(self, a: Text) -> SimpleNamespace:
        """Bring the attributes into the graph; return the levels by name."""
        kind = "int" if self.fixed else "float"
        if self.fixed:
            a.before.append("scale_i = Constant<value_int: int = @scale>()")
            a.before.append("scale_f = Cast<to = 1>(scale_i)")
        if "graded" in self.attributes:
            a.before.append("graded_i = Constant<value_int: int = @graded>()")
            a.before.append("is_graded = Cast<to = 9>(graded_i)")
        for name in self.e.constants:
            a.before.append(f"level_{name} = Constant<value_{kind}: {kind} = @{name}>()")
        return SimpleNamespace(**{name: a.name(f"level_{name}") for name in self.e.constants})

    def _feedback(self, a: Text, current: str) -> tuple[str, _Name]:
        """Bring a recurrent weight (C, C, 1, 1, 1) to a matrix of floats, before the loop."""
        lines = [
            # cast first: ONNX Runtime reshapes no int4, nor asks for its shape
            f"float_{current} = Cast<to = 1>(weight_{current})",
            f"flat_{current} = Flatten<axis = 1>(float_{current})",
            f"matrix_{current} = Transpose<perm = [1, 0]>(flat_{current})",
            # a step an output neuron: ONNX Runtime would fold a single one into the product
            # (MatMulScaleFusion), whose kernel rounds once a block of the sum
            f"row_{current} = Constant<value_ints = [-1]>()",
            f"single_{current} = Reshape(step_{current}, row_{current})",
            f"width_{current} = Shape<start = 0, end = 1>(float_{current})",
            f"gain_{current} = Expand(single_{current}, width_{current})",
        ]
        a.before.extend(lines)
        return f"matrix_{current}", a.name(f"gain_{current}", _FLOAT)

    def _summed(self, form: frozenset[str]) -> list[str]:
        """Return the states that a form sums up."""
        return [state for state in self.states if _sum_of(state) in form]

    def form(
        self, attributes: Mapping[str, Any], constants: Mapping[str, onnx.TensorProto]
    ) -> frozenset[str]:
        """Return what the body of a node may leave out, provably, for all of its neurons.

        That are states of which nothing is kept, by their names. Of readouts in fixed point they
        are levels that no state reaches (``never_`` before their names), and the fractions of
        states that are kept whole (``sum_of_`` before the states' names). Nothing is left out where
        spikes are graded in fixed point: the body has no form for it.

        Args:
            attributes: those of the node, by name.
            constants: inputs of the node that are constants, by name.
        """
        if self.fixed and attributes.get("graded"):
            return frozenset()
        fractions = {
            state: self._fractions(constants[name], name)
            for state, name in self.e.memory.items()
            if name in constants
        }
        form = frozenset(state for state, kept in fractions.items() if not kept.any())
        levels = [attributes[name] for name in self.e.constants]
        if self.fixed and self.kind == "dynamics" and fractions and min(levels) >= _WHOLE_LIMIT:
            form |= {_never(name) for name in self.e.constants}
            form |= {_sum_of(state) for state, k in fractions.items() if (k == DECAY_ONE).all()}
        while not self.fixed and form:  # of floats, where what is lost can be seen to be finite
            a = Text(_FLOAT)
            inputs = [a.name(name) for name in self.e.currents]
            p = {name: a.name(name) for name in self.parameters}
            c = SimpleNamespace(**{name: a.name(name) for name in self.e.constants})
            lost = self._lost(a, form, inputs, p, c)
            if len(lost) == len(form):
                break
            form = form & set(lost)
        return form

    def _fractions(self, constant: onnx.TensorProto, name: str) -> Any:
        """Return what is kept of a state, one number or one a channel."""
        (table,) = (parameter for parameter in self.table if parameter.name == name)
        values = onnx.numpy_helper.to_array(constant)
        if self.fixed:
            values = values.astype("int64")
        return (DECAY_ONE if self.fixed else 1) - values if table.kept else values

    def samples(self) -> Sequence[Sample]:
        """Sample calls: shared and channel parameters, images, graded spikes."""
        unit, scale = (DECAY_ONE, 1 << 12) if self.fixed else (1, 1)
        e, kind = self.e, torch.int64 if self.fixed else torch.float32
        constants = [e.samples[name] * scale for name in e.constants]
        numbers = [int(value) for value in constants] if self.fixed else constants

        def call(
            index: int, shape: tuple[int, ...], spread: bool, graded: bool, size: float = 0.5
        ) -> tuple[Any, ...]:
            channels = shape[1]
            currents = [drive(10 * index + i, *shape) for i in range(len(e.currents))]
            offsets = torch.linspace(0.8, 1.2, channels) if spread else torch.ones(1)
            parameters = [
                torch.round(unit * p.typical * offsets)
                if self.fixed and not (p.level or p.real)
                else p.typical * _of_neurons(offsets, shape, one_each=p.level or p.real)
                for p in self.table
            ]
            states = [
                (drive(100 * index + i, *shape[:-1]) * scale * size).to(kind)
                + (int(e.samples[s.start] * scale) if s.start else 0)
                for i, s in enumerate(e.states)
            ]
            fed: list[Any] = []
            if self.kind == "recurrent":
                square = (channels, channels, 1, 1, 1)
                draws = [torch.Generator().manual_seed(i) for i in range(len(e.currents))]
                fed += [torch.randint(-9, 9, square, generator=g).to(torch.int8) for g in draws]
                fed += [torch.full((1, 1, 1, 1, 1), 1 / 32)] * len(e.currents)
                fed.append((drive(7, *shape[:-1]) > 0.3).to(torch.float32))
            tail = ([1 << 12] if self.fixed else []) + numbers
            if self.kind != "dynamics":
                tail += [100.0, 0.1, graded]
            return (*currents, *fed, *parameters, *states, *tail)

        calls = {
            "shared": call(0, (2, 3, 20), False, False),
            "channels": call(1, (2, 3, 20), True, False),
        }
        if self.kind != "recurrent":
            calls["images"] = call(2, (1, 2, 3, 4, 9), True, False)
        if self.kind != "dynamics":
            calls["graded"] = call(3, (2, 3, 20), False, True)
        if self.regime == "loihi":  # states at the end of 24 bits, currents that lead beyond it
            full = list(call(4, (2, 3, 20), False, False, size=STATE_LIMIT / scale))
            full[: len(e.currents)] = [400 * x for x in full[: len(e.currents)]]
            calls["full"] = tuple(full)
        # a multiply-add of floats rounds once where it is fused, else twice
        rtol = 0.0 if self.fixed else 2e-6
        return [Sample(name, args, rtol) for name, args in calls.items()]


def _never(level: str) -> str:
    """Name the part of a form that no state reaches a level."""
    return f"never_{level}"


def _sum_of(state: str) -> str:
    """Name the part of a form that all of a state is kept."""
    return f"sum_of_{state}"


def _reads(call: str) -> set[str]:
    """Return the names that the right side of a statement reads, among other words of it."""
    return set(re.findall(r"\w+", call))


def _in_bits(a: Text, write: Callable[[], list[str]]) -> list[str]:
    """Write a loop that gives spikes instead of variables."""
    a.bits = True
    found = write()
    a.bits = False
    return found


def _copied(a: Text, names: Sequence[str]) -> list[str]:
    """Write copies of values, for the branch of a choice that leaves them as they are."""
    return [a.write(f"Identity({name})", a.kind).name for name in names]


def _branch(text: Text, write: Callable[[], list[str]]) -> tuple[str, list[str]]:
    """Return the statements that ``write`` writes, and the names that it returns."""
    outer, text.lines = text.lines, []
    names = write()
    lines, text.lines = "\n".join(text.lines), outer
    return lines, names


def _needed(lines: Sequence[str], results: Sequence[str]) -> list[str]:
    """Drop the statements ``name = ...`` that no later one and no result reads."""
    kept: list[str] = []
    read = set(results)
    for line in reversed(lines):
        name, _, call = line.partition(" = ")
        if name in read:
            read |= _reads(call)
            kept.append(line)
    return kept[::-1]


def _of_neurons(offsets: Tensor, shape: tuple[int, ...], *, one_each: bool) -> Tensor:
    """Offsets of channels, for images with one a neuron where parameters may have it."""
    if not one_each or len(shape) < 5:
        return offsets
    size = shape[1:-1]
    spread = torch.linspace(0.8, 1.2, math.prod(size)).reshape(size)
    return offsets.reshape(-1, 1, 1) * spread


#: (name of the equation, kind, regime) -> the op
_FORMS: dict[tuple[str, str, str], Form] = {}


def register_equation(e: Equation) -> Equation:
    """Register the ops of an equation, in its regimes, and return it."""
    forms = list(itertools.product(e.regimes, ("spikes", "dynamics", "recurrent")))
    if e.normed:
        forms += itertools.product(_NORMED, ("spikes",))
    for regime, kind in forms:
        form = Form(e, regime, kind)
        form.register()
        _FORMS[e.name, kind, regime] = form
    return e
