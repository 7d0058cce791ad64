"""Leaky integrator in floating point, with an optional threshold at which the state is reset.

y[t] = (1 - decay) * state[t-1] + x[t]; state[t] = 0 where y[t] >= threshold, else y[t].
It returns y and the last state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from synapse_onnx.ops._contiguous import blank_like, contiguous_results
from synapse_onnx.ops._neuron import (
    drive,
    per_channel,
    per_channel_value,
    sum_to_parameter,
    time_back,
    time_major,
)
from synapse_onnx.ops._registry import OpDef, Sample, register
from synapse_onnx.ops._symbolic import node, time_first, time_last
from synapse_onnx.ops._writer import FLOAT, Writer


@torch.library.custom_op("synapse::leaky_integrator_float", mutates_args=())
@contiguous_results
def leaky_integrator_float(
    x: Tensor, decay: Tensor, state: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Run the integrator over x (N, C[, H, W], T) from a state (N, C[, H, W])."""
    inputs = time_major(x)
    keep = per_channel(1 - decay, state)
    trace = torch.empty_like(inputs)
    for t in range(inputs.shape[0]):
        value = state * keep + inputs[t]
        trace[t] = value
        state = value * (value < threshold)
    return time_back(trace), state.clone()


@leaky_integrator_float.register_fake
def _(x: Tensor, decay: Tensor, state: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    return blank_like(x), blank_like(state)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, decay, state, threshold = inputs
    ctx.save_for_backward(output[0], decay, state)
    ctx.threshold = threshold


def _backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient of the recurrence; where the state was reset, nothing flows through it."""
    y, decay, state = ctx.saved_tensors
    keep = per_channel(1 - decay, state)
    trace = time_major(y)
    stays = (trace < ctx.threshold).to(trace.dtype)
    grads = time_major(grad_y)
    behind = grad_last
    for t in range(grads.shape[0] - 1, -1, -1):
        grads[t] += stays[t] * behind
        behind = keep * grads[t]
    before = torch.cat([state.unsqueeze(0), (trace * stays)[:-1]])
    return time_back(grads), sum_to_parameter(-grads * before, decay), behind, None


leaky_integrator_float.register_autograd(_backward, setup_context=_setup_context)


def _symbolic(x: Any, decay: Any, state: Any, threshold: float) -> Any:
    rank = len(x.shape)
    y, last = node("LeakyIntegratorFloat", time_first(x), decay, state, threshold=threshold)
    return time_last(y, rank), last


def _body(w: Writer) -> list[ir.Value]:
    statements = """
    limit = Constant<value_float: float = @threshold>()
    whole = Constant<value = float {1}>()
    zero = Constant<value = float {0}>()
    keep = Sub(whole, decay_b)
    last_state, y = Scan<num_scan_inputs = 1, body = step (s, xt) => (s_next, y_t) {
        decayed = Mul(s, keep)
        y_t = Add(decayed, xt)
        fired = GreaterOrEqual(y_t, limit)
        s_next = Where(fired, zero, y_t)
    }>(state, x)
    """
    return w.text(statements, decay_b=per_channel_value(w, "decay", "state", FLOAT))


def _samples() -> Sequence[Sample]:
    state = torch.tensor([[0.5, -0.7, 0.1]] * 2)
    channels = torch.tensor([0.0, 0.3, 1.0])
    plane = torch.arange(24).reshape(1, 2, 3, 4) / 50
    rtol = 1e-6  # one multiply-add a step; a fused one rounds once instead of twice
    return [
        Sample("no-reset", (drive(0, 2, 3, 12), torch.tensor([0.1]), state, math.inf), rtol),
        Sample("reset", (drive(1, 2, 3, 12), channels, state, 0.8), rtol),
        Sample("images", (drive(2, 1, 2, 3, 4, 6), torch.tensor([0.2, 0.9]), plane, 1.0), rtol),
    ]


OP = register(
    OpDef(
        name="LeakyIntegratorFloat",
        torch_op=torch.ops.synapse.leaky_integrator_float.default,
        inputs=("x", "decay", "state"),
        outputs=("y", "last_state"),
        attributes={"threshold": float},
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
    )
)
