"""Comparing the outputs of a network with those of its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.verification.agreement import Agreement
from synapse_onnx.verification.arrays import Tolerance, compare_values
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.subject import Subject

__all__ = ["compare_output", "compare_outputs"]


def compare_outputs(
    subject: Subject,
    findings: Findings,
    expected: Sequence[Tensor],
    arrays: Sequence[NDArray[Any]],
    exact: set[str],
    agreement: Agreement | None,
    tolerance: Tolerance,
) -> None:
    """Compare every output that is in scope: type, shape, values.

    Args:
        subject: network and model.
        findings: where results go.
        expected: what torch returned.
        arrays: what ONNX Runtime returned, with time last.
        exact: names of the values of which equality is demanded.
        agreement: until when each sample's trajectories are comparable; None for all.
        tolerance: of outputs that are not exact.
    """
    if len(expected) != len(arrays):
        findings.problem(f"the module has {len(expected)} outputs and the model {len(arrays)}")
        return
    for name, tensor, array in zip(subject.session.outputs, expected, arrays, strict=True):
        if not subject.scope.has_output(name):
            continue
        reference = tensor.numpy()
        if reference.dtype != array.dtype:
            findings.problem(f"{name}: torch returns {reference.dtype}, the model {array.dtype}")
        if reference.shape != array.shape:
            findings.problem(
                f"{name}: torch returns shape {reference.shape}, the model {array.shape}"
            )
            continue
        if np.isnan(reference).any() or np.isnan(array).any():
            findings.problem(
                f"{name}: NaN in {int(np.isnan(reference).sum())} values of torch and "
                f"{int(np.isnan(array).sum())} of the model"
            )
        compare_output(
            findings, name, "output", reference, array, tolerance, agreement, exact=name in exact
        )


def compare_output(
    findings: Findings,
    name: str,
    kind: str,
    reference: NDArray[Any],
    array: NDArray[Any],
    tolerance: Tolerance,
    agreement: Agreement | None,
    *,
    exact: bool,
) -> None:
    """Compare the values of one output, and add its row; see :func:`compare_values`."""
    spiking = findings.holds_spikes(name, reference)
    row, where = compare_values(
        name, kind, reference, array, tolerance, agreement, exact=exact, spiking=spiking
    )
    if spiking:
        findings.keep_raster(name, reference, array, where)
    if where is not None:
        row = replace(row, first=findings.diverged(name, reference, array, where))
    findings.add_output(row)
