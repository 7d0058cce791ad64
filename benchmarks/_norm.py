"""Cost of a norm between current and voltage of CUBA: within the neuron's op, and beside it."""

from __future__ import annotations

import functools
from typing import Any

import torch

import synapse_onnx as so
from benchmarks._measure import turns
from synapse_onnx.runtime import native

__all__ = ["norm_costs"]


def norm_costs(neurons: int, batch: int, steps: int, seconds: float) -> dict[str, float]:
    """Return the milliseconds of a sequence, with the norm in one op and with integrators.

    Whole means are a bias; some off the grid of the states are a norm in float32. It stands between
    two integrators where the scale of the states is no power of two.

    Args:
        neurons: channels of the input.
        batch: N of the input.
        steps: T of the input.
        seconds: time to spend.
    """
    x = torch.randn(steps, batch, neurons, generator=torch.Generator().manual_seed(0)) * 0.3
    runs: dict[str, Any] = {}
    ways = [("portable", False), *([("native", True)] if native.kernels() else [])]
    forms = (("bias", 64, 0.0), ("norm", 64, 1e-5), ("integrators", 48, 1e-5))
    for form, scale, offset in forms:
        neuron = so.neuron.cuba.Neuron(
            1.0, 0.25, 0.05, scale=scale, norm=so.neuron.norm.MeanOnlyBatchNorm
        )
        norm = neuron.eval().norm
        norm.num_features, norm.pre_hook_fx = neurons, None
        norm.running_mean = torch.round(torch.linspace(-16, 16, neurons)) / 64 + offset
        model = so.export(neuron, x.movedim(0, -1)[..., :2], layout="TNC")
        for way, kernels in ways:
            session = so.Session(model, native=kernels)
            runs[f"{form}, {way}"] = functools.partial(session.run, x.numpy())
    return {name: 1000 * took for name, took in turns(runs, seconds).items()}
