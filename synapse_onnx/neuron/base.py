"""The base of neurons with an equation: parameters, states, running, feedback, freezing.

A neuron class names its :class:`~synapse_onnx.ops.Equation`, which declares parameters and states
in tables. Registering, clamping, rounding, resetting, exporting, freezing and loading follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.neuron._common import Arguments, Common, Current, input_text
from synapse_onnx.neuron._parameters import Decay, Parametric
from synapse_onnx.ops.arithmetic import fixed, loihi

__all__ = ["Arguments", "Common", "Current", "Decay", "Neuron"]


class Neuron(Parametric):
    """A neuron with an equation; the constructor arguments are those of lava-dl.

    Args:
        threshold: membrane voltage at which the neuron spikes, >= 0.
        values: value of each parameter in the equation's table, by name: a fraction, 0 to 1; a
            pair (least, most) where every channel has its own.
        tau_grad, scale_grad, scale, norm, dropout, shared_param, persistent_state, requires_grad,
            graded_spike, regime: see :class:`Common`.
        levels: further constants of the equation, which become attributes; on the grid of the
            weights, multiples of 1 / scale, in fixed point.

    Raises:
        InputError: an argument is out of its range.
    """

    #: whether the output is a variable instead of spikes (see :meth:`as_readout`)
    readout: bool = False
    #: the synapse that feeds spikes back, in a tuple: it is a module of the block, not of this one
    _fed: tuple[nn.Module] | None = None

    def __init__(
        self,
        threshold: float,
        values: Mapping[str, Any],
        tau_grad: float = 1,
        scale_grad: float = 1,
        scale: int = 1 << 6,
        norm: Callable[[], nn.Module] | None = None,
        dropout: nn.Module | None = None,
        shared_param: bool = True,
        persistent_state: bool = False,
        requires_grad: bool = False,
        graded_spike: bool = False,
        regime: str = "slayer",
        *,
        levels: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(
            threshold, tau_grad, scale_grad, scale, norm, dropout, shared_param, persistent_state,
            requires_grad, graded_spike, regime,
        )  # fmt: skip
        for name, level in (levels or {}).items():
            setattr(self, name, self._on_grid(name, level))
        self._ranges = {}
        self._register_parameters(values)
        self.clamp()
        constants = self.constants()
        dtype = torch.float32 if self.regime == "float" else torch.int64
        biased = any(p.name == "bias" for p in self.equation.table(self.regime))
        self.register_buffer("bias", torch.zeros(1) if biased else None)
        if self.regime == "loihi" and any(norm is not None for norm in self._norms()):
            raise InputError(
                f"{self.kind} neuron: Loihi has no norm; fold it into a bias (set_bias) and weights"
            )
        for state in self.equation.states:
            self.register_state(state.name, dtype, constants[state.start] if state.start else 0)

    # -- constants ---------------------------------------------------------------------------

    def constants(self) -> dict[str, float]:
        """Return the equation's constants: integers in units of 1 / s_scale, or floats."""
        if self.regime == "float":
            return {"threshold": self.threshold}
        return {"threshold": self.integer_threshold}

    @property
    def integer_threshold(self) -> int:
        """Integer that the voltage must reach, in units of 1 / s_scale."""
        if math.isinf(self._threshold):
            return fixed.NO_THRESHOLD
        if self.regime == "loihi":  # > is >= of the next integer
            return int(self._threshold * self.s_scale) + (self.threshold_eps > 0)
        return fixed.integer_threshold(self._threshold + self.threshold_eps, self.s_scale)

    @property
    def never_spikes(self) -> bool:
        """Whether the threshold is one that a voltage of Loihi's 24 bits cannot reach.

        lava-dl reads membranes so, of neurons with a huge threshold.
        """
        return (
            self.regime == "loihi"
            and not self.readout
            and self.integer_threshold >= loihi.STATE_LIMIT
        )

    def _levels(self) -> tuple[float, ...]:
        constants = self.constants()
        levels = tuple(constants[name] for name in self.equation.constants)
        return levels if self.regime == "float" else (self.s_scale, *levels)

    @property
    def _surrogate(self) -> tuple[float, float]:
        # a threshold of zero would leave no width at all
        tau = self.tau_rho * self.tau_rho_mult or self.tau_rho_mult / self.w_scale
        return tau, self.scale_rho * self.scale_rho_mult

    # -- input -------------------------------------------------------------------------------

    def _currents(self, input: Current) -> tuple[Tensor, ...]:
        """Check an input; the first one settles the neuron's shape and draws its parameters."""
        if not self.complex:
            currents: tuple[Tensor, ...] = (self._real(input),)
        elif isinstance(input, tuple | list) and len(input) == 2:
            currents = tuple(input)
            if currents[0].shape != currents[1].shape:
                raise ShapeError(
                    f"{self.kind} neuron: the real current has shape {tuple(currents[0].shape)} "
                    f"and the imaginary one {tuple(currents[1].shape)}; they must be equal"
                )
        else:
            raise ShapeError(
                f"{self.kind} neuron: expected a complex current, a pair (real, imag), and got "
                f"{input_text(input)}; put a complex synapse before it"
            )
        if self._check_shape(currents[0]):
            self._build(currents[0].shape[1:-1])
        return currents

    def _normed(self, currents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        pairs = zip(currents, self._norms(), strict=True)
        return tuple(x if norm is None else norm(x) for x, norm in pairs)

    # -- running -----------------------------------------------------------------------------

    def dynamics(self, input: Current) -> tuple[Tensor, ...]:
        """Return the variables of the equation over time (``equation.traces``), as floats.

        Args:
            input: currents (N, C[, H, W], T); a pair (real, imag) for a resonator.

        Returns:
            One tensor of the input's shape a variable, before the reset of each step.

        Raises:
            ShapeError: the input's rank, shape or batch does not match.
        """
        currents = self._normed(self._currents(input))
        states = self.load_states(currents[0], *self.states)
        outputs = self._op("dynamics", (*currents, *self._values(), *states, *self._levels()))
        count = len(self.equation.traces)
        self.save_states(**dict(zip(self.states, outputs[count:], strict=True)))
        return outputs[:count]

    def forward(self, input: Current) -> Tensor:
        """Return spikes (N, C[, H, W], T) of currents of the same shape, float32.

        Args:
            input: currents; a pair (real, imag) for a resonator.

        Raises:
            ShapeError: the input's rank, shape or batch does not match.
        """
        if self.readout:
            return self.dynamics(input)[self.equation.traces.index(self.equation.readout)]
        currents = self._normed(self._currents(input))
        kind, names = "spikes", self.states
        fed: tuple[Tensor, ...] = ()
        if self._fed is not None:
            if currents[0].dim() != 3:
                raise ShapeError(
                    f"{self.kind} neuron: with feedback it takes currents (N, C, T), got "
                    f"{tuple(currents[0].shape)}"
                )
            kind, names = "recurrent", ("spikes", *names)
            fed = (*self._feedback(), *self.load_states(currents[0], "spikes"))
        s, *last = self._op(kind, (*currents, *fed, *self._rest(currents[0])))
        self.save_states(**dict(zip(names, last, strict=True)))
        return self._dropped(s)

    def _rest(self, current: Tensor) -> tuple[Any, ...]:
        """Arguments of the op for spikes that follow the currents."""
        states = self.load_states(current, *self.states)
        return *self._values(), *states, *self._levels(), *self._surrogate, self.graded_spike

    def feed_back(self, synapse: nn.Module) -> None:
        """Send the spikes of each step through a synapse and add them to the next step's current.

        The neuron keeps its last spikes as a state then, named "spikes".

        Args:
            synapse: a Dense synapse from these neurons to themselves, complex for a resonator.

        Raises:
            InputError: the neuron has a norm, which would stand within the loop over time.
        """
        if any(norm is not None for norm in self._norms()):
            raise InputError(f"{self.kind} neuron: feedback goes with no norm; leave norm=None")
        # in a tuple: the synapse is a module of the block's, not of the neuron's
        self._fed = (synapse,)
        self.register_state("spikes", torch.float32)

    def _feedback(self) -> tuple[Tensor, ...]:
        """Weights and scales of the feedback, one of each a current."""
        assert self._fed is not None
        synapse: Any = self._fed[0]
        parts = (synapse.real, synapse.imag) if self.complex else (synapse,)
        pairs = [part.weight_and_scale() for part in parts]
        return *(weight for weight, _ in pairs), *(scale for _, scale in pairs)

    def as_readout(self) -> None:
        """Never spike and never reset: a variable of the equation is the output then."""
        self._threshold = math.inf
        self.spiking, self.readout = False, True

    @property
    def _form(self) -> str:
        """The regime whose ops are run; see :meth:`Equation.op`."""
        return self.regime

    def _op(self, kind: str, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """Run one of the equation's ops; in training the form that autograd follows by itself."""
        op = self.equation.op(kind, self._form)
        # one pass then serves both the output and its gradient
        if self.training and torch.is_grad_enabled():
            return op.compute(*args, gradient=True)
        return op(*args)

    # -- what verification asks ------------------------------------------------------------------

    @property
    def feedback(self) -> nn.Module | None:
        """The synapse through which the neuron sees its own spikes, or None."""
        return None if self._fed is None else self._fed[0]

    def forward_without_feedback(self, input: Current) -> Tensor:
        """Return what :meth:`forward` would return if no spikes were fed back."""
        fed, self._fed = self._fed, None
        try:
            return self.forward(input)
        finally:
            self._fed = fed

    def error_bounds(
        self, input: Current, rounding: float
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Bound what rounding errors of the currents change in fixed point, up to a flipped spike.

        Args:
            input: currents; a pair (real, imag) for a resonator.
            rounding: largest error of a current, in the unit of the threshold.

        Returns:
            Where an error could flip a spike, bool, of the shape of a current; the largest error of
            a graded spike, in the unit of the threshold, of the same shape; and the largest error
            of each last state, in units of 1 / (64 scale), by the name of the state.

        Raises:
            InputError: the neuron is in the float regime, or has a norm within its step.
        """
        if self.regime == "float" or self._form != self.regime:
            raise InputError(f"{self.kind} neuron: states in fixed point and no norm are needed")
        currents = self._normed(self._currents(input))
        op, args = self.equation.op("spikes", self._form), self._rest(currents[0])
        where, height, last = op.error_bound(*currents, *args, rounding=rounding * self.s_scale)
        return where, height / self.s_scale, last

    # -- deployment --------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return kind, regime, threshold, parameters and feedback of this frozen neuron."""
        facts = super().describe()
        if self._fed is not None:
            synapse: Any = self._fed[0]
            facts["feedback"] = synapse.describe()
        return facts
