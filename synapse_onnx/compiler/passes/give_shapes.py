"""Give the outputs of our nodes a shape, from the Transpose that reads them.

The tracer knows the shape of a layer's output, time last; the time-major output of the node has
none. Without it, ONNX Runtime with its optimisations off cannot infer the states of a Scan.
"""

from __future__ import annotations

import onnx_ir as ir

from synapse_onnx.compiler._transposes import permutation


def run(model: ir.Model) -> int:
    """Return the number of values that got a shape."""
    changes = 0
    for node in model.graph:
        axes = permutation(node)
        if axes is None:
            continue
        source, turned = node.inputs[0], node.outputs[0]
        if source is None or source.shape is not None or turned.shape is None:
            continue
        source.shape = ir.Shape([turned.shape[axes.index(i)] for i in range(len(axes))])
        source.type = source.type or turned.type
        changes += 1
    return changes
