"""Whether a network streams: its file in chunks gives what the network gives as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.model.layout import axes_of

from .distance import Distance, copied, outputs_of, undecided
from .network import Network

__all__ = ["streamed"]

#: the size of the sequence, and the lengths of its chunks
SIZE, CHUNKS = (11, 3), (1, 2, 1, 7)


def streamed(network: Network, net: nn.Module, fixed: int | None = None) -> str:
    """Return "right", "WRONG: ..." or "refused: ..."; "no time" where no input has any.

    Args:
        network: the entry.
        net: its module, which is exported once more.
        fixed: the number of steps of its file, if that is not open.
    """
    steps, batch = fixed or SIZE[0], SIZE[1]
    inputs = network.inputs(steps, batch)
    if not any(_time(x, network.axes) is not None for x in inputs if isinstance(x, Tensor)):
        return "no time"
    said = {"axes": network.axes} if network.says_axes else {}
    try:
        model = so.export(net, inputs, streaming=True, **said)
        found = _in_chunks(model, inputs, network.axes, steps)
    except so.SynapseError as error:
        return f"refused: {error}"
    expected = outputs_of(copied(network, net), inputs, network.axes)
    distance = Distance()
    problem = distance.add_all(expected, found)
    if problem:
        return f"WRONG: {problem}"
    if distance.is_wrong:
        masks, samples = undecided(network, net, inputs, expected, found)
        found = [np.where(m, a, b) for m, a, b in zip(masks, expected, found, strict=True)]
        distance = Distance()
        distance.add_all(expected, found)
        if not distance.is_wrong:
            return f"right (a rounding decides in {samples} sample{'s' * (samples > 1)})"
    return f"WRONG: {distance}" if distance.is_wrong else "right"


def _in_chunks(model: Any, inputs: Any, axes: str, steps: int) -> list[NDArray[Any]]:
    stream, parts, start = so.Session(model, native=False).stream(batch=SIZE[1]), [], 0
    for length in [*CHUNKS[:-1], steps - sum(CHUNKS[:-1])]:
        cut = [_cut(x, axes, start, length) for x in inputs]
        part = stream.run(*cut)
        parts.append(part if isinstance(part, tuple) else (part,))
        start += length
    return [_joined(column, axes) for column in zip(*parts, strict=True)]


def _joined(parts: Sequence[NDArray[Any]], axes: str) -> NDArray[Any]:
    """Return the chunks of an output as one; of a value after the last step, the last one."""
    axis = axes_of(axes, parts[0].ndim)[1]
    return parts[-1] if axis is None else np.concatenate(parts, axis=axis)


def _time(x: Tensor, axes: str) -> int | None:
    return axes_of(axes, x.dim())[1]


def _cut(x: Tensor, axes: str, start: int, length: int) -> NDArray[Any]:
    axis = _time(x, axes)
    return (x if axis is None else x.narrow(axis, start, length)).numpy()
