"""Give what a node of ours returns the shape of its Transpose, turned back.

The tracer knows the shapes of a layer's outputs, time last; the node in it is time-major and has
none. ONNX Runtime without its optimisations finds no shape for the states of a Scan by itself then.
"""

from __future__ import annotations

import onnx_ir as ir

from synapse_onnx.compiler.passes._transposes import is_transpose, permutation


def run(model: ir.Model) -> int:
    """Return the number of values that got a shape."""
    changes = 0
    for node in model.graph:
        if not is_transpose(node):
            continue
        source, turned = node.inputs[0], node.outputs[0]
        if source is None or source.shape is not None or turned.shape is None:
            continue
        axes = permutation(node)
        source.shape = ir.Shape([turned.shape[axes.index(i)] for i in range(len(axes))])
        source.type = source.type or turned.type
        changes += 1
    return changes
