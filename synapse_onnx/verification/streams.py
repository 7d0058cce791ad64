"""Comparing a stream with itself: a sequence in chunks against the same sequence in one piece.

A state that is not carried from one call to the next shows here, and nowhere else.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.model.layout import has_time, time_first, time_last
from synapse_onnx.verification.arrays import Tolerance
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.outputs import compare_output
from synapse_onnx.verification.subject import Subject

__all__ = ["compare_chunks"]


def compare_chunks(
    subject: Subject,
    findings: Findings,
    tensors: Sequence[Tensor],
    whole: Sequence[NDArray[Any]],
    exact: set[str],
    tolerance: Tolerance,
) -> None:
    """Run a sequence once more in chunks of 1, 2, 3, ... steps, and compare with one piece.

    Args:
        subject: network and model, which is a stream.
        findings: where results go.
        tensors: the inputs.
        whole: the outputs of one piece, with time last.
        exact: names of the values of which equality is demanded; others are not compared, for sums
            of floats may round in another order when a sequence is cut.
        tolerance: of the run.
    """
    parts = _run_chunks(subject, tensors)
    several = len(subject.session.outputs) > 1
    for i, (name, reference) in enumerate(zip(subject.session.outputs, whole, strict=True)):
        if not subject.scope.has_output(name):
            continue
        if name not in exact:
            findings.note(f"{name}: float sums round otherwise in chunks, which are not compared")
            continue
        pieces = [time_last(p[i] if several else p, subject.session.layout) for p in parts]
        joined = np.concatenate(pieces, axis=-1)
        label = f"{name} (in chunks)"
        if joined.shape != reference.shape:
            findings.problem(f"{label}: shape {joined.shape}, and {reference.shape} in one piece")
            continue
        compare_output(findings, label, "stream", reference, joined, tolerance, None, exact=True)


def _run_chunks(subject: Subject, tensors: Sequence[Tensor]) -> list[Any]:
    """Return the outputs of every chunk, and what the end of the stream still gives."""
    layout = subject.session.layout
    arrays = [value.detach().cpu().numpy() for value in tensors]
    steps = min(a.shape[-1] for a in arrays if has_time(a.ndim))
    # growing chunks: many places at which a state that is lost would show
    lengths = itertools.accumulate(range(1, steps + 1))
    cuts = [0, *itertools.takewhile(lambda cut: cut < steps, lengths), steps]
    if subject.has_fixed_length:  # whose chunks have one length
        cuts = [0, steps]
    stream = subject.session.stream(arrays[0].shape[0])
    parts = []
    for begin, end in itertools.pairwise(cuts):
        chunk = [a[..., begin:end] if has_time(a.ndim) else a for a in arrays]
        parts.append(stream.run(*(time_first(a, layout) for a in chunk)))
    return [*parts, stream.flush()]
