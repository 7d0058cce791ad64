"""Neurons that see their own spikes: one step's rounding is the next step's input.

In a neuron that feeds back sums of floats, the rounding of one step may grow from step to step
without end. So such a neuron is compared step by step: at each it is given the spikes that it had
in ONNX Runtime, whatever it would have done in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from synapse_onnx.model.operators import FLOAT32_EXACT
from synapse_onnx.verification.contract import EquationNeuron
from synapse_onnx.verification.membranes import as_argument
from synapse_onnx.verification.sums import magnitudes

__all__ = ["ErrorBounds", "error_bounds", "with_feedback"]


def with_feedback(
    neuron: Any, currents: Sequence[Tensor], spikes: Tensor
) -> tuple[tuple[Tensor, ...], float]:
    """Return the currents of a neuron and the feedback of given spikes, summed.

    Args:
        neuron: the neuron; one without feedback leaves the currents as they are.
        currents: (N, C, T); two tensors of a resonator.
        spikes: (N, C, T), fed back one step later, whatever the neuron itself would do.

    Returns:
        The sums, and the largest sum of magnitudes, to which their rounding is relative; 0 without
        feedback.
    """
    synapse = neuron.feedback
    if synapse is None:
        return tuple(currents), 0.0
    before = functional.pad(spikes, (1, 0))[..., :-1]
    result = synapse(before)
    fed_back = result if isinstance(result, tuple) else (result,)
    terms = magnitudes(synapse, before)
    sums = tuple(x + y for x, y in zip(currents, fed_back, strict=True))
    sizes = (float((x.abs() + m).max()) for x, m in zip(currents, terms, strict=True))
    return sums, max(sizes)


@dataclass(frozen=True)
class ErrorBounds:
    """What roundings of fed-back sums can change of a neuron in fixed point.

    Attributes:
        may_flip: where they could decide on a spike, bool (N, C, T).
        spikes: largest error of a graded spike, (N, C, T).
        states: largest error of each last state, in its units, by name.
    """

    may_flip: NDArray[Any]
    spikes: NDArray[Any]
    states: dict[str, NDArray[Any]]


def error_bounds(
    neuron: EquationNeuron, currents: Sequence[Tensor], largest_sum: float
) -> ErrorBounds:
    """Return what roundings can change of a neuron in fixed point that feeds back.

    Args:
        neuron: the neuron; its states are forgotten.
        currents: currents and feedback, summed (N, C, T).
        largest_sum: the largest sum of magnitudes among them.
    """
    # a sum of n terms, times the step of the weights, plus the current: n + 2 roundings, each of
    # at most 2**-24 of the magnitudes
    terms = currents[0].shape[1]
    rounding = (terms + 2) * largest_sum / FLOAT32_EXACT
    with torch.no_grad():
        may_flip, spikes, states = neuron.error_bounds(as_argument(currents), rounding)
    neuron.reset()
    return ErrorBounds(
        may_flip.numpy(), spikes.numpy(), {name: error.numpy() for name, error in states.items()}
    )
