"""Torch modules for layers of ``.net`` files that are no block of ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.axon import StepDelay
from synapse_onnx.readers._net.layer import WEIGHT_ONE


class InputTransform(nn.Module):
    """The input transformation on Loihi: round(weight * x + bias), a whole number of 64ths.

    Args:
        weight, bias: integers.
    """

    def __init__(self, weight: int, bias: int) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the current of an input (N, C[, H, W], T); 64 is returned as 1."""
        return torch.round(x * self.weight + self.bias) / WEIGHT_ONE


class InputLayer(nn.Module):
    """An input with a neuron: transformation, neuron, step delay."""

    def __init__(self, transform: InputTransform, neuron: Any, step: StepDelay | None) -> None:
        super().__init__()
        self.transform, self.neuron, self.step = transform, neuron, step

    def forward(self, x: Any) -> Tensor:
        """Return the spikes of an input, a pair (real, imag) where the neuron is a resonator."""
        pair = isinstance(x, tuple | list)
        current = tuple(self.transform(part) for part in x) if pair else self.transform(x)
        spikes: Tensor = self.neuron(current)
        return spikes if self.step is None else self.step(spikes)


class Current(nn.Module):
    """A synapse without a neuron, whose current is the output; the imaginary part if complex."""

    def __init__(self, synapse: Any) -> None:
        super().__init__()
        self.synapse = synapse

    def forward(self, x: Tensor) -> Tensor:
        """Return the current (N, C[, H, W], T)."""
        z = self.synapse(x)
        current: Tensor = z[1] if self.synapse.complex else z
        return current
