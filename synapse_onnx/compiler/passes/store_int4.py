"""Store integer weights that fit into four bits as INT4, two to a byte.

Only where it pays: many tools know INT8 and not INT4. onnxoptimizer and ONNX's own text format
refuse a file with it, ONNX Runtime 1.20 to 1.22 has no cast from it. A four-valued pool of one
weight gained nothing, and made the whole file unreadable for them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from synapse_onnx.ops import DOMAIN

#: bytes that INT4 must save against INT8
_LEAST_SAVING = 64
AFTER = ("clean_up",)  # weights are initialisers from then on


def run(model: ir.Model) -> int:
    """Repack int8 initialisers that only our quantised ops or a Cast read, within [-8, 7]."""
    changes = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        # n values take n bytes as INT8 and (n + 1) // 2 as INT4
        if tensor is None or tensor.dtype != ir.DataType.INT8 or tensor.size // 2 < _LEAST_SAVING:
            continue
        readers = [use.node for use in value.uses()]
        if not readers or not all(_takes_int4(node) for node in readers):
            continue
        array = tensor.numpy()
        if array.min() < -8 or array.max() > 7:
            continue
        packed = ir.Tensor(np.ascontiguousarray(array), dtype=ir.DataType.INT4, name=value.name)
        value.const_value = packed
        value.dtype = ir.DataType.INT4
        changes += 1
    return changes


def _takes_int4(node: ir.Node) -> bool:
    return node.domain == DOMAIN or (not node.domain and node.op_type == "Cast")
