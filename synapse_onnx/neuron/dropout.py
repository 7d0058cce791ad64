"""Dropout of whole neurons: one that is dropped is silent for the whole sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synapse_onnx.errors import ShapeError

__all__ = ["Dropout"]


class Dropout(nn.Dropout):
    """Drop neurons of a batch (N, C[, H, W], T) for all time steps, in training.

    What is left is scaled by 1 / (1 - p), as lava-dl has it.

    Args:
        p: probability with which a neuron is dropped, 0 to 1.
        inplace: write into the input.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the spikes, those of dropped neurons zero.

        Raises:
            ShapeError: the input has no time axis behind batch and neurons.
        """
        if input.dim() < 3:
            raise ShapeError(
                f"dropout: expected spikes (N, C[, H, W], T), got shape {tuple(input.shape)}"
            )
        if not self.training or self.p == 0:
            return input
        kept = super().forward(torch.ones_like(input[..., :1]))
        return input.mul_(kept) if self.inplace else input * kept
