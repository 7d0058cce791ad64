"""Neurons of other frameworks: a state that they keep from call to call is refused by name."""

from __future__ import annotations

import warnings
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so


def imported(name: str) -> ModuleType:
    """Import a framework; what it warns of while it is imported is its own business."""
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip(name, reason=f"{name} is not installed: see peers.txt")


class Loop(nn.Module):
    """Resets a network of single steps, and runs it over time."""

    def __init__(self, network: nn.Module, reset) -> None:
        super().__init__()
        self.network, self.reset = network, reset

    def forward(self, x: Tensor) -> Tensor:
        self.reset(self.network)
        return torch.stack([self.network(x[..., t]) for t in range(x.shape[-1])], -1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_snntorch_with_hidden_states(value: float) -> None:
    snn = imported("snntorch")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(12, 8), snn.Leaky(beta=0.9, init_hidden=True), nn.Linear(8, 4),
        snn.Leaky(beta=0.9, init_hidden=True),
    )  # fmt: skip
    with pytest.raises(so.ExportError, match=r"earlier calls, through .*3\.mem"):
        so.export(network, torch.full((2, 12), value))


def test_snntorch_with_states_of_its_own_loop() -> None:
    snn = imported("snntorch")

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.lif = nn.Linear(12, 8), snn.Leaky(beta=0.9)

        def forward(self, x: Tensor) -> Tensor:
            mem, spikes = self.lif.reset_mem(), []
            for t in range(x.shape[-1]):
                spike, mem = self.lif(self.linear(x[..., t]), mem)
                spikes.append(spike)
            return torch.stack(spikes, -1)

    so.export(Network(), torch.rand(2, 12, 5), dynamic=False)


def jelly(mode: str) -> tuple[nn.Module, ModuleType]:
    activation = imported("spikingjelly.activation_based")
    neuron = imported("spikingjelly.activation_based.neuron")
    layer = imported("spikingjelly.activation_based.layer")
    torch.manual_seed(0)
    network = nn.Sequential(
        layer.Linear(12, 8), neuron.IFNode(), layer.Linear(8, 4), neuron.LIFNode(tau=2.0)
    )
    activation.functional.set_step_mode(network, mode)
    return network, activation.functional


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_spikingjelly_in_step_mode(value: float) -> None:
    network, _ = jelly("s")
    with pytest.raises(so.ExportError, match=r"earlier calls, through 1\.v, 3\.v"):
        so.export(network, torch.full((2, 12), value))


def test_spikingjelly_reset_by_forward() -> None:
    network, functional = jelly("s")
    so.export(Loop(network, functional.reset_net), torch.rand(2, 12, 5), dynamic=False)


@pytest.mark.usefixtures("compiled_once")
def test_spikingjelly_with_whole_sequences_is_reset_before_each() -> None:
    """But not by ``export``: a state that an earlier call left would be in the file."""
    network, functional = jelly("m")
    x = torch.rand(5, 2, 12)
    so.export(network, x, dynamic=False)
    with torch.no_grad():
        network(x)
    with pytest.raises(so.ExportError, match=r"earlier calls, through 1\.v, 3\.v"):
        so.export(network, x, dynamic=False)
    functional.reset_net(network)
    so.export(network, x, dynamic=False)


def test_norse_with_a_state_that_the_network_keeps() -> None:
    norse = imported("norse.torch")

    class Network(nn.Module):
        def __init__(self, keeps: bool) -> None:
            super().__init__()
            self.cells = norse.SequentialState(nn.Linear(12, 8), norse.LIFCell())
            self.state, self.keeps = None, keeps

        def forward(self, x: Tensor) -> Tensor:
            y, state = self.cells(x, self.state)
            if self.keeps:
                self.state = state
            return y

    so.export(Network(keeps=False), torch.rand(2, 12))
    with pytest.raises(so.ExportError, match=r"earlier calls, through state\[1\]\.v"):
        so.export(Network(keeps=True), torch.rand(2, 12))
