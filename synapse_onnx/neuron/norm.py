"""Batch normalisation of currents that hardware can hold: a mean, and a power of two.

Source: lava-dl, ``slayer/neuron/norm.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.ops.normalize import normalize

__all__ = ["MeanOnlyBatchNorm", "WgtScaleBatchNorm"]


class MeanOnlyBatchNorm(nn.Module):
    """Subtract the mean of every channel: y = x - mean.

    Args:
        num_features: number of channels C; None takes it from the first input.
        momentum: weight of a batch in the running mean, 0 to 1.
        pre_hook_fx: quantisation of the mean, a function of a tensor (C,). A neuron sets its own
            ``quantize_8bit``.

    Attributes:
        running_mean: mean of the batches seen in training, float32 (C,), in the unit of the
            threshold.
        update: whether training uses and updates the statistics of the batch.
    """

    running_mean: Tensor

    def __init__(
        self,
        num_features: int | None = None,
        momentum: float = 0.1,
        pre_hook_fx: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise InputError(f"momentum must lie in [0, 1], got {momentum}")
        self.num_features = num_features
        self.momentum = momentum
        self.pre_hook_fx: Callable[..., Tensor] | None = pre_hook_fx
        self.register_buffer("running_mean", torch.zeros(num_features or 1))
        self.update = True
        #: standard deviation in the frozen form, float32 (1,); None before
        self.frozen_std: Tensor | None
        self.register_buffer("frozen_std", None)

    def reset_parameters(self) -> None:
        """Forget the statistics."""
        self.running_mean.zero_()

    def _hooked(self, mean: Tensor) -> Tensor:
        return mean if self.pre_hook_fx is None else self.pre_hook_fx(mean)

    @property
    def bias(self) -> Tensor:
        """The bias that takes the mean's place on hardware: an integer, in units of 1 / scale."""
        if self.pre_hook_fx is None:
            return -self.running_mean
        return -self.pre_hook_fx(self.running_mean, descale=True)

    def check(self, input: Tensor) -> None:
        """Refuse currents of another number of channels.

        Raises:
            ShapeError: the number of channels is another than ``num_features``.
        """
        if input.dim() < 2 or (self.num_features and input.shape[1] != self.num_features):
            raise ShapeError(
                f"{type(self).__name__}: expected {self.num_features} channels (axis 1), got an "
                f"input of shape {tuple(input.shape)}"
            )

    def forward(self, input: Tensor) -> Tensor:
        """Normalise currents (N, C[, H, W], T).

        Raises:
            ShapeError: the number of channels is another than that of the statistics.
        """
        channels = self.running_mean.numel()
        self.check(input)
        self.num_features = input.shape[1]
        if self.frozen_std is not None:
            mean, std = self.running_mean, self.frozen_std
        elif self.training and self.update:
            mean = input.transpose(0, 1).flatten(1).mean(dim=1)
            std = self._std(input)
            with torch.no_grad():
                self.running_mean = self._moved(self.running_mean.expand_as(mean), mean)
        elif channels not in (1, self.num_features):
            raise ShapeError(
                f"{type(self).__name__}: statistics of {channels} channels and an input of shape "
                f"{tuple(input.shape)}"
            )
        else:
            mean, std = self.running_mean, self._std(None)
        y: Tensor = normalize(input, self._hooked(mean), std)
        return y

    def _std(self, input: Tensor | None) -> Tensor:
        """Return the standard deviation to divide by, of a batch or the running one, (1,)."""
        return torch.ones(1, device=self.running_mean.device)

    def _moved(self, running: Tensor, batch: Tensor) -> Tensor:
        return (1 - self.momentum) * running + self.momentum * batch.detach()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the number of channels from the checkpoint."""
        value = state_dict.get(prefix + "running_mean")
        if isinstance(value, Tensor) and value.dim() == 1 and self.num_features is None:
            self.running_mean = self.running_mean.new_zeros(value.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def freeze(self) -> None:
        """Replace the statistics by the values in use: quantised mean, standard deviation."""
        self.eval()
        self.running_mean = self._hooked(self.running_mean).detach().clone()
        self.frozen_std = self._std(None)
        self.pre_hook_fx = None


class WgtScaleBatchNorm(MeanOnlyBatchNorm):
    """Subtract the mean of every channel and divide by a power of two near the deviation of all.

    y = (x - mean) / 2^k, where 2^(k-1) < deviation <= 2^k, and k is clamped to
    ``-weight_exp_bits ... weight_exp_bits``.

    Args:
        num_features, momentum: see :class:`MeanOnlyBatchNorm`.
        weight_exp_bits: largest magnitude of the exponent k.
        eps: added to the variance, in the threshold's unit squared.
        pre_hook_fx: see :class:`MeanOnlyBatchNorm`.
    """

    running_var: Tensor

    def __init__(
        self,
        num_features: int | None = None,
        momentum: float = 0.1,
        weight_exp_bits: int = 3,
        eps: float = 1e-5,
        pre_hook_fx: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(num_features, momentum, pre_hook_fx)
        self.weight_exp_bits = weight_exp_bits
        self.eps = eps
        self.register_buffer("running_var", torch.zeros(1))

    def reset_parameters(self) -> None:
        """Forget the statistics."""
        super().reset_parameters()
        self.running_var.zero_()

    def std(self, variance: Tensor) -> Tensor:
        """Return the power of two at or above the deviation, within the exponent's bits."""
        return torch.pow(
            2.0, self._exponent(variance).clamp(-self.weight_exp_bits, self.weight_exp_bits)
        )

    def _exponent(self, variance: Tensor) -> Tensor:
        return torch.ceil(torch.log2(torch.sqrt(variance + self.eps)))

    @property
    def weight_exp(self) -> Tensor:
        """Exponent of the weights on hardware, not clamped."""
        return self._exponent(self.running_var)

    def _std(self, input: Tensor | None) -> Tensor:
        if input is None:
            return self.std(self.running_var)
        variance = input.var(unbiased=False).reshape(1)
        count = input.numel() / input.shape[1]
        with torch.no_grad():
            self.running_var = self._moved(self.running_var, variance * count / (count + 1))
        return self.std(variance)
