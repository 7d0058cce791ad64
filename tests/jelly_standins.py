"""A neuron under SpikingJelly's class paths that runs a whole sequence in one opaque operator."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_OPERATOR = "sj_standin::forward"


def _kernel(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    spikes = []
    for current in x:
        v = v + current
        spike = (v >= 1.0).to(x.dtype)
        v = v - spike
        spikes.append(spike)
    return torch.stack(spikes), v


@torch.library.custom_op(_OPERATOR, mutates_args=())
def _operator(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    spikes, v = _kernel(x, v)
    return spikes, v.clone()


@_operator.register_fake
def _(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x[0])


class MultiStep(nn.Module):
    """Takes (T, N, C), and keeps its voltage until it is reset."""

    def __init__(self, step_mode: str = "m") -> None:
        super().__init__()
        self.step_mode = step_mode
        self.reset()

    def reset(self) -> None:
        self.v: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        package = sys.modules["spikingjelly._ops.standin"]
        start = self.v if isinstance(self.v, Tensor) else torch.zeros_like(x[0])
        spikes, self.v = package._forward(x, start)
        return spikes


MultiStep.__module__ = "spikingjelly.activation_based.neuron.standin"


@contextmanager
def standing_in() -> Iterator[types.ModuleType]:
    """Put the stand-ins where SpikingJelly's modules would be; return the operator's package."""
    package = types.ModuleType("spikingjelly._ops.standin")
    package._forward = torch.ops.sj_standin.forward.default
    package._cpu = types.SimpleNamespace(_forward_impl=_kernel)
    added = {package.__name__: package}
    if "spikingjelly" not in sys.modules:
        added["spikingjelly"] = types.ModuleType("spikingjelly")
    sys.modules.update(added)
    try:
        yield package
    finally:
        for name in added:
            del sys.modules[name]
