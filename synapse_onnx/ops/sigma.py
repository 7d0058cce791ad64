"""Sigma decoder of a dendrite: y[t] = y[t-1] + x[t], summed in float64 and rounded to float32.

The total is a state in float64, so that a sequence in chunks gives what the whole gives.
"""

from __future__ import annotations

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


@torch.library.custom_op("synapse::sigma", mutates_args=())
@contiguous_results
def sigma(x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Sum x (N, C[, H, W], T) over time from a float64 total (N, C[, H, W])."""
    sums = torch.cat([total.unsqueeze(-1), x.to(torch.float64)], dim=-1).cumsum(-1)
    return sums[..., 1:].to(x.dtype).contiguous(), sums[..., -1].clone()


@sigma.register_fake
def _(x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    return blank_like(x), blank_like(total)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    del inputs, output


def _backward(ctx: Any, grad_y: Tensor, grad_total: Tensor) -> tuple[Tensor, Tensor]:
    after = grad_y.flip(-1).cumsum(-1).flip(-1) + grad_total.unsqueeze(-1).to(grad_y.dtype)
    return after, after[..., 0].to(grad_total.dtype)


sigma.register_autograd(_backward, setup_context=_setup_context)


def _symbolic(x: Any, total: Any) -> Any:
    y, last = node("Sigma", time_first(x), total)
    return time_last(y, len(x.shape)), last


def _body(w: Writer) -> list[ir.Value]:
    return w.text("""
    axis = Constant<value = int64 {0}>()
    axes = Constant<value_ints = [0]>()
    one = Constant<value_ints = [1]>()
    minus_one = Constant<value_ints = [-1]>()
    end = Constant<value_ints = [9223372036854775807]>()
    first = Unsqueeze(total, axes)
    wide = Cast<to = 11>(x)
    all = Concat<axis = 0>(first, wide)
    sums = CumSum(all, axis)
    later = Slice(sums, one, end, axes)
    y = Cast<to = 1>(later)
    final = Slice(sums, minus_one, end, axes)
    last_total = Squeeze(final, axes)
    """)


def _samples() -> Sequence[Sample]:
    start = torch.tensor([[0.5, -0.25, 3.1]] * 2, dtype=torch.float64)
    plane = torch.arange(24, dtype=torch.float64).reshape(1, 2, 3, 4)
    return [
        Sample("neurons", (drive(0, 2, 3, 12), start)),
        # beyond float32's integers, where a total kept in float32 would stand still
        Sample("large", (drive(1, 2, 3, 12) + 0.1, start + 2**25)),
        Sample("images", (drive(2, 1, 2, 3, 4, 6), plane)),
    ]


OP = register(
    OpDef(
        name="Sigma",
        torch_op=torch.ops.synapse.sigma.default,
        inputs=("x", "total"),
        outputs=("y", "last_total"),
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
        exact=True,
    )
)
