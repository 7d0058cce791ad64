"""NIR's primitives: one function each, from a node to a layer and the shape of its output.

A new primitive is a function here and a row of ``PRIMITIVES``. A neuron becomes
:class:`synapse_onnx.neuron.lif.Neuron`, u[t] = alpha u[t-1] + gain x[t]; v[t] = (1 - decay) v[t-1]
+ u[t] + drive, with the terms that the framework's convention makes of the differential equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from synapse_onnx import neuron, synapse
from synapse_onnx.block.base import Bias
from synapse_onnx.readers._fields import MAX_NEURONS, Array, Shape
from synapse_onnx.readers._network import delay_line, with_weight
from synapse_onnx.readers._nir import modules
from synapse_onnx.readers._nir.node import Layer, Node, as_text, declared_shape, sample_shape

#: longest delay, in time steps
_MAX_DELAY = 1 << 16
_ZERO = np.asarray(0.0)


def _linear(node: Node) -> Layer:
    """Linear, Affine: y = W x [+ b]."""
    weight = node.tensor("weight")
    if weight.dim() != 2:
        raise node.mismatch("weight", f"it must have two axes, got {tuple(weight.shape)}")
    outputs, inputs = weight.shape
    flatten = None
    if node.shape is not None and node.shape != (inputs,):
        if node.shape not in ((inputs, 1, 1), (1, 1, inputs)):
            raise node.mismatch(
                "weight", f"it takes {inputs} inputs, and its input has the shape {node.shape}"
            )
        flatten = modules.Reshape((inputs,))
    dense = with_weight(synapse.Dense(inputs, outputs), weight)
    return modules.chain(flatten, dense, _bias(node, outputs)), (outputs,)


def _bias(node: Node, channels: int) -> Bias | None:
    """The bias of a node; None where there is none, or only zeros."""
    if not node.has("bias"):
        return None
    bias = node.tensor("bias").reshape(-1)
    if bias.numel() != channels:
        raise node.mismatch("bias", f"it holds {bias.numel()} values for {channels} channels")
    return Bias(bias) if bool(bias.any()) else None


def _scale(node: Node) -> Layer:
    """Scale: y = s x."""
    return modules.Scale(node.neuron_values(node.array("scale"))), node.shape


def _threshold(node: Node) -> Layer:
    """Threshold: 1 where x > threshold, else 0."""
    return modules.Threshold(node.neuron_values(node.array("threshold"))), node.shape


def _convolution(node: Node) -> Layer:
    """Conv1d, Conv2d; a sequence (C, L) is an image (C, 1, L)."""
    axes = int(node.kind[4])
    weight = node.tensor("weight")
    if weight.dim() != 2 + axes:
        raise node.mismatch("weight", f"it must have {2 + axes} axes, got {tuple(weight.shape)}")

    def height_width(value: tuple[int, ...], height: int) -> tuple[int, int]:
        return (value[0], value[1]) if axes == 2 else (height, value[0])

    stride = height_width(node.integers("stride", axes, 1), 1)
    dilation = height_width(node.integers("dilation", axes, 1), 1)
    (groups,) = node.integers("groups", 1, 1)
    kernel = height_width(tuple(weight.shape[2:]), 1)
    padding, extra = (0, 0), (0, 0)
    mode = node.node.padding
    mode = as_text(mode) if isinstance(mode, bytes | str) else ""
    if mode == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if stride != (1, 1):
            raise node.invalid("padding", "same goes with a stride of 1")
        padding, extra = (reach[0] // 2, reach[1] // 2), (reach[0] % 2, reach[1] % 2)
    elif mode != "valid":
        padding = height_width(node.integers("padding", axes, 0), 0)
    outputs, inputs = int(weight.shape[0]), int(weight.shape[1]) * groups
    shape = node.shape
    if shape is not None and shape[0] != inputs:
        raise node.mismatch(
            "weight", f"it takes {inputs} channels, and its input has the shape {shape}"
        )
    size = _output_size(node, "weight", kernel, stride, padding, dilation, extra)
    conv = synapse.Conv(inputs, outputs, kernel, stride, padding, dilation, groups)
    if size is not None:
        shape = (outputs, *size)
    pad = modules.PadEnd(*extra) if any(extra) else None
    return modules.chain(pad, with_weight(conv, weight), _bias(node, outputs)), shape


def _pool(node: Node) -> Layer:
    """SumPool2d, AvgPool2d."""
    kernel = node.integers("kernel_size", 2, 1)
    stride = node.integers("stride", 2, 1)
    padding = node.integers("padding", 2, 0)
    size = _output_size(node, "kernel_size", kernel, stride, padding)
    shape = None if node.shape is None or size is None else (node.shape[0], *size)
    layer = synapse.Pool(kernel, stride, padding)
    layer.weight.data.fill_(1)
    count = math.prod(kernel) if node.kind == "AvgPool2d" else 1
    return modules.PoolWindows(layer, size, count), shape


def _output_size(
    node: Node,
    key: str,
    kernel: Shape,
    stride: Shape,
    padding: Shape,
    dilation: Shape = (1, 1),
    extra: Shape = (0, 0),
) -> tuple[int, int] | None:
    """Height and width of a convolution or pool; None where those of the input are not known."""
    shape = node.shape
    if math.prod(kernel) > MAX_NEURONS:
        raise node.mismatch(key, f"its kernel {kernel} is too large")
    if shape is None:
        return None
    if len(shape) != 3:
        raise node.mismatch("its input", f"it takes images, and the shape is {shape}")
    padded = [n + 2 * p + e for n, p, e in zip(shape[1:], padding, extra, strict=True)]
    if shape[0] * math.prod(padded) > MAX_NEURONS:
        raise node.mismatch("padding", f"an image of {tuple(padded)} with it is too large")
    height, width = (
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(padded, dilation, kernel, stride, strict=True)
    )
    if min(height, width) < 1:
        raise node.mismatch(key, f"its kernel {kernel} is larger than the image {shape}")
    return height, width


def _flatten(node: Node) -> Layer:
    """Flatten: axes start_dim to end_dim of one sample become one."""
    if node.shape is None:
        raise node.invalid("input_type", "the shape of its input is not known")
    sizes, declared = node.shape, declared_shape(node.node)
    expected = sample_shape(declared)
    if expected is not None and math.prod(expected) != math.prod(sizes):
        raise node.mismatch(
            "input_type", f"it says {declared}, and the input has the shape {node.shape}"
        )
    if len(sizes) == 3 and sizes[1] == 1 and declared is not None and len(declared) == 2:
        sizes = (sizes[0], sizes[2])  # an image of one row is (C, L) in NIR
    start, end = (_axis(node, key, sizes) for key in ("start_dim", "end_dim"))
    if start > end:
        raise node.invalid("start_dim", f"axis {start} comes after end_dim, {end}")
    merged = math.prod(sizes[start : end + 1])
    shape = sample_shape((*sizes[:start], merged, *sizes[end + 1 :]))
    assert shape is not None
    return (nn.Identity() if shape == node.shape else modules.Reshape(shape)), shape


def _axis(node: Node, key: str, sizes: Shape) -> int:
    """An axis of a sample; a negative one counts from the end."""
    (axis,) = node.integers(key, 1, -len(sizes))
    if axis >= len(sizes):
        raise node.invalid(key, f"there is no axis {axis} in {sizes}")
    return axis % len(sizes)


def _delay(node: Node) -> Layer:
    """Delay: y(t) = x(t - delay), with delays in seconds that are whole numbers of time steps."""
    dt = node.convention.dt
    steps = node.array("delay") / dt
    whole = np.rint(steps)
    if steps.min() < 0 or steps.max() > _MAX_DELAY:
        raise node.invalid("delay", f"it must be 0 to {_MAX_DELAY} steps, got {steps.max():g}")
    if (np.abs(steps - whole) > 1e-3 * np.maximum(steps, 1)).any():
        raise node.invalid(
            "delay",
            f"{node.array('delay').max():g} s is not a whole number of time steps of {dt:g} s; "
            f"give another dt",
        )
    return delay_line(node.neuron_values(whole).flatten()), node.shape


def _integrator(node: Node) -> Layer:
    """I, IF: dv/dt = r x."""
    step = node.convention.dt if node.convention.integrate == "dt" else 1.0
    return _layer(node, alpha=_ZERO, gain=node.array("r") * step, decay=_ZERO, drive=_ZERO)


def _leaky(node: Node) -> Layer:
    """Leaky neurons, with a synaptic current or without.

    LI, LIF: tau dv/dt = (v_leak - v) + r x. CubaLI, CubaLIF: tau_syn du/dt = -u + w_in x;
    tau_mem dv/dt = (v_leak - v) + r u.
    """
    current_based = node.kind.startswith("Cuba")
    key = "tau_mem" if current_based else "tau"
    tau, decay = node.positive(key), _decay(node, key)
    alpha, spikes = _ZERO, node.kind in SPIKING
    gain = node.convention.voltage_gain(tau, decay, spikes=spikes) * node.array("r")
    if current_based:
        current_decay = _decay(node, "tau_syn")
        alpha = 1 - current_decay
        gain = gain * node.array("w_in") * node.convention.current_gain(current_decay)
    return _layer(node, alpha=alpha, gain=gain, decay=decay, drive=decay * node.array("v_leak"))


def _decay(node: Node, key: str) -> Array:
    """The fraction by which a state with the time constant ``key`` decays in a time step."""
    decay = node.convention.decay(node.positive(key))
    if decay.max() > 1 + 1e-6:
        raise node.invalid(
            key,
            f"a time step of {node.convention.dt:g} s is longer than this time constant; give "
            f"another dt, or framework='norse', version='1.1.0' for a graph that Norse 1.1.0 wrote",
        )
    return np.minimum(decay, 1)


def _layer(node: Node, *, alpha: Array, gain: Array, decay: Array, drive: Array) -> Layer:
    """Return a neuron from the terms of its difference equation."""
    convention, spikes = node.convention, node.kind in SPIKING
    level = node.array("v_threshold") if spikes else _ZERO
    reset_value = node.array("v_reset") if spikes and node.has("v_reset") else _ZERO
    # our voltages start at zero, so they are taken relative to the initial voltage
    rests = {
        "zero": _ZERO,
        "v_reset": reset_value,
        "v_leak": node.array("v_leak") if node.has("v_leak") else _ZERO,
    }
    rest = rests[convention.rest]
    terms = {"alpha": alpha, "gain": gain, "beta": 1 - decay, "drive": drive - decay * rest}
    if spikes:
        terms |= {"threshold": level - rest, "reset_value": reset_value - rest}
    reset = convention.reset
    if reset == "zero" and (np.any(alpha != 0) or node.feedback or node.looped):
        reset = convention.zero_behind
    how: dict[str, Any] = {"reset": reset, "strict": convention.strict}
    if spikes:
        how["max_spikes"] = convention.max_spikes
    lowest = convention.lowest(node.kind, level)
    if lowest is not None:
        terms["lowest"] = lowest - rest
        if not spikes:  # one that never spikes has no reset
            how, terms["threshold"] = {"reset": "subtract", "strict": False}, np.asarray(1.0)
    if spikes and convention.max_spikes > 1 and rest.any():
        raise node.invalid(
            "v_threshold", "several spikes in a time step go with voltages that start at zero"
        )
    values: dict[str, Any] = {name: node.neuron_values(value) for name, value in terms.items()}
    layer = neuron.lif.Neuron(**values, **how)
    if not spikes:
        layer.as_readout()
        offset = modules.Offset(node.neuron_values(rest)) if rest.any() else None
        return modules.chain(layer, offset), node.shape
    return (_with_feedback(node, layer) if node.feedback else layer), node.shape


def _with_feedback(node: Node, layer: Any) -> modules.FeedbackNeuron:
    """Connect a neuron to itself by the sum of its feedback paths."""
    weights = [weight for weight, _ in node.feedback]
    if any(weight.shape != weights[0].shape for weight in weights):
        raise node.mismatch("its feedback", "its paths have different shapes")
    total = torch.stack(weights).sum(0)
    count = len(total)
    if node.shape is not None and node.shape != (count,):
        raise node.mismatch("its feedback", f"it has {count} neurons, and the node {node.shape}")
    recurrent = with_weight(synapse.Dense(count, count), total)
    biases = [bias for _, bias in node.feedback if bias is not None]
    bias = Bias(torch.stack(biases).sum(0)) if biases else None
    return modules.FeedbackNeuron(layer, recurrent, bias)


#: name of a primitive -> the function that makes a layer of it
PRIMITIVES: Mapping[str, Callable[[Node], Layer]] = {
    "Affine": _linear,
    "AvgPool2d": _pool,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "CubaLI": _leaky,
    "CubaLIF": _leaky,
    "Delay": _delay,
    "Flatten": _flatten,
    "I": _integrator,
    "IF": _integrator,
    "LI": _leaky,
    "LIF": _leaky,
    "Linear": _linear,
    "Scale": _scale,
    "SumPool2d": _pool,
    "Threshold": _threshold,
}
#: primitives whose feedback arrives one time step later
SPIKING = ("IF", "LIF", "CubaLIF")
#: primitives with a state, one of which a cycle needs
STATEFUL = (*SPIKING, "I", "LI", "CubaLI")
#: primitives that a feedback path may hold: each is a matrix, and so is their product
LINEAR = ("Linear", "Affine", "Scale")
