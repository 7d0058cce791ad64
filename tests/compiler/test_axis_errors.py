"""Sentences on axes say in plain words which sizes a network needs."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from networks import spikes
from torch import Tensor, nn
from torch.nn import functional

import synapse_onnx as so

X = spikes(2, 6, 12)


class Net(nn.Module):
    def __init__(self, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dense, self.after = so.synapse.Dense(6, 4), after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.dense(x))


#: what forward() does -> (function, what the sentence says is needed)
NEEDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "every other step": (lambda y: y[..., ::2], "T >= 3"),
    "groups of steps": (lambda y: y.reshape(y.shape[0], 4, -1, 3), "a multiple of 3"),
    "halves": (lambda y: y.reshape(y.shape[0], 4, y.shape[-1] // 2, 2), "a multiple of 2"),
    "differences": (lambda y: y[..., 2:] - y[..., :-2], "T >= 3"),
    "chunks": (lambda y: torch.cat(y.chunk(3, -1), 1), "T >= 5"),
    "a remainder": (lambda y: y if y.shape[-1] % 4 == 0 else -y, "a multiple of 4"),
    "pairs of samples": (lambda y: y.view(y.shape[0] // 2, 2, 4, -1), "a multiple of 2"),
    "convolution": (lambda y: functional.conv1d(y, torch.ones(2, 4, 3), dilation=2), "T >= 5"),
    "windows": (lambda y: y.unfold(-1, 4, 2), "T >= 4"),
    "a part": (lambda y: y.narrow(-1, 3, 5), "T >= 8"),
    "the largest": (lambda y: y.topk(3, -1)[0], "T >= 3"),
}


@pytest.mark.parametrize("case", NEEDS)
def test_needs(case: str) -> None:
    function, needed = NEEDS[case]
    with pytest.raises(so.ExportError) as caught:
        so.export(Net(function), X)
    axis = "batch size N" if case == "pairs of samples" else "number of time steps T"
    beginning = rf"the module needs {needed} for the {axis}, x\.shape\[[02]\] of inputs \(N, C, T\)"
    sentence = str(caught.value)
    assert re.match(beginning, sentence), sentence
    assert re.search(r" \(.*line \d+ of test_axis_errors\.py\); keep it open", sentence)
