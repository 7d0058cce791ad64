"""Torch modules for NIR nodes that no layer of ours covers.

A parameter has the shape (1,), (C,) or (C, H, W), and x is (N, C[, H, W], T).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._view import view
from synapse_onnx.block.base import Bias
from synapse_onnx.readers._fields import Shape


class _PerNeuron(nn.Module):
    """A function of x and of a parameter, a buffer by the name of the class."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer(type(self).__name__.lower(), value)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C[, H, W], T)."""
        (value,) = self.buffers()
        return self._result(x, view(value, *value.shape, *(1,) * (x.dim() - 1 - value.dim())))

    def _result(self, x: Tensor, value: Tensor) -> Tensor:
        raise NotImplementedError


class Scale(_PerNeuron):
    """x * scale."""

    def _result(self, x: Tensor, value: Tensor) -> Tensor:
        return x * value


class Offset(_PerNeuron):
    """x + offset."""

    def _result(self, x: Tensor, value: Tensor) -> Tensor:
        return x + value


class Threshold(_PerNeuron):
    """1 where x > threshold, else 0."""

    def _result(self, x: Tensor, value: Tensor) -> Tensor:
        return (x > value).to(torch.float32)


class PoolWindows(nn.Module):
    """Sum over whole windows, divided by ``count``: height and width are cut to ``size``, if given.

    Ours pools an incomplete window at the end of an axis too; torch, and so NIR, drops it.
    """

    def __init__(self, pool: Any, size: tuple[int, int] | None, count: int) -> None:
        super().__init__()
        self.pool, self.size, self.count = pool, size, count

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W, T)."""
        y: Tensor = self.pool(x)
        if self.size is not None:
            y = y[:, :, : self.size[0], : self.size[1]]
        return y if self.count == 1 else y / self.count


class Reshape(nn.Module):
    """The same neurons in another shape."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, *shape, T)."""
        return view(x, x.shape[0], *self.shape, x.shape[-1])


class PadEnd(nn.Module):
    """Zeros at the bottom and at the right.

    torch's ``padding="same"`` with an even kernel pads one row and column more there.
    """

    def __init__(self, bottom: int, right: int) -> None:
        super().__init__()
        self.bottom, self.right = bottom, right

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H + bottom, W + right, T)."""
        return nn.functional.pad(x, (0, 0, 0, self.right, 0, self.bottom))


class Part(nn.Module):
    """One of several outputs of a module."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, values: tuple[Tensor, ...]) -> Tensor:
        """Return the output of this number."""
        return values[self.index]


class FeedbackNeuron(nn.Module):
    """A neuron that receives its own spikes one time step later, through a synapse."""

    def __init__(self, neuron: Any, recurrent_synapse: Any, bias: Bias | None) -> None:
        super().__init__()
        self.bias, self.recurrent_synapse, self.neuron = bias, recurrent_synapse, neuron
        neuron.feed_back(recurrent_synapse)

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes (N, C, T)."""
        spikes: Tensor = self.neuron(x if self.bias is None else self.bias(x))
        return spikes


def chain(*layers: nn.Module | None) -> nn.Module:
    """Return the layers that are not None, in sequence; a single one as it is."""
    present = [layer for layer in layers if layer is not None]
    return present[0] if len(present) == 1 else nn.Sequential(*present)
