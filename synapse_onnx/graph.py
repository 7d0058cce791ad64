"""The domain of our nodes, what the nodes of a graph take, and which of them a value needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["DOMAIN", "needed_for", "taken_by"]

#: the ONNX domain of our ops
DOMAIN = "ai.synapse"


def taken_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values that a node takes, by itself and in its subgraphs."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own |= {name for inner in graph.node for name in inner.output}
            inside = (name for inner in graph.node for name in taken_by(inner))
            given = (value.name for value in graph.output)
            yield from (name for name in (*inside, *given) if name not in own)


def needed_for(
    graph: onnx.GraphProto, values: Iterable[str], states: Mapping[str, str] | None = None
) -> set[str]:
    """Return the names of values that some values of a graph are computed from, their own included.

    Args:
        graph: the graph.
        values: names of its values.
        states: of a stream, name of a state's input -> name of the output that comes in there at
            the next call.
    """
    makers = {name: node for node in graph.node for name in node.output if name}
    loops = states or {}
    found = set[str]()
    waiting = list(values)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name in makers:
            waiting += taken_by(makers[name])
        if name in loops:
            waiting.append(loops[name])
    return found
