"""Remove pairs of Transpose nodes that undo each other: data stay time-major between layers."""

from __future__ import annotations

import onnx_ir as ir

from synapse_onnx.compiler._transposes import is_transpose, permutation

AFTER = ("move_transposes",)  # pairs meet only then


def run(model: ir.Model) -> int:
    """Bypass every Transpose whose input is a Transpose with the inverse permutation."""
    changes = 0
    for node in list(model.graph):
        first = node.inputs[0].producer() if is_transpose(node) and node.inputs[0] else None
        if first is None or not is_transpose(first):
            continue
        inner, outer = permutation(first), permutation(node)
        if [inner[axis] for axis in outer] != sorted(inner):
            continue
        source = first.inputs[0]
        output = node.outputs[0]
        if source is None or output.is_graph_output():
            continue
        output.replace_all_uses_with(source)
        changes += 1
    return changes
