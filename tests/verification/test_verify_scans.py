"""Loops that stay Scans have rows of their own, and a fault is blamed on the loop that has it."""

from __future__ import annotations

from functools import cache

import onnx
import pytest
import torch
from networks import spikes
from onnx import numpy_helper
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.report.result import Report


class _Cell(nn.Module):
    """A neuron that no node of this package is: a spike takes off three quarters."""

    def __init__(self, inputs: int, neurons: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, neurons)

    def forward(self, x: Tensor, voltage: Tensor) -> tuple[Tensor, Tensor]:
        voltage = 0.5 * voltage + self.fc(x)
        spike = (voltage > 0.25).float()
        return spike, voltage - 0.75 * spike


class _Two(nn.Module):
    """Two of them, one after the other: (T, N, 6) -> spikes and last voltages of (T, N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = _Cell(6, 8), _Cell(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        one, other = torch.zeros(x.shape[1], 8), torch.zeros(x.shape[1], 4)
        rows = []
        for x_t in x:
            spike, one = self.first(x_t, one)
            spike, other = self.second(spike, other)
            rows.append(spike)
        return torch.stack(rows)


@cache
def _network() -> _Two:
    torch.manual_seed(0)
    return _Two().eval()


X = spikes(12, 3, 6)


@cache
def _file(streaming: bool = False) -> bytes:
    return so.export(_network(), X, streaming=streaming).SerializeToString()


def _model(*, streaming: bool = False) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(_file(streaming))


def _rows(report: Report) -> dict[str, bool]:
    return {row.name: row.ok for row in report.layers}


@pytest.mark.parametrize("streaming", [False, True])
def test_every_loop_has_a_row(streaming: bool) -> None:
    report = so.verify(_network(), _model(streaming=streaming), X)
    assert report.verdict == "equal"
    assert _rows(report) == {"first/Scan": True, "second/Scan": True}
    first, second = report.layers
    assert {row.kind for row in report.layers} == {"loop"}
    assert (first.spike_flips, second.spike_flips) == (0, 0)
    assert first.values > 12 * 3 * 8  # and those of runs of other sizes
    assert first.spikes is not None
    assert first.spikes[0] > 0


def _scan(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def _body(model: onnx.ModelProto, name: str) -> onnx.GraphProto:
    return next(a.g for a in _scan(model, name).attribute if a.name == "body")


@pytest.mark.parametrize("name", ["first/Scan", "second/Scan"])
def test_a_fault_is_blamed_on_its_loop(name: str) -> None:
    model = _model()
    next(node for node in _body(model, name).node if node.op_type == "Sub").op_type = "Add"
    report = so.verify(_network(), model, X)
    assert report.verdict == "NOT equal"
    assert _rows(report) == {each: each != name for each in ("first/Scan", "second/Scan")}
    assert report.first_divergence is not None
    assert report.first_divergence.layer == name


def test_a_state_that_shows_in_no_spike_is_compared() -> None:
    """The voltage after the last step is wrong, and is read by nobody but a next chunk."""
    model = _model(streaming=True)
    body = _body(model, "second/Scan")
    first = body.output[0].name
    body.node.add(op_type="Add", input=[first, "off"], output=["moved"], name="moving")
    body.output[0].name = "moved"
    body.initializer.append(numpy_helper.from_array(torch.tensor(1e-3).numpy(), "off"))
    report = so.verify(_network(), model, X[:1])
    assert _rows(report) == {"first/Scan": True, "second/Scan": False}
    assert any("second/Scan (state 0)" in str(row.first) for row in report.layers)


def test_a_silent_loop_is_named() -> None:
    """The bias of the second cell makes it spike whatever the first one does."""
    torch.manual_seed(0)
    network = _Two().eval()
    with torch.no_grad():
        network.first.fc.bias.fill_(-9.0)
        network.second.fc.bias.fill_(0.3)
    report = so.verify(network, so.export(network, X), X)
    assert report.verdict == "equal, but 1 layer never active: first/Scan"


class _Several(nn.Module):
    """As many thresholds as fit into a voltage are taken off it; counts and what is left."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        voltage, counts, rest = torch.zeros_like(x[0]), [], []
        for x_t in x:
            voltage = 0.5 * voltage + x_t
            count = torch.floor(voltage)
            voltage = voltage - count
            counts.append(count)
            rest.append(voltage)
        return torch.stack(counts), torch.stack(rest)


def test_what_is_left_of_a_larger_value_has_its_rounding() -> None:
    """A voltage below 1 that was 20 before its reset has the rounding of 20."""
    x = 10 * torch.rand(12, 3, 6) + 10
    network = _Several()
    report = so.verify(network, so.export(network, x), x)
    assert report.verdict == "equal"
    largest = float(network(x)[0].max())
    rows = [row for row in (*report.layers, *report.outputs) if not row.exact]
    assert len(rows) == 4
    for row in rows:
        assert 1e-5 * largest <= row.tolerance <= 2.5e-5 * largest
    assert float(network(x)[1].max()) <= 1
