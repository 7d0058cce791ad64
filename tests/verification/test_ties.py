"""Outputs that depend on the order of equal values, which torch does not define."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


class Net(nn.Module):
    """A layer whose neurons have spiked equally often: not at all."""

    def __init__(self, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = so.block.cuba.Dense(
            {"threshold": 100.0, "current_decay": 0.25, "voltage_decay": 0.1}, 6, 40
        )
        self.after = after

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        counts = self.layer(x).sum(-1)
        return counts, self.after(counts)


def notes(after: Callable[[Tensor], Tensor]) -> tuple[bool, list[str]]:
    net = Net(after)
    x = spikes(2, 6, 5)
    report = so.verify(net, so.export(net, x), x)
    return report.ok, [note for note in report.notes if "equal values" in note]


def test_a_difference_by_ties_is_explained() -> None:
    ok, found = notes(lambda counts: counts.topk(3)[1])
    assert not ok
    assert len(found) == 1
    assert found[0].startswith("output_1 depends on the order of equal values, which topk")
    assert "\n" not in found[0]


@pytest.mark.parametrize(
    "after",
    [
        lambda counts: counts.topk(3)[0],
        lambda counts: (counts + torch.arange(40) / 1000).topk(3)[1],
    ],
    ids=["values", "ramp"],
)
def test_its_remedies_help(after: Callable[[Tensor], Tensor]) -> None:
    assert notes(after) == (True, [])


def test_other_differences_are_not_explained_by_ties() -> None:
    net = Net(lambda counts: counts.topk(3)[0])
    x = spikes(2, 6, 5)
    model = so.export(net, x)
    assert any(node.op_type == "TopK" for node in model.graph.node)
    with torch.no_grad():  # the first output does not come of TopK
        report = so.verify(lambda x: (net(x)[0] + 1, net(x)[1]), model, x)
    assert not report.ok
    assert not any("equal values" in note for note in report.notes)
