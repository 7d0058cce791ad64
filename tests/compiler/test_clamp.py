"""Bounds of ``clamp`` of two types."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

X = spikes(2, 6, 5)

#: what is computed of a spike train
CLAMPS: dict[str, Callable[[Tensor], Tensor]] = {
    "integer below": lambda y: y.clamp(0, 0.5),
    "integer above": lambda y: (y * 2.5).clamp(0.25, 2),
    "clip": lambda y: torch.clip(y, 0, 0.5),
    "in place": lambda y: (y * 1.0).clamp_(0, 0.5),
    "clip in place": lambda y: (y * 1.0).clip_(0, 0.5),
    "of integers": lambda y: y.long().clamp(0, 0.5),
    "both integers": lambda y: y.clamp(0, 1),
    "both integers, of integers": lambda y: (y * 3).long().clamp(1, 2),
    "one": lambda y: y.clamp(max=0.5),
    "one integer": lambda y: (y - 0.5).clamp(min=0),
}


class Net(nn.Module):
    def __init__(self, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = so.block.cuba.Dense(
            {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}, 6, 4, weight_scale=3
        )
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layer(x))


@pytest.mark.parametrize("case", CLAMPS)
def test_bounds_may_have_two_types(case: str) -> None:
    net = Net(CLAMPS[case])
    report = so.verify(net, so.export(net, X), X)
    assert report.verdict == "equal", str(report)
