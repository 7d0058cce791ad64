"""Blocks of ``forward`` under a context of torch that changes nothing in a model.

The tracer makes a graph of its own of what runs within ``torch.autocast`` or ``torch.enable_grad``,
and torch's exporter then forgets the modules that it came from. A model has no gradients, and
autocast that is off casts nothing: such a block is written in line, as if the context were not
there.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["write_in_line"]

#: operator of a block -> the place of the block among its arguments
_BLOCKS: dict[Any, int] = {
    torch.ops.higher_order.wrap_with_autocast: 4,
    torch.ops.higher_order.wrap_with_set_grad_enabled: 1,
}


def write_in_line(program: torch.export.ExportedProgram) -> None:
    """Write every block of a program in line whose context has no effect on a CPU."""
    if _write_in_line(program.graph_module):
        # torch's exporter visits every block, also an empty one: set_grad_enabled(True) at the end
        program.graph_module.delete_all_unused_submodules()
        program.graph_module.recompile()
        _name_outputs(program)


def _name_outputs(program: torch.export.ExportedProgram) -> None:
    """Tell the program of the outputs that a block gave: they have names of their own now."""
    (results,) = program.graph.output_node().args
    assert isinstance(results, list | tuple)
    for spec, result in zip(program.graph_signature.output_specs, results, strict=True):
        if isinstance(result, torch.fx.Node):
            spec.arg.name = result.name


def _write_in_line(module: torch.fx.GraphModule) -> bool:
    """Write the blocks of a graph in line, those within them first; return whether there is one."""
    graph = module.graph
    blocks = [node for node in graph.nodes if node.target in _BLOCKS and not _casts(node)]
    for node in blocks:
        place = _BLOCKS[node.target]
        held: Any = node.args[place]
        block = module.get_submodule(held.target)
        _write_in_line(block)  # type: ignore[arg-type]
        _copy_into(graph, node, block.graph, node.args[place + 1 :])  # type: ignore[arg-type]
        graph.erase_node(held)
    return bool(blocks)


def _casts(node: torch.fx.Node) -> bool:
    """Whether a block is one of autocast that is on, and for the CPU, where a model computes."""
    if node.target is not torch.ops.higher_order.wrap_with_autocast:
        return False
    device, _, enabled = node.args[:3]
    return bool(enabled) and device == "cpu"


def _copy_into(
    graph: torch.fx.Graph, node: torch.fx.Node, block: torch.fx.Graph, args: tuple[Any, ...]
) -> None:
    """Put the nodes of a block in the place of the one that calls it."""
    inputs = [each for each in block.nodes if each.op == "placeholder"]
    with graph.inserting_before(node):
        copies: dict[Any, Any] = dict(zip(inputs, args, strict=True))
        results: Any = graph.graph_copy(block, copies)
    for user in list(node.users):  # the results are taken from a tuple, one by one
        user.replace_all_uses_with(results[user.args[1]])
        graph.erase_node(user)
    graph.erase_node(node)
