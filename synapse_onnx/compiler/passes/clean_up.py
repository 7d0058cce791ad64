"""Fold constants, share equal subexpressions, drop what nobody reads.

Initialisers that happen to be equal stay apart: each bears the name of its module's parameter. So
do ops of ours: each is a call of a layer, which would be missing in the file.
"""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.optimizer
from onnx_ir.passes import Sequential, common

from synapse_onnx.ops import DOMAIN

AFTER = ("cancel_transposes",)  # which leaves nodes that nothing reads


def run(model: ir.Model) -> int:
    """Return the number of nodes that went."""
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
    for number, node in enumerate(ours):  # then no two are equal
        node.attributes["number"] = ir.AttrInt64("number", number)
    common.CommonSubexpressionEliminationPass()(model)
    for node in ours:
        del node.attributes["number"]
