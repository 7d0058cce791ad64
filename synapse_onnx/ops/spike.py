"""Spike function of a voltage, with slayer's surrogate gradient.

s = 1 where voltage >= threshold, else 0; a graded spike carries the voltage: s = voltage there.
Surrogate: scale/(2 tau) exp(-|v - threshold|/tau); graded: scale exp(min(v - threshold, 0)/tau).
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


@torch.library.custom_op("synapse::spike", mutates_args=())
@contiguous_results
def spike(voltage: Tensor, threshold: float, tau: float, scale: float, graded: bool) -> Tensor:
    """Return spikes of a voltage, same shape and dtype."""
    fired = voltage >= threshold
    return torch.where(fired, voltage, 0) if graded else fired.to(voltage.dtype)


@spike.register_fake
def _(voltage: Tensor, threshold: float, tau: float, scale: float, graded: bool) -> Tensor:
    return blank_like(voltage)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    voltage, *ctx.parameters = inputs
    ctx.save_for_backward(voltage)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (voltage,) = ctx.saved_tensors
    threshold, tau, scale, graded = ctx.parameters
    distance = voltage - threshold
    if graded:
        slope = scale * torch.exp(distance.clamp(max=0) / tau)
    else:
        slope = scale / (2 * tau) * torch.exp(-distance.abs() / tau)
    return grad * slope, None, None, None, None


spike.register_autograd(_backward, setup_context=_setup_context)


def _symbolic(voltage: Any, threshold: float, tau: float, scale: float, graded: bool) -> Any:
    del tau, scale  # they shape the gradient alone
    rank = len(voltage.shape)
    s = node("Spike", time_first(voltage), threshold=threshold, graded=int(graded))
    return time_last(s, rank)


def _body(w: Writer) -> list[ir.Value]:
    return w.text("""
    limit = Constant<value_float: float = @threshold>()
    graded_i = Constant<value_int: int = @graded>()
    is_graded = Cast<to = 9>(graded_i)
    zero = Constant<value = float {0}>()
    fired = GreaterOrEqual(voltage, limit)
    s = If(is_graded) <
        then_branch = carried () => (carried_v) { carried_v = Where(fired, voltage, zero) },
        else_branch = counted () => (counted_v) { counted_v = Cast<to = 1>(fired) }
    >
    """)


def _samples() -> Sequence[Sample]:
    edge = torch.tensor([[[0.5, 0.49999997, 0.50000006, -1.0]]])
    return [
        Sample("binary", (drive(0, 2, 3, 8), 0.25, 100.0, 0.1, False)),
        Sample("graded", (drive(1, 2, 3, 8), 0.25, 100.0, 0.1, True)),
        Sample("at-threshold", (edge, 0.5, 100.0, 0.1, False)),
    ]


OP = register(
    OpDef(
        name="Spike",
        torch_op=torch.ops.synapse.spike.default,
        inputs=("voltage",),
        outputs=("s",),
        attributes={"threshold": float, "graded": int},
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
        exact=True,
        spikes=True,
    )
)
