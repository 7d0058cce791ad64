"""Where roundings may decide, in a chunk that torch ran from the states of a stream.

A float sum that is rounded otherwise moves values by as much, unless a neuron is at its threshold:
then its state may differ, and whatever comes after its spike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx._layer import named_states
from synapse_onnx.axon import Delta
from synapse_onnx.model.layout import has_time
from synapse_onnx.neuron import base
from synapse_onnx.verification import membranes
from synapse_onnx.verification.arrays import Agreement, difference, first_place, largest
from synapse_onnx.verification.nodes import output_sequences
from synapse_onnx.verification.outputs import Run
from synapse_onnx.verification.replay import with_feedback
from synapse_onnx.verification.sums import magnitudes, sums_of
from synapse_onnx.verification.trace import Call

__all__ = ["Doubts"]

Array = NDArray[Any]


class Doubts:
    """What may differ in one chunk.

    Layers are added in the order in which they ran, each with the states that it started from in
    ``carried``. A neuron at its threshold puts its own states in doubt, and all that later layers
    of its sample compute from this step on.

    Args:
        run: the run, for its tolerance and its exact values.
        outputs: what the network returned in torch.
        samples, steps: size of the chunk.

    Attributes:
        first: the first neuron that a rounding may decide on, as text; "" if there is none.
    """

    def __init__(self, run: Run, outputs: Sequence[Tensor], samples: int, steps: int) -> None:
        self._run, self._outputs = run, outputs
        self._agreement = Agreement(samples, steps)
        #: address of a tensor -> the largest sum of magnitudes that it holds
        self._sums: dict[int, float] = {}
        #: address of a tensor -> by how much it may differ, where values move by whole steps
        self._slack: dict[int, float] = {}
        self._margins: dict[int, Array] = {}
        #: name of a state -> the largest difference by roundings, and where it may be larger
        self._states: dict[str, tuple[float, Array]] = {}
        self.first = ""

    @classmethod
    def of(cls, run: Run, outputs: Sequence[Tensor], calls: Sequence[Call]) -> Doubts:
        """Find the doubts in the calls of a chunk, whose layers still carry its first states."""
        sequences = [x for call in calls for x in call.inputs if has_time(x.dim())]
        steps = max((x.shape[-1] for x in sequences), default=1)
        found = cls(run, outputs, calls[0].outputs[0].shape[0] if calls else 1, steps)
        for call in calls:
            found._add(call)
        return found

    def covers(self, values: Array) -> NDArray[np.bool_]:
        """Return which values (N, ...[, T]) of the network's outputs are in no doubt."""
        return self._agreement.covers(values)

    def wrong(self, name: str, expected: Array, found: Array) -> NDArray[np.bool_]:
        """Return where a last state differs by more than roundings can make it."""
        allowed, doubtful = self._states.get(name, (0.0, np.zeros((), bool)))
        off = difference(expected, found) > allowed if allowed else expected != found
        rest = (1,) * (expected.ndim - doubtful.ndim)
        return off & ~doubtful.reshape(doubtful.shape + rest)

    def margin(self, i: int, place: tuple[int, ...]) -> float | None:
        """Return how far the membrane of output i was above its threshold; None without one."""
        margins = self._margins.get(self._outputs[i].data_ptr())
        fits = margins is not None and margins.shape == tuple(self._outputs[i].shape)
        return float(margins[place]) if margins is not None and fits else None

    def slack(self, i: int) -> float:
        """Return by how much output i may differ besides, where values move by whole steps."""
        return self._slack_of(self._outputs[i])

    def _slack_of(self, tensor: Tensor) -> float:
        # code between the layers makes tensors of its own, which may hold any that came before
        return self._slack.get(tensor.data_ptr(), max(self._slack.values(), default=0.0))

    def _add(self, call: Call) -> None:
        layer: Any = call.layer
        begun = {
            f"{call.path}.{name}".strip("."): part.carried[key]
            for name, part, key in named_states(layer)
            if part.carried and key in part.carried
        }
        exact, slack = self._is_exact(call), max(map(self._slack_of, call.inputs))
        self._pass_on(call, 0.0 if exact else slack)
        if exact:
            return
        error = self._error(call, begun.values(), slack)
        step = _step(layer)
        near, moved = np.zeros((), dtype=bool), 0.0
        if isinstance(layer, Delta | membranes.EncodingNeuron):
            near, moved = self._near_change(call, error)
        elif layer.spiking:
            # a state in fixed point moves by a step at each rounding, and with another state
            near = self._near_threshold(call, error + step * call.outputs[0].shape[-1] ** 2)
        if isinstance(layer, base.Neuron) and (layer.graded_spike or not layer.spiking):
            moved = step * call.outputs[0].shape[-1] ** 2
        if moved:
            for tensor in call.outputs:
                self._slack[tensor.data_ptr()] = moved + self._slack_of(tensor)
        self._add_states(call, begun, error + moved, near)
        if near.any():
            self._agreement.end_at(near)

    def _pass_on(self, call: Call, slack: float) -> None:
        """Take note of what the outputs of a layer hold: sums, and by how much they may differ."""
        sums = sums_of(call.layer)
        if sums:
            terms = magnitudes(call.layer, call.inputs[0])
            for tensor, sizes in zip(call.outputs, terms, strict=True):
                self._sums[tensor.data_ptr()] = largest(sizes.numpy())
            if slack:
                each = magnitudes(call.layer, torch.full_like(call.inputs[0], slack))
                slack = max(largest(sizes.numpy()) for sizes in each)
        if call.layer.spiking and not getattr(call.layer, "graded_spike", False):
            slack = 0.0
        for tensor in call.outputs:
            self._slack[tensor.data_ptr()] = slack

    def _error(self, call: Call, states: Iterable[Tensor], slack: float) -> float:
        """Return by how much the variables of a layer may be off, in units of its input."""
        scale = getattr(call.layer, "s_scale", 1)
        sizes = [largest(x.numpy()) for x in (*call.inputs, *call.outputs)]
        sizes += [self._sums.get(x.data_ptr(), 0.0) for x in call.inputs]
        sizes += [largest(x.numpy()) / (1 if x.is_floating_point() else scale) for x in states]
        # the errors of all steps may add up
        return self._run.tolerance.rtol * max(sizes) + slack * call.outputs[0].shape[-1]

    def _add_states(
        self, call: Call, begun: Mapping[str, Tensor], error: float, near: Array
    ) -> None:
        layer: Any = call.layer
        at_end: Any = near.any(axis=-1) if near.ndim else near
        if self._run.subject.feeds_back(call.path):  # each neuron sees the spikes of all
            at_end = at_end.any(axis=tuple(range(1, at_end.ndim)), keepdims=True)
        agreed = self._agreement.covers(np.empty((call.outputs[0].shape[0], 1)))
        agreed = agreed.reshape(-1, *(1,) * max(at_end.ndim - 1, 0))
        for name, start in begun.items():
            allowed = error
            if not start.is_floating_point():
                allowed = error * layer.s_scale + call.outputs[0].shape[-1] ** 2
            self._states[name] = allowed, at_end | ~agreed

    def _is_exact(self, call: Call) -> bool:
        nodes = self._run.subject.nodes.get(call.path, [])
        return bool(nodes) and self._run.exact.issuperset(output_sequences(nodes[-1]))

    def _near_change(self, call: Call, error: float) -> tuple[Array, float]:
        """Return where an encoder may send or not, and by how much it may floor otherwise."""
        layer: Any = call.layer
        encoder, x = layer, call.inputs[0]
        if isinstance(layer, membranes.EncodingNeuron):
            if not call.layer.spiking:  # it decodes alone
                return np.zeros((), dtype=bool), 0.0
            encoder, x = layer.delta, layer.encoder_input(x)
        off = torch.full_like(x, error)
        floored = bool(membranes.changes(encoder, x, off)[1].any())
        moved = (error + 1 / encoder.scale) if floored else error
        near, _ = membranes.changes(encoder, x, off, moved)
        self._see(call, near.numpy(), membranes.margins(layer, call.inputs))
        return near.numpy(), moved

    def _near_threshold(self, call: Call, error: float) -> Array:
        layer: Any = call.layer
        rtol, currents = self._run.tolerance.rtol, tuple(call.inputs)
        size = error / rtol if rtol else 0.0
        if isinstance(layer, base.Neuron) and layer.feedback is not None:
            first = (layer.carried or {}).get("spikes")
            currents, fed = with_feedback(layer, currents, call.outputs[0], first)
            size = max(size, fed)
        near: Array = membranes.undecided(layer, currents, rtol, size, size)
        self._see(call, near, membranes.margins(layer, currents))
        return near

    def _see(self, call: Call, near: Array, margins: Array | None) -> None:
        """Remember margins for a divergence, and the first neuron that is at its threshold."""
        if margins is None:
            return
        self._margins[call.outputs[0].data_ptr()] = margins
        place = first_place(near)
        if place is not None and not self.first:
            self.first = (
                f"{call.path}: sample {place[0]}, neuron {place[1:-1]}, membrane "
                f"{margins[place]:+.3g} from the threshold"
            )


def _step(layer: Any) -> float:
    """Return the step of a neuron's states in fixed point, in units of its input; else 0."""
    fixed = isinstance(layer, base.Neuron) and layer.regime != "float"
    return 1 / layer.s_scale if fixed else 0.0
