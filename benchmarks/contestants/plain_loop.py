"""A plain loop in torch, time first, as one would write it by hand: float states, no fixed point.

Synapses run over all time steps at once; the loop holds the neuron, five elementwise operations.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._contest import Contestant, Run
from benchmarks._networks import (
    CURRENT_DECAY,
    PERIOD,
    RESONATOR_DECAY,
    RESONATOR_THRESHOLD,
    THRESHOLD,
    VOLTAGE_DECAY,
    Layer,
    Network,
)


def make(network: Network, spikes: Tensor) -> Run:
    """Bring the input to (T, N, C[, H, W])."""
    first = spikes.movedim(-1, 0).contiguous()

    @torch.no_grad()
    def run() -> Tensor:
        x = first
        for layer in network.layers:
            x = step(layer, x)
        return x.movedim(0, -1)

    return run


def activations(network: Network, spikes: Tensor) -> list[int]:
    """Return the number of elements of the input and of what every layer gives."""
    x = spikes.movedim(-1, 0)
    sizes = [x.numel()]
    for layer in network.layers:
        x = step(layer, x)
        sizes.append(x.numel())
    return sizes


def step(layer: Layer, x: Tensor) -> Tensor:
    """Run one layer over (T, N, C[, H, W])."""
    if layer.kind == "flatten":
        return x.flatten(2)
    if layer.kind == "resonator":
        real, imag = (F.linear(x, weight) for weight in layer.matrix)
        return resonate(real, imag)
    if layer.kind in ("dense", "recurrent"):
        return cuba(F.linear(x, layer.matrix), layer.feedback)
    images = x.flatten(0, 1)
    if layer.kind == "pool":
        images = 4 * 0.5 * F.avg_pool2d(images, 2)
    else:
        images = F.conv2d(images, layer.matrix, stride=layer.stride, padding=layer.padding)
    return cuba(images.unflatten(0, x.shape[:2]))


def cuba(currents: Tensor, feedback: Tensor | None = None) -> Tensor:
    """CUBA neurons over currents (T, N, ...), with feedback of the last spikes."""
    u = v = s = torch.zeros_like(currents[0])
    outputs = torch.empty_like(currents)
    for t, x in enumerate(currents):
        drive = x if feedback is None else x + s @ feedback.T
        u = u * (1 - CURRENT_DECAY) + drive
        v = v * (1 - VOLTAGE_DECAY) + u
        s = (v >= THRESHOLD).float()
        v = v * (1 - s)
        outputs[t] = s
    return outputs


def resonate(real: Tensor, imag: Tensor) -> Tensor:
    """RF neurons over complex currents (T, N, C)."""
    sin = (1 - RESONATOR_DECAY) * math.sin(2 * math.pi / PERIOD)
    cos = (1 - RESONATOR_DECAY) * math.cos(2 * math.pi / PERIOD)
    re = im = torch.zeros_like(real[0])
    outputs = torch.empty_like(real)
    for t in range(len(real)):
        before = im
        re, im = cos * re - sin * im + real[t], sin * re + cos * im + imag[t]
        outputs[t] = ((im >= 0) & (before < 0) & (re >= RESONATOR_THRESHOLD)).float()
    return outputs


CONTESTANT = Contestant("loop", "plain torch loop, time first, float states", make)
