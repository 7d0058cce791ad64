"""Comparing the outputs of a network with those of its model, in one piece and in chunks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.model.layout import has_time, time_first, time_last
from synapse_onnx.report.result import Row
from synapse_onnx.verification.arrays import Agreement, Tolerance, difference, first_place
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.reference import in_the_order_of
from synapse_onnx.verification.subject import Subject

__all__ = ["Run", "compare_chunks", "compare_outputs", "compare_values"]


@dataclass
class Run:
    """One run of both sides, and what is demanded of its values.

    Attributes:
        subject: network and model.
        findings: where results go.
        tensors: the inputs.
        exact: names of the values of which equality is demanded.
        tolerance: of the other values.
        agreement: which of these are comparable: all, until layers were found to differ.
    """

    subject: Subject
    findings: Findings
    tensors: Sequence[Tensor]
    exact: set[str]
    tolerance: Tolerance
    agreement: Agreement = field(default_factory=lambda: Agreement(samples=1, steps=1))


def compare_values(
    run: Run,
    name: str,
    kind: str,
    reference: NDArray[Any],
    array: NDArray[Any],
    *,
    exact: bool,
    spiking: bool,
) -> tuple[Row, tuple[int, ...] | None]:
    """Compare two arrays of one shape, what is expected and what ONNX Runtime returned.

    Of spikes, flips are counted and the raster is kept. ``name`` and ``kind`` are those of a
    :class:`Row`. Returns the row, and the place of the first difference that counts, or None.
    """
    off = difference(reference, array)
    allowed = 0.0 if exact else run.tolerance.of(reference)
    wrong = off > allowed
    if not exact:
        wrong &= run.agreement.covers(reference)
    first = first_place(wrong)
    flips, spikes = None, None
    if spiking:
        flips = int((reference != array).sum())
        spikes = (int(np.count_nonzero(reference)), int(np.count_nonzero(array)))
        run.findings.keep_raster(name, reference, array, first)
    row = Row(
        name, kind, exact, ok=first is None, max_abs_diff=float(off.max(initial=0)),
        tolerance=allowed, spike_flips=flips, values=reference.size, spikes=spikes,
    )  # fmt: skip
    return row, first


def compare_outputs(
    run: Run,
    expected: Sequence[Tensor],
    arrays: Sequence[NDArray[Any]],
    *,
    kind: str = "output",
) -> None:
    """Compare every output that is in scope, both sides with time last: type, shape, values.

    The rows of another ``kind`` than "output" bear it beside their name.
    """
    problem = run.findings.problem
    if run.subject.reference is not None:
        _compare_with_reference(run, expected, arrays, kind)
        return
    if len(expected) != len(arrays):
        problem(f"the module has {len(expected)} outputs and the model {len(arrays)}")
        return
    for name, tensor, array in zip(run.subject.session.outputs, expected, arrays, strict=True):
        if not run.subject.has_output(name):
            continue
        reference, name_of_row = tensor.numpy(), _label(name, kind)
        if reference.dtype != array.dtype:
            problem(f"{name_of_row}: torch returns {reference.dtype}, the model {array.dtype}")
        if reference.shape != array.shape:
            problem(
                f"{name_of_row}: torch returns shape {reference.shape}, the model {array.shape}"
            )
            continue
        on_torch, on_runtime = np.isnan(reference), np.isnan(array)
        if not np.array_equal(on_torch, on_runtime):
            problem(
                f"{name_of_row}: NaN in {int(on_torch.sum())} values of torch and "
                f"{int(on_runtime.sum())} of the model"
            )
        run.findings.saw_nan(name_of_row, int(on_torch.sum()), reference.size)
        _compare_output(run, name_of_row, kind, reference, array, exact=name in run.exact)


def _label(name: str, kind: str) -> str:
    return name if kind == "output" else f"{name} ({kind})"


def _compare_with_reference(
    run: Run, expected: Sequence[Tensor], arrays: Sequence[NDArray[Any]], kind: str
) -> None:
    """Compare outputs by position and shape; those of the reference that are left are named."""
    names = run.subject.session.outputs
    ordered = in_the_order_of(arrays, expected)
    for name, tensor, array in zip(names, ordered, arrays, strict=True):
        if tensor is not None and run.subject.has_output(name):
            _compare_output(run, _label(name, kind), kind, tensor.numpy(), array, exact=False)
        elif run.subject.has_output(name):
            shapes = ", ".join(str(tuple(x.shape)) for x in expected)
            run.findings.problem(
                f"{name}: the model returns shape {array.shape}, and the reference {shapes}"
            )
    unmatched = len(expected) - sum(tensor is not None for tensor in ordered)
    if unmatched:
        run.findings.note(f"{unmatched} outputs of the reference have no counterpart in the model")


def _compare_output(
    run: Run, name: str, kind: str, reference: NDArray[Any], array: NDArray[Any], *, exact: bool
) -> None:
    spiking = run.findings.holds_spikes(name, reference)
    row, where = compare_values(run, name, kind, reference, array, exact=exact, spiking=spiking)
    if where is not None:
        row = replace(row, first=run.findings.diverged(name, reference, array, where))
    run.findings.add(run.findings.outputs, row)


def compare_chunks(run: Run, whole: Sequence[NDArray[Any]]) -> None:
    """Run a stream in chunks of 1, 2, 3, ... steps, and compare with the outputs of one piece.

    A state that is not carried from one call to the next shows here, and nowhere else. Outputs
    that are not exact are not compared: sums of floats may round in another order when a sequence
    is cut.
    """
    parts = _run_chunks(run)
    outputs, layout = run.subject.session.outputs, run.subject.session.layout
    for i, (name, reference) in enumerate(zip(outputs, whole, strict=True)):
        if not run.subject.has_output(name):
            continue
        if name not in run.exact:
            if run.subject.reference is None:  # of which nothing is known to be exact
                run.findings.note(
                    f"{name}: float sums round otherwise in chunks, which are not compared"
                )
            continue
        pieces = [time_last(p[i] if len(outputs) > 1 else p, layout) for p in parts]
        odd = [piece for piece in pieces if piece.shape[:-1] != reference.shape[:-1]]
        joined = odd[0] if odd else np.concatenate(pieces, axis=-1)
        label = f"{name} (in chunks)"
        if joined.shape != reference.shape:
            run.findings.problem(
                f"{label}: shape {joined.shape}, and {reference.shape} in one piece"
            )
            continue
        _compare_output(run, label, "stream", reference, joined, exact=True)


def _run_chunks(run: Run) -> list[Any]:
    """Return the outputs of every chunk, and what the end of the stream still gives."""
    session = run.subject.session
    arrays = [value.detach().cpu().numpy() for value in run.tensors]
    timed = [a for a in arrays if has_time(a.ndim)]
    # where no input has time, a call is a chunk of all the steps that the network makes of it
    steps = min((a.shape[-1] for a in timed), default=1)
    # growing chunks: many places at which a state that is lost would show
    lengths = itertools.accumulate(range(1, steps + 1))
    cuts = [0, *itertools.takewhile(lambda cut: cut < steps, lengths), steps]
    if run.subject.has_fixed_length:  # whose chunks have one length
        cuts = [0, steps]
    first = next((a for a in (*timed, *arrays) if a.ndim), None)  # a number has no batch
    stream = session.stream(1 if first is None else first.shape[0])
    parts = []
    for begin, end in itertools.pairwise(cuts):
        chunk = [a[..., begin:end] if has_time(a.ndim) else a for a in arrays]
        parts.append(stream.run(*(time_first(a, session.layout) for a in chunk)))
    return [*parts, stream.flush()] if timed else parts
