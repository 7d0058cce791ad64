"""SpikingJelly's zoo, on small images; norms have seen some batches, so that all layers spike."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

if importlib.util.find_spec("torchvision") is None:
    # the zoo takes one function from it, which downloads weights
    _name = "torchvision._internally_replaced_utils"
    sys.modules.setdefault("torchvision", types.ModuleType("torchvision"))
    sys.modules.setdefault(_name, types.ModuleType(_name)).load_state_dict_from_url = None

from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import (
    parametric_lif_net,
    sew_resnet,
    spikformer,
    spiking_resnet,
    spiking_vgg,
)

from .network import Network, frames

__all__ = ["FRAMEWORK", "NETWORKS"]

FRAMEWORK = "spikingjelly"


def _warm(net: nn.Module, *shape: int) -> nn.Module:
    """Let norms see some batches in training mode, and let them drive neurons to the threshold."""
    functional.set_step_mode(net, "m")
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    for norm in (each for each in net.modules() if isinstance(each, norms)):
        nn.init.uniform_(norm.weight, 1.5, 3.0)
        nn.init.uniform_(norm.bias, 0.0, 0.8)
        norm.momentum = 0.5
    for each in net.modules():
        if isinstance(each, nn.Linear):  # no norm follows it
            each.weight.data *= 6
    net.train()
    with torch.no_grad():
        for _ in range(8):
            net(frames(4, 4, *shape, scale=2.0))
            functional.reset_net(net)
    return net


def _of(model: Callable[..., nn.Module], *shape: int, **kwargs: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = model(
            spiking_neuron=neuron.LIFNode,
            surrogate_function=surrogate.ATan(),
            detach_reset=True,
            **kwargs,
        )
        return _warm(net, *shape)

    return make


def _sized(*shape: int) -> Callable[[int, int], tuple[Tensor, ...]]:
    return lambda t, n: (frames(t, n, *shape, scale=2.0),)


class Attention(nn.Module):
    """A spiking self-attention block between pixels: (T, N, C, H, W) in, (T, N, C) out."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x.flatten(3)).mean(-1)


def _attention(make: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    return lambda: _warm(Attention(make(16, num_heads=2)), 16, 3, 3)


class Tokens(nn.Module):
    """The same block as it is, behind a layer that makes tokens: (T, N, C, L) is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = layer.Conv2d(2, 16, 2, stride=2)
        self.norm, self.sn = layer.BatchNorm2d(16), neuron.LIFNode(v_threshold=0.5)
        self.block = layer.SpikingSelfAttention(16, num_heads=4)
        self.head = layer.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.sn(self.norm(self.embed(x))).flatten(3)
        x = x + self.block(x)
        return self.head(x.mean(-1)).mean(0)


NETWORKS = [
    Network(
        "sew_resnet18",
        _of(sew_resnet.sew_resnet18, 3, 32, 32, cnf="ADD", num_classes=10),
        _sized(3, 32, 32),
    ),
    Network(
        "spiking_resnet18",
        _of(spiking_resnet.spiking_resnet18, 3, 32, 32, num_classes=10),
        _sized(3, 32, 32),
    ),
    Network(
        "spiking_vgg11_bn",
        _of(spiking_vgg.spiking_vgg11_bn, 3, 32, 32, num_classes=10),
        _sized(3, 32, 32),
    ),
    Network(
        "DVSGestureNet",
        _of(parametric_lif_net.DVSGestureNet, 2, 128, 128, channels=4),
        _sized(2, 128, 128),
    ),
    Network(
        "CIFAR10Net", _of(parametric_lif_net.CIFAR10Net, 3, 32, 32, channels=8), _sized(3, 32, 32)
    ),
    Network("MNISTNet", _of(parametric_lif_net.MNISTNet, 1, 28, 28, channels=6), _sized(1, 28, 28)),
    Network("SpikingSelfAttention", _attention(layer.SpikingSelfAttention), _sized(16, 3, 3)),
    Network("TokenQKAttention", _attention(layer.TokenQKAttention), _sized(16, 3, 3)),
    Network("attention block", lambda: _warm(Tokens(), 2, 8, 8), _sized(2, 8, 8)),
    Network(
        "Spikformer",
        lambda: _warm(
            spikformer.Spikformer(
                T=4, img_size_h=32, img_size_w=32, patch_size=16, num_classes=10,
                embed_dims=32, num_heads=1, depths=1,
            ),
            3, 32, 32,
        ),
        _sized(3, 32, 32),
    ),
]  # fmt: skip
