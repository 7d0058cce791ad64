"""The delta encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Stateful, whole_scale
from synapse_onnx._view import view
from synapse_onnx.errors import InputError
from synapse_onnx.ops.delta import delta

__all__ = ["Delta"]


class Delta(Stateful):
    """Delta encoder: it sends the change of its input, once that reaches a threshold.

    A change is floored to a multiple of 1 / scale; the rest is kept in a residual and added to the
    next change.
    Source: lava-dl, ``slayer/axon/delta.py``.

    Args:
        threshold: least change that is sent, >= 0, in the unit of the input; in the slayer regime
            at least 1 / scale is used.
        scale: integer that represents a change of 1.0; messages are multiples of 1 / scale.
        tau_grad: width of the threshold's surrogate gradient.
        scale_grad: height of the threshold's surrogate gradient.
        cum_error: compare the sum of all changes since the last message with the threshold, not
            the last change and its residual.
        shared_param: one threshold for all neurons; False: one a channel, (C,).
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        requires_grad: learn the threshold.
        regime: "slayer", or "loihi", where a threshold of zero sends every change
            (:mod:`synapse_onnx.ops.arithmetic.loihi`). What is compared and sent is computed in one
            order everywhere, to the last bit, in both.

    Example:
        >>> import torch
        >>> Delta(threshold=0.5)(torch.tensor([[[0.0, 0.4, 0.8, 0.8, 0.2]]]))
        tensor([[[ 0.0000,  0.0000,  0.7969,  0.0000, -0.6094]]])
    """

    noun = "delta encoder"
    spiking = True

    def __init__(
        self,
        threshold: float,
        scale: int = 1 << 6,
        tau_grad: float = 1,
        scale_grad: float = 1,
        cum_error: bool = False,
        shared_param: bool = True,
        persistent_state: bool = False,
        requires_grad: bool = False,
        regime: str = "slayer",
    ) -> None:
        super().__init__()
        if regime not in ("slayer", "loihi"):
            raise InputError(f"regime of a delta encoder must be slayer or loihi, got {regime!r}")
        self.regime = regime
        if not (math.isfinite(threshold) and threshold >= 0):
            raise InputError(f"threshold must be a finite number >= 0, got {threshold}")
        self.scale = whole_scale(scale)
        self.tau_grad, self.scale_grad = tau_grad, scale_grad
        self.cum_error = cum_error
        self.shared_param = shared_param
        self.persistent_state = persistent_state
        self.requires_grad = requires_grad
        self.threshold: Any = nn.Parameter(
            torch.tensor([float(threshold)]), requires_grad=requires_grad
        )
        for name in ("pre", "residual", "error"):
            self.register_state(name, torch.float32)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        device: torch.device = self.threshold.device
        return device

    def clamp(self) -> None:
        """Keep the threshold at 1 / scale or more, in the slayer regime; else at zero or more."""
        with torch.no_grad():
            self.threshold.clamp_(min=1 / self.scale if self.regime == "slayer" else 0)

    def forward(self, input: Tensor) -> Tensor:
        """Return what is sent, of the shape of the input (N, C[, H, W], T).

        Raises:
            ShapeError: wrong rank, or another shape than that of the first input.
        """
        if self._check_shape(input) and not self.shared_param and self.threshold.numel() == 1:
            self.threshold.data = self.threshold.data.expand(input.shape[1]).clone()
        if "threshold" not in self._buffers:  # else it is frozen
            self.clamp()
        tail = (self.scale, self.cum_error, float(self.tau_grad), float(self.scale_grad))
        # a checkpoint may hold one a channel as (C, 1, 1); a frozen one goes into a file as it is
        threshold = self.threshold if self.threshold.dim() == 1 else view(self.threshold, -1)
        sent: Tensor
        sent, *last = delta(input, threshold, *self.load_states(input), *tail)
        self.save_states(**dict(zip(self.state_starts, last, strict=True)))
        return sent

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shape of the threshold from the checkpoint."""
        value = state_dict.get(prefix + "threshold")
        if isinstance(value, Tensor) and not self.shared_param:
            self.threshold.data = self.threshold.data.new_zeros(value.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def freeze(self) -> None:
        """Store the threshold in use; forget the states."""
        self.clamp()
        value = self.threshold.detach().flatten().clone()
        del self.threshold
        self.register_buffer("threshold", value)
        super().freeze()

    def describe(self) -> dict[str, Any]:
        """Return kind, threshold and scale."""
        return {"kind": "Delta", "threshold": self.threshold.tolist(), "scale": self.scale}
