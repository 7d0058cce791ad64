"""What an equation declares: parameters, states, constants, and one step in plain operators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from torch import Tensor

__all__ = ["BIAS", "NORM", "NORMED", "OPS", "REGIMES", "Equation", "Parameter", "State"]

#: numeric regimes: lava-dl's fixed point on the CPU, plain float32, Loihi's 24-bit states; and
#: what the names of their ops end in
REGIMES = {"slayer": "", "float": "Float", "loihi": "Loihi"}


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


#: what Loihi adds at every step, and slayer where a frozen norm is part of the step
BIAS = Parameter("bias", "added at every step", kept=False, level=True, typical=0.125)

#: a norm within the step, y = (x + bias) gain, in float32
NORM = (
    replace(BIAS, doc="minus the mean of a norm", real=True),
    Parameter("gain", "what a norm divides by, inverted", kept=False, typical=0.5, real=True),
)

#: regimes of spikes with a norm within the step, of whole means alone or of any; and what the names
#: of their ops end in
NORMED = {"biased": "Biased", "normed": "Normed"}


@dataclass(frozen=True)
class State:
    """One state of a neuron; a sequence starts from zero, or from the constant named ``start``."""

    name: str
    doc: str
    start: str = ""


class EquationOp(Protocol):
    """An op of an equation, as its neuron calls it; a ``NeuronOp``."""

    def __call__(self, *args: Any) -> tuple[Tensor, ...]:
        """Run the torch op: one node where it is traced."""

    def compute(self, *args: Any, gradient: bool = False) -> tuple[Tensor, ...]:
        """Run the op; with ``gradient`` on values that autograd follows."""

    def error_bound(self, *args: Any, rounding: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Bound what roundings of the currents can change."""


#: (name of the equation, kind, regime) -> its op, by ``register_equation``; no field of the
#: equation, for an equation is copied with the neurons that hold it
OPS: dict[tuple[str, str, str], EquationOp] = {}


class Equation(ABC):
    """A neuron's equation: its tables, and one time step in plain operators.

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
        normed: whether that place is that of slayer's norm, within the step: there are two more ops
            for spikes then, of the slayer regime: "biased", where the norm is a whole number to
            be added, and "normed", where it is a sum and a product in float32.
        regimes: numeric regimes that it is for.
        counts: whether it gives whole numbers of spikes, and not spikes that may be graded; in
            floats alone.
        samples: constants of sample calls, as floats.
        memory: state -> the fraction of it that is kept every step, and that multiplies nothing
            else: where it is zero the state is void.
        follows: variable -> (another one, a parameter) whose difference it is: a loop over time
            that computes the other leaves it out.
        often_zero: parameters that are added or subtracted alone, and often zero for all neurons.
        often_one: factors of :meth:`Arithmetic.scaled`, and amounts that a reset takes off, which
            are often one for all neurons.
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
    counts: ClassVar[bool] = False
    regimes: ClassVar[tuple[str, ...]] = tuple(REGIMES)
    samples: ClassVar[Mapping[str, float]] = {"threshold": 0.75}
    memory: ClassVar[Mapping[str, str]] = {}
    follows: ClassVar[Mapping[str, tuple[str, str]]] = {}
    often_zero: ClassVar[tuple[str, ...]] = ()
    often_one: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """State one time step.

        Args:
            a: the arithmetic: ``scaled(state, factor)``, ``through_float(state)``,
                ``where(condition, yes, no)``, ``reset(condition, value, state)``,
                ``raised(condition, amount, state)``; ``biased(value, p)``, where there is a
                bias; what Loihi alone does: ``current(state)``, ``voltage(state)``; what floats
                alone do: ``counted(state, level, most)``, ``raised_to(state, lowest)``.
            x: currents, by name.
            p: parameters, by name.
            s: states before the step, by name.
            c: constants, by name.

        Returns:
            (states after the step, variables of this step), each by name.
        """

    @abstractmethod
    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Return the spikes of the variables ``v``.

        With ``a.spike``, ``a.phase_spike`` or ``a.spikes_counted``.
        """

    def bounds(self, b: Any, x: Any, p: Any, s: Any, c: Any) -> dict[str, Any]:
        """Bound every state of a whole sequence, by name; overridden where bounds are known.

        They hold for the variables, too. Below 2**23 the ONNX body takes its loop in 32 bits,
        which gives the same integers.

        Args:
            b: ``filtered(start, drive, kept)`` bounds y[t] = kept y[t-1] + drive[t],
                ``length(real, imag)`` a complex number, ``size(level)`` a constant,
                ``larger(...)`` several; ``met(level)`` is 0 instead of 1 where no state reaches
                that level or some bound is beyond 2**23.
            x: bounds of the currents, by name.
            p: bounds of the parameters, by name; fractions in 4096ths.
            s: bounds of the states that the sequence starts from, by name.
            c: constants, by name.
        """
        raise NotImplementedError

    def upper_bounds(self, b: Any, s: Any, c: Any) -> dict[str, Any]:
        """Bound from above what decays, by the name of the state: those that a reset keeps low.

        Overridden where decays often have few bits, as 15/16 has, and multiply nothing else. Their
        products are then exact in float32, if no state falls too low, which the loop itself tells.

        Args:
            b: see :meth:`bounds`.
            s: bounds of the states that the sequence starts from, by name.
            c: constants, by name.
        """
        del b, s, c
        return {}

    @property
    def is_bounded(self) -> bool:
        """Whether :meth:`bounds` is overridden."""
        return type(self).bounds is not Equation.bounds

    @property
    def has_upper_bounds(self) -> bool:
        """Whether :meth:`upper_bounds` is overridden."""
        return type(self).upper_bounds is not Equation.upper_bounds

    def table(self, regime: str) -> tuple[Parameter, ...]:
        """Return the parameters in a regime."""
        if regime == "normed":
            return (*self.parameters, *NORM)
        biased = self.biased and regime in ("loihi", "biased")
        return (*self.parameters, BIAS) if biased else self.parameters

    def op(self, kind: str, regime: str) -> EquationOp:
        """Return a registered op: kind "spikes", "dynamics" or "recurrent".

        With ``normed`` there are spikes of the regimes "biased" and "normed", too.
        """
        return OPS[self.name, kind, regime]
