"""sinabs: a network verifies equal although its layers keep their last states."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so


class Layer(nn.Module):
    """As sinabs' layers: the state is a buffer, which keeps its last values until a reset."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("v_mem", torch.zeros(0))

    def reset_states(self) -> None:
        self.v_mem = torch.zeros_like(self.v_mem)

    def forward(self, x: Tensor) -> Tensor:
        v = self.v_mem
        if v.shape != x[:, 0].shape:
            v = v.mean() + torch.zeros_like(x[:, 0]) if v.numel() else torch.zeros_like(x[:, 0])
        spikes = []
        for t in range(x.shape[1]):
            v = v + x[:, t]
            spike = (v >= 1.0).float()
            v = v - spike
            spikes.append(spike)
        self.v_mem = v
        return torch.stack(spikes, 1)


Layer.__module__ = "sinabs.layers.standin"


def _is_right(layer: nn.Module) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), layer).eval()
    nn.init.uniform_(network[0].weight, -0.4, 1.0)
    x = torch.rand(3, 7, 6)
    model = so.export(network, x)
    report = so.verify(network, model, x)
    assert report.ok, str(report)
    with torch.no_grad():
        network(x)
    assert so.verify(network, model, x).ok  # from reset states
    with pytest.raises(so.ExportError, match=r"earlier calls, through 1\.v_mem"):
        so.export(network, x)


def test_each_run_starts_from_reset_states() -> None:
    _is_right(Layer())


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_a_layer_of_sinabs() -> None:
    with warnings.catch_warnings(action="ignore"):
        layers = pytest.importorskip(
            "sinabs.layers", reason="sinabs is not installed: see peers.txt"
        )
    _is_right(layers.IAF())
