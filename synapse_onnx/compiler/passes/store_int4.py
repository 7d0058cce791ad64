"""Store integer weights that fit into four bits as INT4, two to a byte.

Only where it pays: many tools know INT8 and not INT4. onnxoptimizer and ONNX's own text format
refuse a file with it, ONNX Runtime 1.20 to 1.22 has no cast from it. A four-valued pool of one
weight gained nothing, and made the whole file unreadable for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from synapse_onnx.ops import DOMAIN

#: bytes that INT4 must save against INT8
_LEAST_SAVING = 64
AFTER = ("clean_up",)  # weights are initialisers from then on


def run(model: ir.Model) -> int:
    """Repack int8 initialisers that only our quantised ops read and that lie in [-8, 7]."""
    changes = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.INT8:
            continue
        readers = [use.node for use in value.uses()]
        if not readers or any(node.domain != DOMAIN for node in readers):
            continue
        packed = as_int4(tensor.numpy(), value.name)
        if packed is None:
            continue
        value.const_value = packed
        value.dtype = ir.DataType.INT4
        changes += 1
    return changes


def as_int4(array: np.ndarray[Any, Any], name: str | None = None) -> ir.Tensor[Any] | None:
    """Return integers as INT4; None where some do not fit, or it does not pay."""
    # n values take n bytes as INT8 and (n + 1) // 2 as INT4
    if array.size // 2 < _LEAST_SAVING or array.min() < -8 or array.max() > 7:
        return None
    return ir.Tensor(np.ascontiguousarray(array), dtype=ir.DataType.INT4, name=name)
