"""Normalisation of currents with stored statistics: y[t] = (x[t] - mean) / std, a channel each.

The standard deviation is a power of two, or one, so that only the difference is rounded.
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


@torch.library.custom_op("synapse::normalize", mutates_args=())
@contiguous_results
def normalize(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise x (N, C[, H, W], T) by mean (1,) or (C,) and std (1,)."""
    return (x - mean.reshape(1, -1, *(1,) * (x.dim() - 2))) / std


@normalize.register_fake
def _(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return blank_like(x)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, mean, std = inputs
    ctx.save_for_backward(output, mean, std)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y, mean, std = ctx.saved_tensors
    grad_x = grad / std
    axes = [axis for axis in range(grad.dim()) if axis != 1 or mean.numel() == 1]
    grad_mean = -grad_x.sum(dim=axes).reshape(mean.shape)
    return grad_x, grad_mean, -(grad_x * y).sum().reshape(std.shape)


normalize.register_autograd(_backward, setup_context=_setup_context)


def _symbolic(x: Any, mean: Any, std: Any) -> Any:
    return time_last(node("Normalize", time_first(x), mean, std), len(x.shape))


def _body(w: Writer) -> list[ir.Value]:
    return w.text("""
    single = Constant<value_ints = [1]>()
    flat = Constant<value_ints = [-1]>()
    plane = Shape<start = 3>(x)
    plane_rank = Shape(plane)
    ones = Expand(single, plane_rank)
    channel_shape = Concat<axis = 0>(flat, ones)
    mean_b = Reshape(mean, channel_shape)
    centred = Sub(x, mean_b)
    y = Div(centred, std)
    """)


def _samples() -> Sequence[Sample]:
    channels = torch.tensor([0.25, -1.0, 0.1])
    return [
        Sample("shared", (drive(0, 2, 3, 9), torch.tensor([0.5]), torch.ones(1))),
        Sample("channels", (drive(1, 2, 3, 9), channels, torch.tensor([4.0]))),
        Sample("images", (drive(2, 1, 3, 2, 4, 5), channels, torch.tensor([0.5]))),
    ]


OP = register(
    OpDef(
        name="Normalize",
        torch_op=torch.ops.synapse.normalize.default,
        inputs=("x", "mean", "std"),
        outputs=("y",),
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
        exact=True,
    )
)
