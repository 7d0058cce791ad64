"""Loops whose steps are not all alike, and the comparison of a file of one at many lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
import torch
from looping import Looping, example, spike
from torch import Tensor

import synapse_onnx as so

__all__ = ["Current", "Run", "differences", "in_chunks", "looped", "plain"]

Run = Callable[[Looping, Tensor], Any]

#: what a step reads: of the network, the input and the number of the step
Current = Callable[[Looping, Tensor, int], Tensor]

#: lengths that end in every phase of a period
_LENGTHS = (*range(1, 14), 24, 37)


def plain(net: Looping, x: Tensor, t: int) -> Tensor:
    return net.fc(x[t])


def looped(
    steps: Callable[[int], Iterable[int]],
    current: Current = plain,
    end: Callable[[list[Tensor], list[Tensor]], Any] = lambda spikes, _: torch.stack(spikes),
) -> Run:
    """A neuron over some steps of a sequence, and what is returned of its spikes and voltages."""

    def run(net: Looping, x: Tensor) -> Any:
        v, spikes, voltages = torch.zeros(x.shape[1], 11), [], []
        for t in steps(len(x)):
            k, v = spike(v, current(net, x, t))
            spikes.append(k)
            voltages.append(v)
        return end(spikes, voltages)

    return run


def differences(net: torch.nn.Module, model: onnx.ModelProto) -> list[tuple[int, int]]:
    """The sizes (T, N) at which a file gives something else than its network, where that runs."""
    session, found, compared = so.Session(model), [], 0
    for steps in _LENGTHS:
        for batch in (1, 3):
            (x,) = example("plain", steps, batch)
            x = x - (x > 2).float() * 4
            try:
                with torch.no_grad():
                    expected = net(x).numpy()
            except RuntimeError:  # of torch.stack([])
                continue
            compared += 1
            if not np.array_equal(session.run(x.numpy()), expected, equal_nan=True):
                found.append((steps, batch))
    assert compared > 20
    return found


def in_chunks(model: onnx.ModelProto, x: Tensor, lengths: list[int]) -> np.ndarray:
    """The output of a stream in chunks of these lengths."""
    stream, rows, start = so.Session(model).stream(batch=x.shape[1]), [], 0
    for length in lengths:
        rows.append(stream.run(x[start : start + length].numpy()))
        start += length
    return np.concatenate(rows)
