"""verify on arrays of different shapes: a failed check, or values that come from another batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from faults import replace_values
from networks import cuba, spikes
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


def test_a_last_state_of_another_shape_is_a_failed_check() -> None:
    network = nn.Sequential(so.axon.Delta(threshold=0.5))
    model = so.export(network, torch.rand(2, 3, 6))
    (function,) = (f for f in model.functions if f.name == "Delta")
    (node,) = (n for n in function.node if "last_pre" in n.output)
    node.output[list(node.output).index("last_pre")] = "right"
    function.node.append(onnx.helper.make_node("Concat", ["right"] * 3, ["last_pre"], axis=0))
    report = so.verify(network, model, torch.rand(2, 3, 6))
    assert not report.ok
    sentence = "0 (last pre): torch keeps shape (2, 3), the model (6, 3)"
    assert sentence in report.problems


def test_a_chunk_of_another_shape_is_a_failed_check() -> None:
    """As many channels as the chunk has steps: five or more steps show nothing."""
    dense = so.synapse.Dense(4, 5, weight_scale=3, pre_hook_fx=so.quantize.q8)
    network = nn.Sequential(dense, cuba()).eval()
    model = so.export(network, spikes(2, 4, 8), streaming=True)
    (node,) = (n for n in model.graph.node if "output" in n.output)
    node.output[0] = "right"
    start, axis = np.array([0]), np.array([1])
    for name, value in (("start", start), ("axis", axis)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model.graph.node.append(onnx.helper.make_node("Shape", ["right"], ["steps"], start=2))
    inputs = ["right", "start", "steps", "axis"]
    model.graph.node.append(onnx.helper.make_node("Slice", inputs, ["output"]))
    report = so.verify(network, model, spikes(2, 4, 8))
    assert not report.ok
    assert "output (in chunks): shape (2, 1, 1), and (2, 5, 8) in one piece" in report.problems


@pytest.mark.parametrize("scalar", [False, True])
def test_values_of_another_batch_are_compared(scalar: bool) -> None:
    """Two halves of the channels go through one layer, and the output may be one number."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.synapse = so.synapse.Dense(3, 5, weight_scale=3)
            self.neuron = cuba()
            self.readout = so.synapse.Dense(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, c, t = x.shape
            y = self.neuron(self.synapse(x.reshape(2 * n, c // 2, t)))
            y = self.readout(y).reshape(n, -1, t)
            return y.mean() if scalar else y

    torch.manual_seed(0)
    network, x = Halves().eval(), spikes(3, 6, 20)
    model = so.export(network, x)
    assert so.verify(network, model, x).ok
    replace_values(model, "readout.weight", lambda array: array.__iadd__(1))
    report = so.verify(network, model, x)
    assert [row.ok for row in report.layers] == [True, True, False]
    assert not any(row.ok for row in report.outputs)


class Picked(nn.Module):
    """A layer and code behind it that needs more than one step or sample."""

    def __init__(self, pick: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dense = so.synapse.Dense(6, 5, weight_scale=3, pre_hook_fx=so.quantize.q8)
        self.neuron, self.pick = cuba(), pick

    def forward(self, x: Tensor) -> Tensor:
        return self.pick(self.neuron(self.dense(x)))


@pytest.mark.parametrize(
    ("pick", "refused"),
    [
        (lambda y: y[..., 1], {(4, 6, 1): "IndexError"}),
        (lambda y: y[1], {(1, 6, 27): "IndexError"}),
        (lambda y: y.topk(2, dim=0).values, {(1, 6, 27): "RuntimeError"}),
        (
            lambda y: y.index_select(-1, torch.tensor([0, 9])),
            {(4, 6, 1): "IndexError", (2, 6, 7): "IndexError"},
        ),
    ],
    ids=["step", "sample", "topk", "index_select"],
)
def test_inputs_that_are_cut_may_be_refused_by_the_network(
    pick: Callable[[Tensor], Tensor], refused: dict[tuple[int, ...], str]
) -> None:
    network, x = Picked(pick).eval(), spikes(3, 6, 20)
    model = so.export(network, x)
    report = so.verify(network, model, x)
    assert report.ok, str(report)
    notes = [note for note in report.notes if "not compared" in note]
    assert len(notes) == len(refused)
    for note, (shape, error) in zip(notes, refused.items(), strict=True):
        start = f"inputs of shape {shape} are not compared: the network raises {error}: "
        assert note.startswith(start)
        assert "\n" not in note
    ran = {(3, 6, 20), (1, 6, 27), (4, 6, 1), (2, 6, 7)} - set(refused)
    assert {shapes[0] for shapes in report.shapes} == ran
    replace_values(model, "dense.weight", lambda array: array.__imul__(-1))
    assert not so.verify(network, model, x).ok


def test_inputs_as_given_that_the_network_refuses_are_its_error() -> None:
    network, x = Picked(lambda y: y[1]).eval(), spikes(3, 6, 20)
    model = so.export(network, x)
    with pytest.raises(IndexError):
        so.verify(network, model, x[:1])
