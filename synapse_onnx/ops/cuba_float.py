"""Current-based leaky integrate-and-fire neuron (CUBA) in floating point.

u[t] = (1 - current_decay) * u[t-1] + x[t]; v[t] = (1 - voltage_decay) * v[t-1] + u[t];
s[t] = 1 where v[t] >= threshold, else 0 (graded: v[t]); v[t] = 0 where it spiked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.ops._neuron import broadcast_text, drive, register_composed_gradient
from synapse_onnx.ops._registry import OpDef, Sample, register
from synapse_onnx.ops._symbolic import node, time_first, time_last
from synapse_onnx.ops.leaky_integrator_float import leaky_integrator_float
from synapse_onnx.ops.spike import spike


def _compose(
    x: Tensor, current_decay: Tensor, voltage_decay: Tensor, current: Tensor, voltage: Tensor,
    threshold: float, tau: float, gradient_scale: float, graded: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The neuron as two integrators and a spike function, each with its own gradient."""
    u, last_current = leaky_integrator_float(x, current_decay, current, math.inf)
    v, last_voltage = leaky_integrator_float(u, voltage_decay, voltage, threshold)
    return spike(v, threshold, tau, gradient_scale, graded), last_current, last_voltage


@torch.library.custom_op("synapse::cuba_float", mutates_args=())
def cuba_float(
    x: Tensor, current_decay: Tensor, voltage_decay: Tensor, current: Tensor, voltage: Tensor,
    threshold: float, tau: float, gradient_scale: float, graded: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the neuron over x (N, C[, H, W], T) from float states (N, C[, H, W])."""
    return _compose(
        x, current_decay, voltage_decay, current, voltage,
        threshold, tau, gradient_scale, graded,
    )  # fmt: skip


@cuba_float.register_fake
def _(
    x: Tensor, current_decay: Tensor, voltage_decay: Tensor, current: Tensor, voltage: Tensor,
    threshold: float, tau: float, gradient_scale: float, graded: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    s = torch.empty_like(x, memory_format=torch.contiguous_format)
    return s, torch.empty_like(current), torch.empty_like(voltage)


register_composed_gradient(cuba_float, _compose, tensors=5)


def _symbolic(
    x: Any, current_decay: Any, voltage_decay: Any, current: Any, voltage: Any,
    threshold: float, tau: float, gradient_scale: float, graded: bool,
) -> Any:  # fmt: skip
    del tau, gradient_scale  # they shape the gradient alone
    s, last_current, last_voltage = node(
        "CubaFloat", time_first(x), current_decay, voltage_decay, current, voltage,
        threshold=threshold, graded=int(graded),
    )  # fmt: skip
    return time_last(s, len(x.shape)), last_current, last_voltage


def _body(opset: int) -> str:
    del opset
    return f"""
    limit = Constant<value_float: float = @threshold>()
    graded_i = Constant<value_int: int = @graded>()
    is_graded = Cast<to = 9>(graded_i)
    whole = Constant<value = float {{1}}>()
    zero = Constant<value = float {{0}}>()
    {broadcast_text("voltage", ["current_decay", "voltage_decay"], 1)}
    keep_u = Sub(whole, current_decay_b)
    keep_v = Sub(whole, voltage_decay_b)
    last_current, last_voltage, trace = Scan<num_scan_inputs = 1,
            body = step (u, v, xt) => (u_t, v_next, v_t) {{
        u_decayed = Mul(u, keep_u)
        u_t = Add(u_decayed, xt)
        v_decayed = Mul(v, keep_v)
        v_t = Add(v_decayed, u_t)
        reset = GreaterOrEqual(v_t, limit)
        v_next = Where(reset, zero, v_t)
    }}>(current, voltage, x)
    fired = GreaterOrEqual(trace, limit)
    s = If(is_graded) <
        then_branch = carried () => (carried_s) {{ carried_s = Where(fired, trace, zero) }},
        else_branch = counted () => (counted_s) {{ counted_s = Cast<to = 1>(fired) }}
    >
    """


def _samples() -> Sequence[Sample]:
    state = torch.tensor([[0.5, -0.7, 0.1]] * 2)
    plane = torch.arange(24).reshape(1, 2, 3, 4) / 50
    shared, channels, pair = (torch.tensor(v) for v in ([0.1], [0.0, 0.3, 1.0], [0.2, 0.9]))
    tail = (0.8, 100.0, 0.1)
    rtol = 1e-6  # one multiply-add a step; a fused one rounds once instead of twice
    return [
        Sample("shared", (drive(0, 2, 3, 20), shared, shared, state, state, *tail, False), rtol),
        Sample(
            "channels", (drive(1, 2, 3, 20), channels, channels, state, state, *tail, False), rtol
        ),
        Sample("images", (drive(2, 1, 2, 3, 4, 9), pair, shared, plane, plane, *tail, False), rtol),
        Sample("graded", (drive(3, 2, 3, 20), shared, channels, state, state, *tail, True), rtol),
    ]


OP = register(
    OpDef(
        name="CubaFloat",
        torch_op=torch.ops.synapse.cuba_float.default,
        inputs=("x", "current_decay", "voltage_decay", "current", "voltage"),
        outputs=("s", "last_current", "last_voltage"),
        attributes={"threshold": float, "graded": int},
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
    )
)
