"""Rockpool: states are those of a fresh module, noise of strength 0 is none."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so


class Module(nn.Module):
    """As Rockpool's LIFTorch: states with a registry of their own, noise, and other methods."""

    def __init__(self, noise: float) -> None:
        object.__setattr__(self, "_registry", {})
        super().__init__()
        self.noise = noise
        self.register_buffer("strength", torch.tensor(noise))
        self.reset_state()

    def reset_state(self) -> None:
        self._keep(torch.zeros(6))

    def _keep(self, v: Tensor) -> None:
        self.register_buffer("vmem", v)
        self._registry["vmem"] = [v, "State"]

    def parameters(self, *_: Any) -> dict[str, Any]:
        return {"vmem": {}}

    def modules(self) -> dict[str, Any]:
        return {}

    def __call__(self, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return nn.Module.__call__(self, x), {}

    def forward(self, x: Tensor) -> Tensor:
        v = torch.ones(x.shape[0], 1) * self.vmem
        strength = self.strength * torch.sqrt(torch.tensor(0.001))
        noise = strength * torch.randn(x.shape)
        spikes = []
        for t in range(x.shape[1]):
            v = 0.9 * v + x[:, t] + noise[:, t]
            spike = (v >= 1.0).float()
            v = v - spike
            spikes.append(spike)
        self._keep(v[0].detach())
        return torch.stack(spikes, 1)


Module.__module__ = "rockpool.nn.modules.standin"


class Output(nn.Module):
    """What most users take."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[0]


def _is_right(network: nn.Module, x: Tensor) -> None:
    model = so.export(network, x)
    report = so.verify(network, model, x)
    assert report.ok, str(report)


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("around", [Output, lambda net: net], ids=["output alone", "as it is"])
def test_a_network_without_noise(around: Any) -> None:
    torch.manual_seed(0)
    _is_right(around(Module(0.0)).eval(), torch.rand(3, 7, 6))


def test_the_callers_random_numbers_stay() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    so.export(Output(Module(0.0)).eval(), torch.linspace(0, 1, 126).reshape(3, 7, 6))
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_refused() -> None:
    with pytest.raises(so.ExportError, match="random"):
        so.export(Output(Module(5.0)).eval(), torch.rand(3, 7, 6))


def test_states_of_an_earlier_call_go_by_their_path() -> None:
    network = Output(Module(0.0)).eval()
    x = torch.rand(3, 7, 6)
    with torch.no_grad():
        network(x)
    with pytest.raises(so.ExportError, match=r"earlier calls, through net\.vmem, which"):
        so.export(network, x)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_a_network_of_rockpool() -> None:
    with warnings.catch_warnings(action="ignore"):
        modules = pytest.importorskip(
            "rockpool.nn.modules", reason="rockpool is not installed: see peers.txt"
        )
        combinators = pytest.importorskip("rockpool.nn.combinators")
    torch.manual_seed(0)
    net = combinators.Sequential(
        modules.LinearTorch((6, 8), has_bias=False), modules.ExpSynTorch(8, tau=10e-3, dt=1e-3)
    )
    _is_right(Output(net).eval(), torch.rand(3, 7, 6))
