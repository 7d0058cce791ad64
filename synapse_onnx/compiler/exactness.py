"""Which values of an exported graph are the same to the last bit wherever it runs.

A value is exact if every operator before it is: moving data about, one correctly rounded IEEE
operation an element, integers, and our own fixed-point and quantised ops. A sum of floats in
no fixed order (MatMul, Conv, ReduceSum) or a transcendental function ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from synapse_onnx.model.metadata import layer_of
from synapse_onnx.ops import DOMAIN, get_op
from synapse_onnx.ops.arithmetic.fixed import FLOAT32_EXACT

__all__ = ["FLOAT32_EXACT", "exact_values", "has_exact_sums"]

_MOVES = {
    "Cast", "CastLike", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather",
    "GatherElements", "GatherND", "Identity", "Pad", "Range", "Reshape", "ScatterElements",
    "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    "DepthToSpace", "SpaceToDepth", "ArgMax", "ArgMin", "TopK",
}  # fmt: skip
_ELEMENTWISE = {
    "Abs", "Add", "And", "Ceil", "Clip", "Div", "Equal", "Floor", "Greater", "GreaterOrEqual",
    "Less", "LessOrEqual", "Max", "Min", "MaxPool", "Mod", "Mul", "Neg", "Not", "Or", "ReduceMax",
    "ReduceMin", "Relu", "Round", "Sign", "Sub", "Where", "Xor",
}  # fmt: skip


def has_exact_sums(facts: Mapping[str, Any]) -> bool:
    """Whether the sums of a layer are exact while its input is small enough.

    Args:
        facts: what ``describe`` says of the layer. A synapse sums products with its weights, a
            neuron with feedback those of its feedback, a mean its inputs.
    """
    synapse = facts.get("feedback", facts)
    if "quantized" in synapse:
        return bool(synapse.get("power_of_two")) and not synapse["wide"]
    return bool(facts.get("sums"))


def exact_values(model: onnx.ModelProto, layers: Mapping[str, bool]) -> set[str]:
    """Return the names of exact values.

    Args:
        model: a graph whose nodes of our domain carry their layer's path in their metadata.
        layers: path of each layer that sums -> whether its products and sums are exact.
    """
    exact = {value.name for value in (*model.graph.input, *model.graph.initializer)} | {""}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            path = layer_of(node) or ""
            exactly = get_op(node.op_type).exact
            sound = layers.get(path, False) if exactly is None else exactly
        else:
            sound = node.op_type in _MOVES | _ELEMENTWISE
        if sound and all(name in exact for name in node.input):
            exact.update(node.output)
    return exact
