"""Remove pairs of Transpose nodes that undo each other: data stay time-major between layers.

A Transpose that leaves every axis in its place goes, too.
"""

from __future__ import annotations

import onnx_ir as ir

from synapse_onnx.compiler._transposes import permutation

AFTER = ("move_transposes",)  # pairs meet only then


def run(model: ir.Model) -> int:
    """Bypass every Transpose that moves no axis, or whose input has the inverse permutation."""
    changes = 0
    for node in list(model.graph):
        outer = permutation(node)
        if outer is not None and outer == sorted(outer) and node.inputs[0] is not None:
            if not node.outputs[0].is_graph_output():
                node.outputs[0].replace_all_uses_with(node.inputs[0])
                changes += 1
            continue
        first = node.inputs[0].producer() if outer is not None and node.inputs[0] else None
        inner = permutation(first)
        if first is None or outer is None or inner is None:
            continue
        source, output = first.inputs[0], node.outputs[0]
        undone = [inner[axis] for axis in outer] == sorted(inner)
        if undone and source is not None and not output.is_graph_output():
            output.replace_all_uses_with(source)
            changes += 1
    return changes
