"""Convolutions that a file computes in blocks of images, and the same file without blocks.

An export puts convolutions over whole sequences in the body of a Scan without states, whose steps
are blocks that stay in a processor's cache. What looks at single operators, and a GPU, which is
slower with small blocks, takes the operators as they are in the body ::

    parted = Reshape (folded, ...)    blocks = Scan <body = Conv -> MaxPool> (parted)     becomes
    blocks = Conv (folded) -> MaxPool
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from synapse_onnx.model.graph import taken_by

if TYPE_CHECKING:
    import onnx

__all__ = ["BLOCKS", "is_in_blocks", "without_blocks"]

#: end of the names of what computes blocks; no path of a module has a slash
BLOCKS = "/blocks"


def without_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose convolutions take all images at once; the model if it has no blocks."""
    if not any(is_in_blocks(node) for node in model.graph.node):
        return model
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    makers = {name: node for node in graph.node for name in node.output}
    #: name -> that of the same images without blocks
    whole: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        parted = makers.get(node.input[0]) if is_in_blocks(node) else None
        if parted is None or parted.op_type != "Reshape":
            nodes.append(node)
            continue
        body = _body(node)
        whole |= {body.input[0].name: parted.input[0], node.output[0]: body.output[0].name}
        graph.initializer.extend(body.initializer)
        nodes.extend(body.node)
    for node in nodes:
        node.input[:] = [whole.get(name, name) for name in node.input]
    needed = _needed(graph, nodes)
    del graph.node[:]
    graph.node.extend(needed)
    return copied


def is_in_blocks(node: onnx.NodeProto) -> bool:
    """Whether a node is a Scan over blocks of images, not over time: it has no states."""
    if node.op_type != "Scan" or node.domain or not node.name.endswith(f"{BLOCKS}/Scan"):
        return False
    body = _body(node)
    ends = (node.input, node.output, body.input, body.output)
    return all(len(values) == 1 for values in ends)


def _body(scan: onnx.NodeProto) -> onnx.GraphProto:
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
