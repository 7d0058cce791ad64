"""What pooling and unpooling share: one kernel of ones, and lava-dl's merged rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from synapse_onnx.errors import ShapeError
from synapse_onnx.synapse._generic import GenericLayer

__all__ = ["Window", "check_merged", "merged"]


class Window(GenericLayer):
    """A synapse whose kernel serves every channel and is not trained.

    Attributes:
        merge_channels: whether channels and rows are one axis of C * H rows, as in lava-dl.
    """

    channel_axis = None
    merge_channels: bool

    def _set_up_window(self, merge_channels: bool) -> None:
        """Set the kernel to ones, not trained."""
        self.merge_channels = merge_channels
        self.weight = nn.Parameter(torch.ones_like(self.weight), requires_grad=False)

    def _check_channels(self, input: Tensor) -> None:
        """Any number of channels will do."""


def check_merged(layer: Window, input: Tensor, rows: int) -> None:
    """Refuse merged rows that cannot be given back to the channels."""
    if rows % input.shape[1]:
        raise ShapeError(
            f"{type(layer).__name__}: with merge_channels the {rows} output rows cannot be shared "
            f"among {input.shape[1]} channels; this geometry needs merge_channels=False"
        )


def merged(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return (N, 1, C * H, W, T) of (N, C, H, W, T), and the function that separates channels."""
    n, c, h, w, t = x.shape
    rows = x.reshape(n, 1, c * h, w, t)
    return rows, lambda y: y.reshape(y.shape[0], c, y.shape[2] // c, y.shape[3], y.shape[4])
