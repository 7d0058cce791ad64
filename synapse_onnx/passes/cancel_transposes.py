"""Remove pairs of Transpose nodes that undo each other, so that layers hand on time-major data."""

from __future__ import annotations

import onnx_ir as ir


def run(model: ir.Model) -> int:
    """Bypass every Transpose whose input is a Transpose with the inverse permutation."""
    changes = 0
    for node in list(model.graph):
        first = node.inputs[0].producer() if _is_transpose(node) and node.inputs[0] else None
        if first is None or not _is_transpose(first):
            continue
        inner, outer = _permutation(first), _permutation(node)
        if [inner[axis] for axis in outer] != sorted(inner):
            continue
        source = first.inputs[0]
        output = node.outputs[0]
        if source is None or output.is_graph_output():
            continue
        output.replace_all_uses_with(source)
        changes += 1
    return changes


def _is_transpose(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and node.domain == ""


def _permutation(node: ir.Node) -> list[int]:
    return list(node.attributes["perm"].as_ints())
