"""lava-dl's ``.net`` files: trained networks for Loihi, as HDF5.

A file holds ``layer/0`` to ``layer/n-1``; each has a ``type``, a ``shape`` (C, H, W), parameters
of its synapse with integer weights in 64ths, and a group ``neuron``. The arithmetic is that of
:mod:`synapse_onnx.ops.arithmetic.loihi`. Source of the format: lava-dl, ``netx/README.md``,
``netx/hdf5.py`` and the methods ``export_hdf5`` of ``slayer/block/base.py``.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx import block
from synapse_onnx.errors import InputError
from synapse_onnx.readers._fields import MAX_NEURONS, Shape, located
from synapse_onnx.readers._hdf5 import open_hdf5
from synapse_onnx.readers._net.layer import WEIGHT_ONE, Layer, layers_of
from synapse_onnx.readers._net.synaptic import NeuronSpec, Synaptic
from synapse_onnx.readers._network import Concatenate, Network
from synapse_onnx.readers._registry import Reader, register

__all__ = ["load_net"]


def load_net(
    path: str | os.PathLike[str], delay_shift: bool = False, decimation: int | None = None
) -> nn.Module:
    """Read a network that lava-dl wrote, as a torch module in the loihi regime.

    Every layer is a block of :mod:`synapse_onnx.block`, a child of ``layers`` by the name
    ``<type>_<number>``. Input and output are in lava-dl's units: a weight of 64 is 1. Neurons
    whose threshold is beyond their 24 bits (lava-dl's Affine blocks) are readouts, and the output
    of a layer without a neuron is its current.

    Args:
        path: the file.
        delay_shift: delay the spikes of every spiking layer by a time step, as lava-dl does in
            training by default; never those of sigma-delta layers. The file does not say whether.
        decimation: time steps that a time decimation averages; lava-dl writes it as an average
            and leaves the number out.

    Returns:
        A module that takes (N, C[, H, W], T); in evaluation mode.

    Raises:
        InputError: no such file, no ``.net`` file, a damaged one, or h5py is not installed; the
            message names file, layer and key.
        ShapeError: weights, shapes and layers do not fit each other.
    """
    file = os.fspath(path)
    with open_hdf5(path, "lava", "load_net") as hdf5:
        builder = _Builder(delay_shift, decimation)
        for layer in list(layers_of(file, hdf5)):
            if layer.type not in _LAYERS:
                raise layer.invalid(
                    "type", f"there is no layer {layer.type!r}; known: {', '.join(_LAYERS)}"
                )
            with located(file, f"layer {layer.number} ({layer.type})"):
                _LAYERS[layer.type](builder, layer)
            builder.outputs.append((builder.last, builder.shape))
    if not builder.layers:
        raise InputError(f"{file}: there is an input and no other layer")
    inputs = {"input": builder.input_shape}
    return Network(builder.layers, builder.wires, inputs, [builder.last]).eval()


class _Builder:
    """Adds layers to a network, with the shape of the last one's output.

    Attributes:
        last: name of the last layer.
        shape: shape of its output, (C,) or (C, H, W); None where it is not known.
        outputs: name and shape after every layer of the file.
    """

    def __init__(self, delay_shift: bool, decimation: int | None) -> None:
        self.delay_shift, self.decimation = delay_shift, decimation
        self.layers: dict[str, nn.Module] = {}
        self.wires: dict[str, list[str]] = {}
        self.input_shape: Shape | None = None
        self.last = "input"
        self.shape: Shape | None = None
        self.outputs: list[tuple[str, Shape | None]] = []

    def add(self, name: str, module: nn.Module, shape: Shape | None, *sources: str) -> None:
        """Add a module that is fed by the last one, or by others."""
        self.layers[name] = module
        self.wires[name] = list(sources) or [self.last]
        self.last, self.shape = name, shape

    def flatten(self, name: str) -> None:
        """Flatten images, in the order C, H, W."""
        if self.shape is not None and len(self.shape) == 3:
            self.add(name, block.cuba.Flatten(), (math.prod(self.shape),))

    def synaptic(self, layer: Layer, kind: str, weights: list[Tensor], *arguments: Any) -> None:
        """Add a layer with a synapse; arguments are those of the block, after the neuron's."""
        parts = Synaptic(layer, kind, arguments, weights, self.delay_shift)
        delay, module, shape = parts.build(self.shape)
        if delay is not None:
            self.add(f"{layer.name}_delay", delay, self.shape)
        self.add(layer.name, module, shape)


def _input(net: _Builder, layer: Layer) -> None:
    if layer.number:
        raise layer.invalid("type", "an input must be the first layer")
    shape = net.shape = net.input_shape = layer.shape()
    if not layer.has("neuron"):
        return
    spec = NeuronSpec(layer)
    weight = layer.integer("weight", -(1 << 15), 1 << 15, default=WEIGHT_ONE)
    bias = layer.integer("bias", -(1 << 15), 1 << 15, default=0)
    made = getattr(block, spec.kind).Input(spec.params, delay_shift=net.delay_shift and spec.shifts)
    made.pre_hook_fx = functools.partial(_transformed, weight, bias)
    spec.apply(made.neuron, shape[0])
    net.add(layer.name, made, shape)


def _transformed(weight: int, bias: int, x: Tensor) -> Tensor:
    """The input transformation on Loihi: a whole number of 64ths; 64 is returned as 1."""
    return torch.round(x * weight + bias) / WEIGHT_ONE


def _dense(net: _Builder, layer: Layer) -> None:
    recurrent = layer.type == "dense_rec"
    if recurrent and not layer.has("neuron"):
        raise layer.invalid("neuron", "it is missing, and recurrent weights need spikes")
    weights = layer.weights("weight", 2)
    outputs, inputs = weights[0].shape[:2]
    if layer.number == 0:
        net.shape = net.input_shape = (inputs,)
    net.flatten(f"{layer.name}_flatten")
    if net.shape is not None and net.shape != (inputs,):
        raise layer.mismatch(
            layer.parts("weight")[0],
            f"it takes {inputs} inputs, and its input has the shape {net.shape}",
        )
    net.synaptic(layer, "Recurrent" if recurrent else "Dense", weights, inputs, outputs)


def _conv(net: _Builder, layer: Layer) -> None:
    weights = layer.weights("weight", 4)
    weight = weights[0]
    groups = layer.integer("groups", 1, MAX_NEURONS, default=1)
    first, second = int(weight.shape[0]), int(weight.shape[1]) * groups
    # a transposed convolution has its inputs on the first axis of the weight
    kind, *sizes = ("Conv", second, first) if layer.type == "conv" else ("ConvT", first, second)
    net.synaptic(layer, str(kind), weights, *sizes, *_window(layer, weight), groups)


def _pool(net: _Builder, layer: Layer) -> None:
    weights = layer.weights("weight", 4)
    net.synaptic(layer, layer.type.capitalize(), weights, *_window(layer, weights[0]))


def _window(layer: Layer, weight: Tensor) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, padding and dilation, each (height, width)."""
    kernel = int(weight.shape[2]), int(weight.shape[3])
    if layer.has("kernelSize") and layer.pair("kernelSize", 1) != kernel:
        raise layer.mismatch("kernelSize", f"it must be {kernel}, as the weight has it")
    return kernel, layer.pair("stride", 1), layer.pair("padding", 0), layer.pair("dilation", 1)


def _flatten(net: _Builder, layer: Layer) -> None:
    if net.shape is None:
        net.add(layer.name, block.cuba.Flatten(), (math.prod(layer.shape()),))
    net.flatten(layer.name)


def _average(net: _Builder, layer: Layer) -> None:
    """An average over groups of neurons; lava-dl writes a time decimation as one of size 1."""
    declared = layer.shape()
    if net.shape is not None and math.prod(net.shape) == math.prod(declared):
        if net.decimation is None:
            raise layer.invalid(
                "shape",
                "an average over no neurons is a time decimation, and the file does not say over "
                "how many steps: give decimation=STEPS",
            )
        net.add(layer.name, block.cuba.TimeDecimation(net.decimation), net.shape)
        return
    outputs = math.prod(declared)
    if net.shape is not None and math.prod(net.shape) % outputs:
        raise layer.mismatch("shape", f"{net.shape} neurons do not make {outputs} equal groups")
    net.add(layer.name, block.cuba.Average(outputs), (outputs,))


def _concat(net: _Builder, layer: Layer) -> None:
    sources, shapes = [net.last], [net.shape]
    for number in layer.integers("layers").reshape(-1):
        if not 0 <= number < layer.number:
            raise layer.invalid(
                "layers",
                f"layer {number} does not come before this one"
                + (", a cycle without a delay" if number >= layer.number else ""),
            )
        name, shape = net.outputs[number]
        if name not in sources:
            sources.append(name)
            shapes.append(shape)
    if len(sources) == 1:
        raise layer.invalid("layers", "it names no other layer than the one before")
    known = [shape for shape in shapes if shape is not None]
    if any(shape[1:] != known[0][1:] for shape in known):
        raise layer.mismatch("layers", f"layers of shapes {shapes} do not fit together")
    total = None
    if len(known) == len(shapes):
        total = (sum(shape[0] for shape in known), *known[0][1:])
        if math.prod(layer.shape()) != math.prod(total):
            raise layer.mismatch(
                "shape", f"the file says {layer.shape()}, and the layers make {total}"
            )
    net.add(layer.name, Concatenate(), total or layer.shape(), *sources)


#: type of a layer in a file -> the function that adds it
_LAYERS: Mapping[str, Callable[[_Builder, Layer], None]] = {
    "input": _input,
    "dense": _dense,
    "dense_rec": _dense,
    "conv": _conv,
    "convT": _conv,
    "pool": _pool,
    "unpool": _pool,
    "flatten": _flatten,
    "average": _average,
    "concat": _concat,
}


register(
    Reader(
        name="lava-dl",
        suffixes=(".net",),
        extra="lava",
        load=load_net,
        doc="trained networks of lava-dl for Loihi, in the loihi regime",
    )
)
