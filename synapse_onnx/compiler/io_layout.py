"""The border of an exported graph: time first instead of last, bytes instead of floats.

Within the graph everything is time-major already; here a Transpose at the border goes, or moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from synapse_onnx.model.layout import has_time
from synapse_onnx.ops import DOMAIN

__all__ = ["take_bytes", "turn_time_first"]


def turn_time_first(graph: ir.Graph, inputs: Sequence[ir.Value], outputs: Sequence[int]) -> None:
    """Give sequences at the border the layout (T, N, C[, H, W]).

    Args:
        graph: the graph, after the lowering.
        inputs: inputs to turn; those without time stay as they are.
        outputs: indices of the outputs to turn, likewise.
    """
    for value in inputs:
        if _is_timed(value):
            _turn_input(graph, value)
    turned: dict[int, ir.Value] = {}  # one value can be several outputs
    for i in outputs:
        value = graph.outputs[i]
        if _is_timed(value) and not any(value is each for each in inputs):
            if id(value) not in turned:
                turned[id(value)] = _turned(graph, value)
            graph.outputs[i] = turned[id(value)]
            last = value.producer()
            if last is not None and not value.uses() and not value.is_graph_output():
                graph.remove(last, safe=True)


def _turn_input(graph: ir.Graph, value: ir.Value) -> None:
    """Turn an input; who wants it time-major reads it, the others a Transpose of it."""
    rank, before = _rank(value), value.shape
    dims = list(before or ())
    value.shape = ir.Shape([dims[-1], *dims[:-1]])
    rest = []
    for use in list(value.uses()):
        node = use.node
        if _turns(node, _time_first(rank)):
            node.outputs[0].replace_all_uses_with(value)
            graph.remove(node, safe=True)
        elif node.op_type == "Shape" and (axis := _asked(node)) is not None:
            axis = (axis + 1) % rank
            node.attributes["start"] = ir.AttrInt64("start", axis)
            node.attributes["end"] = ir.AttrInt64("end", axis + 1)
        else:
            rest.append(use)
    if not rest:
        return
    node = _node(graph, "Transpose", value, {"perm": [*range(1, rank), 0]})
    node.outputs[0].shape, node.outputs[0].type = before, value.type
    _put_first(graph, node)
    for use in rest:
        use.node.replace_input_with(use.idx, node.outputs[0])


def _turned(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Return an output's value time-major: what it was transposed from, or its Transpose."""
    rank, dims = _rank(value), list(value.shape or ())
    last = value.producer()
    source = last.inputs[0] if last is not None else None
    if last is None or source is None or not _turns(last, [*range(1, rank), 0]):
        last = _node(graph, "Transpose", value, {"perm": _time_first(rank)})
        graph.append(last)
        source = last.outputs[0]
    if source.shape is None:
        source.shape, source.type = ir.Shape([dims[-1], *dims[:-1]]), value.type
    return source


def take_bytes(graph: ir.Graph, inputs: Sequence[ir.Value]) -> None:
    """Make inputs uint8: they are cast behind the Transpose, and where a node wants floats."""
    for value in inputs:
        value.type = ir.TensorType(ir.DataType.UINT8)
        turned = [use.node for use in value.uses() if use.node.op_type == "Transpose"]
        for node in turned:
            node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
            _cast(graph, node.outputs[0])
        _cast(graph, value, besides=turned)


def _cast(graph: ir.Graph, value: ir.Value, besides: Sequence[ir.Node] = ()) -> None:
    """Put a cast to float32 between bytes and those who read them, if they cannot take bytes."""
    uses = [use for use in value.uses() if use.node not in besides and not _takes_bytes(use.node)]
    outputs = [i for i, output in enumerate(graph.outputs) if output is value]
    if not uses and not outputs:
        return
    cast = _node(graph, "Cast", value, {"to": ir.DataType.FLOAT})
    cast.outputs[0].shape = value.shape
    cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    producer = value.producer()
    if producer is None:
        _put_first(graph, cast)
    else:
        graph.insert_after(producer, cast)
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])
    for i in outputs:
        graph.outputs[i] = cast.outputs[0]


def _put_first(graph: ir.Graph, node: ir.Node) -> None:
    """Insert a node before all others; there may be none, where an input is given back."""
    if len(graph):
        graph.insert_before(graph[0], node)
    else:
        graph.append(node)


def _takes_bytes(node: ir.Node) -> bool:
    """Whether a node reads integers as they are: a dense product, or a shape."""
    return "integers" in node.attributes if node.domain == DOMAIN else node.op_type == "Shape"


def _node(graph: ir.Graph, kind: str, value: ir.Value, attributes: dict[str, Any]) -> ir.Node:
    """Make a node of one input, named after it as no other node is."""
    taken = {node.name for node in graph}
    stem = name = f"{value.name}/{kind}"
    count = 1
    while name in taken:
        count += 1
        name = f"{stem}#{count}"
    node = ir.node(kind, [value], attributes, name=name)
    node.outputs[0].name = f"{name}:out"
    return node


def _asked(node: ir.Node) -> int | None:
    """The axis whose size a Shape asks for, where it asks for one."""
    if node.op_type != "Shape" or not {"start", "end"} <= set(node.attributes):
        return None
    start, end = node.attributes["start"].as_int(), node.attributes["end"].as_int()
    return start if end == start + 1 and start >= 0 else None


def _rank(value: ir.Value) -> int:
    return len(value.shape) if value.shape is not None else 0


def _is_timed(value: ir.Value) -> bool:
    return has_time(_rank(value))


def _time_first(rank: int) -> list[int]:
    return [rank - 1, *range(rank - 1)]


def _turns(node: ir.Node, permutation: list[int]) -> bool:
    return (
        node.domain == ""
        and node.op_type == "Transpose"
        and list(node.attributes["perm"].as_ints()) == permutation
    )
