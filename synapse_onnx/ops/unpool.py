"""Unpooling synapse: one transposed kernel, applied to every channel by itself.

y[n, c, r(i, k), r(j, l), t] = sum over all i, j, k, l of weight[k, l] * x[n, c, i, j, t],
with r(i, k) = i * stride + k * dilation - padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from synapse_onnx.ops._images import Images
from synapse_onnx.ops._synapse import register_synapse, seeded, spikes


class Unpool(Images):
    """x (N, C, H, W, T), weight (1, 1, h, w, 1) -> y (N, C, H', W', T)."""

    name = "Unpool"
    operator = "ConvTranspose"
    per_channel = True

    def samples(self) -> Sequence[tuple[str, Tensor, Tensor, tuple[Any, ...]]]:
        """The common 2x2, and overlapping windows with padding and dilation."""
        draw = seeded(12)
        odd: tuple[Any, ...] = ([1, 3], [1, 0], [2, 1], 1)
        return [
            ("2x2", spikes(13, 2, 3, 3, 4, 5), draw(1, 1, 2, 2, 1), ([2, 2], [0, 0], [1, 1], 1)),
            ("odd", spikes(14, 3, 2, 4, 3, 4), draw(1, 1, 3, 2, 1), odd),
        ]


OPS = register_synapse(Unpool(), __doc__)
