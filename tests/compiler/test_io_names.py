"""Inputs, outputs and parameters keep their names, and names that clash are told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so


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
