"""Delay of spikes by whole time steps: y[t, g] = x[t - delay[g], g], from a line of past inputs.

A delay belongs to a group of neurons: all of them, a channel each, or one neuron each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from synapse_onnx.ops._contiguous import blank_like, contiguous_results
from synapse_onnx.ops._neuron import drive
from synapse_onnx.ops._registry import OpDef, Sample, register
from synapse_onnx.ops._symbolic import node, time_first, time_last
from synapse_onnx.ops._writer import Writer


def _whole(x: Tensor, delay: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    """Return line and input in one, (N, G, R, D + T), and the time that each step reads, (G, T)."""
    joined = torch.cat([line, x], dim=-1)
    whole = joined.reshape(x.shape[0], delay.numel(), -1, joined.shape[-1])
    now = torch.arange(x.shape[-1], device=x.device) + line.shape[-1]
    return whole, now - delay.reshape(-1, 1).to(torch.int64)


@torch.library.custom_op("synapse::delay", mutates_args=())
@contiguous_results
def delay(x: Tensor, delay: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    """Delay x (N, C[, H, W], T) by (G,) int64 steps, from a line (N, C[, H, W], D) of the past."""
    whole, times = _whole(x, delay, line)
    index = times[None, :, None, :].expand(*whole.shape[:3], x.shape[-1])
    last = torch.cat([line, x], dim=-1)[..., -line.shape[-1] :]
    return whole.gather(-1, index).reshape(x.shape), last.clone()


@delay.register_fake
def _(x: Tensor, delay: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    return blank_like(x), blank_like(line)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, delays, line = inputs
    ctx.save_for_backward(x, delays, line)


def _backward(ctx: Any, grad: Tensor, grad_line: Tensor) -> tuple[Tensor | None, ...]:
    x, delays, line = ctx.saved_tensors
    whole, times = _whole(x, delays, line)
    index = times[None, :, None, :].expand(*whole.shape[:3], x.shape[-1])
    grads = torch.zeros_like(whole).scatter_add(-1, index, grad.reshape(index.shape))
    grads = grads.reshape(*x.shape[:-1], -1)
    behind = torch.zeros_like(grads)
    behind[..., -line.shape[-1] :] = grad_line
    grads = grads + behind
    depth = line.shape[-1]
    return grads[..., depth:].contiguous(), None, grads[..., :depth].contiguous()


delay.register_autograd(_backward, setup_context=_setup_context)


def _symbolic(x: Any, delay: Any, line: Any) -> Any:
    rank = len(x.shape)
    y, last = node("Delay", time_first(x), delay, time_first(line))
    return time_last(y, rank), time_last(last, rank)


def _body(w: Writer) -> list[ir.Value]:
    return w.text("""
    zero = Constant<value = int64 {0}>()
    one = Constant<value = int64 {1}>()
    axes = Constant<value_ints = [0]>()
    end = Constant<value_ints = [9223372036854775807]>()
    depth = Shape<start = 0, end = 1>(line)
    steps = Shape<start = 0, end = 1>(x)
    groups = Shape<start = 0, end = 1>(delay)
    whole = Concat<axis = 0>(line, x)
    back = Neg(depth)
    last_line = Slice(whole, back, end, axes)
    batch = Shape<start = 1, end = 2>(x)
    tail = Constant<value_ints = [-1]>()
    length = Add(depth, steps)
    rows_shape = Concat<axis = 0>(length, batch, groups, tail)
    rows = Reshape(whole, rows_shape)
    turned = Transpose<perm = [0, 2, 1, 3]>(rows)
    steps_s = Squeeze(steps)
    groups_s = Squeeze(groups)
    depth_s = Squeeze(depth)
    now = Range(zero, steps_s, one)
    shifted = Add(now, depth_s)
    column = Unsqueeze(shifted, one)
    times = Sub(column, delay)
    group = Range(zero, groups_s, one)
    pair_shape = Concat<axis = 0>(steps, groups)
    group_e = Expand(group, pair_shape)
    last_axis = Constant<value_ints = [-1]>()
    times_u = Unsqueeze(times, last_axis)
    group_u = Unsqueeze(group_e, last_axis)
    index = Concat<axis = -1>(times_u, group_u)
    taken = GatherND(turned, index)
    restored = Transpose<perm = [0, 2, 1, 3]>(taken)
    shape = Shape(x)
    y = Reshape(restored, shape)
    """)


def _samples() -> Sequence[Sample]:
    def call(seed: int, shape: tuple[int, ...], delays: list[int], depth: int) -> tuple[Any, ...]:
        return drive(seed, *shape), torch.tensor(delays), drive(seed + 10, *shape[:-1], depth)

    plane = math.prod((2, 3, 2))
    return [
        Sample("one-step", call(0, (2, 3, 9), [1], 1)),
        Sample("channels", call(1, (2, 3, 9), [0, 2, 5], 5)),
        # a line longer than the sequence: part of it stays
        Sample("longer-than-time", call(2, (2, 3, 4), [7, 0, 6], 7)),
        Sample("images", call(3, (1, 2, 3, 2, 6), [1, 3], 3)),
        Sample("neurons", call(4, (2, 2, 3, 2, 6), [i % 5 for i in range(plane)], 4)),
    ]


OP = register(
    OpDef(
        name="Delay",
        torch_op=torch.ops.synapse.delay.default,
        inputs=("x", "delay", "line"),
        outputs=("y", "last_line"),
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
        exact=True,
    )
)
