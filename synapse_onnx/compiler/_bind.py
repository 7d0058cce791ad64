"""Function bodies: every op of ours in a graph becomes an ONNX function of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from synapse_onnx._version import __version__
from synapse_onnx.model.metadata import layer_of
from synapse_onnx.model.options import Options
from synapse_onnx.ops import DOMAIN, DOMAIN_VERSION, OpDef, get_op, iter_used

__all__ = ["arithmetic_of_layers", "bind_bodies"]


def bind_bodies(model: onnx.ModelProto, options: Options) -> onnx.ModelProto:
    """Attach the function body of every op of ours that the graph uses."""
    del model.functions[:]
    used = iter_used((node.domain, node.op_type) for node in model.graph.node)
    omits = _omits(model)
    model.functions.extend(
        op.function(options.opset, *omits.get(op.name, ()), streaming=options.streaming)
        for op in used
    )
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", options.opset))
    if used:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
    model.producer_name = "synapse-onnx"
    model.producer_version = __version__
    model.graph.name = "network"
    return model


def arithmetic_of_layers(model: onnx.ModelProto) -> dict[str, str]:
    """Return the path of each layer with a node of ours -> the numbers that it computes in."""
    texts: dict[str, list[str]] = {}
    for node, op, attributes, constants in _own_nodes(model):
        path = layer_of(node)
        if path is not None and op.arithmetic is not None:
            texts.setdefault(path, []).append(op.arithmetic(attributes, constants))
    return {path: ", ".join(dict.fromkeys(parts)) for path, parts in texts.items()}


def _omits(model: onnx.ModelProto) -> dict[str, set[frozenset[str]]]:
    """Return the name of each op -> the sets of what its nodes may leave out."""
    omits: dict[str, set[frozenset[str]]] = {}
    for _, op, attributes, constants in _own_nodes(model):
        if op.omits is not None:
            omits.setdefault(op.name, set()).add(op.omits(attributes, constants))
    return omits


def _own_nodes(
    model: onnx.ModelProto,
) -> Iterator[tuple[onnx.NodeProto, OpDef, dict[str, Any], dict[str, onnx.TensorProto]]]:
    """Yield every node of ours with its op, its attributes and its constant inputs, by name."""
    initializers = {value.name: value for value in model.graph.initializer}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            op = get_op(node.op_type)
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            ends = zip(op.inputs, node.input, strict=False)
            constants = {name: initializers[key] for name, key in ends if key in initializers}
            yield node, op, attributes, constants
