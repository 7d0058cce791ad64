"""Walking through ONNX graphs, for several test modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs too."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from all_nodes(attribute.g.node)
