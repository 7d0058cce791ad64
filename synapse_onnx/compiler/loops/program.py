"""A traced network: a graph of torch's operators, what its leaves are, and what it returns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from synapse_onnx.compiler.loops.terms import CONSTANT, INPUT, PARAMETER
from synapse_onnx.errors import ExportError

__all__ = ["Leaf", "Program", "is_users", "line_of", "of_export"]


class Leaf(NamedTuple):
    """A value that no operator computes.

    Attributes:
        kind: ``INPUT``, ``PARAMETER`` or ``CONSTANT``; a buffer is a parameter.
        name: the index of an input, the path of a parameter.
        value: the tensor; None of an input.
    """

    kind: str
    name: int | str
    value: Tensor | None = None


@dataclass
class Program:
    """A traced network.

    Attributes:
        graph: its operators; the shape and type of a value are in ``meta["val"]``.
        leaves: what its placeholders are.
    """

    graph: fx.Graph
    leaves: Mapping[fx.Node, Leaf]

    @property
    def results(self) -> tuple[Any, ...]:
        """The nodes and literals that it returns."""
        results: Any = self.graph.output_node().args[0]
        return tuple(results)


def of_export(program: torch.export.ExportedProgram) -> Program:
    """Return what ``torch.export.export`` has traced; of its results those of ``forward()``.

    Raises:
        ExportError: it has a control flow of its own, such as ``torch.cond``.
    """
    signature = program.graph_signature
    specs = {spec.arg.name: spec for spec in signature.input_specs if hasattr(spec.arg, "name")}
    leaves: dict[fx.Node, Leaf] = {}
    inputs = 0
    for node in program.graph.nodes:
        if node.op == "placeholder":
            kind, name = specs[node.name].kind.name, str(specs[node.name].target)
            value = program.state_dict.get(name, program.constants.get(name))
            if kind == "USER_INPUT":
                leaves[node] = Leaf(INPUT, inputs)
                inputs += 1
            elif kind in ("PARAMETER", "BUFFER"):
                leaves[node] = Leaf(PARAMETER, name, value)
            else:
                leaves[node] = Leaf(CONSTANT, name, value)
        elif node.op == "get_attr":
            raise ExportError(
                f"forward() has a control flow of torch's own ({node.target}) beside a loop over "
                f"time; write one of them by torch.where"
            )
        elif node.op == "output":
            kinds = [spec.kind.name for spec in signature.output_specs]
            results = zip(kinds, node.args[0], strict=True)
            node.args = (tuple(each for kind, each in results if kind == "USER_OUTPUT"),)
    return Program(program.graph, leaves)


def is_users(file: str) -> bool:
    """Whether a file of code is neither torch's nor ours."""
    return "/torch/" not in file and "/synapse_onnx/" not in file


def line_of(node: fx.Node) -> str:
    """Return the innermost line of user's code that computes a node, for a sentence."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', str(node.meta.get("stack_trace") or ""))
    own = [(file, number) for file, number in frames if is_users(file)]
    if not own:
        return ""
    file, number = own[-1]
    return f"line {number} of {file.rpartition('/')[2]}"
