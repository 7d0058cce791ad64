"""Running one layer in torch on the input that it had in ONNX Runtime.

This isolates the layer: whatever the layers before it did, the same input must give the same
output, at all times. A fault is then blamed on the layer that has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx._layer import Deployable, Stateful, named_states
from synapse_onnx.verification.feedback import ErrorBounds, error_bounds, with_feedback
from synapse_onnx.verification.membranes import as_argument
from synapse_onnx.verification.nodes import in_torch_layout, input_sequences, output_sequences
from synapse_onnx.verification.subject import Subject
from synapse_onnx.verification.trace import Call

__all__ = ["Replay", "State", "replay"]


@dataclass(frozen=True)
class State:
    """Last state of a layer.

    Attributes:
        value: one number a neuron (N, C[, H, W]), or several over time, (N, C[, H, W], T).
        timed: whether it has an axis of time.
    """

    value: NDArray[Any]
    timed: bool


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
    """Run a layer once more.

    Args:
        subject: network and model.
        call: the layer's call in torch.
        nodes: the nodes of this call in the graph.
        values: values of the graph, by name.
        exact: whether equality is demanded of its outputs. If not, a neuron with feedback is also
            given the spikes that it had in ONNX Runtime (``verification/feedback.py``).
    """
    # a pair enters one node, or two that norm its parts
    names = [name for node in nodes for name in input_sequences(node)][: len(call.inputs)]
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
    with _kept_states(layer) as kept, torch.no_grad():
        if spikes is None:
            currents, largest_sum = inputs, 0.0
            result = layer(as_argument(inputs))
        else:
            fed_back = torch.from_numpy(spikes.copy())
            currents, largest_sum = with_feedback(layer, inputs, fed_back)
            result = layer.forward_without_feedback(as_argument(currents))
        states = {} if spikes is None else {"spikes": State(spikes[..., -1], timed=False)}
        states |= _read_states(kept)
    outputs = result if isinstance(result, tuple) else (result,)
    bounds = None
    if largest_sum and subject.is_fixed_point(call.path):
        bounds = error_bounds(layer, currents, largest_sum)
    return Replay(inputs, currents, outputs, states, largest_sum, bounds)


@contextlib.contextmanager
def _kept_states(layer: Deployable) -> Iterator[list[tuple[Stateful, str]]]:
    """Start from fresh states, and let the layer keep those that it ends with."""
    kept = [(part, state) for _, part, state in named_states(layer)]
    before = [(part, part.persistent_state) for part, _ in kept]
    layer.reset()
    for part, _ in kept:
        part.persistent_state = True
    try:
        yield kept
    finally:
        for part, persistent in before:
            part.persistent_state = persistent
        layer.reset()


def _read_states(kept: Sequence[tuple[Stateful, str]]) -> dict[str, State]:
    states = {}
    for part, name in kept:
        value: Tensor = getattr(part, f"{name}_state")
        if value.dim() > 1:  # one number: this part has not run
            states[name] = State(value.numpy(), timed=part.state_depth(name) is not None)
    return states
