"""Files of networks that loop over time in torch code, compared with the networks themselves."""

from __future__ import annotations

import copy

import onnx
import pytest
import torch
from looping import example, exported, network, scan_bodies
from networks import NEURON
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.mark.parametrize("name", ["plain", "lists", "mean", "two_inputs"])
def test_a_right_file_is_equal(name: str) -> None:
    report = so.verify(network(name), exported(name), example(name))
    assert report.ok, report
    assert report.verdict == "equal"


def test_other_sizes_than_those_of_the_export_are_equal(compiled_anew: None) -> None:
    report = so.verify(network("plain"), exported("plain"), example("plain", 12, 3))
    assert report.verdict == "equal", report


def test_neurons_are_compared_one_by_one() -> None:
    report = str(so.verify(network("plain"), exported("plain"), example("plain")))
    assert "✓ neuron" in report
    assert "✓ output" in report


def test_a_changed_weight_is_seen() -> None:
    other = copy.deepcopy(network("plain"))
    with torch.no_grad():
        other.fc.weight[0, 0] += 0.5
    report = so.verify(other, exported("plain"), example("plain"))
    assert not report.ok
    assert report.verdict == "NOT equal"


@pytest.mark.parametrize(("one", "other"), [("Greater", "Less"), ("Sub", "Add"), ("Add", "Sub")])
def test_another_operator_in_a_step_is_seen(one: str, other: str) -> None:
    model = onnx.ModelProto.FromString(exported("learned_start").SerializeToString())
    (body,) = scan_bodies(model)
    node = next(node for node in body.node if node.op_type == one)
    node.op_type = other
    report = so.verify(network("learned_start"), model, example("learned_start"))
    assert not report.ok


@pytest.mark.parametrize("name", ["plain", "lists"])
def test_a_stream_is_equal(name: str) -> None:
    model = exported(name, streaming=True)
    assert so.verify(network(name), model, example(name)).ok


class _BesideALayer(nn.Module):
    """A layer of this package, (N, C, T), and a loop whose voltages move by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = so.block.cuba.Dense(NEURON, 7, 11, weight_scale=3)

    def forward(self, x: Tensor) -> Tensor:
        v, voltages = torch.zeros(len(x), 11), []
        for x_t in self.dense(x).unbind(-1):
            v = 0.5 * v + x_t + 0.125
            v = v - (v > 1).float()
            voltages.append(v)
        return torch.stack(voltages, -1)


def test_a_silent_layer_beside_a_loop_is_named() -> None:
    torch.manual_seed(0)
    network, x = _BesideALayer().eval(), example("plain", 12, 3)[0].permute(1, 2, 0)
    model = so.export(network, x)
    assert so.verify(network, model, x).verdict == "equal"
    report = so.verify(network, model, x / 4096)
    assert report.verdict == "equal, but 1 layer never active: dense.neuron"
