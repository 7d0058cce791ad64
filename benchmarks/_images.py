"""Costs of quantised synapses over images, by the function in the file and by a native kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

import synapse_onnx as so
from benchmarks._measure import turns

__all__ = ["SYNAPSES", "image_costs"]

_CONV = {"weight_scale": 2, "pre_hook_fx": so.quantize.q8}
_POOL = {"weight_scale": 0.5, "pre_hook_fx": so.quantize.q8}

#: name -> channels of the input, whose images have 16 x 16 pixels, and what makes the synapse
SYNAPSES: dict[str, tuple[int, Callable[[], torch.nn.Module]]] = {
    f"{'complex ' * (space is so.synapse.complex)}{name}": (
        channels,
        functools.partial(make, space),
    )
    for space in (so.synapse, so.synapse.complex)
    for name, channels, make in (
        ("conv 32-32, 3x3", 32, lambda s: s.Conv(32, 32, 3, padding=1, **_CONV)),
        ("conv 32-32, 3x3, stride 2", 32, lambda s: s.Conv(32, 32, 3, 2, 1, **_CONV)),
        ("transposed 32-16, 3x3, stride 2", 32, lambda s: s.ConvTranspose(32, 16, 3, 2, **_CONV)),
        ("transposed 32-32, 3x3", 32, lambda s: s.ConvTranspose(32, 32, 3, padding=1, **_CONV)),
        ("pool 32, 2x2", 32, lambda s: s.Pool(2, **_POOL)),
        ("unpool 32, 2x2", 32, lambda s: s.Unpool(2, **_POOL)),
        ("unpool 32, 3x3, stride 2", 32, lambda s: s.Unpool(3, 2, **_POOL)),
    )
}


def image_costs(name: str, rate: float, batch: int, steps: int, seconds: float) -> dict[str, float]:
    """Return the milliseconds of one of :data:`SYNAPSES`, of "body" and "kernel".

    Args:
        name: which synapse.
        rate: share of the inputs that spike.
        batch: N of the input.
        steps: T of the input.
        seconds: time to spend.

    Raises:
        SynapseError: there are no native kernels.
    """
    channels, make = SYNAPSES[name]
    torch.manual_seed(0)
    synapse = make().eval()
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(steps, batch, channels, 16, 16, generator=generator) < rate).float()
    model = so.export(synapse, x.movedim(0, -1)[..., :2], layout="TNC")
    runs: dict[str, Any] = {}
    for way, native in (("body", False), ("kernel", True)):
        session = so.Session(model, native=native)
        runs[way] = functools.partial(session.run, x.numpy())
    return {way: 1000 * took for way, took in turns(runs, seconds).items()}
