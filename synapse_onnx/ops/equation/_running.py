"""Runs an equation on tensors, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.ops._neuron import time_back, time_major
from synapse_onnx.ops.arithmetic import Dual, Fixed, Float, Loihi, LoihiDual, Normed, NormedDual
from synapse_onnx.ops.equation._declaration import Equation

__all__ = ["ARITHMETICS", "dynamics", "recurrent", "spikes"]

#: regime -> its arithmetic on tensors, and the one that autograd follows
ARITHMETICS: dict[str, tuple[type[Float], type[Float]]] = {
    "slayer": (Fixed, Dual),
    "float": (Float, Float),
    "loihi": (Loihi, LoihiDual),
    "biased": (Normed, NormedDual),
    "normed": (Normed, NormedDual),
}


def _run(
    e: Equation, a: Any, currents: Sequence[Tensor], p: SimpleNamespace,
    states: Sequence[Tensor], constants: Mapping[str, float], wanted: Sequence[str],
) -> tuple[dict[str, Any], tuple[Tensor, ...]]:  # fmt: skip
    """Run over (N, C[, H, W], T); return the wanted variables, time first, and the last states."""
    c = SimpleNamespace(**constants)
    now = {state.name: a.start(value) for state, value in zip(e.states, states, strict=True)}
    inputs = [a.steps(time_major(x)) for x in currents]
    steps: list[dict[str, Any]] = []
    for values in zip(*inputs, strict=True):
        x = dict(zip(e.currents, values, strict=True))
        now, variables = e.step(a, SimpleNamespace(**x), p, SimpleNamespace(**now), c)
        steps.append({name: variables[name] for name in wanted})
    traces = {name: a.stack([step[name] for step in steps]) for name in wanted}
    return traces, tuple(a.last(now[state.name]) for state in e.states)


def spikes(
    e: Equation, a: Any, currents: Any, p: Any, states: Any, constants: Any
) -> tuple[Tensor, ...]:
    """Run over currents (N, C[, H, W], T); return spikes of that shape, and the last states."""
    traces, last = _run(e, a, currents, p, states, constants, e.fires)
    return time_back(e.fire(a, SimpleNamespace(**traces), SimpleNamespace(**constants))), *last


def dynamics(
    e: Equation, a: Any, currents: Any, p: Any, states: Any, constants: Any
) -> tuple[Tensor, ...]:
    """Run over currents (N, C[, H, W], T); return variables of that shape, and the last states."""
    traces, last = _run(e, a, currents, p, states, constants, e.traces)
    return *(time_back(a.give(traces[name])) for name in e.traces), *last


def recurrent(
    e: Equation, a: Any, currents: Sequence[Tensor], weights: Sequence[Tensor],
    weight_scales: Sequence[Tensor], spikes: Tensor, p: Any, states: Any, constants: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Run with feedback: current[t] = x[t] + weight_scale * (weight @ spikes[t-1])."""
    c = SimpleNamespace(**constants)
    now = {state.name: a.start(value) for state, value in zip(e.states, states, strict=True)}
    inputs = [time_major(x).unbind(0) for x in currents]
    matrices = [weight.flatten(1).to(spikes.dtype).T for weight in weights]
    scales = [scale.flatten() for scale in weight_scales]
    outputs = []
    for values in zip(*inputs, strict=True):
        x = {
            name: a.take(current + (spikes @ matrix) * scale)
            for name, current, matrix, scale in zip(
                e.currents, values, matrices, scales, strict=True
            )
        }
        now, variables = e.step(a, SimpleNamespace(**x), p, SimpleNamespace(**now), c)
        spikes = e.fire(a, SimpleNamespace(**variables), c)
        outputs.append(spikes)
    last = (a.last(now[state.name]) for state in e.states)
    return time_back(torch.stack(outputs)), spikes.detach().clone(), *last
