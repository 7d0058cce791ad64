"""Average over bins of time: y[k] = (x[k f] + ... + x[k f + f - 1]) / f.

The last bin is filled up with zeros; a factor f that is a power of two divides exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from synapse_onnx.ops._contiguous import contiguous_results
from synapse_onnx.ops._neuron import drive
from synapse_onnx.ops._registry import OpDef, Sample, register
from synapse_onnx.ops._symbolic import node, time_first, time_last
from synapse_onnx.ops._writer import Writer


def _bins(steps: int, factor: int) -> int:
    return (steps + factor - 1) // factor


@torch.library.custom_op("synapse::time_decimation", mutates_args=())
@contiguous_results
def time_decimation(x: Tensor, factor: int) -> Tensor:
    """Average x (N, C[, H, W], T) to (N, C[, H, W], ceil(T / factor))."""
    bins = _bins(x.shape[-1], factor)
    full = functional.pad(x, (0, bins * factor - x.shape[-1]))
    return full.reshape(*x.shape[:-1], bins, factor).sum(-1) / factor


@time_decimation.register_fake
def _(x: Tensor, factor: int) -> Tensor:
    bins = _bins(x.shape[-1], factor)
    if torch.compiler.is_exporting() and not isinstance(bins, int):
        # a quotient of an open size would leave conditions on it all over the network
        bins = torch.library.get_ctx().new_dynamic_size(min=2)
    return x.new_empty(*x.shape[:-1], bins)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.factor = inputs
    ctx.steps = x.shape[-1]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return (grad / ctx.factor).repeat_interleave(ctx.factor, -1)[..., : ctx.steps], None


time_decimation.register_autograd(_backward, setup_context=_setup_context)


def _symbolic(x: Any, factor: int) -> Any:
    return time_last(node("TimeDecimation", time_first(x), factor=factor), len(x.shape))


def _body(w: Writer) -> list[ir.Value]:
    return w.text("""
    factor_i = Constant<value_int: int = @factor>()
    factor_f = Cast<to = 1>(factor_i)
    row = Constant<value_ints = [1]>()
    width = Reshape(factor_i, row)
    axis = Constant<value_ints = [0]>()
    zero = Constant<value_ints = [0]>()
    steps = Shape<start = 0, end = 1>(x)
    minus = Neg(steps)
    missing = Mod(minus, width)
    pads = Concat<axis = 0>(zero, missing)
    full = Pad(x, pads, , axis)
    rest = Constant<value_ints = [-1]>()
    neurons = Shape<start = 1>(x)
    shape = Concat<axis = 0>(rest, width, neurons)
    bins = Reshape(full, shape)
    within = Constant<value_ints = [1]>()
    total = ReduceSum<keepdims = 0>(bins, within)
    y = Div(total, factor_f)
    """)


def _samples() -> Sequence[Sample]:
    # inputs on a grid: their sums are exact in any order
    return [
        Sample("whole-bins", (drive(0, 2, 3, 12), 4)),
        Sample("filled-up", (drive(1, 2, 3, 13), 4)),
        Sample("images", (drive(2, 1, 2, 3, 2, 5), 2)),
    ]


OP = register(
    OpDef(
        name="TimeDecimation",
        torch_op=torch.ops.synapse.time_decimation.default,
        inputs=("x",),
        outputs=("y",),
        attributes={"factor": int},
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
        exact=None,
    )
)
