"""A constant that is added to a current."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synapse_onnx._layer import Deployable
from synapse_onnx.ops.normalize import normalize

__all__ = ["Bias"]


class Bias(Deployable):
    """A constant added to a current at every time step.

    Args:
        bias: float32, one for all (1,) or one a channel (C,), in the unit of the current.
    """

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", -bias, persistent=False)
        self.register_buffer("std", torch.ones(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a current (N, C[, H, W], T) with the bias added."""
        y: Tensor = normalize(x, self.mean, self.std)
        return y

    def freeze(self) -> None:
        """There is nothing to store."""

    def describe(self) -> dict[str, Any]:
        """Return kind and bias."""
        mean: Any = self.mean
        return {"kind": "Bias", "bias": (-mean).tolist()}
