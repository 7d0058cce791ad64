"""NIR primitives without a state, and the delay: one function each, from a node to a layer."""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from synapse_onnx import synapse
from synapse_onnx.block.base import Bias
from synapse_onnx.readers._fields import MAX_NEURONS, Shape
from synapse_onnx.readers._layers import delay_line, with_weight
from synapse_onnx.readers._nir.modules import PadEnd, PoolWindows, Reshape, Scale, Threshold, chain
from synapse_onnx.readers._nir.node import Layer, Node, as_text, declared_shape, sample_shape

__all__ = ["convolution", "delay", "flatten", "linear", "pool", "scale", "threshold"]

#: longest delay, in time steps
_MAX_DELAY = 1 << 16


def linear(node: Node) -> Layer:
    """Linear, Affine: y = W x [+ b]."""
    weight = node.tensor("weight")
    if weight.dim() != 2:
        raise node.mismatch("weight", f"it must have two axes, got {tuple(weight.shape)}")
    outputs, inputs = weight.shape
    flatten = None
    if node.shape is not None and node.shape != (inputs,):
        if node.shape not in ((inputs, 1, 1), (1, 1, inputs)):
            raise node.mismatch(
                "weight", f"it takes {inputs} inputs, and what comes in has the shape {node.shape}"
            )
        flatten = Reshape((inputs,))
    dense = with_weight(synapse.Dense(inputs, outputs), weight)
    return chain(flatten, dense, _bias(node, outputs)), (outputs,)


def _bias(node: Node, channels: int) -> Bias | None:
    """The bias of a node; None where there is none, or only zeros."""
    if not node.has("bias"):
        return None
    bias = node.tensor("bias").reshape(-1)
    if bias.numel() != channels:
        raise node.mismatch("bias", f"it holds {bias.numel()} values for {channels} channels")
    return Bias(bias) if bool(bias.any()) else None


def scale(node: Node) -> Layer:
    """Scale: y = s x."""
    return Scale(node.neuron_values(node.array("scale"))), node.shape


def threshold(node: Node) -> Layer:
    """Threshold: 1 where x > threshold, else 0."""
    return Threshold(node.neuron_values(node.array("threshold"))), node.shape


def convolution(node: Node) -> Layer:
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
        raise node.mismatch("weight", f"it takes {inputs} channels, and {shape} comes in")
    size = _output_size(node, "weight", kernel, stride, padding, dilation, extra)
    conv = synapse.Conv(inputs, outputs, kernel, stride, padding, dilation, groups)
    if size is not None:
        shape = (outputs, *size)
    pad = PadEnd(*extra) if any(extra) else None
    return chain(pad, with_weight(conv, weight), _bias(node, outputs)), shape


def pool(node: Node) -> Layer:
    """SumPool2d, AvgPool2d."""
    kernel = node.integers("kernel_size", 2, 1)
    stride = node.integers("stride", 2, 1)
    padding = node.integers("padding", 2, 0)
    size = _output_size(node, "kernel_size", kernel, stride, padding)
    shape = None if node.shape is None or size is None else (node.shape[0], *size)
    layer = synapse.Pool(kernel, stride, padding)
    layer.weight.data.fill_(1)
    count = math.prod(kernel) if node.kind == "AvgPool2d" else 1
    return PoolWindows(layer, size, count), shape


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
        raise node.mismatch("its input", f"it takes images, and {shape} comes in")
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


def flatten(node: Node) -> Layer:
    """Flatten: axes start_dim to end_dim of one sample become one."""
    if node.shape is None:
        raise node.invalid("input_type", "the shape of what it flattens is not known")
    sizes, declared = node.shape, declared_shape(node.node)
    expected = sample_shape(declared)
    if expected is not None and math.prod(expected) != math.prod(sizes):
        raise node.mismatch("input_type", f"it says {declared}, and {node.shape} comes in")
    if len(sizes) == 3 and sizes[1] == 1 and declared is not None and len(declared) == 2:
        sizes = (sizes[0], sizes[2])  # an image of one row is (C, L) in NIR
    start, end = (_axis(node, key, sizes) for key in ("start_dim", "end_dim"))
    if start > end:
        raise node.invalid("start_dim", f"it lies behind end_dim, {start} and {end}")
    merged = math.prod(sizes[start : end + 1])
    shape = sample_shape((*sizes[:start], merged, *sizes[end + 1 :]))
    assert shape is not None
    return (nn.Identity() if shape == node.shape else Reshape(shape)), shape


def _axis(node: Node, key: str, sizes: Shape) -> int:
    """An axis of a sample; a negative one counts from the end."""
    (axis,) = node.integers(key, 1, -len(sizes))
    if axis >= len(sizes):
        raise node.invalid(key, f"there is no axis {axis} in {sizes}")
    return axis % len(sizes)


def delay(node: Node) -> Layer:
    """Delay: y(t) = x(t - delay), with delays in seconds that are whole numbers of time steps."""
    dt = node.convention.dt
    steps = node.array("delay") / dt
    whole = np.rint(steps)
    if steps.min() < 0 or steps.max() > _MAX_DELAY:
        raise node.invalid("delay", f"it must be 0 to {_MAX_DELAY} steps, got {steps.max():g}")
    if (np.abs(steps - whole) > 1e-3 * np.maximum(steps, 1)).any():
        raise node.invalid(
            "delay",
            f"{node.array('delay').max():g} s is no whole number of steps of {dt:g} s; give "
            f"another dt",
        )
    return delay_line(node.neuron_values(whole).flatten()), node.shape
