"""What the inputs exercise, and that a verdict says what they do not."""

from __future__ import annotations

import json

import onnx
import pytest
import torch
from networks import NEURON, cuba, spikes
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

X = spikes(4, 6, 30, rate=0.5)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = so.block.cuba
    return nn.Sequential(
        layers.Dense(NEURON, 6, 8, weight_scale=4), layers.Dense(NEURON, 8, 3, weight_scale=4)
    ).eval()


@pytest.fixture(scope="module")
def model(network: nn.Module) -> onnx.ModelProto:
    return so.export(network, X)


def test_every_input_layer_and_output_is_counted(network, model) -> None:
    x = X.clone()
    x[:, 4] = 0
    report = so.verify(network, model, x)
    with torch.no_grad():
        first = network[0](x).amax((0, 2))
        fired = network(x).amax((0, 2))
    found = {entry.name: (entry.kind, entry.active, entry.neurons) for entry in report.coverage}
    assert found == {
        "input": ("input", 5, 6),
        "0.neuron": ("cuba", int(first.sum()), 8),
        "1.neuron": ("cuba", int(fired.sum()), 3),
        "output": ("output", int(fired.sum()), 3),
    }
    assert 0 < first.sum() < 8
    assert report.verdict == "equal"
    assert f"active at some step: input 5/6, 0.neuron {int(first.sum())}/8" in str(report)
    assert json.loads(report.to_json())["coverage"][0]["active"] == 5
    assert "<h2>Active at some step</h2>" in report.to_html()
    silent = so.verify(network, model, torch.zeros_like(X)).to_html()
    assert "✓ equal</h1>" in silent
    assert 'id="not-exercised">Not exercised: 1 input never active: input;' in silent


def test_silence_is_no_equality(network, model) -> None:
    report = so.verify(network, model, torch.zeros_like(X))
    assert report.ok
    assert report.verdict == (
        "equal, but 1 input never active: input; 2 layers never active: 0.neuron, 1.neuron; "
        "1 output never active: output"
    )
    assert str(report).splitlines()[-1].startswith(f"{report.verdict}; on inputs of shape")


def test_neither_is_a_layer_that_always_spikes() -> None:
    network = nn.Sequential(so.synapse.Dense(6, 4, weight_scale=1), cuba(threshold=1 / 64)).eval()
    network[0].weight.data.fill_(1.0)
    x = torch.ones(2, 6, 12)
    report = so.verify(network, so.export(network, x), x)
    assert report.verdict == "equal, but 1 layer always active: 1"


def test_what_is_not_compared_is_not_counted() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loud = so.block.cuba.Dense(NEURON, 6, 3, weight_scale=8)
            self.silent = so.block.cuba.Dense(NEURON | {"threshold": 500.0}, 6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.loud(x), self.silent(x)

    torch.manual_seed(0)
    network = Heads().eval()
    model = so.export(network, X)
    names = [value.name for value in model.graph.output]
    assert so.verify(network, model, X).not_exercised == (
        f"1 layer never active: silent.neuron; 1 output never active: {names[1]}"
    )
    part = so.verify(network, model, X, outputs=names[:1])
    assert part.not_exercised == ""
    assert [entry.name for entry in part.coverage] == ["x", "loud.neuron", names[0]]
