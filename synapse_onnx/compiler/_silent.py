"""What torch's exporter writes without a word, although the file then computes something else."""

from __future__ import annotations

import onnx_ir as ir
import torch

from synapse_onnx.errors import ExportError

__all__ = ["check_chance", "check_statistics"]

#: operators whose outputs no runtime gives twice
_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def check_chance(model: ir.Model) -> None:
    """Refuse a graph with random numbers; those that no output reads are gone by now.

    Two runs of the network show most of them, but not noise that flips a spike once in a while.

    Raises:
        ExportError: an operator draws random numbers.
    """
    for node in model.graph.all_nodes():
        if node.domain == "" and node.op_type in _RANDOM:
            path = (node.name or "").rpartition("/")[0]
            where = f" in module '{path}'" if path else ""
            raise ExportError(
                f"forward() draws random numbers{where} (operator {node.op_type}); draw none in "
                f"evaluation mode"
            )


def check_statistics(program: torch.export.ExportedProgram) -> None:
    """Refuse a batch norm in training mode that has running statistics.

    torch normalises by the batch, the operator in the file by the running statistics.

    Raises:
        ExportError: there is one.
    """
    for node in program.graph.nodes:
        if node.target == torch.ops.aten.batch_norm.default and node.args[3] and node.args[5]:
            stack = list(node.meta.get("nn_module_stack", {}).values())
            path = stack[-1][0] if stack else ""
            raise ExportError(
                f"{f'module {path!r}' if path else 'the module'} normalises by the statistics of "
                f"the batch in evaluation mode too, and a file can only use the running ones; let "
                f"eval() reach every batch norm"
            )
