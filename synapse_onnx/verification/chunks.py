"""Running a stream in chunks: what it carries from call to call, and how it ends.

Exact outputs are those of one piece, however the sequence is cut. Sums of floats round otherwise in
a chunk, and one rounding may flip a spike. So chunks of floats are compared with torch, which
continues from the states that the stream has reached: the outputs, and the states that follow.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.errors import ModelError
from synapse_onnx.model.layout import has_time, time_first, time_last
from synapse_onnx.verification.followed import Follower
from synapse_onnx.verification.outputs import Run, compare_output

__all__ = ["compare_chunks"]

Array = NDArray[Any]

#: calls of one step before chunks grow: a stream prepares its bindings for a shape that comes again
_SINGLE = 4


def compare_chunks(
    run: Run, expected: Sequence[Tensor], whole: Sequence[Array], *, follow: bool = True
) -> None:
    """Run a stream in chunks of 1, 1, 1, 1, 2, 3, ... steps, and compare outputs and states.

    Args:
        run: a run of both sides.
        expected: the outputs of one piece in torch.
        whole: the outputs of one piece in ONNX Runtime, time last.
        follow: whether outputs that are not exact are compared, too: torch then runs every chunk.
    """
    session, subject = run.subject.session, run.subject
    compared = [i for i, name in enumerate(session.outputs) if subject.has_output(name)]
    floats = [i for i in compared if session.outputs[i] not in run.exact]
    fits = len(expected) == len(whole)  # else a problem already
    follower = None
    if floats and fits and follow and subject.reference is None:
        follower = Follower(run, {i: run.tolerance.of(expected[i].numpy()) for i in floats})
    if not follow and len(floats) == len(compared):
        return  # with nothing to compare
    with contextlib.closing(follower) if follower else contextlib.nullcontext():
        parts = _run_chunks(run, follower)
    for i in compared:
        name, reference = session.outputs[i], whole[i]
        if name not in run.exact:
            continue
        pieces = [part[i] for part in parts]
        if not pieces:
            continue
        if has_time(reference.ndim):
            odd = [piece for piece in pieces if piece.shape[:-1] != reference.shape[:-1]]
            joined = odd[0] if odd else np.concatenate(pieces, axis=-1)
        else:  # the value after the last step; a stream that ends has none left
            given = [piece for piece in pieces if piece.shape[:1] != (0,)]
            joined = (given or pieces)[-1]
        label = f"{name} (in chunks)"
        if joined.shape != reference.shape:
            run.findings.problem(
                f"{label}: shape {joined.shape}, and {reference.shape} in one piece"
            )
            continue
        compare_output(run, label, "stream", reference, joined, exact=True)
    if follower is not None:
        follower.finish()


def _run_chunks(run: Run, follower: Follower | None) -> list[list[Array]]:
    """Return the outputs of every chunk, and what the end of the stream still gives."""
    session = run.subject.session
    arrays = [value.detach().cpu().numpy() for value in run.tensors]
    timed = [a for a in arrays if has_time(a.ndim)]
    # where no input has time, a call is a chunk of all the steps that the network makes of it
    steps = min((a.shape[-1] for a in timed), default=1)
    # growing chunks: many places at which a state that is lost would show
    lengths = itertools.accumulate([*[1] * _SINGLE, *range(2, steps + 1)])
    cuts = [0, *itertools.takewhile(lambda cut: cut < steps, lengths), steps]
    if run.subject.has_fixed_length:  # whose chunks have one length
        cuts = [0, steps]
    first = next((a for a in (*timed, *arrays) if a.ndim), None)  # a number has no batch
    stream = session.stream(1 if first is None else first.shape[0])
    if follower is not None:
        follower.begin(stream.states)
    parts: list[list[Array]] = []
    for begin, end in itertools.pairwise(cuts):
        chunk = [a[..., begin:end] if has_time(a.ndim) else a for a in arrays]
        try:
            result = stream.run(*(time_first(a, session.layout) for a in chunk))
        except ModelError as error:  # the model ran in one piece, and refuses a chunk of it
            run.findings.problem(f"in chunks: steps {begin} to {end}: {error}")
            return parts
        parts.append(_outputs(result, session.layout))
        if follower is not None:
            follower.follow(end, parts[-1], stream.states)
    if timed:
        parts.append(_outputs(stream.flush(), session.layout))
        if follower is not None:
            follower.end(steps, parts[-1], stream.states)
    return parts


def _outputs(result: Any, layout: str) -> list[Array]:
    arrays = result if isinstance(result, tuple) else (result,)
    return [time_last(array, layout) for array in arrays]
