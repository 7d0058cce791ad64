"""Convolutions that a file computes in tiles of images, and the same file without tiles.

An export puts convolutions over whole sequences in the body of a Scan without states, whose steps
are tiles that stay in a processor's cache. What looks at single operators, and a GPU, which is
slower with small tiles, takes the operators as they are in the body ::

    parted = Reshape (folded, ...)    tiles = Scan <body = Conv -> MaxPool> (parted)
    images = Reshape (tiles, ...)                                                       becomes
    images = Conv (folded) -> MaxPool

So do native kernels, which compute nodes of this package by events and hold no currents in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from synapse_onnx.model.graph import DOMAIN, taken_by

if TYPE_CHECKING:
    import onnx

__all__ = ["TILES", "body_of", "is_in_tiles", "without_tiles"]

#: end of the names of what computes tiles; no path of a module has a slash
TILES = "/tiles"


def without_tiles(model: onnx.ModelProto, of: Collection[str] | None = None) -> onnx.ModelProto:
    """Return a copy whose convolutions take all images at once; the model if it has no tiles.

    Args:
        model: the model; it is not changed.
        of: names of ops of this package; tiles of other operators stay. None takes all out.
    """

    def leaves(node: onnx.NodeProto) -> bool:
        if not is_in_tiles(node):
            return False
        inner = body_of(node).node
        return of is None or any(x.domain == DOMAIN and x.op_type in of for x in inner)

    if not any(map(leaves, model.graph.node)):
        return model
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers = {name: node for node in graph.node for name in node.input}
    #: name within a tile -> that of the same value of all images
    whole: dict[str, str] = {}
    #: outputs of Scans that are gone; the Reshapes that read them go, too
    gone: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        parted = makers.get(node.input[0]) if leaves(node) else None
        joined = readers.get(node.output[0]) if parted else None
        if parted and joined and parted.op_type == joined.op_type == "Reshape":
            body = body_of(node)
            whole |= {body.input[0].name: parted.input[0], body.output[0].name: joined.output[0]}
            gone.add(node.output[0])
            graph.initializer.extend(body.initializer)
            nodes.extend(body.node)
        elif gone.isdisjoint(node.input):
            nodes.append(node)
    for node in nodes:
        node.input[:] = [whole.get(name, name) for name in node.input]
        node.output[:] = [whole.get(name, name) for name in node.output]
    needed = _needed(graph, nodes)
    del graph.node[:]
    graph.node.extend(needed)
    return copied


def is_in_tiles(node: onnx.NodeProto) -> bool:
    """Whether a node is a Scan over tiles of images, not over time: it has no states."""
    if node.op_type != "Scan" or node.domain:
        return False
    body = body_of(node)
    if not body.name.endswith(TILES):  # a tool may have given the node another name
        return False
    ends = (node.input, node.output, body.input, body.output)
    return all(len(values) == 1 for values in ends)


def body_of(scan: onnx.NodeProto) -> onnx.GraphProto:
    """Return the body of a Scan; an empty graph where it has none."""
    import onnx

    bodies = (attribute.g for attribute in scan.attribute if attribute.name == "body")
    return next(bodies, onnx.GraphProto())


def _needed(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return copies of the nodes that the outputs of a graph depend on, in their order."""
    import onnx

    read = {value.name for value in graph.output}
    kept = []
    for node in reversed(nodes):
        if read.intersection(node.output):
            read.update(taken_by(node))
            kept.append(onnx.NodeProto())
            kept[-1].CopyFrom(node)
    return kept[::-1]
