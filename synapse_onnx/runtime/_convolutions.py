"""Convolutions of spikes in networks of other frameworks, as nodes with a native kernel.

    c = Conv (spikes, weight, bias)    y = BatchNormalization (c, ...)     becomes
    y = ai.synapse.ConvAndBias (spikes, weights, biases)

with the norm in weights and biases, where ONNX Runtime would put it, too. Convolutions of other
values stay: ONNX Runtime computes them in a layout of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synapse_onnx.model.graph import DOMAIN, taken_by
from synapse_onnx.model.tiles import is_in_tiles
from synapse_onnx.runtime._products import (
    NO_BIAS,
    comes_from_spikes,
    float_constants,
    state_no_bias,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["CONVOLUTION", "convolutions", "take_in"]

#: the node that they become
CONVOLUTION = "ConvAndBias"

#: attributes of a convolution of images, with their defaults
_GEOMETRY = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1}


class _Convolution(NamedTuple):
    """A convolution of spikes, in a graph or in the body of its tiles."""

    graph: onnx.GraphProto
    node: onnx.NodeProto
    geometry: dict[str, Any]
    #: the norm of its outputs, which nothing else reads
    norm: onnx.NodeProto | None


def convolutions(graph: onnx.GraphProto) -> Iterator[_Convolution]:
    """Yield the convolutions of images of spikes, with constant float weights."""
    yield from _within(graph, None)
    for node in graph.node:
        if is_in_tiles(node) and comes_from_spikes(graph, node.input[0]):
            body = next(a.g for a in node.attribute if a.name == "body")
            yield from _within(body, body.input[0].name)


def _within(graph: onnx.GraphProto, spikes: str | None) -> Iterator[_Convolution]:
    """Yield those of one graph, in which a value may be known to be spikes."""
    from onnx import helper

    constants = float_constants(graph)
    read = Counter(name for node in graph.node for name in taken_by(node))
    read.update(output.name for output in graph.output)
    for node in graph.node:
        if node.domain != "" or node.op_type != "Conv":
            continue
        weight = constants.get(node.input[1])
        if weight is None or len(weight.dims) != 4:
            continue
        bias = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else weight
        if bias is None or (bias is not weight and bias.dims[:] != weight.dims[:1]):
            continue
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        geometry = {name: options.get(name, default) for name, default in _GEOMETRY.items()}
        if options.get("auto_pad", b"NOTSET") != b"NOTSET" or min(geometry["pads"]) < 0:
            continue
        if not comes_from_spikes(graph, node.input[0], spikes):
            continue
        norm = None
        for other in graph.node:
            if other.op_type == "BatchNormalization" and other.input[0] == node.output[0]:
                norm = other
        if norm is not None and not _is_constant(norm, constants, read[node.output[0]]):
            norm = None
        yield _Convolution(graph, node, geometry, norm)


def _is_constant(
    norm: onnx.NodeProto, constants: dict[str, onnx.TensorProto], readers: int
) -> bool:
    """Return whether a norm can go into the weights of the convolution that it alone reads."""
    training = any(a.name == "training_mode" and a.i for a in norm.attribute)
    known = all(name in constants for name in norm.input[1:5])
    return readers == 1 and known and not training and len(norm.output) == 1


def take_in(top: onnx.GraphProto) -> None:
    """Make nodes with a native kernel of the convolutions of a graph."""
    import onnx

    for graph, node, geometry, norm in list(convolutions(top)):
        inputs = [*node.input, ""][:3]
        inputs[2] = inputs[2] or NO_BIAS
        if norm is not None:
            inputs[1:] = _normed(graph, node, norm, inputs)
            node.output[0] = norm.output[0]
            graph.node.remove(norm)
        if inputs[2] == NO_BIAS:
            state_no_bias(top)
        del node.input[:], node.attribute[:]
        node.input.extend(inputs)
        node.attribute.extend(onnx.helper.make_attribute(*item) for item in geometry.items())
        node.op_type, node.domain = CONVOLUTION, DOMAIN


def _normed(
    graph: onnx.GraphProto, node: onnx.NodeProto, norm: onnx.NodeProto, inputs: list[str]
) -> list[str]:
    """Add weights and biases with a norm in them to a graph; return their names."""
    from onnx import numpy_helper

    constants = float_constants(graph)
    weight, scale, shift, mean, variance = (
        numpy_helper.to_array(constants[name]).astype(np.float64)
        for name in (inputs[1], *norm.input[1:5])
    )
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    bias = numpy_helper.to_array(constants[inputs[2]]) if inputs[2] != NO_BIAS else 0.0
    factor = scale / np.sqrt(variance + epsilon)
    values = weight * factor[:, None, None, None], (bias - mean) * factor + shift
    names = [f"{norm.output[0]}/weights", f"{norm.output[0]}/biases"]
    for name, value in zip(names, values, strict=True):
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return names
