"""Store integer weights that fit into four bits as INT4, two to a byte."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from synapse_onnx.ops import DOMAIN

AFTER = ("clean_up",)  # weights are initialisers from then on


def run(model: ir.Model) -> int:
    """Repack int8 initialisers that our quantised ops alone read and that lie in [-8, 7]."""
    changes = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.INT8:
            continue
        readers = [use.node for use in value.uses()]
        if not readers or any(node.domain != DOMAIN for node in readers):
            continue
        array = tensor.numpy()
        if array.size == 0 or array.min() < -8 or array.max() > 7:
            continue
        packed = ir.Tensor(np.ascontiguousarray(array), dtype=ir.DataType.INT4, name=value.name)
        value.const_value = packed
        value.dtype = ir.DataType.INT4
        changes += 1
    return changes
