"""Where a rounding decides in torch code around our layers, as in a loop over time of the user's.

A neuron of ours is compared on the very input that it had, so a spike that flips within a rounding
is seen to be right. Code of the user's has no such place. So torch runs it again with its floats
rounded otherwise: where torch itself then gives other values, a file that was proved by
construction may, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.roundings import Decided, decided
from synapse_onnx.verification.outputs import Run
from synapse_onnx.verification.trace import run_torch

__all__ = ["decided_by_sample", "end_where_roundings_decide"]

Array = NDArray[Any]


def end_where_roundings_decide(
    run: Run, expected: Sequence[Tensor], arrays: Sequence[Array]
) -> None:
    """End the agreement of samples whose outputs differ where a rounding decides.

    Of a network whose loop was found in torch code alone, and whose file is the one that it
    compiles to. What comes after the rounding in the same sample shows no fault.

    Args:
        run: the run.
        expected: the outputs in torch.
        arrays: those of the model, time last.
    """
    subject, findings = run.subject, run.findings
    if subject.original is None or findings.unproved or findings.failures():
        return
    if [tuple(y.shape) for y in expected] != [array.shape for array in arrays]:
        return
    found = []
    for y, array in zip(expected, arrays, strict=True):
        covered = torch.from_numpy(run.agreement.covers(array).copy())
        found.append(torch.where(covered, torch.from_numpy(array), y))
    network = subject.original

    def call(inputs: Sequence[Tensor]) -> list[Tensor]:
        return run_torch(copied_value(network), {}, subject.arguments, inputs)[0]

    allowed = [run.tolerance.of(y.numpy()) for y in expected]
    clear = decided(call, run.tensors, expected, found, allowed)
    ended = torch.arange(clear.steps) == clear.until.unsqueeze(1)
    if not ended.any():
        return
    run.agreement.end_at(ended.unsqueeze(1).numpy())
    findings.note(
        f"outputs of {int(ended.any(1).sum())} of {len(ended)} samples are compared up to the step "
        f"at which a rounding decides in a loop of torch code: from there on torch itself gives "
        f"other values, if its sums are rounded otherwise"
    )


def decided_by_sample(
    again: Callable[[], Sequence[Tensor]],
    batch: int,
    expected: Sequence[Tensor],
    found: Sequence[Tensor],
    allowed: Sequence[float],
) -> Decided:
    """Return until when no rounding decides in what runs again as a whole, with all its samples.

    Args:
        again: runs it in torch once more, and returns its results, batch first.
        batch: number of samples.
        expected: the results in torch.
        found: those of the model.
        allowed: of each, differences that do not count.
    """

    def call(rows: Sequence[Tensor]) -> list[Tensor]:
        return [y[rows[0]] if y.dim() and y.shape[0] == batch else y for y in again()]

    return decided(call, [torch.arange(batch)], expected, found, allowed)
