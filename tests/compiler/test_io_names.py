"""Inputs, outputs and parameters keep their names, and names that clash are told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import NEURON, spikes
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = so.synapse.Dense(3, 4, weight_scale=4, pre_hook_fx=so.quantize.q8)
        self.b = so.synapse.Dense(5, 4, weight_scale=4, pre_hook_fx=so.quantize.q8)
        self.neuron = so.neuron.cuba.Neuron(0.5, 0.5, 0.1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"spikes": self.neuron(self.a(left) + self.b(right))}


def test_several_inputs_keep_their_names() -> None:
    torch.manual_seed(0)
    module = TwoInputs().eval()
    args = (spikes(2, 3, 9), spikes(2, 5, 9, seed=1))
    model = so.export(module, args)
    assert [value.name for value in model.graph.input] == ["left", "right"]
    assert so.verify(module, model, args).ok


class Star(nn.Module):
    """As many inputs as it is given."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] - inputs[1]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_forward_of_any_number_of_inputs(streaming: bool) -> None:
    model = so.export(Star(), (spikes(2, 3, 5), spikes(2, 3, 5)), streaming=streaming)
    x, y = spikes(4, 3, 9), spikes(4, 3, 9, seed=1)
    found = so.Session(model).run(x.numpy(), y.numpy())
    np.testing.assert_array_equal(found, (x - y).numpy())


def test_inputs_that_are_returned_and_names_that_clash() -> None:
    class Through(nn.Module):
        def forward(self, output: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            total = output + x
            return x, total, total

    args = (spikes(2, 3, 5), spikes(2, 3, 5, seed=1))
    model = so.export(Through(), args)
    assert [value.name for value in model.graph.input] == ["output", "x"]
    assert [value.name for value in model.graph.output] == ["output__0", "output__1", "output__2"]
    assert so.verify(Through(), model, args).ok


def test_parameters_may_be_called_anything() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Parameter(torch.tensor([2.0]))
            self._w = nn.Parameter(torch.tensor([3.0]))
            self.constant_0 = nn.Parameter(torch.tensor([5.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.output + self._w) * self.constant_0 + 7.5

    model = so.export(Odd(), spikes(2, 3, 5))
    assert {"output", "_w", "constant_0"} <= {t.name for t in model.graph.initializer}
    assert so.verify(Odd(), model, spikes(2, 3, 5)).ok


class _Twice(nn.Module):
    """Returns a value twice, after a copy of it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = so.block.cuba.Dense(NEURON, 6, 3, weight_scale=3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = torch.clone(self.dense(x))
        return {"one": y, "two": y}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("layout", ["NCT", "TNC", "NTC"])
def test_a_value_that_is_returned_twice_has_two_names(layout: str, streaming: bool) -> None:
    network, x = _Twice().eval(), spikes(2, 6, 9)
    model = so.export(network, x, layout=layout, streaming=streaming)
    names = [name for node in model.graph.node for name in node.output if name]
    assert len(names) == len(set(names))
    assert so.verify(network, model, x).ok


class _Masked(nn.Module):
    """An image in time (N, 2, H, W, T), and a mask without, (N, 2, H, W); no layer and no loop."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.relu((x * mask.unsqueeze(-1)).flatten(1, 3))


def test_a_mask_without_time_does_not_turn_the_axes() -> None:
    """A channel less would broadcast, and was taken for another batch."""
    x, mask = spikes(3, 2, 2, 1, 9), spikes(3, 2, 2, 1, seed=1)
    model = so.export(_Masked().eval(), (x, mask))
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["N", 2, 2, 1, "T"]
