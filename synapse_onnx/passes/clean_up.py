"""Fold constants, share equal subexpressions, drop what nobody reads.

Initialisers that happen to be equal stay apart: each bears the name of its module's parameter.
"""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.optimizer
from onnx_ir.passes import Sequential, common


def run(model: ir.Model) -> int:
    """Return the number of nodes that went."""
    before = len(model.graph)
    onnxscript.optimizer.fold_constants(model)
    Sequential(
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedNodesPass(),
    )(model)
    return before - len(model.graph)
