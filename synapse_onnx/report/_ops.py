"""Which of our ops are synapses, whatever form of them a node has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from synapse_onnx.model.graph import DOMAIN

if TYPE_CHECKING:
    import onnx

SYNAPSES = ("Dense", "Conv", "Pool", "ConvTranspose", "Unpool")


def base_op(node: onnx.NodeProto) -> str:
    """Return an op of ours without the prefixes of its form; "" for a standard operator.

    "QuantizedComplexConv" is a "Conv".
    """
    if node.domain != DOMAIN:
        return ""
    return node.op_type.removeprefix("Quantized").removeprefix("Complex").removeprefix("Biased")


def weights_of(inputs: Mapping[str, str]) -> list[str]:
    """Return the values that are weights, not their scales, among the inputs of a node of ours.

    Args:
        inputs: name in the function body -> name in the graph.
    """
    return [
        value
        for name, value in inputs.items()
        if name.startswith("weight") and not name.startswith("weight_scale")
    ]
