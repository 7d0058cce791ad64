"""Leaky integrator in fixed point, with an optional threshold at which the state is reset.

y[t] = trunc(state[t-1] * (4096 - decay) / 4096) + trunc(scale * x[t]);
state[t] = 0 where y[t] >= threshold, else y[t]. It returns y / scale and the last state.
"""

from __future__ import annotations

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
from synapse_onnx.ops._writer import INT64, Writer
from synapse_onnx.ops.arithmetic.fixed import (
    DECAY_ONE,
    NO_THRESHOLD,
    decay_state,
    to_fixed,
    to_float,
)


@torch.library.custom_op("synapse::leaky_integrator", mutates_args=())
@contiguous_results
def leaky_integrator(
    x: Tensor, decay: Tensor, state: Tensor, scale: int, threshold: int
) -> tuple[Tensor, Tensor]:
    """Run the integrator over x (N, C[, H, W], T) from an int64 state (N, C[, H, W])."""
    inputs = to_fixed(time_major(x), scale)
    keep = per_channel(DECAY_ONE - decay.to(torch.int64), state)
    trace = torch.empty_like(inputs)
    for t in range(inputs.shape[0]):
        value = decay_state(state, keep) + inputs[t]
        trace[t] = value
        state = value if threshold == NO_THRESHOLD else value * (value < threshold)
    return time_back(to_float(trace, scale)), state.clone()


@leaky_integrator.register_fake
def _(x: Tensor, decay: Tensor, state: Tensor, scale: int, threshold: int) -> tuple[Tensor, Tensor]:
    return blank_like(x), blank_like(state)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, decay, state, ctx.scale, ctx.threshold = inputs
    ctx.save_for_backward(output[0], decay, state)


def _backward(ctx: Any, grad_y: Tensor, grad_state: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient of the real-valued recurrence, the reset taken as constant, as slayer does.

    Unlike slayer's, the decay's gradient has the sign and the 1/4096 of the equation.
    """
    del grad_state  # the state is an integer
    y, decay, state = ctx.saved_tensors
    keep = per_channel(1 - decay / DECAY_ONE, state)
    grads = time_major(grad_y)
    for t in range(grads.shape[0] - 2, -1, -1):
        grads[t] += keep * grads[t + 1]
    grad_decay = None
    if ctx.needs_input_grad[1]:
        first = to_float(state, ctx.scale).unsqueeze(0)
        trace = time_major(y)
        stays = trace * (
            trace < ctx.threshold / ctx.scale
        )  # what decays is the state after a reset
        before = torch.cat([first, stays[:-1]])
        grad_decay = sum_to_parameter(-grads * before / DECAY_ONE, decay)
    return time_back(grads), grad_decay, None, None, None


leaky_integrator.register_autograd(_backward, setup_context=_setup_context)


def _symbolic(x: Any, decay: Any, state: Any, scale: int, threshold: int) -> Any:
    rank = len(x.shape)
    y, last = node("LeakyIntegrator", time_first(x), decay, state, scale=scale, threshold=threshold)
    return time_last(y, rank), last


def _body(w: Writer) -> list[ir.Value]:
    statements = """
    scale_i = Constant<value_int: int = @scale>()
    scale_f = Cast<to = 1>(scale_i)
    limit = Constant<value_int: int = @threshold>()
    zero = Constant<value = int64 {0}>()
    keep = Sub(whole, decay_b)
    scaled = Mul(x, scale_f)
    inputs = Cast<to = 7>(scaled)
    last_state, trace = Scan<num_scan_inputs = 1, body = step (s, xt) => (s_next, y_t) {
        product = Mul(s, keep)
        decayed = Div(product, whole)
        y_t = Add(decayed, xt)
        fired = GreaterOrEqual(y_t, limit)
        s_next = Where(fired, zero, y_t)
    }>(state, inputs)
    trace_f = Cast<to = 1>(trace)
    y = Div(trace_f, scale_f)
    """
    decay = per_channel_value(w, "decay", "state", INT64)
    return w.text(statements, decay_b=decay, whole=w.number(DECAY_ONE, INT64))


def _samples() -> Sequence[Sample]:
    state = torch.tensor([[500, -700, 90]] * 2)
    channels = torch.tensor([0.0, 1000.0, 4096.0])
    plane = torch.arange(24).reshape(1, 2, 3, 4) * 10
    return [
        Sample("no-reset", (drive(0, 2, 3, 12), torch.tensor([300.0]), state, 4096, NO_THRESHOLD)),
        Sample("reset", (drive(1, 2, 3, 12), channels, state, 4096, 3000)),
        Sample("images", (drive(2, 1, 2, 3, 4, 6), torch.tensor([7.0, 99.0]), plane, 6400, 5000)),
    ]


OP = register(
    OpDef(
        name="LeakyIntegrator",
        torch_op=torch.ops.synapse.leaky_integrator.default,
        inputs=("x", "decay", "state"),
        outputs=("y", "last_state"),
        attributes={"scale": int, "threshold": int},
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
        exact=True,
    )
)
