"""Networks whose two chunks are not the whole sequence cannot stream, and it is said why."""

from __future__ import annotations

import pytest
import torch
from networks import spikes
from streamed import CUBA
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler._chunks import check_chunks
from synapse_onnx.compiler._streaming import Streamed

pytestmark = pytest.mark.gpu


class Hundred(nn.Module):
    """Code that is for a hundred steps alone."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x.reshape(-1, 12, 100))


def test_a_network_of_one_length_is_looked_at_as_a_whole() -> None:
    x = spikes(2, 12, 100)
    with pytest.raises(so.ExportError, match="in chunks, the input of neuron is not that"):
        so.export(Hundred(), x, streaming=True)


class Called(nn.Module):
    """One neuron that stands in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.neuron(x))


class Backwards(nn.Module):
    """Code that looks into the future."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x).flip(-1)


class Summed(Backwards):
    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x).sum(-1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Called(), "forward.. calls neuron 2 times, and it keeps one state"),
        (Backwards(), "in chunks, output 0 is not that of the whole sequence; code between"),
        (Summed(), r"output 0 of shape \(2, 12\) has no time axis"),
    ],
)
@pytest.mark.parametrize("steps", [20, 200])
def test_networks_that_cannot_stream(module: nn.Module, message: str, steps: int) -> None:
    x = spikes(2, 12, steps, rate=0.6)
    so.export(module, x)
    with pytest.raises(so.ExportError, match=message):
        so.export(module, x, streaming=True)


@pytest.mark.parametrize("steps", [2, 3])
def test_two_steps_are_enough_to_see_that_a_network_cannot_stream(steps: int) -> None:
    x = torch.zeros(1, 12, steps)
    x[..., -1] = 5.0
    with pytest.raises(so.ExportError, match="in chunks, output 0 is not that of the whole"):
        so.export(Backwards(), x, streaming=True)
    so.export(Backwards(), x[..., :1], streaming=True)  # of one step there is no half


class Added(nn.Module):
    """Code that looks at all steps, in front of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(**CUBA)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x + 0.01 * x.sum(-1, keepdim=True))


class Repeated(nn.Module):
    """Code that gives the first step once more."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., :1], x], -1)


class Longer(nn.Module):
    """Code that gives a short sequence more steps than a long one."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[-1] < 8 else x.repeat(1, 1, 2)


class Total(so.synapse.Dense):
    """A layer with a state that it does not declare."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).cumsum(-1)


class Rounded(so.synapse.Dense):
    """A layer whose sums depend, in their last bits, on how many steps there are."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (x.shape[-1] - 8) * 2.0**-23


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Added(), "in chunks, the input of neuron is not that of .*; code between the layers"),
        (Repeated(), "in chunks, output 0 is not that of the whole sequence"),
        (Longer(), "in chunks, output 0 is not that of the whole sequence"),
        (nn.Sequential(Total(12, 3)), "in chunks, the output of 0 is not .*; the layer looks"),
    ],
    ids=["input", "more", "fewer", "layer"],
)
def test_where_two_chunks_are_not_the_whole(module: nn.Module, message: str) -> None:
    x = spikes(1, 12, 8)
    with pytest.raises(so.ExportError, match=message):
        check_chunks(Streamed(module, [x]), [x])


def test_a_sum_rounded_otherwise_in_a_chunk_is_no_reason_to_refuse() -> None:
    x = torch.ones(1, 1, 8)
    module = nn.Sequential(Rounded(1, 1), so.neuron.lif.Neuron(beta=0.0, threshold=1.0 - 2.0**-24))
    module[0].weight.data.fill_(1.0)
    whole, first = module(x), module(x[..., :4])
    assert not torch.equal(whole[..., :4], first)  # spikes flip
    check_chunks(Streamed(module, [x]), [x])


class OneLength(nn.Module):
    """Code that takes one number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Table(Backwards):
    """A constant beside the spikes, of a rank that sequences have."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.neuron(x), torch.ones(1, 2, 1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (OneLength(), r"takes 20 time steps and fails on a chunk of 10 of them \(RuntimeError: "),
        (Table(), r"output 1 has shape \(1, 2, 1\) for any number of time steps, so it cannot"),
    ],
)
def test_what_cannot_come_in_chunks_is_said(module: nn.Module, message: str) -> None:
    with pytest.raises(so.ExportError, match=message) as caught:
        so.export(module, spikes(2, 12, 20), streaming=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_constant_is_told_from_one_step(dynamic: bool) -> None:
    """One step is too short to be cut."""
    with pytest.raises(so.ExportError, match=r"output 1 has shape \(1, 2, 1\) for any number of "):
        so.export(Table(), spikes(2, 12, 1), streaming=True, dynamic=dynamic)
    plain = nn.Sequential(so.neuron.cuba.Neuron(**CUBA)).eval()
    assert so.export(plain, spikes(2, 12, 1), streaming=True, dynamic=dynamic).graph.node


class Overwrites(Backwards):
    """Code that changes its argument and a layer's output in place."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.neuron(x.mul_(2))
        x.zero_()
        return y.mul_(0.5)


def test_arguments_and_outputs_may_be_changed_in_place() -> None:
    x = spikes(2, 12, 20, rate=0.6)
    given = x.clone()
    model = so.export(Overwrites(), x, streaming=True)
    assert torch.equal(x, given)
    report = so.verify(Overwrites(), model, x)
    assert report.ok, str(report)
    assert torch.equal(x, given)
