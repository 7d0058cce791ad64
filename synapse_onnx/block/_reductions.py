"""Blocks without a neuron: flattening, and means over neurons or time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synapse_onnx._layer import Deployable
from synapse_onnx._view import view
from synapse_onnx.block._block import Block, Output
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.ops.average import average
from synapse_onnx.ops.time_decimation import time_decimation

__all__ = ["Average", "Flatten", "TimeDecimation"]


class Flatten(Block):
    """Images (N, C, H, W, T) as neurons (N, C * H * W, T).

    Args:
        count_log: also return None, in the place of a spike rate.
    """

    def __init__(self, count_log: bool = False) -> None:
        super().__init__(count_log)
        self.shape: list[int] | None = None

    def forward(self, x: Tensor) -> Output:
        """Return the input with one axis of neurons."""
        if x.dim() != 5:
            raise ShapeError(f"Flatten: expected (N, C, H, W, T), got shape {tuple(x.shape)}")
        n, c, h, w, t = x.shape
        self.shape = [c * h * w, 1, 1]
        return self._logged(view(x, n, c * h * w, t), spikes=False)


class _Mean(Deployable):
    """A mean of neurons or time steps."""

    def describe(self) -> dict[str, Any]:
        """Return the kind; sums over a grid are exact while they are short enough."""
        return {"kind": type(self).__name__.lstrip("_"), "sums": True}


class _Average(_Mean):
    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    def forward(self, x: Tensor) -> Any:
        neurons = x.shape[1:-1].numel()
        if x.dim() not in (3, 5) or neurons % self.num_outputs:
            raise ShapeError(
                f"Average: an input of shape {tuple(x.shape)} has {neurons} neurons, which do not "
                f"make {self.num_outputs} equal groups"
            )
        return average(x, self.num_outputs)


class Average(Block):
    """Mean over equal groups of neurons.

    The C * H * W neurons are taken in this order.

    Args:
        num_outputs: number of groups, which divides the number of neurons.
        count_log: also return None, in the place of a spike rate.
    """

    def __init__(self, num_outputs: int, count_log: bool = False) -> None:
        super().__init__(count_log)
        if not (isinstance(num_outputs, int) and num_outputs > 0):
            raise InputError(f"num_outputs must be a positive integer, got {num_outputs!r}")
        self.num_outputs = num_outputs
        self.mean = _Average(num_outputs)

    def forward(self, x: Tensor) -> Output:
        """Return the means (N, num_outputs, T)."""
        return self._logged(self.mean(x), spikes=False)

    @property
    def shape(self) -> torch.Size:
        """Shape of the outputs."""
        return torch.Size([self.num_outputs, 1, 1])


class _TimeDecimation(_Mean):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor  # by this name the exporter finds it, for chunks of whole bins

    def forward(self, x: Tensor) -> Any:
        if x.dim() not in (3, 5):
            raise ShapeError(
                f"TimeDecimation: expected (N, C, T) or (N, C, H, W, T), got {tuple(x.shape)}"
            )
        return time_decimation(x, self.factor)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "factor": self.factor}


class TimeDecimation(Block):
    """Mean over bins of time; the last bin is filled up with zeros.

    A streamed network takes whole bins: ``Session.stream`` collects them and fills up the last.

    Args:
        factor: time steps of a bin, a power of two.
        count_log: also return None, in the place of a spike rate.
    """

    def __init__(self, factor: int, count_log: bool = False) -> None:
        super().__init__(count_log)
        if int(factor) != factor or factor < 1 or int(factor) & (int(factor) - 1):
            raise InputError(f"factor must be a power of two, got {factor!r}")
        self.factor = int(factor)
        self.mean = _TimeDecimation(self.factor)

    def forward(self, x: Tensor) -> Output:
        """Return (N, C[, H, W], ceil(T / factor))."""
        return self._logged(self.mean(x), spikes=False)
