"""Products with constant float weights: the dense synapses of networks of other frameworks.

y = Add (MatMul (x, weight), bias)        y = Gemm <transB = 1> (x, weight, bias)
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from synapse_onnx.model.graph import DOMAIN, constants_of

if TYPE_CHECKING:
    import onnx

__all__ = [
    "NO_BIAS",
    "Synapse",
    "comes_from_spikes",
    "float_constants",
    "products",
    "spikes_near",
    "state_no_bias",
]

#: the bias of a synapse without one, of size 0
NO_BIAS = "ai.synapse.no_bias"

#: operators that move values and compute none
_MOVES = {"Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
#: operators whose outputs are 0 where all of a few inputs are
_POOLS = {"AveragePool"}


class Synapse(NamedTuple):
    """A dense synapse, as a fused node computes it."""

    op: str
    #: x, weights, then steps or biases
    inputs: list[str]
    outputs: list[str]
    attributes: list[onnx.AttributeProto]
    #: first outputs of its nodes, in their order
    nodes: list[str]


def float_constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the constants of a graph that are float32, by name."""
    from onnx import TensorProto

    return {n: v for n, v in constants_of(graph).items() if v.data_type == TensorProto.FLOAT}


def state_no_bias(graph: onnx.GraphProto) -> None:
    """Give a graph the bias of synapses without one, if it has none yet."""
    import onnx

    if all(value.name != NO_BIAS for value in graph.initializer):
        graph.initializer.append(
            onnx.TensorProto(name=NO_BIAS, dims=[0], data_type=onnx.TensorProto.FLOAT)
        )


def products(graph: onnx.GraphProto, read: Counter[str]) -> list[Synapse]:
    """Return the products of a graph with constant float weights, each with its bias.

    Args:
        graph: the graph.
        read: how often each value is read.
    """
    from onnx import helper

    constants = float_constants(graph)
    by_output = {node.output[0]: node for node in graph.node if node.output}
    found = []
    for node in graph.node:
        first, bias = node, NO_BIAS
        if _is(node, "Add"):
            for name, other in (tuple(node.input), tuple(reversed(node.input))):
                before = by_output.get(name)
                if before is not None and read[name] == 1 and other in constants:
                    first, bias = before, other
        if _is(first, "Gemm") and first is node:
            bias = [*first.input, NO_BIAS][2] or NO_BIAS
        elif not _is(first, "MatMul"):
            continue
        weight = constants.get(first.input[1])
        options = {a.name: helper.get_attribute_value(a) for a in first.attribute}
        turned = options.pop("transB", 0)
        if weight is None or len(weight.dims) != 2 or not _is_plain(options):
            continue
        outputs = weight.dims[0 if turned else 1]
        if bias != NO_BIAS and (bias not in constants or constants[bias].dims[:] != [outputs]):
            continue
        attributes = [] if turned else [helper.make_attribute("inputs_first", 1)]
        nodes = [first.output[0], *([node.output[0]] if first is not node else [])]
        inputs = [*first.input[:2], bias]
        found.append(Synapse("Dense", inputs, list(node.output), attributes, nodes))
    return _longest(found)


def _longest(found: list[Synapse]) -> list[Synapse]:
    """Leave out products that another one has with a bias."""
    within = {name for synapse in found for name in synapse.nodes[:-1]}
    return [synapse for synapse in found if synapse.nodes[-1] not in within]


def _is(node: onnx.NodeProto, op: str) -> bool:
    return node.domain == "" and node.op_type == op


def _is_plain(options: dict[str, Any]) -> bool:
    """Return whether a Gemm takes its input as it is, and scales nothing."""
    return all(value == {"transA": 0}.get(name, 1) for name, value in options.items())


def spikes_near(graph: onnx.GraphProto, product: Synapse) -> bool:
    """Return whether neurons give the input of a product, or take its outputs as currents.

    Values may move between them, and nothing else may happen: then most inputs may be zero.
    """
    if comes_from_spikes(graph, product.inputs[0]):
        return True
    waiting = list(product.outputs)
    while waiting:
        name = waiting.pop()
        for node in graph.node:
            if name not in node.input[:1]:
                continue
            if _is_neuron(node):
                return True
            if node.domain == "" and node.op_type in _MOVES:
                waiting += node.output
    return False


def comes_from_spikes(graph: onnx.GraphProto, value: str, spikes: str | None = None) -> bool:
    """Return whether a value is what neurons give, moved or pooled, or is a known one so."""
    by_output = {name: node for node in graph.node for name in node.output}
    while value != spikes:
        node = by_output.get(value)
        if node is None:
            return False
        if _is_neuron(node):
            return True
        if node.domain != "" or node.op_type not in _MOVES | _POOLS:
            return False
        value = node.input[0]
    return True


def _is_neuron(node: onnx.NodeProto) -> bool:
    """Return whether a node gives spikes: ops of neurons return their last states, too."""
    return node.domain == DOMAIN and len(node.output) > 1
