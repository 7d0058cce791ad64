"""Comparing the outputs of a network with those of its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.report.result import Row
from synapse_onnx.verification.arrays import Agreement, Tolerance, difference, first_place
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.reference import in_the_order_of
from synapse_onnx.verification.subject import Subject

__all__ = ["Run", "compare_output", "compare_outputs", "compare_values", "row_of"]

#: shapes of a reference that a sentence names
_SHAPES = 4


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
    row = row_of(name, kind, reference, array, first, exact=exact, allowed=allowed, spiking=spiking)
    if spiking:
        run.findings.keep_raster(name, reference, array, first)
    return row, first


def row_of(
    name: str,
    kind: str,
    reference: NDArray[Any],
    array: NDArray[Any],
    first: tuple[int, ...] | None,
    *,
    exact: bool,
    allowed: float,
    spiking: bool,
) -> Row:
    """Return the row of a comparison, whose ``first`` difference that counts is at this place."""
    flips, spikes = None, None
    if spiking:
        flips = int((reference != array).sum())
        spikes = (int(np.count_nonzero(reference)), int(np.count_nonzero(array)))
    return Row(
        name, kind, exact, ok=first is None,
        max_abs_diff=float(difference(reference, array).max(initial=0)),
        tolerance=allowed, spike_flips=flips, values=reference.size, spikes=spikes,
    )  # fmt: skip


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
        compare_output(run, name_of_row, kind, reference, array, exact=name in run.exact)


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
            compare_output(run, _label(name, kind), kind, tensor.numpy(), array, exact=False)
        elif run.subject.has_output(name):
            shapes = [str(tuple(x.shape)) for x in expected[:_SHAPES]]
            if len(expected) > _SHAPES:
                shapes.append(f"and {len(expected) - _SHAPES} more")
            run.findings.problem(
                f"{name}: the model returns shape {array.shape}, and the reference "
                f"{', '.join(shapes)}"
            )
    unmatched = len(expected) - sum(tensor is not None for tensor in ordered)
    if unmatched:
        run.findings.note(f"{unmatched} outputs of the reference have no counterpart in the model")


def compare_output(
    run: Run, name: str, kind: str, reference: NDArray[Any], array: NDArray[Any], *, exact: bool
) -> None:
    """Compare an output of one shape on both sides, and add its row."""
    spiking = run.findings.holds_spikes(name, reference)
    row, where = compare_values(run, name, kind, reference, array, exact=exact, spiking=spiking)
    if where is not None:
        row = replace(row, first=run.findings.diverged(name, reference, array, where))
        output = name.removesuffix(f" ({kind})")
        if run.subject.sorts(output):
            run.findings.note(
                f"{output} depends on the order of equal values, which topk and sort of torch do "
                f"not define; if values tie, return them and not their indices, or add a small ramp"
            )
    run.findings.add(run.findings.outputs, row)
