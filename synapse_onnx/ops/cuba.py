"""Current-based leaky integrate-and-fire neuron (CUBA) in fixed point, as slayer computes it.

u[t] = trunc(u[t-1] * (4096 - current_decay) / 4096) + trunc(scale * x[t]);
v[t] = trunc(v[t-1] * (4096 - voltage_decay) / 4096) + int(float32(u[t]));
s[t] = 1 where v[t] >= threshold, else 0 (graded: v[t] / scale); v[t] = 0 where it spiked.
The scale is a power of two; states and threshold are integers in units of 1 / scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.fixed import DECAY_ONE, NO_THRESHOLD
from synapse_onnx.ops._neuron import broadcast_text, drive, register_composed_gradient
from synapse_onnx.ops._registry import OpDef, Sample, register
from synapse_onnx.ops._symbolic import node, time_first, time_last
from synapse_onnx.ops.leaky_integrator import leaky_integrator
from synapse_onnx.ops.spike import spike


def _compose(
    x: Tensor, current_decay: Tensor, voltage_decay: Tensor, current: Tensor, voltage: Tensor,
    scale: int, threshold: int, tau: float, gradient_scale: float, graded: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The neuron as two integrators and a spike function, each with its own gradient."""
    u, last_current = leaky_integrator(x, current_decay, current, scale, NO_THRESHOLD)
    v, last_voltage = leaky_integrator(u, voltage_decay, voltage, scale, threshold)
    return spike(v, threshold / scale, tau, gradient_scale, graded), last_current, last_voltage


@torch.library.custom_op("synapse::cuba", mutates_args=())
def cuba(
    x: Tensor, current_decay: Tensor, voltage_decay: Tensor, current: Tensor, voltage: Tensor,
    scale: int, threshold: int, tau: float, gradient_scale: float, graded: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the neuron over x (N, C[, H, W], T) from int64 states (N, C[, H, W])."""
    return _compose(
        x, current_decay, voltage_decay, current, voltage,
        scale, threshold, tau, gradient_scale, graded,
    )  # fmt: skip


@cuba.register_fake
def _(
    x: Tensor, current_decay: Tensor, voltage_decay: Tensor, current: Tensor, voltage: Tensor,
    scale: int, threshold: int, tau: float, gradient_scale: float, graded: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    s = torch.empty_like(x, memory_format=torch.contiguous_format)
    return s, torch.empty_like(current), torch.empty_like(voltage)


register_composed_gradient(cuba, _compose, tensors=5)


def _symbolic(
    x: Any, current_decay: Any, voltage_decay: Any, current: Any, voltage: Any,
    scale: int, threshold: int, tau: float, gradient_scale: float, graded: bool,
) -> Any:  # fmt: skip
    del tau, gradient_scale  # they shape the gradient alone
    s, last_current, last_voltage = node(
        "Cuba", time_first(x), current_decay, voltage_decay, current, voltage,
        scale=scale, threshold=threshold, graded=int(graded),
    )  # fmt: skip
    return time_last(s, len(x.shape)), last_current, last_voltage


def _body(opset: int) -> str:
    del opset
    return f"""
    scale_i = Constant<value_int: int = @scale>()
    scale_f = Cast<to = 1>(scale_i)
    limit = Constant<value_int: int = @threshold>()
    graded_i = Constant<value_int: int = @graded>()
    is_graded = Cast<to = 9>(graded_i)
    whole = Constant<value = int64 {{{DECAY_ONE}}}>()
    zero = Constant<value = int64 {{0}}>()
    zero_f = Constant<value = float {{0}}>()
    {broadcast_text("voltage", ["current_decay", "voltage_decay"], 7)}
    keep_u = Sub(whole, current_decay_b)
    keep_v = Sub(whole, voltage_decay_b)
    scaled = Mul(x, scale_f)
    inputs = Cast<to = 7>(scaled)
    last_current, last_voltage, trace = Scan<num_scan_inputs = 1,
            body = step (u, v, xt) => (u_t, v_next, v_t) {{
        u_product = Mul(u, keep_u)
        u_decayed = Div(u_product, whole)
        u_t = Add(u_decayed, xt)
        u_f = Cast<to = 1>(u_t)
        drive = Cast<to = 7>(u_f)
        v_product = Mul(v, keep_v)
        v_decayed = Div(v_product, whole)
        v_t = Add(v_decayed, drive)
        reset = GreaterOrEqual(v_t, limit)
        v_next = Where(reset, zero, v_t)
    }}>(current, voltage, inputs)
    fired = GreaterOrEqual(trace, limit)
    s = If(is_graded) <
        then_branch = carried () => (carried_s) {{
            trace_f = Cast<to = 1>(trace)
            height = Div(trace_f, scale_f)
            carried_s = Where(fired, height, zero_f)
        }},
        else_branch = counted () => (counted_s) {{ counted_s = Cast<to = 1>(fired) }}
    >
    """


def _samples() -> Sequence[Sample]:
    state = torch.tensor([[500, -700, 90]] * 2)
    plane = torch.arange(24).reshape(1, 2, 3, 4) * 10
    shared, channels = torch.tensor([300.0]), torch.tensor([0.0, 1000.0, 4096.0])
    pair = torch.tensor([128.0, 2000.0])
    tail = (4096, 3000, 100.0, 0.1)
    return [
        Sample("shared", (drive(0, 2, 3, 20), shared, shared, state, state, *tail, False)),
        Sample("channels", (drive(1, 2, 3, 20), channels, channels, state, state, *tail, False)),
        Sample("images", (drive(2, 1, 2, 3, 4, 9), pair, shared, plane, plane, *tail, False)),
        Sample("graded", (drive(3, 2, 3, 20), shared, channels, state, state, *tail, True)),
        # a current past 2**24 shows the rounding to float32 between current and voltage
        Sample(
            "beyond-float32",
            (drive(4, 2, 3, 20) * 3e4 + 1 / 4096, shared, shared, state, state, 4096, 1 << 40,
             100.0, 0.1, False),
        ),
    ]  # fmt: skip


OP = register(
    OpDef(
        name="Cuba",
        torch_op=torch.ops.synapse.cuba.default,
        inputs=("x", "current_decay", "voltage_decay", "current", "voltage"),
        outputs=("s", "last_current", "last_voltage"),
        attributes={"scale": int, "threshold": int, "graded": int},
        symbolic=_symbolic,
        body=_body,
        samples=_samples,
        doc=" ".join(__doc__.split()),
    )
)
