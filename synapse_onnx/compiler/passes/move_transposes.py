"""Move Transposes after the operators that work in any layout, so that branches stay time-major.

Sums of branches, concatenations and element-wise functions are written in torch's layout, with time
last, and would have a Transpose before and after them. Every element is computed as before:

    a = Transpose (x)   b = Transpose (y)   z = Add (a, b)      becomes
    t = Add (x, y)      z = Transpose (t)
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from synapse_onnx.compiler._transposes import permutation, time_first, time_last
from synapse_onnx.model.operators import operator_of

AFTER = ("give_shapes",)  # ranks are read from the shapes


def run(model: ir.Model) -> int:
    """Return the number of nodes that now work on time-major data."""
    changes = 0
    for node in list(model.graph):
        if node.domain != "":
            continue
        if node.op_type == "Reshape":
            changes += _move_reshape(model.graph, node)
        elif operator_of(node).elementwise or node.op_type == "Concat":
            changes += _move(model.graph, node)
    if changes:
        model.graph.sort()  # a node may now read a value that comes later
    return changes


def _move(graph: ir.Graph, node: ir.Node) -> int:
    """Let a node read its inputs before their Transposes, and transpose its output instead."""
    ranks = {source.shape.rank() for v in node.inputs if (source := _source(v)) and source.shape}
    if len(ranks) != 1:
        return 0
    (rank,) = ranks
    sources = []
    for value in node.inputs:
        source = _source(value) or _time_major(value, rank)
        if source is None and node.op_type != "Concat" and _is_number(value):
            source = value
        elif source is None:
            return 0
        sources.append(source)
    attributes = dict(node.attributes)
    if node.op_type == "Concat":
        axis = time_last(rank)[node.attributes["axis"].as_int() % rank]
        attributes["axis"] = ir.AttrInt64("axis", axis)
    _replace(graph, node, sources, list(attributes.values()), rank)
    return 1


def _move_reshape(graph: ir.Graph, node: ir.Node) -> int:
    """Let a Reshape that keeps batch and time, such as a flatten, do so with time first."""
    value, out = node.inputs[0], node.outputs[0]
    source = _source(value)
    if source is None or value is None or value.shape is None or out.shape is None:
        return 0
    before, after = list(value.shape), list(out.shape)
    if len(after) < 3 or not (_same(before[0], after[0]) and _same(before[-1], after[-1])):
        return 0
    inner = [size for size in after[1:-1] if isinstance(size, int) and size > 0]
    if len(inner) != len(after) - 2 or not all(isinstance(size, int) for size in before[1:-1]):
        return 0
    # zeros keep the sizes of time and batch
    sizes = ir.tensor([0, 0, *inner], dtype=ir.DataType.INT64)
    target = ir.node("Constant", [], {"value": sizes}, name=f"{node.name}/Constant")
    target.outputs[0].name = f"{node.name}/shape"
    graph.insert_before(node, target)
    _replace(graph, node, [source, target.outputs[0]], [], len(after))
    return 1


def _replace(
    graph: ir.Graph,
    node: ir.Node,
    inputs: Sequence[ir.Value | None],
    attributes: Sequence[ir.Attr],
    rank: int,
) -> None:
    """Replace a node by the same operator on time-major inputs, and a Transpose after it."""
    (old,) = node.outputs
    moved = ir.Node("", node.op_type, inputs, attributes, name=node.name)
    moved.metadata_props.update(node.metadata_props)
    first, perm = moved.outputs[0], {"perm": time_last(rank)}
    first.name, first.type = f"{old.name}/time_first", old.type
    if old.shape is not None:
        first.shape = ir.Shape([old.shape[-1], *list(old.shape)[:-1]])
    back = ir.node("Transpose", [first], perm, name=f"{node.name}/Transpose")
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [moved, back], [old], [back.outputs[0]]
    )


def _source(value: ir.Value | None) -> ir.Value | None:
    """Return the input of the Transpose that a value with time last comes from, if any."""
    node = None if value is None else value.producer()
    axes = permutation(node)
    if node is None or axes is None or axes != time_last(len(axes)):
        return None
    return node.inputs[0]


def _time_major(value: ir.Value | None, rank: int) -> ir.Value | None:
    """Return the same value with time first, if another node reads it so already."""
    if value is None:
        return None
    for use in value.uses():
        if permutation(use.node) == time_first(rank):
            return use.node.outputs[0]
    return None


def _same(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    """Whether two sizes are known to be equal."""
    return a == b and (isinstance(a, int) or a.value is not None)


def _is_number(value: ir.Value | None) -> bool:
    """Whether a value is absent, or one number, which has no layout."""
    if value is None:
        return True
    constant = ir.convenience.get_const_tensor(value)
    return constant is not None and constant.size == 1 and len(constant.shape) <= 1
