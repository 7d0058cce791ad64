"""Sizes are read of the first input that has them.

The tracer reads N of whichever input it met last. In a stream that may be the state of one layer,
which would then lead to more than that layer. ::

    Shape<start = 0, end = 1>(lif2.voltage)   ->   Shape<start = 0, end = 1>(input)
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["run"]

BEFORE = ("clean_up",)


def run(model: ir.Model) -> int:
    """Let every Shape of one axis of an input read the first input that has this size."""
    inputs = list(model.graph.inputs)
    first: dict[str, tuple[ir.Value, int]] = {}
    for each in inputs:
        for axis, size in enumerate(each.shape or ()):
            if isinstance(size, ir.SymbolicDim) and size.value is not None:
                first.setdefault(size.value, (each, axis))
    changed = 0
    for node in model.graph:
        value = node.inputs[0] if node.op_type == "Shape" else None
        if value is None or value not in inputs or value.shape is None:
            continue
        start, end = (node.attributes.get_int(name, -1) for name in ("start", "end"))
        if start < 0 or end != start + 1:
            continue
        size = value.shape[start]
        known = first.get(size.value or "") if isinstance(size, ir.SymbolicDim) else None
        if known is None or known[0] is value:
            continue
        other, axis = known
        node.replace_input_with(0, other)
        node.attributes["start"] = ir.AttrInt64("start", axis)
        node.attributes["end"] = ir.AttrInt64("end", axis + 1)
        changed += 1
    return changed
