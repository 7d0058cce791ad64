"""Pooling synapse: one kernel, applied to every channel by itself.

y[n, c, i, j, t] = sum_{k, l} weight[k, l] * x[n, c, r(i, k), r(j, l), t],
with r(i, k) = i * stride + k * dilation - padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from synapse_onnx.ops._images import Images
from synapse_onnx.ops._synapse import register_synapse, seeded, spikes


class Pool(Images):
    """x (N, C, H, W, T), weight (1, 1, h, w, 1) -> y (N, C, H', W', T)."""

    name = "Pool"
    operator = "Conv"
    per_channel = grouped = True

    def samples(self) -> Sequence[tuple[str, Tensor, Tensor, tuple[Any, ...]]]:
        """The common 2x2, and overlapping windows with padding and dilation."""
        draw = seeded(9)
        odd: tuple[Any, ...] = ([1, 2], [1, 0], [2, 1], 1)
        return [
            ("2x2", spikes(10, 2, 3, 6, 4, 5), draw(1, 1, 2, 2, 1), ([2, 2], [0, 0], [1, 1], 1)),
            ("odd", spikes(11, 3, 2, 7, 6, 4), draw(1, 1, 3, 2, 1), odd),
        ]


OPS = register_synapse(Pool(), __doc__)
