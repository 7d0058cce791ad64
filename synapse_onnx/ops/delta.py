"""Delta encoder of an axon: it sends what has changed, once the change reaches a threshold.

d[t] = x[t] - x[t-1] + r[t-1]; s[t] = d[t] where abs(d[t]) >= threshold, else 0; r[t] = d[t] - s[t].
With cumulative error: e[t] = e[t-1] + d[t]; s[t] = d[t] where abs(e[t]) >= threshold, and e[t] = 0
where s[t] is not 0. What is sent is floored to a step of 1 / scale.
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
from synapse_onnx.ops._writer import FLOAT, Writer

_Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _encode(
    x: Tensor, threshold: Tensor, pre: Tensor, residual: Tensor, error: Tensor, cumulative: bool
) -> tuple[list[Tensor], list[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return the changes and what was sent, step by step, and the last states."""
    level = per_channel(threshold, pre)
    changes, sent = [], []
    for now in time_major(x):
        change = now - pre + residual
        if cumulative:
            error = error + change
        out = torch.where((error if cumulative else change).abs() >= level, change, 0)
        if cumulative:
            error = torch.where(out != 0, 0, error)
        residual, pre = change - out, now
        changes.append(change)
        sent.append(out)
    return changes, sent, (pre.clone(), residual.clone(), error.clone())


@torch.library.custom_op("synapse::delta", mutates_args=())
@contiguous_results
def delta(
    x: Tensor, threshold: Tensor, pre: Tensor, residual: Tensor, error: Tensor, scale: int,
    cumulative: bool, tau: float, gradient: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Encode x (N, C[, H, W], T) from float states (N, C[, H, W])."""
    _, sent, last = _encode(x, threshold, pre, residual, error, cumulative)
    return time_back(torch.floor(torch.stack(sent) / (1 / scale)) * (1 / scale)), *last


@delta.register_fake
def _(
    x: Tensor, threshold: Tensor, pre: Tensor, residual: Tensor, error: Tensor, scale: int,
    cumulative: bool, tau: float, gradient: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    s = blank_like(x)
    return s, blank_like(pre), blank_like(residual), blank_like(error)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.cumulative, ctx.tau, ctx.gradient = inputs[6:]


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient as in slayer: what is sent follows the input, and the threshold a surrogate.

    The residual is taken as constant. Source: lava-dl, ``slayer/axon/delta.py``.
    """
    x, threshold, pre, residual, error = ctx.saved_tensors
    grads = time_major(grad)
    encoded = _encode(x, threshold, pre, residual, error, ctx.cumulative)
    change = torch.stack(encoded[0])
    level = per_channel(threshold, pre)
    above = change.abs() - level
    slope = -change * ctx.gradient * torch.exp(-above.abs() / ctx.tau) / level
    grad_level = torch.where(above > 0, slope, -change.sign()) * grads
    later = torch.cat([grads[1:], torch.zeros_like(grads[:1])])
    return (
        time_back(grads - later), sum_to_parameter(grad_level, threshold), -grads[0], None, None,
        None, None, None, None,
    )  # fmt: skip


delta.register_autograd(_backward, setup_context=_setup_context)


def _symbolic(
    x: Any, threshold: Any, pre: Any, residual: Any, error: Any, scale: int, cumulative: bool,
    tau: float, gradient: float,
) -> Any:  # fmt: skip
    del tau, gradient  # they shape the gradient alone
    s, last_pre, last_residual, last_error = node(
        "Delta", time_first(x), threshold, pre, residual, error,
        scale=scale, cumulative=int(cumulative),
    )  # fmt: skip
    return time_last(s, len(x.shape)), last_pre, last_residual, last_error


def _body(w: Writer) -> list[ir.Value]:
    statements = """
    scale_i = Constant<value_int: int = @scale>()
    scale_f = Cast<to = 1>(scale_i)
    one = Constant<value = float {1}>()
    zero = Constant<value = float {0}>()
    unit = Div(one, scale_f)
    cumulative_i = Constant<value_int: int = @cumulative>()
    is_cumulative = Cast<to = 9>(cumulative_i)
    last_pre, last_residual, last_error, trace = Scan<num_scan_inputs = 1,
            body = step (before, rest, sum, now) => (next, rest_t, sum_t, out_t) {
        moved = Sub(now, before)
        change = Add(moved, rest)
        error_t = Add(sum, change)
        judged = Where(is_cumulative, error_t, change)
        size = Abs(judged)
        sends = GreaterOrEqual(size, threshold_b)
        out_t = Where(sends, change, zero)
        rest_t = Sub(change, out_t)
        silent = Equal(out_t, zero)
        holds = And(silent, is_cumulative)
        kept = Where(holds, error_t, zero)
        sum_t = Where(is_cumulative, kept, sum)
        next = Identity(now)
    }>(pre, residual, error, x)
    steps = Div(trace, unit)
    floored = Floor(steps)
    s = Mul(floored, unit)
    """
    return w.text(statements, threshold_b=per_channel_value(w, "threshold", "pre", FLOAT))


def _samples() -> Sequence[Sample]:
    pre = torch.tensor([[0.5, -0.25, 0.1]] * 2)
    plane = torch.arange(24).reshape(1, 2, 3, 4) / 50
    shared, channels = torch.tensor([0.3]), torch.tensor([0.1, 0.5, 2.0])
    tail = (64, False, 1.0, 1.0)
    return [
        Sample("shared", (drive(0, 2, 3, 20), shared, pre, 0 * pre, 0 * pre, *tail)),
        Sample("channels", (drive(1, 2, 3, 20), channels, pre, 0.1 * pre, 0 * pre, *tail)),
        Sample(
            "cumulative",
            (drive(2, 2, 3, 20), 3 * shared, pre, 0.1 * pre, 0.2 * pre, 64, True, 1.0, 1.0),
        ),
        Sample("images", (drive(3, 1, 2, 3, 4, 9), shared, plane, 0 * plane, 0 * plane, *tail)),
    ]


OP = register(
    OpDef(
        name="Delta",
        torch_op=torch.ops.synapse.delta.default,
        inputs=("x", "threshold", "pre", "residual", "error"),
        outputs=("s", "last_pre", "last_residual", "last_error"),
        attributes={"scale": int, "cumulative": int},
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
        exact=True,
    )
)
