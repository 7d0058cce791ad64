"""Transposed convolution synapse over height and width, the same at every time step.

y[n, o, r(i, k), r(j, l), t] = sum over all i, j, k, l, c of weight[c, o, k, l] * x[n, c, i, j, t],
with r(i, k) = i * stride + k * dilation - padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from synapse_onnx.ops._images import Images
from synapse_onnx.ops._synapse import register_synapse, seeded, spikes


class ConvTranspose(Images):
    """x (N, C, H, W, T), weight (C, O / groups, h, w, 1) -> y (N, O, H', W', T)."""

    name = "ConvTranspose"
    biased = True
    operator = "ConvTranspose"

    def samples(self) -> Sequence[tuple[str, Tensor, Tensor, tuple[Any, ...]]]:
        """Plain, and with every argument off its default."""
        draw = seeded(6)
        plain: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)
        odd: tuple[Any, ...] = ([2, 3], [1, 0], [2, 1], 2)
        return [
            ("plain", spikes(7, 2, 2, 4, 3, 5), draw(2, 3, 3, 3, 1), plain),
            ("odd", spikes(8, 3, 4, 5, 4, 4), draw(4, 3, 2, 3, 1), odd),
        ]


OPS = register_synapse(ConvTranspose(), __doc__)
