"""Average over groups of neurons: y[t, k] = sum of x[t] over group k / size of the group.

The neurons (C, H, W), in that order, are cut into equal groups, one an output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from synapse_onnx.ops._contiguous import contiguous_results
from synapse_onnx.ops._neuron import drive
from synapse_onnx.ops._registry import OpDef, Sample, register
from synapse_onnx.ops._symbolic import node, time_first, time_last
from synapse_onnx.ops._writer import Writer


@torch.library.custom_op("synapse::average", mutates_args=())
@contiguous_results
def average(x: Tensor, groups: int) -> Tensor:
    """Average x (N, C[, H, W], T) to (N, groups, T)."""
    grouped = x.reshape(x.shape[0], groups, -1, x.shape[-1])
    return grouped.sum(dim=2) / grouped.shape[2]


@average.register_fake
def _(x: Tensor, groups: int) -> Tensor:
    return x.new_empty(x.shape[0], groups, x.shape[-1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.groups = inputs
    ctx.shape = x.shape


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    size = ctx.shape[1:-1].numel() // ctx.groups
    spread = (grad / size).unsqueeze(2).expand(-1, -1, size, -1)
    return spread.reshape(ctx.shape), None


average.register_autograd(_backward, setup_context=_setup_context)


def _symbolic(x: Any, groups: int) -> Any:
    return time_last(node("Average", time_first(x), groups=groups), 3)


def _body(w: Writer) -> list[ir.Value]:
    return w.text("""
    number = Constant<value_int: int = @groups>()
    row = Constant<value_ints = [1]>()
    count_row = Reshape(number, row)
    rest = Constant<value_ints = [-1]>()
    sequence = Shape<start = 0, end = 2>(x)
    shape = Concat<axis = 0>(sequence, count_row, rest)
    grouped = Reshape(x, shape)
    axis = Constant<value_ints = [3]>()
    total = ReduceSum<keepdims = 0>(grouped, axis)
    size = Shape<start = 3, end = 4>(grouped)
    members = Cast<to = 1>(size)
    y = Div(total, members)
    """)


def _samples() -> Sequence[Sample]:
    # inputs on a grid: their sums are exact in any order
    return [
        Sample("neurons", (drive(0, 2, 12, 7), 4)),
        Sample("each", (drive(1, 2, 3, 7), 3)),
        Sample("images", (drive(2, 1, 4, 3, 2, 5), 2)),
    ]


OP = register(
    OpDef(
        name="Average",
        torch_op=torch.ops.synapse.average.default,
        inputs=("x",),
        outputs=("y",),
        attributes={"groups": int},
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
        exact=None,
    )
)
