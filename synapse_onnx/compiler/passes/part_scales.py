"""Part a scale from the product after it, where ONNX Runtime would write an invalid graph.

A value that is multiplied by one number, and again by another, may enter a product both times:

    s = Mul (x, 0.1)    y = MatMul (s, w)
    m = Mul (s, 0.5)    z = MatMul (m, w)

ONNX Runtime 1.32 folds both numbers into the second product (MatMulScaleFusion), and in some orders
of the nodes loses ``s``, so that it refuses the file. It folds no number through an Unsqueeze:

    m = Squeeze (Mul (Unsqueeze (s, 0), 0.5), 0)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from synapse_onnx.compiler.names import unique
from synapse_onnx.ops import DOMAIN

AFTER = ("clean_up",)
BEFORE = ("order_initializers",)

#: operators of ours whose body begins with a product of floats
_PRODUCTS = {
    "Dense", "ComplexDense", "QuantizedDense", "QuantizedComplexDense", "QuantizedBiasedDense",
}  # fmt: skip

#: operators of ours whose body may end with a product with one number
_SCALED = {
    "Delta", "Normalize", "QuantizedConv", "QuantizedConvTranspose", "QuantizedPool",
    "QuantizedUnpool",
}  # fmt: skip


def run(model: ir.Model) -> int:
    """Put an Unsqueeze before, and a Squeeze after, each scale at risk; return how many."""
    graph = model.graph
    at_risk = [node for node in graph if _is_scale(node) and _is_at_risk(node)]
    if not at_risk:
        return 0
    taken = {value.name for node in graph for value in (*node.inputs, *node.outputs) if value}
    name = unique("axis_0", taken)
    axis = ir.Value(name=name, const_value=ir.tensor(np.array([0]), name=name))
    axis.dtype, axis.shape = ir.DataType.INT64, ir.Shape([1])
    graph.initializers.add(axis)
    for node in at_risk:
        _part(graph, node, axis)
    return len(at_risk)


def _part(graph: ir.Graph, node: ir.Node, axis: ir.Value) -> None:
    index, output = _varying(node), node.outputs[0]
    source = node.inputs[index]
    assert source is not None
    up = ir.node("Unsqueeze", [source, axis])
    down = ir.node("Squeeze", [output, axis])
    up.outputs[0].type, down.outputs[0].type = source.type, output.type
    down.outputs[0].shape = output.shape
    if source.shape is not None and output.shape is not None:
        up.outputs[0].shape = ir.Shape([1, *source.shape])
        output.shape = ir.Shape([1, *output.shape])
    for part in (up, down):
        part.metadata_props.update(node.metadata_props)
    output.replace_all_uses_with(down.outputs[0])
    down.replace_input_with(0, output)
    node.replace_input_with(index, up.outputs[0])
    graph.insert_before(node, up)
    graph.insert_after(node, down)


def _varying(node: ir.Node) -> int:
    """Return which input is not the number."""
    return 0 if _is_number(node.inputs[1]) else 1


def _is_number(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and value.const_value.size == 1


def _is_scale(node: ir.Node | None) -> bool:
    if node is None or node.domain or node.op_type not in ("Mul", "Div"):
        return False
    return _is_number(node.inputs[1]) or (node.op_type == "Mul" and _is_number(node.inputs[0]))


def _is_at_risk(node: ir.Node) -> bool:
    """Whether a scale leads to a product, and so does what it scales, which is scaled as well."""
    output = node.outputs[0]
    if output.is_graph_output() or not _leads_to_product(output):
        return False
    return any(
        consumer is not path and _enters_product(consumer)
        for value, path in _scaled_before(node)
        for consumer, _ in value.uses()
    )


def _scaled_before(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Node]]:
    """Yield the values with a scale that lead to a node, each with its consumer on the way."""
    path, value = node, node.inputs[_varying(node)]
    while value is not None:
        producer = value.producer()
        if producer is None:
            return
        if producer.domain == DOMAIN and producer.op_type in _SCALED:
            yield value, path
            return
        if _is_scale(producer):
            yield value, path
            value = producer.inputs[_varying(producer)]
        elif producer.op_type == "Transpose" and not producer.domain:
            value = producer.inputs[0]
        else:
            return
        path = producer


def _leads_to_product(value: ir.Value) -> bool:
    """Whether a value enters a product, as it is, turned or scaled."""
    return any(
        _enters_product(consumer)
        or (_is_scale(consumer) and _leads_to_product(consumer.outputs[0]))
        for consumer, _ in value.uses()
    )


def _enters_product(node: ir.Node) -> bool:
    if node.op_type == "Transpose" and not node.domain:
        return any(_enters_product(consumer) for consumer, _ in node.outputs[0].uses())
    if node.domain == DOMAIN:
        return node.op_type in _PRODUCTS
    return node.op_type == "MatMul" and not node.domain
