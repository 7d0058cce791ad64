"""What verification asks of a layer beyond running it, as only the layer can answer it.

How near a membrane is to its threshold, and what a rounding error can change, follow from these.
A neuron that states an equation (CONTRIBUTING, "Add a neuron in one file") inherits all of it; one
without an equation, such as sigma-delta, states the second protocol itself. A layer that has
neither is compared all the same, without margins.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from synapse_onnx.axon import Delta
from synapse_onnx.ops import Equation

__all__ = ["EncodingNeuron", "EquationNeuron"]


@runtime_checkable
class EquationNeuron(Protocol):
    """A neuron that steps an equation; currents are (N, C[, H, W], T), or a pair (real, imag)."""

    #: names its variables (``traces``), the one that reaches the threshold (``membrane``), ...
    equation: ClassVar[Equation]
    #: "float", or a regime in fixed point
    regime: str
    #: whether the output is a variable of the equation instead of spikes
    readout: bool

    @property
    def threshold(self) -> float:
        """Membrane voltage at which the neuron spikes."""

    @property
    def feedback(self) -> nn.Module | None:
        """The synapse through which the neuron sees its own spikes, or None."""

    def dynamics(self, input: Any) -> tuple[Tensor, ...]:
        """Return the variables over time (``equation.traces``), before the reset of each step."""

    def forward_without_feedback(self, input: Any) -> Tensor:
        """Return what ``forward`` would return if no spikes were fed back."""

    def error_bounds(self, input: Any, rounding: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Bound what rounding errors of the currents change in fixed point, up to a flipped spike.

        Returns where they could flip a spike, the largest error of a graded spike, and the largest
        error of each last state.
        """

    def reset(self) -> None:
        """Forget the states."""


@runtime_checkable
class EncodingNeuron(Protocol):
    """A neuron that computes a value and sends its changes through a delta encoder."""

    delta: Delta

    @property
    def encodes_exactly(self) -> bool:
        """Whether every runtime gives the encoder the same input to the last bit."""

    def encoder_input(self, input: Any) -> Tensor:
        """Return what the encoder is given for a current (N, C[, H, W], T)."""

    def reset(self) -> None:
        """Forget the states."""
