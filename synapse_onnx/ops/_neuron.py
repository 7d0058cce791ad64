"""Pieces that the neuron ops share: parameters of channels and neurons, loops over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef  # the type that custom_op() returns

from synapse_onnx.ops._writer import FLOAT, INT64, Writer


def per_channel(parameter: Tensor, state: Tensor) -> Tensor:
    """Bring a parameter to act on a state (N, C, ...): (1,), (C,), or as it is, one a neuron."""
    if parameter.dim() == state.dim() - 1:
        return parameter
    return parameter.reshape(-1, *(1,) * (state.dim() - 2))


def per_channel_value(w: Writer, parameter: str, state: str, dtype: ir.DataType) -> ir.Value:
    """Write :func:`per_channel` of an input (1,) or (C,), in an element type, for every rank. ::

    channel_shape = Concat<axis = 0>(flat, ones)  # -1, and a 1 for each of H and W
    decay_c = Reshape(decay, channel_shape)
    decay_b = Cast<to = 7>(decay_c)
    """
    shape = w.op("Concat", w.ints(-1, name="flat"), _ones(w, state), axis=0, name="channel_shape")
    shaped = w.op("Reshape", w.input(parameter), shape, name=f"{parameter}_c")
    return w.op("Cast", shaped, to=int(dtype), dtype=dtype, name=f"{parameter}_b")


def per_neuron_value(w: Writer, parameter: str, state: str) -> ir.Value:
    """Write :func:`per_channel` of a float32 input that may have one value a neuron, (C, H, W). ::

        bias_padded = Concat<axis = 0>(bias_shape, bias_ones)  # C, H, W, 1, 1, 1 or C, 1, 1, 1
        bias_whole = Gather(bias_padded, bias_order)  # the first few: as many as a neuron has axes
        bias_b = Reshape(bias, bias_whole)

    ONNX Runtime's shape inference follows that without folding constants, and does not follow a
    difference of ranks.
    """
    shape = w.op("Shape", w.input(parameter), name=f"{parameter}_shape")
    ones = w.op(
        "Concat", w.ints(1, name="single"), _ones(w, state), axis=0, name=f"{parameter}_ones"
    )
    order = w.op("CumSum", ones, w.number(0, INT64), exclusive=1, name=f"{parameter}_order")
    padded = w.op("Concat", shape, ones, axis=0, name=f"{parameter}_padded")
    whole = w.op("Gather", padded, order, name=f"{parameter}_whole")
    return w.op("Reshape", w.input(parameter, FLOAT), whole, name=f"{parameter}_b")


def _ones(w: Writer, state: str) -> ir.Value:
    """Write the shape (1, 1) for a state of images (N, C, H, W), and () for one of neurons."""
    plane = w.op("Shape", w.input(state), start=2, name="plane")
    rank = w.op("Shape", plane, name="plane_rank")
    return w.op("Expand", w.ints(1, name="single"), rank, name="ones")


def time_major(x: Tensor) -> Tensor:
    """(N, C[, H, W], T) -> (T, N, C[, H, W]), contiguous, so that one step is one block."""
    return x.movedim(-1, 0).contiguous()


def time_back(x: Tensor) -> Tensor:
    """(T, N, C[, H, W]) -> (N, C[, H, W], T), contiguous."""
    return x.movedim(0, -1).contiguous()


def sum_to_parameter(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Sum a gradient (T, N, C[, H, W]) to a parameter's shape, (1,) or (C,)."""
    if parameter.numel() == 1:
        return gradient.sum().reshape(parameter.shape).to(parameter.dtype)
    dims = [d for d in range(gradient.dim()) if d != 2]
    return gradient.sum(dim=dims).to(parameter.dtype)


def drive(seed: int, *shape: int) -> Tensor:
    """Return random currents on a grid of 1/32, float32, mostly positive, the same every time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-24, 40, shape, generator=generator).to(torch.float32) / 32


def register_composed_gradient(
    op: CustomOpDef, compose: Callable[..., tuple[Tensor, ...]], tensors: int
) -> None:
    """Give a fused neuron op the gradient of the differentiable ops that it is composed of.

    The backward pass runs ``compose`` once more with gradients on, so that the fused forward
    pass keeps no trace over time. The first ``tensors`` arguments of the op are tensors.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.constants = inputs[tensors:]

    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[:tensors]
        leaves = [
            tensor.detach().requires_grad_(wanted)
            for tensor, wanted in zip(ctx.saved_tensors, needed, strict=True)
        ]
        with torch.enable_grad():
            outputs = compose(*leaves, *ctx.constants)
        # integer states have no gradient
        pairs = [(y, g) for y, g in zip(outputs, grads, strict=True) if y.requires_grad]
        gradients = iter(
            torch.autograd.grad(
                [y for y, _ in pairs],
                [leaf for leaf in leaves if leaf.requires_grad],
                [g for _, g in pairs],
                allow_unused=True,
            )
        )
        return (
            *(next(gradients) if leaf.requires_grad else None for leaf in leaves),
            *(None,) * len(ctx.constants),
        )

    op.register_autograd(backward, setup_context=setup_context)
