"""Running one layer in torch on the input that it had in ONNX Runtime.

This isolates the layer: whatever the layers before it did, the same input must give the same
output, at all times. A fault is then blamed on the layer that has it.

In a neuron that feeds back sums of floats, the rounding of one step may grow from step to step
without end. So such a neuron is compared step by step: at each it is given the spikes that it had
in ONNX Runtime, whatever it would have done in torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from synapse_onnx.model.operators import FLOAT32_EXACT
from synapse_onnx.neuron import base
from synapse_onnx.verification.membranes import as_argument
from synapse_onnx.verification.nodes import entering_sequences, in_torch_layout, output_sequences
from synapse_onnx.verification.recording import (
    State,
    keeping_states,
    kept_states,
    of_own_class,
    own_forward,
)
from synapse_onnx.verification.subject import Subject
from synapse_onnx.verification.sums import magnitudes
from synapse_onnx.verification.trace import Call

__all__ = ["ErrorBounds", "Replay", "error_bounds", "replay", "with_feedback"]


class ErrorBounds(NamedTuple):
    """What roundings of fed-back sums can change of a neuron in fixed point.

    Attributes:
        may_flip: where they could decide on a spike, bool (N, C, T).
        spikes: largest error of a graded spike, (N, C, T).
        states: largest error of each last state, in its units, by name.
    """

    may_flip: NDArray[Any]
    spikes: NDArray[Any]
    states: dict[str, NDArray[Any]]


@dataclass
class Replay:
    """What one layer does in torch with the input that it had in ONNX Runtime.

    Attributes:
        inputs: that input, in torch's layout; two tensors of a complex one.
        currents: the input, with the feedback of the spikes that the layer gave there.
        outputs: what torch returns; None where the input has another size in torch.
        states: last states, by name.
        largest_sum: the largest sum of magnitudes of what is fed back; 0 where that is nothing, or
            exact.
        bounds: what roundings of these sums can change of a neuron in fixed point, or None.
    """

    inputs: tuple[Tensor, ...]
    currents: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...] | None = None
    states: dict[str, State] = field(default_factory=dict)
    largest_sum: float = 0.0
    bounds: ErrorBounds | None = None


def replay(
    subject: Subject,
    call: Call,
    nodes: Sequence[onnx.NodeProto],
    values: Mapping[str, NDArray[Any]],
    *,
    exact: bool,
) -> Replay:
    """Run a layer once more, on the ``values`` of the graph that its ``nodes`` had in this call.

    Unless equality is demanded of its outputs, a neuron with feedback is also given the spikes
    that it had in ONNX Runtime.
    """
    names = entering_sequences(nodes, len(call.inputs))
    arrays = [
        in_torch_layout(values[name], x.numpy()) for name, x in zip(names, call.inputs, strict=True)
    ]
    fitting = [array for array in arrays if array is not None]
    if len(fitting) < len(arrays):
        return Replay(call.inputs, call.inputs)
    inputs = tuple(torch.from_numpy(array.copy()) for array in fitting)
    layer: Any = call.layer
    spikes = None
    if subject.feeds_back(call.path) and not exact:
        spikes = in_torch_layout(values[output_sequences(nodes[-1])[0]], call.outputs[0].numpy())
    same = all(torch.equal(x, given) for x, given in zip(inputs, call.inputs, strict=True))
    if spikes is None and same and call.states is not None:
        return Replay(inputs, inputs, call.outputs, dict(call.states))
    layer.reset()
    with torch.no_grad(), keeping_states(layer):
        if spikes is None:
            currents, largest_sum = inputs, 0.0
            result = own_forward(layer, as_argument(inputs))
        else:
            currents, largest_sum = with_feedback(layer, inputs, torch.from_numpy(spikes.copy()))
            with of_own_class(layer):
                result = layer.forward_without_feedback(as_argument(currents))
        states = {} if spikes is None else {"spikes": State(spikes[..., -1], timed=False)}
        states |= kept_states(layer)
    layer.reset()
    outputs = result if isinstance(result, tuple) else (result,)
    bounds = None
    if largest_sum and subject.is_fixed_point(call.path):
        bounds = error_bounds(layer, currents, largest_sum)
    return Replay(inputs, currents, outputs, states, largest_sum, bounds)


def with_feedback(
    neuron: Any, currents: Sequence[Tensor], spikes: Tensor, first: Tensor | None = None
) -> tuple[tuple[Tensor, ...], float]:
    """Return the currents of a neuron and the feedback of given spikes, summed.

    Args:
        neuron: the neuron; one without feedback leaves the currents as they are.
        currents: (N, C, T); two tensors of a resonator.
        spikes: (N, C, T), fed back one step later, whatever the neuron itself would do.
        first: (N, C), fed back at the first step; none by default.

    Returns:
        The sums, and the largest sum of magnitudes, to which their rounding is relative; 0 without
        feedback.
    """
    synapse = neuron.feedback
    if synapse is None:
        return tuple(currents), 0.0
    before = functional.pad(spikes, (1, 0))[..., :-1]
    if first is not None:
        before = torch.cat([first.unsqueeze(-1), spikes[..., :-1]], dim=-1)
    result = own_forward(synapse, before)
    fed_back = result if isinstance(result, tuple) else (result,)
    terms = magnitudes(synapse, before)
    sums = tuple(x + y for x, y in zip(currents, fed_back, strict=True))
    sizes = (float((x.abs() + m).max()) for x, m in zip(currents, terms, strict=True))
    return sums, max(sizes)


def error_bounds(
    neuron: base.Neuron, currents: Sequence[Tensor], largest_sum: float
) -> ErrorBounds:
    """Return what roundings can change of a neuron in fixed point that feeds back.

    Currents (N, C, T) and feedback are summed, with this largest sum of magnitudes; the neuron's
    states are forgotten.
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
