"""Tell synapses whose input is spikes by construction, so that they need not look at it."""

from __future__ import annotations

import onnx_ir as ir

from synapse_onnx.ops import DOMAIN, get_op

AFTER = ("clean_up",)

#: operators that hand on the elements of their first input, each as it is
_MOVES = {
    "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
}  # fmt: skip


def run(model: ir.Model) -> int:
    """Set ``spikes = 1`` where what a node reads comes from neurons whose spikes are 0 or 1."""
    changes = 0
    for node in model.graph:
        mark = node.attributes.get("spikes")
        if node.domain == DOMAIN and mark is not None and _are_spikes(node.inputs[0]):
            node.attributes["spikes"] = ir.AttrInt64("spikes", 1)
            changes += mark.as_int() == 0
    return changes


def _are_spikes(value: ir.Value | None) -> bool:
    while value is not None:
        node = value.producer()
        if node is None:
            return False
        if node.domain == DOMAIN:
            graded = node.attributes.get("graded")
            first = value is node.outputs[0]
            return (
                first and get_op(node.op_type).spikes and graded is not None and not graded.as_int()
            )
        if node.domain == "" and node.op_type == "Concat":
            return all(_are_spikes(part) for part in node.inputs)
        if node.domain != "" or node.op_type not in _MOVES:
            return False
        value = node.inputs[0]
    return False
