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
from synapse_onnx.neuron import base
from synapse_onnx.report.result import Divergence, Membrane, Row
from synapse_onnx.verification import membranes
from synapse_onnx.verification.arrays import difference, first_place, largest
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.nodes import in_torch_layout, last_states, output_sequences
from synapse_onnx.verification.outputs import Run, compare_values
from synapse_onnx.verification.replay import Replay, replay, with_feedback
from synapse_onnx.verification.subject import Subject
from synapse_onnx.verification.sums import magnitudes, sums_of
from synapse_onnx.verification.trace import Call

__all__ = ["compare_layer", "nodes_of_call"]

Array = NDArray[Any]
Place = tuple[int, ...]

#: steps before and after the first divergence of which a report keeps the membrane
_AROUND = 40


def compare_layer(
    run: Run, values: Mapping[str, Array], call: Call, total: int, known: Replay | None = None
) -> None:
    """Compare one call of a layer with values of the graph.

    Args:
        run: the run.
        values: values of the graph by name, time-major.
        call: the call in torch.
        total: number of the calls of this layer.
        known: what torch gives on the input in ``values``, if that is known already.
    """
    nodes = nodes_of_call(run.subject, run.findings, call, total)
    if not nodes:
        return
    names = output_sequences(nodes[-1])
    exact = run.exact.issuperset(names)
    if known is None or (run.subject.feeds_back(call.path) and not exact):
        known = replay(run.subject, call, nodes, values, exact=exact)
    if not exact and sums_of(call.layer):
        with torch.no_grad():
            terms = magnitudes(call.layer, call.inputs[0])
        for tensor, sizes in zip(call.outputs, terms, strict=True):
            run.tolerance.remember_sums(tensor, sizes)
    layer = call.layer
    if isinstance(layer, base.Neuron) and layer.readout and len(names) > 1:
        # the node returns all variables of the equation, the layer one of them
        names = [names[layer.equation.traces.index(layer.equation.readout)]]
    comparison = _Comparison(run, values, call, nodes, known, exact)
    for i in range(len(call.outputs)):
        comparison.compare_output(i, names[i], several=total > 1)


def nodes_of_call(
    subject: Subject, findings: Findings, call: Call, total: int
) -> Sequence[onnx.NodeProto]:
    """Return the nodes of one call of a layer, of ``total``; none where nothing is to compare."""
    group = subject.nodes.get(call.path, [])
    if not group and not any(subject.descriptions[call.path].get("delays", (1,))):
        return ()  # delays of zero steps leave nothing to compute
    if subject.spares(group):
        return ()
    if not group and findings.unproved:
        findings.note(f"{call.path}: the file has no node of it, so only outputs speak for it")
        return ()
    if not group or len(group) % total:
        findings.problem(
            f"{call.path}: torch calls this layer {total} times and the model has "
            f"{len(group)} nodes of it"
        )
        return ()
    length = len(group) // total
    nodes = group[(call.number - 1) * length : call.number * length]
    return () if subject.spares(nodes) else nodes


@dataclass
class _Comparison:
    """Compares the outputs and last states of one call of a layer.

    Attributes:
        run: the run.
        values: values of the graph by name, time-major.
        call: the call in torch.
        nodes: its nodes in the graph.
        replayed: what torch gives on the layer's own input.
        exact: whether equality is demanded of the outputs.
    """

    run: Run
    values: Mapping[str, Array]
    call: Call
    nodes: Sequence[onnx.NodeProto]
    replayed: Replay
    exact: bool

    def compare_output(self, i: int, name: str, *, several: bool) -> None:
        """Compare an output, and the states with it; one of several calls shows its number."""
        call, findings = self.call, self.run.findings
        description = self.run.subject.descriptions[call.path]
        kind = ("complex " if description.get("complex") else "") + str(description["kind"])
        label = (call.path or kind) + (f" (call {call.number})" if several else "")
        if len(call.outputs) == 2:
            label += (".real", ".imag")[i]
        reference = call.outputs[i].numpy()
        # a neuron may be several nodes in a row (two integrators and a spike function), of which
        # the last counts; a wide synapse is two nodes whose outputs are added
        parts = [self.values[name]]
        if description.get("wide"):
            parts += [self.values[output_sequences(node)[i]] for node in self.nodes[:-1]]
        array: Any = None
        for part in parts:
            turned = in_torch_layout(part, reference)
            if turned is None:
                findings.problem(
                    f"{label}: torch returns shape {reference.shape}, the model {part.shape} (time "
                    f"first)"
                )
                return
            array = turned if array is None else array + turned
        row, where = compare_values(
            self.run, label, kind, reference, array, exact=self.exact, spiking=call.layer.spiking
        )
        flipped = np.zeros((), dtype=bool)
        if not self.exact and self.replayed.outputs is not None:
            expected = self.replayed.outputs[i].numpy()
            row, where, flipped = self._judge(row, where, expected, reference, array)
        if where is not None:
            row = replace(row, first=self._diverged(label, reference, array, where))
        if self.replayed.outputs is not None:
            wrong = self._compare_states(label, flipped)
            if wrong is not None:
                row = replace(row, ok=False, first=row.first or wrong)
        findings.add(findings.layers, row)

    def _judge(
        self, row: Row, where: Place | None, expected: Array, reference: Array, array: Array
    ) -> tuple[Row, Place | None, Array]:
        """Judge an output that is not exact: by its input, and by torch on that input.

        ``row`` and ``where`` are its comparison with ``reference``, torch's trajectory;
        ``expected`` is torch's output on the layer's own input. Returns the row, the first place
        that differs, and the neurons (N, C[, H, W]) that have flipped at their threshold by the
        end, whose states differ.
        """
        run, path, spiking = self.run, self.call.path, self.call.layer.spiking
        drifted = self._input_drifted()
        # equal currents give equal spikes; those that are fed back were summed otherwise
        allowed = row.tolerance if run.subject.feeds_back(path) or not spiking else 0.0
        wrong, flipped = self._wrong_outputs(expected, array, allowed)
        # a state in fixed point moves by a whole step where a rounding of its current decides
        fixed = run.subject.is_fixed_point(path)
        moved = difference(reference, array) > (0.0 if fixed else allowed)
        faulty = drifted or bool(wrong.any())
        if (spiking or fixed) and moved.any() and not faulty:
            what = "spike" if spiking else "state"
            run.agreement.end_at(moved)
            run.findings.note(
                f"{path}: {int(moved.sum())} {what}s differ from torch's because float "
                f"currents were summed in another order; on the currents that it was given every "
                f"neuron is right, and outputs are compared up to the first such {what}"
            )
        place = first_place(wrong) if wrong.any() else where
        if drifted and not wrong.any():
            place = first_place(moved & run.agreement.covers(reference)) or where
        return replace(row, ok=not faulty), place, flipped

    def _input_drifted(self) -> bool:
        """Whether the input is another than torch's where the trajectories are comparable."""
        drifted = False
        for tensor, replaced in zip(self.call.inputs, self.replayed.inputs, strict=True):
            expected = tensor.numpy()
            far = difference(expected, replaced.numpy()) > self.run.tolerance.of(expected)
            drifted |= bool((far & self.run.agreement.covers(expected)).any())
        return drifted

    def _wrong_outputs(self, expected: Array, array: Array, allowed: float) -> tuple[Array, Array]:
        """Return where an output is wrong on its own input, and which neurons have flipped."""
        layer: Any = self.call.layer
        replayed, rtol = self.replayed, self.run.tolerance.rtol
        off = difference(expected, array)
        wrong = off > max(allowed, rtol * replayed.largest_sum)
        bounds = replayed.bounds
        if bounds is not None:
            # a graded spike carries a state that may have moved
            both = (expected != 0) & (array != 0)
            wrong &= ~both | (off > bounds.spikes)
        if not (layer.spiking and wrong.any()):
            return wrong, np.zeros((), dtype=bool)
        if bounds is None and self._rounds_in_units:
            near = membranes.within_units(layer, replayed.currents, rtol, self._steps)
        elif bounds is None:
            near = membranes.undecided(layer, replayed.currents, rtol, replayed.largest_sum)
        else:
            near = bounds.may_flip
        # after a flip the neuron has other states, so that all that follows may differ
        flipped = np.logical_or.accumulate(wrong & near, axis=-1)
        return wrong & ~flipped, flipped[..., -1]

    @property
    def _steps(self) -> int:
        return self.call.inputs[0].shape[-1]

    @property
    def _rounds_in_units(self) -> bool:
        """Whether roundings within a neuron may move its states in fixed point, a unit a step."""
        subject, path = self.run.subject, self.call.path
        has_states = isinstance(self.call.layer, base.Neuron) and subject.is_fixed_point(path)
        return has_states and subject.rounds_within(path)

    def _compare_states(self, label: str, flipped: Array) -> Divergence | None:
        """Compare the last states of a layer; returns the first that is wrong.

        A state of floats may be what remains of values that cancelled, with their rounding: the
        largest value that went in or out is a scale as well. A state in fixed point is equal, but
        for sums that are not exact, by which it may have moved; or, in a neuron that rounds within,
        by a unit a step. Neurons that have ``flipped`` at
        their threshold have other states.
        """
        replayed, rtol = self.replayed, self.run.tolerance.rtol
        passed = [largest(v.numpy()) for v in (*replayed.inputs, *(replayed.outputs or ()))]
        float_scale = max(replayed.largest_sum, *passed)
        state_scale = getattr(self.call.layer, "s_scale", 1)
        first = None
        left = dict(replayed.states)
        for name, formal in (pair for node in self.nodes for pair in last_states(node)):
            title = f"{label} ({formal.replace('_', ' ')})"
            # an integrator's node has one state, whatever the neuron calls it: taken in order
            state_name = formal.removeprefix("last_")
            state_name = state_name if state_name in left else next(iter(left), "")
            if not state_name:
                self.run.findings.problem(f"{title}: torch keeps no such state")
                continue
            state = left.pop(state_name)
            expected = state.value
            array = np.moveaxis(self.values[name], 0, -1) if state.timed else self.values[name]
            if array.shape != expected.shape:
                self.run.findings.problem(
                    f"{title}: torch keeps shape {expected.shape}, the model {array.shape}"
                )
                continue
            if expected.dtype.kind == "f":
                off = rtol * max(float_scale, largest(expected))
                wrong = difference(expected, array) > off
            elif replayed.largest_sum:
                sums = rtol * max(replayed.largest_sum * state_scale, largest(expected))
                moved = 0 if replayed.bounds is None else replayed.bounds.states.get(state_name, 0)
                wrong = difference(expected, array) > np.maximum(sums, moved)
            else:
                wrong = expected != array  # not as floats: states may exceed 2**53
                if wrong.any() and self.run.subject.rounds_within(self.call.path):
                    wrong = difference(expected, array) > rtol * largest(expected) + self._steps
            wrong &= ~(flipped[..., np.newaxis] if state.timed else flipped)
            if wrong.any():
                # a state has no time axis: the first sample and neuron
                place = tuple(int(i) for i in np.argwhere(wrong)[0])
                divergence = self.run.findings.diverged(title, expected, array, place)
                first = first or divergence
        return first

    def _diverged(self, label: str, reference: Array, array: Array, where: Place) -> Divergence:
        """Describe a divergence, with the margin of a spike; the first also with its membrane."""
        call, findings = self.call, self.run.findings
        on_torch = None
        if call.layer.spiking:
            currents = call.inputs
            if self.run.subject.feeds_back(call.path):
                with torch.no_grad():
                    currents, _ = with_feedback(call.layer, call.inputs, call.outputs[0])
            on_torch = membranes.margins(call.layer, currents)
        if on_torch is None:
            return findings.diverged(label, reference, array, where)
        if findings.divergence is None and has_time(reference.ndim):
            on_runtime = membranes.margins(call.layer, self.replayed.currents)
            assert on_runtime is not None
            start = max(where[-1] - _AROUND, 0)
            line: Any = (*where[:-1], slice(start, where[-1] + _AROUND + 1))
            curves = (tuple(map(float, curve[line])) for curve in (on_torch, on_runtime))
            findings.membrane = Membrane(start, *curves)
        return findings.diverged(label, reference, array, where, float(on_torch[where]))
