"""Dendrites: the decoder that turns a sequence of messages back into currents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synapse_onnx._layer import Stateful
from synapse_onnx.ops.sigma import sigma

__all__ = ["Sigma"]


class Sigma(Stateful):
    """Sigma decoder: the running sum of the changes that a delta encoder sent.

    y[t] = y[t-1] + x[t], summed in float64 as lava-dl does, and rounded to float32.

    Args:
        persistent_state: keep the sum from one call to the next, until :meth:`reset`.

    Example:
        >>> import torch
        >>> Sigma()(torch.tensor([[[1.0, 0.0, -0.5]]]))
        tensor([[[1.0000, 1.0000, 0.5000]]])
    """

    noun = "sigma decoder"

    def __init__(self, persistent_state: bool = False) -> None:
        super().__init__()
        self.persistent_state = persistent_state
        self.register_state("total", torch.float64)

    def forward(self, input: Tensor) -> Tensor:
        """Return the running sum over time of an input (N, C[, H, W], T).

        Raises:
            ShapeError: wrong rank, or another shape than that of the first input.
        """
        self._check_shape(input)
        y: Tensor
        y, last = sigma(input, *self.load_states(input))
        self.save_states(total=last)
        return y

    @property
    def device_params(self) -> dict[str, Any]:
        """Parameters for Loihi."""
        return {"type": "SDNN", "sigma_output": True}

    def describe(self) -> dict[str, Any]:
        """Return the kind of this layer."""
        return {"kind": "Sigma"}
