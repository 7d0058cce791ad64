"""Networks of several frameworks that quantisation is tested on, with inputs that drive them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import synapse_onnx as so


def spikes(*shape: int, rate: float = 0.3, seed: int = 0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-0.1, 0.1)
    return norm


class ClassLoop(nn.Module):
    """snnTorch in a class: convolution, norm, max pool, and a loop over (T, N, 2, 8, 8)."""

    def __init__(self) -> None:
        import snntorch

        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = _norm(8)
        self.lif1 = snntorch.Leaky(beta=0.9, threshold=0.5)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(128, 10)
        self.lif2 = snntorch.Leaky(beta=0.8, threshold=0.25)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for x_t in x:
            spk, mem1 = self.lif1(self.norm(self.conv(x_t)), mem1)
            spk, mem2 = self.lif2(self.fc(self.pool(spk).flatten(1)), mem2)
            out.append(spk)
        return torch.stack(out)


def jelly() -> nn.Module:
    """SpikingJelly over several steps, (T, N, 2, 8, 8)."""
    from spikingjelly.activation_based import functional, layer, neuron

    norm = layer.BatchNorm2d(8)
    norm.load_state_dict(_norm(8).state_dict())
    network = nn.Sequential(
        layer.Conv2d(2, 8, 3, padding=1, bias=False), norm, neuron.LIFNode(v_threshold=0.25),
        layer.MaxPool2d(2), layer.Flatten(), layer.Linear(128, 10),
        neuron.IFNode(v_threshold=0.25),
    )  # fmt: skip
    functional.set_step_mode(network, "m")
    return network


class Plain(nn.Module):
    """Plain torch with recurrent weights and a readout, over (T, N, 20)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(20, 16)
        self.recurrent = nn.Linear(16, 16, bias=False)
        self.out = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        v = s = torch.zeros(x.shape[1], 16)
        out = []
        for x_t in x:
            v = 0.9 * v + self.fc(x_t) + self.recurrent(s)
            s = (v > 0.3).float()
            v = v - 0.3 * s
            out.append(self.out(s))
        return torch.stack(out)


def blocks() -> nn.Module:
    """Blocks of this package with float weights, over (N, 2, 8, 8, T)."""
    neuron = {"threshold": 0.25, "current_decay": 0.5, "voltage_decay": 0.1}
    block = so.block.cuba
    return nn.Sequential(
        block.Conv(neuron, 2, 6, 3, weight_scale=3, weight_norm=True, pre_hook_fx=None),
        block.Pool(neuron, 2, pre_hook_fx=None),
        block.Flatten(),
        block.Dense(neuron, 54, 5, weight_scale=3, pre_hook_fx=None),
    )


def network(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network with the same weights each time, in evaluation mode, and an input."""
    torch.manual_seed(0)
    if name == "snntorch":
        return ClassLoop().eval(), spikes(6, 3, 2, 8, 8)
    if name == "spikingjelly":
        return jelly().eval(), spikes(6, 3, 2, 8, 8)
    if name == "plain":
        return Plain().eval(), spikes(6, 3, 20)
    return blocks().eval(), spikes(3, 2, 8, 8, 6)


#: path of the layers of each network, and of what its neurons' rows are called
LAYERS = {
    "snntorch": ["conv", "fc"],
    "spikingjelly": ["0", "5"],
    "plain": ["fc", "recurrent", "out"],
    "blocks": ["0.synapse", "3.synapse"],
}


def stored(model: onnx.ModelProto) -> dict[str, tuple[str, int]]:
    """Return type and number of bytes of every initialiser of two axes or more."""
    found = {}
    for tensor in model.graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        size = int(np.prod(tensor.dims))
        if len(tensor.dims) > 1:
            found[tensor.name] = (kind, len(tensor.raw_data) or size)
    return found


def weights_of(network: Any, name: str) -> dict[str, Tensor]:
    """Return the weights that each layer uses."""
    found = {}
    for path in LAYERS[name]:
        layer = network.get_submodule(path)
        used = layer.effective_weight if hasattr(layer, "effective_weight") else layer.weight
        found[path] = used.detach().clone()
    return found
