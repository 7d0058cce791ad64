"""Fold constants, share equal subexpressions, remove nodes that nothing reads.

Equal initialisers stay separate: each has the name of its module's parameter. So do nodes of ours:
each is the call of a layer, which would be missing in the file.
"""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.optimizer
from onnx_ir.passes import Sequential, common

from synapse_onnx.ops import DOMAIN

AFTER = ("cancel_transposes",)  # which leaves nodes that nothing reads


def run(model: ir.Model) -> int:
    """Return the number of nodes that were removed."""
    before = len(model.graph)
    onnxscript.optimizer.fold_constants(model)
    common.IdentityEliminationPass()(model)
    _share(model)
    Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedNodesPass(),
    )(model)
    return before - len(model.graph)


def _share(model: ir.Model) -> None:
    """Share equal subexpressions of standard operators."""
    ours = [node for node in model.graph if node.domain == DOMAIN]
    for number, node in enumerate(ours):  # so that no two are equal
        node.attributes["number"] = ir.AttrInt64("number", number)
    common.CommonSubexpressionEliminationPass()(model)
    for node in ours:
        del node.attributes["number"]
