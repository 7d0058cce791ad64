"""Delays of spikes by whole time steps, learned or fixed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Stateful
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.ops.delay import delay as delayed

__all__ = ["Delay", "StepDelay"]


class _DelayGradient(torch.autograd.Function):
    """Pass a delayed output on; the delay's gradient is the output's slope, backwards in time.

    Source: lava-dl, ``slayer/axon/delay.py``.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, delay: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(output, delay)
        ctx.scale = scale
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        output, delay = ctx.saved_tensors
        before = torch.cat([torch.zeros_like(output[..., :1]), output[..., :-1]], dim=-1)
        slope = (grads[0] * (before - output)).sum(dim=(0, -1))
        slope = slope.reshape(delay.numel(), -1).sum(1).reshape(delay.shape)
        return grads[0], ctx.scale * slope, None


class _Line(Stateful):
    """A line of past inputs."""

    noun, takes = "delay", "spikes"
    #: steps that the line keeps
    depth = 1

    def __init__(self, persistent_state: bool) -> None:
        super().__init__()
        self.persistent_state = persistent_state
        self.register_state("line", torch.float32)

    def state_depth(self, name: str) -> int | None:
        """Return the steps that the line keeps."""
        return self.depth

    def _shift(self, input: Tensor, steps: Tensor) -> Tensor:
        y, last = delayed(input, steps, *self.load_states(input))
        self.save_states(line=last)
        result: Tensor = y
        return result


class StepDelay(_Line):
    """A delay of one time step: on Loihi a layer receives the spikes of the step before.

    Args:
        persistent_state: keep the last input from one call to the next, until :meth:`reset`.
    """

    def __init__(self, persistent_state: bool = False) -> None:
        super().__init__(persistent_state)
        self.register_buffer("steps", torch.ones(1, dtype=torch.int64), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the spikes (N, C[, H, W], T) one step later; the first step is silent.

        Raises:
            ShapeError: wrong rank.
        """
        self._check_rank(input)
        steps: Any = self.steps
        return self._shift(input, steps)

    def describe(self) -> dict[str, Any]:
        """Return the kind and its one step."""
        return {"kind": "StepDelay", "delays": [1]}


class Delay(_Line):
    """Axonal delay: a number of time steps for each channel or each neuron, rounded down.

    Args:
        max_delay: longest delay, in the unit of ``sampling_time``; delays are clamped to 0 ...
            max_delay. None sets no limit.
        sampling_time: length of a time step; with the default of 1 delays count time steps.
        grad_scale: factor on the delays' gradient.
        persistent_state: keep the past inputs from one call to the next, until :meth:`reset`.

    Attributes:
        delay: the delays, one a channel (C,) or one a neuron (C * H * W,); the first input draws
            one a channel from [0, 1).

    Raises:
        InputError: an argument out of its range, or a checkpoint with a negative delay, or with
            one above ``max_delay``.
    """

    def __init__(
        self,
        max_delay: float | None = None,
        sampling_time: float = 1,
        grad_scale: float = 1,
        persistent_state: bool = False,
    ) -> None:
        super().__init__(persistent_state)
        if max_delay is not None and not (math.isfinite(max_delay) and max_delay >= 0):
            raise InputError(f"max_delay must be a finite number >= 0, or None, got {max_delay}")
        if not (math.isfinite(sampling_time) and sampling_time > 0):
            raise InputError(f"sampling_time must be a finite number > 0, got {sampling_time}")
        self.max_delay = max_delay
        self.sampling_time = sampling_time
        self.grad_scale = grad_scale
        self.init = False
        self.delay: Any = nn.Parameter(torch.zeros(1))

    @property
    def shape(self) -> torch.Size | None:  # type: ignore[override]
        """Shape of the delays; None before the first input."""
        return self.delay.shape if self.init else None

    def extra_repr(self) -> str:
        """Return the largest delay for ``repr``, where there is one."""
        return "" if self.max_delay is None else f"max_delay={self.max_delay:g}"

    def clamp(self) -> None:
        """Bring the delays back into 0 ... max_delay."""
        with torch.no_grad():
            self.delay.clamp_(0, self.max_delay)

    def forward(self, input: Tensor) -> Tensor:
        """Return the spikes (N, C[, H, W], T), each as many steps later as its delay says.

        Raises:
            ShapeError: wrong rank, or a number of neurons that the delays do not fit.
        """
        self._check_rank(input)
        if not self.init:
            self.delay.data = torch.rand(input.shape[1], device=input.device)
            self.init = True
        groups = self.delay.numel()
        if groups not in (1, input.shape[1], input.shape[1:-1].numel()):
            raise ShapeError(
                f"delay: it holds {groups} delays, and the input of shape {tuple(input.shape)} has "
                f"{input.shape[1]} channels and {input.shape[1:-1].numel()} neurons"
            )
        steps = self._steps()
        y = self._shift(input, steps) if self.depth > 0 else input
        if torch.is_grad_enabled() and self.delay.requires_grad:
            y = _DelayGradient.apply(y, self.delay, self.grad_scale)  # type: ignore[no-untyped-call]
        return y

    def _steps(self) -> Tensor:
        """Return the delays as whole steps; the line keeps as many as the longest."""
        delay: Tensor = self.delay
        if "delay" not in self._buffers:  # else it is frozen
            self.clamp()
            delay = torch.floor(delay.detach().flatten() / self.sampling_time).to(torch.int64)
            self.depth = int(delay.max())
        return delay

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the number of delays from the checkpoint, and refuse those out of range."""
        value = state_dict.get(prefix + "delay")
        if isinstance(value, Tensor):
            least, most = float(value.min()), float(value.max())
            if not least >= 0:
                raise InputError(f"{prefix}delay: delays must be >= 0, got {least:g}")
            if self.max_delay is not None and most > self.max_delay:
                raise InputError(
                    f"{prefix}delay: a delay of {most:g} is longer than max_delay = "
                    f"{self.max_delay:g}"
                )
            if not math.isfinite(most):
                raise InputError(f"{prefix}delay: delays must be finite, got {most:g}")
            self.delay.data = self.delay.data.new_zeros(value.shape)
            self.init = True
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def freeze(self) -> None:
        """Round the delays down and store them as integers; forget the past."""
        if not self.init:
            raise InputError(
                "an axonal delay draws its delays with the first input: run the network once, or "
                "load a checkpoint, before it is frozen"
            )
        if "delay" not in self._buffers:
            steps = self._steps()
            del self.delay
            self.register_buffer("delay", steps)
            super().freeze()

    def describe(self) -> dict[str, Any]:
        """Return kind and delays, in steps."""
        return {"kind": "Delay", "delays": self.delay.tolist()}
