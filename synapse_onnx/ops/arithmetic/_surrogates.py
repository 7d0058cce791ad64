"""Surrogate gradients of spikes, those of lava-dl's slayer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["PhaseSurrogate", "Surrogate"]


class Surrogate(torch.autograd.Function):
    """Spikes where ``voltage >= limit``, with slayer's gradient; the limit's is its negative."""

    @staticmethod
    def forward(
        ctx: Any, voltage: Tensor, limit: Tensor, fired: Tensor, tau: float, scale: float,
        graded: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(voltage, limit)
        ctx.constants = tau, scale, graded
        return torch.where(fired, voltage, 0) if graded else fired.to(voltage.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        voltage, limit = ctx.saved_tensors
        tau, scale, graded = ctx.constants
        distance = voltage - limit
        if graded:
            slope = scale * torch.exp(distance.clamp(max=0) / tau)
        else:
            slope = scale / (2 * tau) * torch.exp(-distance.abs() / tau)
        grad = grads[0] * slope
        return grad, (-grad).sum_to_size(limit.shape), None, None, None, None


class PhaseSurrogate(torch.autograd.Function):
    """Spikes where the phase passes zero with ``real >= limit``, with slayer's gradient.

    Source: lava-dl, ``slayer/spike/complex.py``.
    """

    @staticmethod
    def forward(
        ctx: Any, real: Tensor, imag: Tensor, limit: Tensor, fired: Tensor, tau: float,
        scale: float, graded: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(real, imag, limit)
        ctx.constants = tau, scale, graded
        return torch.where(fired, real, 0) if graded else fired.to(real.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        real, imag, limit = ctx.saved_tensors
        tau, scale, graded = ctx.constants
        above = real - limit
        if graded:
            near_real = torch.exp(above.clamp(max=0) / tau)
        else:
            near_real = torch.exp(-above.abs() / tau) / (2 * tau)
        near_imag = torch.exp(-imag.abs() / tau) / (2 * tau)
        step = (1 + above.sign() * (1 - 2 * tau * near_real)) / 2
        grad_real = grads[0] * scale * near_real * near_imag
        grad_imag = grads[0] * -scale / tau * imag.sign() * near_imag * step
        grad_limit = (-grad_real).sum_to_size(limit.shape)
        return grad_real, grad_imag, grad_limit, None, None, None, None
