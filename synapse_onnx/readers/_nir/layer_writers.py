"""From layers to NIR nodes: one function a layer class, in the table ``_WRITERS``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synapse_onnx import neuron, synapse
from synapse_onnx.axon import Delay, StepDelay
from synapse_onnx.block.base import Bias, Block, Flatten
from synapse_onnx.readers._fields import Array, Shape
from synapse_onnx.readers._nir import modules
from synapse_onnx.readers._nir.graph_writer import GraphWriter, LayerWriter, nir_shape


def write_layer(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    """Add a layer or a container to a graph; return the nodes whose sum is its output."""
    for kind, write in _WRITERS.items():
        if isinstance(layer, kind):
            return write(writer, layer, path, sources)
    raise writer.refused(path, layer, "NIR has no node for it")


def _container(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    """Add the children of a sequence or a block, one after another."""
    if getattr(layer, "mask", None) is not None or getattr(layer, "count_log", False):
        raise writer.refused(path, layer, "masks and count_log are not written")
    if hasattr(layer, "recurrent_synapse"):
        raise writer.refused(path, layer, "write recurrent layers that load_nir made")
    for name, child in layer.named_children():
        sources = write_layer(writer, child, f"{path}.{name}" if path else name, sources)
    return sources


# -- parameters ----------------------------------------------------------------------------------


def _array(value: Tensor) -> Array:
    return np.atleast_1d(value.detach().cpu().double().numpy())


def _per_neuron(value: Tensor, shape: Shape) -> Array:
    """A parameter as NIR stores it: one value a neuron."""
    values = _array(value)
    if values.size == shape[0] and values.ndim == 1:
        values = values.reshape(-1, *(1,) * (len(shape) - 1))
    return np.ascontiguousarray(np.broadcast_to(values, shape)).reshape(nir_shape(shape))


def _matrix(synapse: Any) -> Array:
    """The weight in use of a dense synapse, (outputs, inputs)."""
    weight = _array(synapse.effective_weight)
    return weight.reshape(weight.shape[:2])


def _window(pool: Any) -> tuple[Array, ...]:
    """Kernel, stride and padding, (height, width) each."""
    return tuple(np.array(size[:2]) for size in (pool.kernel_size, pool.stride, pool.padding))


# -- synapses ------------------------------------------------------------------------------------


def _dense(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    if layer.kernel_size != (1, 1, 1):
        raise writer.refused(path, layer, "flatten the image before a dense synapse")
    return writer.add(path, writer.nir.Linear(_matrix(layer)), sources)


def _conv(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    weight = _array(layer.effective_weight)[..., 0]
    shape = writer.shapes[id(layer)][0]
    sizes: list[Any] = [
        tuple(int(n) for n in v[:2]) for v in (layer.stride, layer.padding, layer.dilation)
    ]
    image_size: Any = shape[1:]
    kind = writer.nir.Conv2d
    if len(nir_shape(shape)) == 2:
        kind, image_size, weight = writer.nir.Conv1d, shape[2], weight[:, :, 0]
        sizes = [size[1] for size in sizes]
    stride, padding, dilation = sizes
    bias = np.zeros(len(weight))
    node = kind(image_size, weight, stride, padding, dilation, layer.groups, bias)
    return writer.add(path, node, sources)


def _pool(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    shape, output = writer.shapes[id(layer)]
    kernel, stride, padding = _window(layer)
    whole = tuple((np.array(shape[1:]) + 2 * padding - kernel) // stride + 1)
    if layer.merge_channels or whole != output[1:] or tuple(layer.dilation[:2]) != (1, 1):
        raise writer.refused(path, layer, "its windows reach beyond the image or across channels")
    sources = writer.add(path, writer.nir.SumPool2d(kernel, stride, padding), sources)
    weight = _array(layer.effective_weight).reshape(-1)
    if (weight != weight[0]).any():
        raise writer.refused(path, layer, "its weights differ")
    if weight[0] != 1:
        scale = np.full(nir_shape(output), weight[0])
        sources = writer.add(f"{path}.scale", writer.nir.Scale(scale), sources)
    return sources


def _bias(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    """Store a bias in the node of the synapse before it."""
    (before,) = sources if len(sources) == 1 else ("",)
    node: Any = writer.nodes.get(before)
    bias = -_array(layer.mean)
    shared = sum(source == before for source, _ in writer.edges)
    kind = type(node).__name__
    if shared or kind not in ("Linear", "Conv1d", "Conv2d"):
        raise writer.refused(path, layer, "a bias must follow a synapse that feeds nothing else")
    if kind == "Linear":
        writer.nodes[before] = writer.nir.Affine(
            node.weight, np.broadcast_to(bias, len(node.weight)).copy()
        )
    else:
        node.bias = np.broadcast_to(bias, len(node.bias)).copy()
    return sources


# -- layers without parameters, delays -----------------------------------------------------------


def _identity(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    return sources


def _flatten(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    if isinstance(layer, modules.Reshape) and len(layer.shape) != 1:
        raise writer.refused(path, layer, "only a flattening to one axis is written")
    shape = writer.shapes[id(layer)][0]
    node = writer.nir.Flatten({"input": np.array(nir_shape(shape))}, 0, -1)
    return writer.add(path, node, sources)


def _delay(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    shape = writer.shapes[id(layer)][0]
    steps = torch.ones(1) if isinstance(layer, StepDelay) else layer._steps().float()
    steps = steps.reshape(shape) if steps.numel() == math.prod(shape) else steps
    return writer.add(path, writer.nir.Delay(_per_neuron(steps, shape) * writer.dt), sources)


# -- layers that load_nir made -------------------------------------------------------------------


def _scale(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    scale = _per_neuron(layer.scale, writer.shapes[id(layer)][0])
    return writer.add(path, writer.nir.Scale(scale), sources)


def _threshold(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    threshold = _per_neuron(layer.threshold, writer.shapes[id(layer)][0])
    return writer.add(path, writer.nir.Threshold(threshold), sources)


def _pool_windows(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    kind = writer.nir.SumPool2d if layer.count == 1 else writer.nir.AvgPool2d
    return writer.add(path, kind(*_window(layer.pool)), sources)


def _offset(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    raise writer.refused(path, layer, "a readout must start from zero")


def _feedback(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    """Add a neuron, and a matrix whose edges lead from the neuron back into it."""
    sources = write_layer(writer, layer.neuron, f"{path}.neuron", sources)
    node = writer.nir.Linear(_matrix(layer.recurrent_synapse))
    if layer.bias is not None:
        node = writer.nir.Affine(node.weight, -_array(layer.bias.mean))
    (recurrent,) = writer.add(f"{path}.recurrent", node, sources)
    writer.edges.append((recurrent, sources[0]))
    return sources


# -- neurons -------------------------------------------------------------------------------------


def _lif(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    shape = writer.shapes[id(layer)][0]
    terms = {
        name: _per_neuron(getattr(layer, name), shape)
        for name in ("alpha", "beta", "gain", "drive")
    }
    level = None
    if not layer.readout:
        reset = layer.reset_kind
        if reset.endswith("zero") and (bool(layer.alpha.any()) or layer._fed):
            writer.settle(path, layer, reset="zero", zero_behind=reset, strict=layer.strict)
        elif reset == "delayed_zero":
            raise writer.refused(path, layer, "this reset goes with a current or with feedback")
        else:
            writer.settle(path, layer, reset=reset, strict=layer.strict)
        level = layer.v_threshold.detach()
        if layer.strict:  # "above 1" is stored as "at the next float32 after 1"
            level = torch.nextafter(level, torch.tensor(-math.inf))
        level = _per_neuron(level, shape)
    reset_value = 0 * terms["gain"]
    if layer.reset_kind.endswith("zero"):
        reset_value = _per_neuron(layer.v_reset, shape)
    return _neuron(writer, layer, path, sources, terms, level, reset_value)


def _cuba(writer: GraphWriter, layer: Any, path: str, sources: list[str]) -> list[str]:
    if layer.regime != "float" or layer.graded_spike:
        raise writer.refused(path, layer, "NIR has float states and spikes of 1; regime='float'")
    shape = writer.shapes[id(layer)][0]
    terms = {
        "alpha": 1 - _per_neuron(layer.current_decay, shape),
        "beta": 1 - _per_neuron(layer.voltage_decay, shape),
        "gain": np.ones(nir_shape(shape)),
        "drive": np.zeros(nir_shape(shape)),
    }
    level = None
    if not layer.readout:
        with_current = {"zero_behind": "zero"} if terms["alpha"].any() else {}
        writer.settle(path, layer, reset="zero", strict=False, **with_current)
        level = np.full(nir_shape(shape), layer.threshold)
    return _neuron(writer, layer, path, sources, terms, level, 0 * terms["gain"])


def _neuron(
    writer: GraphWriter,
    layer: Any,
    path: str,
    sources: list[str],
    terms: dict[str, Array],
    level: Array | None,
    reset_value: Array,
) -> list[str]:
    """Add a neuron from the terms of its difference equation; without a threshold, a readout.

    The inverse of the neurons in ``primitives.py``, by the Euler method: decay = dt / tau.
    """
    if any(getattr(layer, name) is not None for name in layer._norm_names()):
        raise writer.refused(path, layer, "NIR has no norm")
    nir, dt = writer.nir, writer.dt
    alpha, beta, gain, drive = (terms[name] for name in ("alpha", "beta", "gain", "drive"))
    spikes = {} if level is None else {"v_threshold": level, "v_reset": reset_value}
    if (beta == 1).all() and not alpha.any() and not drive.any():
        kind = nir.I if level is None else nir.IF
        return writer.add(path, kind(r=gain / dt, **spikes), sources)
    if (beta >= 1).any() or (alpha >= 1).any() or (beta < 0).any() or (alpha < 0).any():
        raise writer.refused(path, layer, "what it keeps of its states must lie in [0, 1)")
    decay = 1 - beta
    leak = {"r": gain / decay, "v_leak": drive / decay}
    if not alpha.any():
        kind = nir.LI if level is None else nir.LIF
        return writer.add(path, kind(tau=dt / decay, **leak, **spikes), sources)
    kind = nir.CubaLI if level is None else nir.CubaLIF
    current_decay = 1 - alpha
    current = {"tau_syn": dt / current_decay, "tau_mem": dt / decay, "w_in": 1 / current_decay}
    return writer.add(path, kind(**current, **leak, **spikes), sources)


#: class of a layer -> the function that writes it; the first that fits is taken
_WRITERS: dict[type, LayerWriter] = {
    synapse.Dense: _dense,
    synapse.Conv: _conv,
    synapse.Pool: _pool,
    Bias: _bias,
    Flatten: _flatten,
    Delay: _delay,
    StepDelay: _delay,
    nn.Identity: _identity,
    neuron.lif.Neuron: _lif,
    neuron.cuba.Neuron: _cuba,
    modules.Scale: _scale,
    modules.Offset: _offset,
    modules.Threshold: _threshold,
    modules.PoolWindows: _pool_windows,
    modules.Reshape: _flatten,
    modules.FeedbackNeuron: _feedback,
    nn.Sequential: _container,
    Block: _container,
}
