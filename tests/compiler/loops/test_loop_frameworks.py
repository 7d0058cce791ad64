"""Networks of snnTorch, Norse and SpikingJelly, as their tutorials write them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

# their modules warn on import
pytestmark = pytest.mark.filterwarnings("ignore")


def _imported(name: str) -> Any:
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip(name, reason=f"{name} is not installed")


def _open(model: onnx.ModelProto) -> list[str]:
    return [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]


def _check(net: nn.Module, model: onnx.ModelProto, scale: float = 1.0) -> None:
    """Compare spikes with the framework's own forward pass, at two sizes."""
    assert _open(model) == ["T", "N", ""]
    for steps, batch in [(1, 1), (31, 4)]:
        draw = torch.Generator().manual_seed(steps)
        x = (torch.rand(steps, batch, 12, generator=draw) < 0.5).float() * scale
        with torch.no_grad():
            expected = net(x).numpy()
        np.testing.assert_array_equal(so.Session(model).run(x.numpy()), expected)
    assert 0 < expected.mean() < 1


def _example() -> Tensor:
    return torch.ones(9, 2, 12)


@pytest.mark.parametrize("reset", ["subtract", pytest.param("zero", marks=pytest.mark.slow)])
def test_snntorch(reset: str) -> None:
    snntorch = _imported("snntorch")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(12, 16), nn.Linear(16, 4)
            self.lif1 = snntorch.Leaky(beta=0.75, reset_mechanism=reset)
            self.lif2 = snntorch.Leaky(beta=0.5, threshold=0.125, reset_mechanism=reset)

        def forward(self, x: Tensor) -> Tensor:
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            out = []
            for step in range(x.size(0)):
                spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out, dim=0)

    torch.manual_seed(0)
    net = Net().eval()
    model = so.export(net, _example())
    assert [n.name for n in model.graph.node if n.op_type.startswith("Lif")] == ["lif1", "lif2"]
    _check(net, model, 4.0)


@pytest.mark.slow
def test_norse() -> None:
    norse = _imported("norse.torch")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = norse.SequentialState(nn.Linear(12, 16), norse.LIFCell())

        def forward(self, x: Tensor) -> Tensor:
            state, out = None, []
            for x_t in x:
                y, state = self.net(x_t, state)
                out.append(y)
            return torch.stack(out)

    torch.manual_seed(0)
    net = Net().eval()
    _check(net, so.export(net, _example()), 8.0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["m", "s"])
def test_spikingjelly(mode: str) -> None:
    _imported("spikingjelly")
    from spikingjelly.activation_based import functional, layer, neuron

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(layer.Linear(12, 16), neuron.LIFNode(tau=2.0))
            functional.set_step_mode(self.net, mode)

        def forward(self, x: Tensor) -> Tensor:
            functional.reset_net(self.net)
            if mode == "m":
                return self.net(x)
            return torch.stack([self.net(x_t) for x_t in x])

    torch.manual_seed(0)
    net = Net().eval()
    _check(net, so.export(net, _example()), 4.0)
