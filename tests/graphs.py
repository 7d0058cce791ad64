"""ONNX graphs: written as text, walked through, and two of them compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

HEADER = '<ir_version: 10, opset_import: ["" : 21, "ai.synapse" : 1]>\n'


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs too."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from all_nodes(attribute.g.node)


def parsed(text: str) -> onnx.ModelProto:
    """A graph in ONNX text, with the opsets that an export imports."""
    return onnx.parser.parse_model(HEADER + text)


def own_nodes(model: onnx.ModelProto) -> list[str]:
    """Operators of the nodes that are ours, in order."""
    return [node.op_type for node in model.graph.node if node.domain == "ai.synapse"]


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def assert_same_values(before: onnx.ModelProto, after: ir.Model, x: np.ndarray) -> None:
    """Hold the outputs of ONNX's reference evaluator equal, with one input x."""
    found = [ReferenceEvaluator(m).run(None, {"x": x}) for m in (before, ir.to_proto(after))]
    for expected, output in zip(*found, strict=True):
        np.testing.assert_array_equal(output, expected)
