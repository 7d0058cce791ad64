"""Until which step the trajectories of torch and ONNX Runtime are comparable, sample by sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.model.layout import has_time

__all__ = ["Agreement"]


class Agreement:
    """The common prefix of both trajectories of each sample.

    One rounding can flip a spike. From there on the two networks have different inputs, and values
    that differ show no fault. So every sample counts up to its first flip.

    Steps are those of the network's input. A value with fewer steps holds bins of them, after a
    time decimation by 4 say: a bin is comparable while all of its steps are.

    Args:
        samples: size of the batch.
        steps: steps of the network's input.
    """

    def __init__(self, samples: int, steps: int) -> None:
        self._steps = steps
        self._until = np.full(samples, steps)

    def covers(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values (N, ...[, T]) are comparable; without time, those of whole samples.

        Returns:
            bool, of the shape of the values.
        """
        until = self._until.reshape(-1, *(1,) * (values.ndim - 1))
        bins = values.shape[-1] if has_time(values.ndim) else 1
        # the longest bins that give this number of bins; the last one may be cut short
        width = -(-self._steps // (bins - 1)) - 1 if bins > 1 else self._steps
        ends = np.minimum(np.arange(1, bins + 1) * max(width, 1), self._steps)
        return np.broadcast_to(ends <= until, values.shape)

    def end_at(self, flipped: NDArray[np.bool_]) -> None:
        """End the prefixes where values (N, ..., T) are flipped."""
        width = -(-self._steps // flipped.shape[-1])  # the shortest that bins can be
        for sample, *_, t in np.argwhere(flipped):
            self._until[sample] = min(self._until[sample], t * width)
