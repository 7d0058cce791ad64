"""Comparing each layer: with torch's trajectory, and with torch on the layer's own input.

A layer whose values are exact must equal torch. Of another one three things are demanded:

- its input is torch's within the tolerance, as long as the trajectories are comparable;
- its output is what torch gives on the very same input, at all times, until a neuron is so near
  its threshold that one rounding decides;
- its last states are, too: they show what no output of this run has shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from synapse_onnx.model.layout import has_time
from synapse_onnx.report.result import Divergence, Membrane, Row
from synapse_onnx.verification import membranes
from synapse_onnx.verification.agreement import Agreement
from synapse_onnx.verification.arrays import (
    Tolerance,
    compare_values,
    difference,
    first_place,
    largest,
)
from synapse_onnx.verification.contract import EquationNeuron
from synapse_onnx.verification.feedback import with_feedback
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.nodes import in_torch_layout, last_states, output_sequences
from synapse_onnx.verification.replay import Replay, replay
from synapse_onnx.verification.subject import Subject
from synapse_onnx.verification.sums import magnitudes, sums_of
from synapse_onnx.verification.trace import Call

__all__ = ["LayerComparison"]

Array = NDArray[Any]
Place = tuple[int, ...]

#: steps before and after the first divergence of which a report keeps the membrane
_AROUND = 40


@dataclass
class LayerComparison:
    """Compares the layers of one run.

    Attributes:
        subject: network and model.
        findings: where results go.
        values: values of the graph by name, time-major.
        exact: names of those of which equality is demanded.
        agreement: until when each sample's trajectories are comparable.
        tolerance: of values that are not exact.
    """

    subject: Subject
    findings: Findings
    values: Mapping[str, Array]
    exact: set[str]
    agreement: Agreement
    tolerance: Tolerance

    def compare(self, call: Call, total: int) -> None:
        """Compare one call of a layer, which torch calls so often in all."""
        nodes = self._nodes(call, total)
        if not nodes:
            return
        names = output_sequences(nodes[-1])
        exact = self.exact.issuperset(names)
        replayed = replay(self.subject, call, nodes, self.values, exact=exact)
        if not exact and sums_of(call.layer):
            with torch.no_grad():
                terms = magnitudes(call.layer, call.inputs[0])
            for tensor, sizes in zip(call.outputs, terms, strict=True):
                self.tolerance.remember_sums(tensor, sizes)
        names = self._compared(call, names)
        for i in range(len(call.outputs)):
            self._compare_output(call, total, i, names[i], nodes, replayed)

    def _nodes(self, call: Call, total: int) -> Sequence[onnx.NodeProto]:
        """Return the nodes of one call; none where there is nothing to compare."""
        group = self.subject.nodes.get(call.path, [])
        if not group and not any(self.subject.descriptions[call.path].get("delays", (1,))):
            return ()  # delays of zero steps leave nothing to compute
        if self.subject.scope.spares(group):
            return ()
        if not group or len(group) % total:
            self.findings.problem(
                f"{call.path}: torch calls this layer {total} times and the model has "
                f"{len(group)} nodes of it"
            )
            return ()
        length = len(group) // total
        nodes = group[(call.number - 1) * length : call.number * length]
        return () if self.subject.scope.spares(nodes) else nodes

    def _compared(self, call: Call, names: list[str]) -> list[str]:
        """Return the names of those sequences that the layer returns in torch, too."""
        layer = call.layer
        if isinstance(layer, EquationNeuron) and layer.readout and len(names) > 1:
            # the node returns all variables of the equation, the layer one of them
            return [names[layer.equation.traces.index(layer.equation.readout)]]
        return names

    def _compare_output(
        self,
        call: Call,
        total: int,
        i: int,
        name: str,
        nodes: Sequence[onnx.NodeProto],
        replayed: Replay,
    ) -> None:
        description = self.subject.descriptions[call.path]
        kind = f"complex {description['kind']}" if description.get("complex") else ""
        kind = kind or str(description["kind"])
        label = (call.path or kind) + (f" (call {call.number})" if total > 1 else "")
        if len(call.outputs) == 2:
            label += (".real", ".imag")[i]
        # a neuron may be several nodes in a row (two integrators and a spike function), of which
        # the last counts; a wide synapse is two nodes whose outputs are added
        value = self.values[name]
        if description.get("wide"):
            value = sum(
                (self.values[output_sequences(node)[i]] for node in nodes[:-1]), start=value
            )
        reference = call.outputs[i].numpy()
        array = in_torch_layout(value, reference)
        if array is None:
            self.findings.problem(
                f"{label}: torch returns shape {reference.shape}, the model {value.shape} (time "
                f"first)"
            )
            return
        exact, spiking = name in self.exact, call.layer.spiking
        row, where = compare_values(
            label, kind, reference, array, self.tolerance, self.agreement,
            exact=exact, spiking=spiking,
        )  # fmt: skip
        if spiking:
            self.findings.keep_raster(label, reference, array, where)
        flipped = np.zeros((), dtype=bool)
        if not exact and replayed.outputs is not None:
            expected = replayed.outputs[i].numpy()
            row, where, flipped = self._judge(
                row, where, call, replayed, expected, reference, array
            )
        if where is not None:
            first = self._diverged(label, reference, array, where, call, replayed)
            row = replace(row, first=first)
        if replayed.outputs is not None:
            wrong = self._compare_states(label, call, replayed, nodes, flipped)
            if wrong is not None:
                row = replace(row, ok=False, first=row.first or wrong)
        self.findings.add_layer(row)

    def _judge(
        self,
        row: Row,
        where: Place | None,
        call: Call,
        replayed: Replay,
        expected: Array,
        reference: Array,
        array: Array,
    ) -> tuple[Row, Place | None, Array]:
        """Judge a layer that is not exact: by its input, and by its output on that input.

        Args:
            row: its comparison with torch's trajectory.
            where: the first place at which it leaves that.
            call: its call in torch.
            replayed: what torch gives on the layer's own input.
            expected: the output of that.
            reference: the output of torch's trajectory.
            array: the output in ONNX Runtime.

        Returns:
            The row; the first place that differs, or None; and the neurons (N, C[, H, W]) that
            have flipped at their threshold by the end, whose states differ.
        """
        drifted = self._input_drifted(call, replayed)
        # equal currents give equal spikes; those that are fed back were summed otherwise
        feeds_back = self.subject.feeds_back(call.path)
        allowed = row.tolerance if feeds_back or not call.layer.spiking else 0.0
        wrong, flipped = self._wrong_outputs(call, replayed, expected, array, allowed)
        # a state in fixed point moves by a whole step where a rounding of its current decides
        fixed = self.subject.is_fixed_point(call.path)
        moved = difference(reference, array) > (0.0 if fixed else allowed)
        faulty = drifted or bool(wrong.any())
        if (call.layer.spiking or fixed) and moved.any() and not faulty:
            what = "spike" if call.layer.spiking else "state"
            self.agreement.end_at(moved)
            self.findings.note(
                f"{call.path}: {int(moved.sum())} {what}s differ from torch's because float "
                f"currents were summed in another order; on the currents that it was given every "
                f"neuron is right, and outputs are compared up to the first such {what}"
            )
        place = first_place(wrong) if wrong.any() else where
        if drifted and not wrong.any():
            place = first_place(moved & self.agreement.covers(reference)) or where
        return replace(row, ok=not faulty), place, flipped

    def _input_drifted(self, call: Call, replayed: Replay) -> bool:
        """Whether the input is another than torch's where the trajectories are comparable."""
        drifted = False
        for tensor, replaced in zip(call.inputs, replayed.inputs, strict=True):
            expected = tensor.numpy()
            far = difference(expected, replaced.numpy()) > self.tolerance.of(expected)
            drifted |= bool((far & self.agreement.covers(expected)).any())
        return drifted

    def _wrong_outputs(
        self, call: Call, replayed: Replay, expected: Array, array: Array, allowed: float
    ) -> tuple[Array, Array]:
        """Return where an output is wrong on its own input, and which neurons have flipped."""
        off = difference(expected, array)
        wrong = off > max(allowed, self.tolerance.rtol * replayed.largest_sum)
        bounds = replayed.bounds
        if bounds is not None:
            # a graded spike carries a state that may have moved
            both = (expected != 0) & (array != 0)
            wrong &= ~both | (off > bounds.spikes)
        if not (call.layer.spiking and wrong.any()):
            return wrong, np.zeros((), dtype=bool)
        if bounds is None:
            near = membranes.undecided(
                call.layer, replayed.currents, self.tolerance.rtol, replayed.largest_sum
            )
        else:
            near = bounds.may_flip
        # after a flip the neuron has other states, so that all that follows may differ
        flipped = np.logical_or.accumulate(wrong & near, axis=-1)
        return wrong & ~flipped, flipped[..., -1]

    def _compare_states(
        self,
        label: str,
        call: Call,
        replayed: Replay,
        nodes: Sequence[onnx.NodeProto],
        flipped: Array,
    ) -> Divergence | None:
        """Compare the last states of a layer; returns the first that is wrong.

        A state of floats may be what remains of values that cancelled, with their rounding: the
        largest value that went in or out is a scale as well. A state in fixed point is equal, but
        for sums that are not exact, by which it may have moved. Neurons that have ``flipped`` at
        their threshold have other states.
        """
        assert replayed.outputs is not None
        passed = [largest(v.numpy()) for v in (*replayed.inputs, *replayed.outputs)]
        float_scale = max(replayed.largest_sum, *passed)
        rtol, state_scale = self.tolerance.rtol, getattr(call.layer, "s_scale", 1)
        first = None
        left = dict(replayed.states)
        for name, formal in (pair for node in nodes for pair in last_states(node)):
            # an integrator's node has one state, whatever the neuron calls it: taken in order
            state_name = formal.removeprefix("last_")
            state_name = state_name if state_name in left else next(iter(left))
            state = left.pop(state_name)
            expected = state.value
            array = np.moveaxis(self.values[name], 0, -1) if state.timed else self.values[name]
            if expected.dtype.kind == "f":
                off = rtol * max(float_scale, largest(expected))
                wrong = difference(expected, array) > off
            elif replayed.largest_sum:
                sums = rtol * max(replayed.largest_sum * state_scale, largest(expected))
                moved = 0 if replayed.bounds is None else replayed.bounds.states.get(state_name, 0)
                wrong = difference(expected, array) > np.maximum(sums, moved)
            else:
                wrong = expected != array  # not as floats: states may exceed 2**53
            wrong &= ~(flipped[..., np.newaxis] if state.timed else flipped)
            if wrong.any():
                # a state has no time axis: the first sample and neuron
                place = tuple(int(i) for i in np.argwhere(wrong)[0])
                title = f"{label} ({formal.replace('_', ' ')})"
                divergence = self.findings.diverged(title, expected, array, place)
                first = first or divergence
        return first

    def _diverged(
        self,
        label: str,
        reference: Array,
        array: Array,
        where: Place,
        call: Call,
        replayed: Replay,
    ) -> Divergence:
        """Describe a divergence, with the margin of a spike; the first also with its membrane."""
        if not call.layer.spiking:
            return self.findings.diverged(label, reference, array, where)
        currents = call.inputs
        if self.subject.feeds_back(call.path):
            with torch.no_grad():
                currents, _ = with_feedback(call.layer, call.inputs, call.outputs[0])
        on_torch = membranes.margins(call.layer, currents)
        if on_torch is None:
            return self.findings.diverged(label, reference, array, where)
        if self.findings.divergence is None and has_time(reference.ndim):
            on_runtime = membranes.margins(call.layer, replayed.currents)
            assert on_runtime is not None
            start = max(where[-1] - _AROUND, 0)
            line: Any = (*where[:-1], slice(start, where[-1] + _AROUND + 1))
            curves = (tuple(map(float, curve[line])) for curve in (on_torch, on_runtime))
            self.findings.membrane = Membrane(start, *curves)
        margin = float(on_torch[where])
        return self.findings.diverged(label, reference, array, where, margin)
