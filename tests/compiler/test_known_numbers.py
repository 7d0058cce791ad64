"""Code may ask for numbers that follow from parameters alone, and for no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

X = torch.rand(3, 4, 7, generator=torch.Generator().manual_seed(0)) - 0.5


class Asks(nn.Module):
    """Has a parameter and buffers, and code that asks for their numbers; (N, 4, T)."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.conv = nn.Conv1d(4, 4, 1)
        self.weight = nn.Parameter(torch.tensor([0.5, -2.0, 3.0, 0.25]))
        self.register_buffer("level", torch.tensor(1.0))
        self.register_buffer("kept", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, self.conv(x))


def _branch(net: Any, y: Tensor) -> Tensor:
    return y * 2 if net.level >= 1 else y


def _computed(net: Any, y: Tensor) -> Tensor:
    factor = (net.weight.abs() * torch.tensor([1.0, 0.0, 1.0, 0.0])).sum()
    if factor - 3.5 == 0:
        return y + factor
    return y


def _changed(net: Any, y: Tensor) -> Tensor:
    signs = net.weight.clone()
    signs[1:3] += 10
    signs.view(2, 2)[0].mul_(2)
    return y * signs[:, None] if signs.sum() > 20 and signs[0] == 1 else y


def _kept(net: Any, y: Tensor) -> Tensor:
    net.kept.copy_(net.weight)
    return y - 1 if net.kept.sum() > 1 else y


def _as_index(net: Any, y: Tensor) -> Tensor:
    return y[:, : int(net.weight.max())]


def _as_numbers(net: Any, y: Tensor) -> Tensor:
    largest = max(net.weight.tolist())
    return y * largest if float(net.weight[2]) == largest else y


def _contained(net: Any, y: Tensor) -> Tensor:
    return y * 3 if 0.25 in net.weight and not torch.equal(net.weight, net.kept) else y


def _by_name(net: Any, y: Tensor) -> Tensor:
    total = torch.sum(input=net.weight, dim=0)
    return y if total < 0 else y * total


RIGHT = [_branch, _computed, _changed, _kept, _as_index, _as_numbers, _contained, _by_name]


@pytest.mark.parametrize("run", RIGHT)
def test_they_are_numbers_of_the_file(run: Callable[[Any, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network = Asks(run).eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    model = so.export(network, X)
    assert so.verify(network, model, X).ok
    sizes = [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["N", "", "T"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_another_number_is_another_file() -> None:
    network = Asks(_branch).eval()
    model = so.export(network, X)
    network.level.fill_(0.5)
    assert not so.verify(network, model, X).ok
    other = so.export(network, X)
    assert so.verify(network, other, X).ok
    assert [n.op_type for n in model.graph.node] != [n.op_type for n in other.graph.node]


def _of_an_input(net: Any, y: Tensor) -> Tensor:
    return y * 2 if (net.weight[0] * y).sum() > 0 else y


def _of_a_kept_input(net: Any, y: Tensor) -> Tensor:
    net.kept.copy_(y[0, :, 0])
    return y * 2 if net.kept.sum() > 0 else y


def _of_a_written_view(net: Any, y: Tensor) -> Tensor:
    signs = net.weight * 1
    row = signs[1:]
    row[:1] = y[0, 0, 0]
    return y * 2 if signs.sum() > 0 else y


def _of_a_sum_in_place(net: Any, y: Tensor) -> Tensor:
    signs = net.weight * 1
    signs += y[0, 0, 0]
    return y * 2 if signs.sum() > 0 else y


def _of_a_result(net: Any, y: Tensor) -> Tensor:
    signs = net.weight * 1
    torch.add(y[0, :, 0], 1, out=signs)
    return y * 2 if signs.sum() > 0 else y


REFUSED = [_of_an_input, _of_a_kept_input, _of_a_written_view, _of_a_sum_in_place, _of_a_result]


@pytest.mark.parametrize("run", REFUSED)
def test_what_depends_on_inputs_is_refused(run: Callable[[Any, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    with pytest.raises(so.ExportError) as error:
        so.export(Asks(run).eval(), X)
    assert "\n" not in str(error.value)


def _of_a_size(net: Any, y: Tensor) -> Tensor:
    return y * 2 if net.weight.sum() * y.shape[-1] > 3 else y


def test_an_open_size_is_no_number() -> None:
    """1.75 * T > 3 from T = 2 on."""
    with pytest.raises(so.ExportError):
        so.export(Asks(_of_a_size).eval(), X)


def test_random_numbers_are_none() -> None:
    """Two runs of this network are equal."""

    def run(net: Any, y: Tensor) -> Tensor:
        return y * 2 if (net.level + torch.rand(1)).sum() > 0 else y

    with pytest.raises(so.ExportError):
        so.export(Asks(run).eval(), X)
