"""Small networks that several test modules export and verify."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.quantize import q8

NEURON = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05}


def spikes(*shape: int, seed: int = 0, rate: float = 0.3) -> torch.Tensor:
    """Random 0/1 spikes, the same every time."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < rate).float()


def cuba(**changes: object) -> so.neuron.cuba.Neuron:
    return so.neuron.cuba.Neuron(**(NEURON | changes))


class Convolutional(nn.Module):
    """Conv, pool and dense with CUBA neurons: (N, 2, 8, 8, T) -> (N, 5, T)."""

    def __init__(self, hook=q8, **neuron: object) -> None:
        super().__init__()
        self.conv = so.synapse.Conv(2, 4, 3, padding=1, weight_scale=3, pre_hook_fx=hook)
        self.conv_neuron = cuba(**neuron)
        self.pool = so.synapse.Pool(2)
        self.pool_neuron = cuba(**neuron)
        self.dense = so.synapse.Dense(64, 5, weight_scale=3, weight_norm=True, pre_hook_fx=hook)
        self.dense_neuron = cuba(**neuron)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_neuron(self.conv(x))
        x = self.pool_neuron(self.pool(x))
        return self.dense_neuron(self.dense(x.flatten(1, 3)))


class Mixed(nn.Module):
    """Ordinary torch code between layers: residual sum, concatenation, reshape, readout."""

    def __init__(self, hook=q8) -> None:
        super().__init__()
        self.first = so.synapse.Dense(6, 6, weight_scale=3, pre_hook_fx=hook)
        self.first_neuron = cuba()
        self.second = so.synapse.Dense(12, 4, weight_scale=3, pre_hook_fx=hook)
        self.second_neuron = cuba()
        self.readout = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spikes = self.first_neuron(self.first(x)) + x
        both = torch.cat([spikes, x], dim=1)
        out = self.second_neuron(self.second(both))
        grid = out.reshape(out.shape[0], 2, 2, out.shape[-1])
        return self.readout(out.mean(-1)), grid


class Complex(nn.Module):
    """A complex convolution whose parts are read out as they are."""

    def __init__(self, hook=q8) -> None:
        super().__init__()
        self.synapse = so.synapse.complex.Conv(2, 3, 3, weight_scale=2, pre_hook_fx=hook)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.synapse(x)


def built(kind: type[nn.Module] = Convolutional, **kwargs: object) -> nn.Module:
    """A network of a kind, with the same weights every time."""
    torch.manual_seed(0)
    return kind(**kwargs).eval()


def assert_exact(module: nn.Module, x: Tensor) -> None:
    """The export is the network, shown layer by layer, and as a stream."""
    module.eval()
    floats = any(getattr(layer, "regime", "") == "float" for layer in module.modules())
    for streaming in (False, True):
        report = so.verify(module, so.export(module, x, streaming=streaming), x)
        assert report.ok, str(report)
        rows = (*report.layers, *report.outputs)
        assert all(row.exact for row in rows) != floats, str(report)
        assert sum(row.values for row in report.layers) > 0
