"""Function bodies: every op of ours in a graph becomes an ONNX function of the model."""

from __future__ import annotations

import onnx

from synapse_onnx._version import __version__
from synapse_onnx.model.metadata import layer_of
from synapse_onnx.model.options import Options
from synapse_onnx.ops import DOMAIN, DOMAIN_VERSION, get_op, iter_used

__all__ = ["bind_bodies"]


def bind_bodies(model: onnx.ModelProto, options: Options) -> dict[str, str]:
    """Attach the function body of every op of ours that the graph uses.

    Returns:
        Path of each layer with a node of ours -> the numbers that it computes in.
    """
    initializers = {value.name: value for value in model.graph.initializer}
    #: name of each op -> the sets of what its nodes may leave out
    omits: dict[str, set[frozenset[str]]] = {}
    texts: dict[str, dict[str, None]] = {}  # in order, each once
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        op = get_op(node.op_type)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        ends = zip(op.inputs, node.input, strict=False)
        constants = {name: initializers[key] for name, key in ends if key in initializers}
        left_out = frozenset[str]()
        if op.omits is not None:
            left_out = op.omits(attributes, constants)
            omits.setdefault(op.name, set()).add(left_out)
        path = layer_of(node)
        if path is not None and op.arithmetic is not None:
            texts.setdefault(path, {})[op.arithmetic(attributes, constants, left_out)] = None
    used = iter_used((node.domain, node.op_type) for node in model.graph.node)
    del model.functions[:]
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
    return {path: ", ".join(parts) for path, parts in texts.items()}
