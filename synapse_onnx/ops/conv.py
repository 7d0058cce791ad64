"""Convolution synapse over height and width, the same at every time step.

y[n, o, i, j, t] = sum_{c, k, l} weight[o, c, k, l] * x[n, c, r(i, k), r(j, l), t],
with r(i, k) = i * stride + k * dilation - padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from synapse_onnx.ops._images import Images
from synapse_onnx.ops._synapse import register_synapse, seeded, spikes


class Conv(Images):
    """x (N, C, H, W, T), weight (O, C / groups, h, w, 1) -> y (N, O, H', W', T)."""

    name = "Conv"
    biased = True
    operator = "Conv"

    def samples(self) -> Sequence[tuple[str, Tensor, Tensor, tuple[Any, ...]]]:
        """Plain, and with every argument off its default."""
        draw = seeded(3)
        plain: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)
        odd: tuple[Any, ...] = ([2, 1], [0, 2], [1, 2], 2)
        return [
            ("plain", spikes(4, 2, 2, 7, 6, 5), draw(3, 2, 3, 3, 1), plain),
            ("odd", spikes(5, 3, 4, 9, 8, 4), draw(6, 2, 2, 3, 1), odd),
        ]


OPS = register_synapse(Conv(), __doc__)
