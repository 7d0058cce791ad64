"""Networks with every kind of state, and their streaming sessions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so

KINDS = sorted(so.neuron.kinds())
CUBA = so.neuron.cuba.Neuron.example


def _layers(kind: str) -> nn.Module:
    """Every block of a neuron that keeps a state of its own: (N, 12, T) -> (N, 4, T)."""
    blocks, arguments = getattr(so.block, kind), so.neuron.kinds()[kind].Neuron.example
    layers = [blocks.Dense(arguments, 12, 10, weight_scale=2, delay=True, delay_shift=True)]
    if hasattr(blocks, "Recurrent"):
        layers.append(blocks.Recurrent(arguments, 10, 10, weight_scale=2, delay=True))
    if hasattr(blocks, "KWTA"):
        layers.append(blocks.KWTA(arguments, 10, 10, 4, weight_scale=2))
    layers.append(blocks.Dense(arguments, 10, 4, weight_scale=2))
    return nn.Sequential(*layers)


def _graded(kind: str) -> nn.Module:
    """One layer: a second would sum graded spikes beyond float32's integers, in either order."""
    arguments = {**so.neuron.kinds()[kind].Neuron.example, "graded_spike": True}
    return nn.Sequential(getattr(so.block, kind).Dense(arguments, 12, 4, delay=True))


def _images() -> nn.Module:
    """Convolutions with delays, pooled and unpooled: (N, 2, 6, 6, T) -> (N, 3, T)."""
    b = so.block.cuba
    return nn.Sequential(
        b.Input(CUBA, weight=1.5, bias=0.1),
        b.Conv(CUBA, 2, 4, 3, padding=1, weight_scale=3, delay=True),
        b.Pool(CUBA, 2),
        b.Unpool(CUBA, 2, delay=True),
        b.ConvT(CUBA, 4, 2, 3, padding=1, weight_scale=3),
        b.Flatten(),
        b.Affine(CUBA, 72, 6),
        b.Average(3),
    )


def _decimated() -> nn.Module:
    """Two decimations with neurons between and behind them: (N, 12, T) -> (N, 3, ceil(T / 8))."""
    b = so.block.cuba
    return nn.Sequential(
        b.Dense(CUBA, 12, 8, weight_scale=3),
        b.TimeDecimation(2),
        b.Dense(CUBA, 8, 6, weight_scale=3),
        b.TimeDecimation(4),
        b.Recurrent(CUBA, 6, 3, weight_scale=4),
    )


def _readout(kind: str) -> nn.Module:
    blocks = getattr(so.block, kind)
    return nn.Sequential(
        blocks.Affine(so.neuron.kinds()[kind].Neuron.example, 12, 5, weight_scale=2)
    )


def _encoders() -> nn.Module:
    return nn.Sequential(so.axon.Delta(0.5, cum_error=True), so.dendrite.Sigma())


def _output() -> nn.Module:
    b, arguments = so.block.sigma_delta, so.neuron.sigma_delta.Neuron.example
    return nn.Sequential(b.Input(arguments), b.Dense(arguments, 12, 8), b.Output(arguments, 8, 3))


#: name -> (network, shape of one sample without time)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{kind: (lambda kind=kind: _layers(kind), (12,)) for kind in KINDS},
    **{
        f"{kind} graded": (lambda kind=kind: _graded(kind), (12,))
        for kind, module in so.neuron.kinds().items()
        if module.Neuron.grades
    },
    **{
        f"{kind} readout": (lambda kind=kind: _readout(kind), (12,))
        for kind in KINDS
        if kind != "sigma_delta"
    },
    "images": (_images, (2, 6, 6)),
    "decimated": (_decimated, (12,)),
    "encoders": (_encoders, (12,)),
    "sigma_delta output": (_output, (12,)),
}


@cache
def network(name: str) -> nn.Module:
    make, shape = NETWORKS[name]
    torch.manual_seed(5)
    module = make()
    module(spikes(1, *shape, 3))  # draws the delays
    for layer in module.modules():
        if isinstance(layer, so.axon.Delay):
            layer.delay.data = 7 * torch.rand_like(layer.delay)
    return module.eval()


def whole(name: str, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return network(name)(x).numpy()
