"""Pieces that the neuron ops share: channel parameters in ONNX text, loops over time in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef  # the type that custom_op() returns


def per_channel(parameter: Tensor, state: Tensor) -> Tensor:
    """Bring a parameter to act on a state (N, C, ...): (1,), (C,), or as it is, one a neuron."""
    if parameter.dim() == state.dim() - 1:
        return parameter
    return parameter.reshape(-1, *(1,) * (state.dim() - 2))


def broadcast_text(state: str, parameters: Sequence[str], onnx_type: int) -> str:
    """ONNX statements for :func:`per_channel`: ``p`` becomes ``p_b``, cast to a type.

    They stand outside the loop over time and work for every rank.
    """
    lines = [
        "flat = Constant<value_ints = [-1]>()",
        "single = Constant<value_ints = [1]>()",
        f"plane = Shape<start = 2>({state})",
        "plane_rank = Shape(plane)",
        "ones = Expand(single, plane_rank)",
        "channel_shape = Concat<axis = 0>(flat, ones)",
    ]
    for name in parameters:
        lines.append(f"{name}_c = Reshape({name}, channel_shape)")
        lines.append(f"{name}_b = Cast<to = {onnx_type}>({name}_c)")
    return "\n".join(lines)


def per_neuron_text(name: str) -> str:
    """ONNX statements for :func:`per_channel` of ``p``, which may have one value a neuron.

    It becomes ``p_b``; they stand behind those of :func:`broadcast_text`. Its shape gets ones at
    its end, and the first few are taken: as many as a neuron has axes. ONNX Runtime's shape
    inference follows that without folding constants, and does not follow a difference of ranks.
    """
    return "\n".join(
        [
            f"{name}_shape = Shape({name})",
            f"{name}_axis = Constant<value_int = 0>()",
            f"{name}_ones = Concat<axis = 0>(single, ones)",
            f"{name}_order = CumSum<exclusive = 1>({name}_ones, {name}_axis)",
            f"{name}_padded = Concat<axis = 0>({name}_shape, {name}_ones)",
            f"{name}_whole = Gather({name}_padded, {name}_order)",
            f"{name}_b = Reshape({name}, {name}_whole)",
        ]
    )


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
        found = iter(
            torch.autograd.grad(
                [y for y, _ in pairs],
                [leaf for leaf in leaves if leaf.requires_grad],
                [g for _, g in pairs],
                allow_unused=True,
            )
        )
        return (
            *(next(found) if leaf.requires_grad else None for leaf in leaves),
            *(None,) * len(ctx.constants),
        )

    op.register_autograd(backward, setup_context=setup_context)
