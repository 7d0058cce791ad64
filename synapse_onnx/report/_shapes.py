"""Shapes and types of the values of a graph: as the file states them, or as they follow."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx

from synapse_onnx.formatting import shape_text
from synapse_onnx.model.graph import ends_of, places_along
from synapse_onnx.report._ops import SYNAPSES, base_op

#: sizes, with a name or "?" for an open one
Shape = list[int | str]
#: name of a value -> shape and element type
Types = dict[str, tuple[Shape, int]]

#: layers whose output is of the shape of their input, besides those that spike
_ALIKE = ("Delay", "LeakyIntegrator", "LeakyIntegratorFloat", "Normalize", "Sigma")


def value_types(
    model: onnx.ModelProto, functions: Mapping[str, onnx.FunctionProto], needed: Iterable[str]
) -> Types:
    """Return shape and element type of values.

    Args:
        model: the model.
        functions: the functions of its ops of ours, by op.
        needed: values whose shape is wanted; where the file states all of them nothing is inferred.
    """
    types = _stated(model.graph)
    if any(value not in types for value in needed):
        # a model that is too large, or wrong, is drawn without shapes
        with contextlib.suppress(RuntimeError, ValueError):
            types = _stated(onnx.shape_inference.infer_shapes(model).graph) | types
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:  # onnx does not see through the loops of the bodies
        inputs, outputs = ends_of(node, functions)
        if inputs and node.input[0] in types:
            x, _ = types[node.input[0]]
            weight = inputs.get("weight") or inputs.get("weight_real") or ""
            shapes = _layer_shapes(node, x, list(outputs), weights.get(weight, []))
            types |= {outputs[o]: (s, onnx.TensorProto.FLOAT) for o, s in shapes.items()}
    return types


def type_text(types: Types, value: str) -> str:
    """Write the shape of a value, and its type where that is not float; "" if unknown."""
    if value not in types:
        return ""
    shape, kind = types[value]
    name = onnx.TensorProto.DataType.Name(kind).lower()
    return shape_text(shape) + (f" {name}" if name not in ("float", "undefined") else "")


def _stated(graph: onnx.GraphProto) -> Types:
    """Return shape and element type of the values whose shape a graph states."""
    types: Types = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            shape = [
                # a name that onnx made up, unk__3, says no more than that the size is open
                dim.dim_value
                if dim.HasField("dim_value")
                else re.sub(r"^(unk__\d+)?$", "?", dim.dim_param)
                for dim in kind.shape.dim
            ]
            types[value.name] = (shape, kind.elem_type)
    return types


def _layer_shapes(
    node: onnx.NodeProto, x: Shape, outputs: Sequence[str], weight: Sequence[int]
) -> dict[str, Shape]:
    """Return the shapes of a layer's sequences, from that of its input, time first."""
    base = base_op(node)
    if base not in SYNAPSES:
        alike = ("y",) if base in _ALIKE else ()
        return {o: x for o in outputs if o in ("s", *alike) or o.endswith("_trace")}
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    y = list(x)
    if base == "Dense" and len(x) == 3 and weight:
        y[2] = weight[0]
    elif len(x) == 5 == len(weight) and {"pads", "strides", "dilations"} <= set(attributes):
        group = attributes.get("group", 1)
        channels = {"Conv": weight[0], "ConvTranspose": weight[1] * group}
        y[2] = channels.get(base, x[2])
        y[3:] = [_image_size(x[3 + i], weight[2 + i], i, attributes, base) for i in range(2)]
    else:
        return {}
    return dict.fromkeys((o for o in outputs if o in ("y", "real", "imag")), y)


def _image_size(
    size: int | str, kernel: int, axis: int, attributes: Mapping[str, Any], base: str
) -> int | str:
    """Return rows or columns of what a convolution or a pool returns."""
    if isinstance(size, str):
        return "?"
    stride, dilation = attributes["strides"][axis], attributes["dilations"][axis]
    pads = attributes["pads"][axis] + attributes["pads"][2 + axis]
    transposed = base in ("ConvTranspose", "Unpool")
    return places_along(size, pads, kernel, stride, dilation, transposed=transposed)
