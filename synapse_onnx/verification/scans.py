"""Comparing each loop that stayed a Scan: with torch, on the values that the Scan itself had.

Code of the user's that is no neuron of this package is one step, which torch runs in a loop and the
file in a Scan. Torch is given the first states and sequences that the Scan had in ONNX Runtime, so
a fault is blamed on the loop that has it, whatever came before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.compiler.names import unique
from synapse_onnx.compiler.roundings import differs
from synapse_onnx.ops import LoopRun
from synapse_onnx.report.result import Row
from synapse_onnx.verification.arrays import first_place, largest
from synapse_onnx.verification.nodes import scans_of
from synapse_onnx.verification.outputs import Run, row_of
from synapse_onnx.verification.rounded import decided_by_sample

__all__ = ["compare_scans", "remember_scales"]

#: operators that give the values that they are given
_MOVES = {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}

Array = NDArray[Any]


def compare_scans(run: Run, loops: Sequence[LoopRun], values: Mapping[str, Array]) -> None:
    """Compare the loops of one run, each with a row of its own, or one for every output.

    Args:
        run: the run.
        loops: the loops that ran in torch, in their order.
        values: values of the graph by name.
    """
    nodes = {node.name: node for node in scans_of(run.subject.whole)}
    known = {**_initializers(run.subject.whole), **values}
    for label, each in _labelled(loops):
        node = nodes.get(label)
        if node is None or run.subject.spares([node]):
            continue
        # inputs of the graph are those of torch, and a stream's first states, too
        own = [*each.starts, *each.sequences]
        entering = [
            torch.from_numpy(known[name].copy()) if name in known else value
            for name, value in zip(node.input, own, strict=False)
        ]
        given = each.with_values(entering)
        if given is None:
            run.findings.note(f"{label}: not compared by itself, for torch computes it otherwise")
            continue
        states = len(given.starts)
        found = [torch.from_numpy(values[x].copy()) for x in node.output]
        _Comparison(run, label, given).compare([*found[states:], *found[:states]])


def remember_scales(run: Run, loops: Sequence[LoopRun], expected: Sequence[Tensor]) -> None:
    """Let what a loop gives be compared relative to the largest value that went in or out.

    A voltage may be what remains of a larger one, after a reset by several thresholds, with the
    rounding of that. ``expected`` are the outputs of the network, of which a loop may give some.
    """
    scales = {label: _scale_of(each, each.returned) for label, each in _labelled(loops)}
    producers = {name: node for node in run.subject.whole.graph.node for name in node.output}
    for name, tensor in zip(run.subject.session.outputs, expected, strict=False):
        node = producers.get(name)
        while node is not None and node.op_type in _MOVES:
            node = producers.get(node.input[0])
        if node is not None and node.name in scales and tensor.dtype.is_floating_point:
            run.tolerance.remember(tensor, scales[node.name])


def _labelled(loops: Sequence[LoopRun]) -> Iterator[tuple[str, LoopRun]]:
    """Yield loops with the names of their Scans."""
    taken: set[str | None] = set()
    for each in loops:
        yield unique(each.loop.name, taken), each


def _scale_of(loop: LoopRun, results: Sequence[Tensor]) -> float:
    """Return the largest value that a loop reads and returns."""
    values = [*loop.starts, *loop.sequences, *results]
    return max((largest(x.numpy()) for x in values), default=0.0)


def _initializers(model: onnx.ModelProto) -> dict[str, Array]:
    wanted = {name for node in scans_of(model) for name in node.input}
    return {
        value.name: onnx.numpy_helper.to_array(value)
        for value in model.graph.initializer
        if value.name in wanted
    }


class _Comparison:
    """Compares what a loop gives in torch with what its Scan returned on the same values."""

    def __init__(self, run: Run, label: str, loop: LoopRun) -> None:
        self._run, self._label, self._loop = run, label, loop
        self._sequences = len(loop.loop.outputs)

    def compare(self, arrays: Sequence[Tensor]) -> None:
        """Add the rows; ``arrays`` are sequences, then states after the last step."""
        results = self._loop.results()
        for one, other in zip(results, arrays, strict=True):
            if one.shape != other.shape or one.dtype != other.dtype:
                self._run.findings.problem(
                    f"{self._label}: torch computes {tuple(one.shape)} {one.dtype}, the model "
                    f"{tuple(other.shape)} {other.dtype}"
                )
                return
        expected, found = self._in_rows(results), self._in_rows(arrays)
        tolerance = self._run.tolerance
        limit = tolerance.atol + tolerance.rtol * _scale_of(self._loop, results)
        allowed = [limit if y.dtype.is_floating_point else 0.0 for y in expected]
        clear = decided_by_sample(
            lambda: self._in_rows(self._loop.results()), self._loop.batch, expected, found, allowed
        )
        wrong = [
            differs(one, other, limit) & clear.covers(one)
            for one, other, limit in zip(expected, found, allowed, strict=True)
        ]
        rows = [
            self._row(i, expected[i].numpy(), found[i].numpy(), wrong[i].numpy(), allowed[i])
            for i in range(self._sequences)
        ]
        first = None
        for i in range(self._sequences, len(expected)):
            if wrong[i].any():
                title = f"{self._label} (state {i - self._sequences})"
                place = tuple(int(k) for k in wrong[i].nonzero()[0])
                both = expected[i].numpy(), found[i].numpy()
                first = first or self._run.findings.diverged(title, *both, place)
        for row in rows:
            whole = row if first is None else replace(row, ok=False, first=row.first or first)
            self._run.findings.add(self._run.findings.layers, whole)

    def _row(self, i: int, expected: Array, found: Array, wrong: Array, allowed: float) -> Row:
        """Return the row of an output."""
        name = self._label if self._sequences == 1 else f"{self._label} (output {i})"
        first = first_place(wrong)
        spiking = self._run.findings.holds_spikes(name, expected, layer=True)
        if spiking:
            self._run.findings.exercise.see_loop(name, torch.from_numpy(expected))
        row = row_of(
            name, "loop", expected, found, first, exact=False, allowed=allowed, spiking=spiking
        )
        if first is None:
            return row
        return replace(row, first=self._run.findings.diverged(name, expected, found, first))

    def _in_rows(self, results: Sequence[Tensor]) -> list[Tensor]:
        """Bring sequences (T, N, ...) to (N, neurons, T), and states (N, ...) to (N, neurons)."""
        rows = []
        for i, y in enumerate(results):
            timed = y.movedim(0, -1) if i < self._sequences else y.unsqueeze(-1)
            batch = timed.shape[0] if timed.dim() > 1 and timed.shape[0] == self._loop.batch else 1
            steps = timed.shape[-1]
            row = timed.reshape(batch, timed.numel() // max(batch * steps, 1), steps)
            rows.append(row if i < self._sequences else row.squeeze(-1))
        return rows
