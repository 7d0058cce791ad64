"""Loops over time steps in a graph: neurons of the user's, and what no neuron of ours computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["StepLoop", "step_loops"]


@dataclass(frozen=True)
class StepLoop:
    """A Scan that carries states from step to step.

    Attributes:
        name: name of the node, which begins with the module's path.
        states: shape of each state; None for an open size.
        operators: number of operators in a step, those in branches and inner loops included.
    """

    name: str
    states: tuple[tuple[int | None, ...], ...]
    operators: int


def step_loops(graph: onnx.GraphProto) -> list[StepLoop]:
    """Return the loops over time of a graph in order; not the tiles, which carry nothing."""
    found = []
    for node in graph.node:
        if node.op_type != "Scan" or node.domain:
            continue
        attributes = {a.name: a for a in node.attribute}
        body = attributes["body"].g
        carried = len(node.input) - attributes["num_scan_inputs"].i
        if carried:
            states = tuple(_shape(value) for value in body.input[:carried])
            found.append(StepLoop(node.name, states, _operators(body)))
    return found


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)


def _operators(graph: onnx.GraphProto) -> int:
    inner = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
    return len(graph.node) + sum(map(_operators, inner))
