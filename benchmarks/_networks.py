"""The networks that are measured, stated once; contestants build theirs from the same weights.

A network is a list of layers over spikes (N, C[, H, W], T). Behind every dense, convolution and
pool stands a CUBA neuron, so that every contestant computes the same number of neurons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

#: parameters of every neuron; a decay is the fraction lost every step
THRESHOLD, CURRENT_DECAY, VOLTAGE_DECAY = 8.0, 0.25, 0.0625
#: parameters of a resonator; its period is in time steps
RF = {"threshold": 0.3, "period": 8.0, "decay": 0.05}


@dataclass(frozen=True)
class Layer:
    """One layer: "dense", "conv", "pool", "flatten", "recurrent" or "resonator".

    Attributes:
        kind: see above.
        weight: (O, I) or (O, I, k, k); of a resonator (2, O, I), real and imaginary.
        feedback: (O, O), of a recurrent layer.
        stride, padding: (height, width), of a convolution.
    """

    kind: str
    weight: Tensor | None = None
    feedback: Tensor | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Network:
    """A network, the shape (C[, H, W]) of its input, and its usual number of time steps."""

    id: str
    title: str
    shape: tuple[int, ...]
    steps: int
    layers: tuple[Layer, ...]
    #: "q8": weights are multiples of 1/32 and neurons in fixed point; "float": neither
    numbers: str = "float"

    def spikes(self, batch: int, steps: int | None = None, rate: float = 0.1) -> Tensor:
        """Return random spikes (N, C[, H, W], T), the same every time."""
        generator = torch.Generator().manual_seed(0)
        size = (batch, *self.shape, self.steps if steps is None else steps)
        return (torch.rand(size, generator=generator) < rate).float()

    def in_q8(self) -> Network:
        """Return the same network with weights rounded to multiples of 1/32."""

        def rounded(weight: Tensor | None) -> Tensor | None:
            return None if weight is None else (weight * 32).round().clamp(-128, 127) / 32

        layers = tuple(
            replace(x, weight=rounded(x.weight), feedback=rounded(x.feedback)) for x in self.layers
        )
        return replace(self, layers=layers, numbers="q8")


def networks() -> dict[str, Network]:
    """Return the five networks by their letter, with float weights."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        # inputs of rate 0.1 bring the voltage, 64 times the mean current, near the threshold
        fan_in = math.prod(shape[1:])
        noise = torch.randn(shape, generator=generator)
        return (THRESHOLD / 6.4) * (3 * noise / math.sqrt(fan_in) + 3 / fan_in)

    def dense(inputs: int, outputs: int) -> Layer:
        return Layer("dense", draw(outputs, inputs))

    def conv(inputs: int, outputs: int, size: int, stride: tuple[int, int] = (1, 1),
             padding: tuple[int, int] = (0, 0)) -> Layer:  # fmt: skip
        return Layer("conv", draw(outputs, inputs, size, size), stride=stride, padding=padding)

    def resonator(inputs: int, outputs: int) -> Layer:
        return Layer("resonator", torch.stack([draw(outputs, inputs) for _ in range(2)]))

    pool, flatten = Layer("pool"), Layer("flatten")
    found = [
        Network("a", "MLP 2312-512-512-10", (2312,), 300,
                (dense(2312, 512), dense(512, 512), dense(512, 10))),
        Network("b", "CNN 2x32x32, conv5-16, pool2, conv3-32, pool2, dense-10", (2, 32, 32), 100,
                (conv(2, 16, 5, padding=(2, 2)), pool, conv(16, 32, 3, padding=(1, 1)), pool,
                 flatten, dense(32 * 8 * 8, 10))),
        # strides and paddings of lava-dl's PilotNet; the fifth convolution makes it NVIDIA's five
        Network("c", "PilotNet 3x66x200, five convs, four dense", (3, 66, 200), 16,
                (conv(3, 24, 3, (2, 2)), conv(24, 36, 3, (2, 2)), conv(36, 64, 3, (2, 2), (1, 0)),
                 conv(64, 64, 3, (2, 2)), conv(64, 64, 3, padding=(1, 0)), flatten,
                 dense(64 * 3 * 9, 100), dense(100, 50), dense(50, 10), dense(10, 1))),
        Network("d", "complex RF MLP 200-256-200", (200,), 2000,
                (resonator(200, 256), resonator(256, 200))),
        Network("e", "recurrent 700-256-20", (700,), 100,
                (replace(dense(700, 256), kind="recurrent", feedback=draw(256, 256) * 0.2),
                 dense(256, 20))),
    ]  # fmt: skip
    return {network.id: network for network in found}
