"""Fusion: neighbouring nodes become one for the native kernels, before ONNX Runtime loads a model.

The file holds nodes that every runtime can run. A fused node has the same outputs, and its
intermediate values never reach memory:

    c = ai.synapse.QuantizedDense (x, weight, step)    s = ai.synapse.Cuba (c, ...)     becomes
    s = ai.synapse.QuantizedDenseAndCuba (x, weight, step, ...)

A dense synapse with float weights may be a product and the sum with a bias (:mod:`._products`):

    c = Add (MatMul (x, weight), bias)    s = ai.synapse.LifFloat (c, ...)     becomes
    s = ai.synapse.DenseAndLifFloat <inputs_first = 1> (x, weight, bias, ...)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from synapse_onnx.model.graph import DOMAIN, taken_by
from synapse_onnx.runtime._convolutions import CONVOLUTION, convolutions, take_in
from synapse_onnx.runtime._products import (
    NO_BIAS,
    Synapse,
    products,
    spikes_near,
    state_no_bias,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["fused"]

#: dense synapses -> number of outputs; with the attribute time_last their kernels read (N, C, T)
_DENSE = {
    "QuantizedDense": 1,
    "QuantizedComplexDense": 2,
    "QuantizedBiasedDense": 1,
    "Dense": 1,
    "ComplexDense": 2,
}
#: of these, those whose fused kernels take a bias for each output behind the weights
_BIASED = {"Dense", "ComplexDense"}
#: a product and its bias, without a neuron
_ALONE = "DenseAndBias"


def fused(model: onnx.ModelProto, together: Collection[str] = ()) -> onnx.ModelProto | None:
    """Return a fused copy of a model for the native kernels; None if there is nothing to fuse.

    A Transpose to time first goes if only dense synapses read it: their kernels find the spikes
    along time, and the transposed copy of the input is never written. A dense synapse and its
    neuron become one node if nothing else reads the currents between them. Other products of
    spikes become one node with their bias, and so do convolutions of spikes.

    Args:
        model: the model of the file; it is not changed.
        together: names of the fused ops that there are, from :func:`native.together`.
    """
    graph = model.graph
    #: how often each value is read, also as an output of the graph
    read = Counter(name for node in graph.node for name in taken_by(node))
    read.update(output.name for output in graph.output)
    others = products(graph, read)
    pairs = _pairs(graph, read, together, [*_synapses(graph), *others])
    fused_nodes = {name for synapse, _ in pairs for name in synapse.nodes}
    alone = [
        product
        for product in others
        if _ALONE in together
        and fused_nodes.isdisjoint(product.nodes)
        and spikes_near(graph, product)
    ]
    #: what the kernels of products read, time last or not
    inputs = [product.inputs[0] for product in alone]
    inputs += [synapse.inputs[0] for synapse, _ in pairs if synapse in others]
    turned = _turned(graph, read, inputs)
    images = CONVOLUTION in together and any(True for _ in convolutions(graph))
    if not turned and not pairs and not alone and not images:
        return None
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    by_output = {node.output[0]: node for node in copied.graph.node if node.output}
    for synapse, neuron in pairs:
        node = by_output[neuron]
        rest = node.input[len(synapse.outputs) :]
        _become(copied.graph, by_output, synapse, node, f"{synapse.op}And{node.op_type}", rest)
    for product in alone:
        last = by_output[product.nodes[-1]]
        _become(copied.graph, by_output, product, last, _ALONE, [])
    sources = {node.output[0]: node.input[0] for node in turned}
    for node in copied.graph.node:
        dense = node.domain == DOMAIN and node.op_type.partition("And")[0] in _DENSE
        if dense and node.input[0] in sources:
            node.input[0] = sources[node.input[0]]
            node.attribute.append(onnx.helper.make_attribute("time_last", 1))
    for node in turned:
        copied.graph.node.remove(node)
    if images:
        take_in(copied.graph)
    return copied


def _is_dense(node: onnx.NodeProto) -> bool:
    return node.domain == DOMAIN and node.op_type in _DENSE


def _turned(
    graph: onnx.GraphProto, read: Counter[str], others: Collection[str]
) -> list[onnx.NodeProto]:
    """Return the Transposes to time first that only dense synapses and these others read."""
    first = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Transpose"
        and node.domain == ""
        and [list(a.ints) for a in node.attribute if a.name == "perm"] == [[2, 0, 1]]
    }
    by_kernels = Counter(node.input[0] for node in graph.node if _is_dense(node) and node.input)
    by_kernels.update(others)
    return [node for name, node in first.items() if read[name] and read[name] == by_kernels[name]]


def _pairs(
    graph: onnx.GraphProto, read: Counter[str], together: Collection[str], found: list[Synapse]
) -> list[tuple[Synapse, str]]:
    """Return synapses, and the first outputs of the neurons that alone read their currents."""
    synapses = {tuple(synapse.outputs): synapse for synapse in found}
    pairs = []
    for node in graph.node:
        for count in set(_DENSE.values()):
            currents = tuple(node.input[:count])
            synapse = synapses.get(currents)
            if (
                synapse is not None
                and node.domain == DOMAIN
                and f"{synapse.op}And{node.op_type}" in together
                and all(read[name] == 1 for name in currents)
            ):
                pairs.append((synapse, node.output[0]))
    return pairs


def _synapses(graph: onnx.GraphProto) -> list[Synapse]:
    """Return the dense synapses of a graph that are nodes of ours."""
    found = []
    for node in filter(_is_dense, graph.node):
        biases = [NO_BIAS] * _DENSE[node.op_type] * (node.op_type in _BIASED)
        inputs, outputs = [*node.input, *biases], list(node.output)
        found.append(Synapse(node.op_type, inputs, outputs, list(node.attribute), outputs[:1]))
    return found


def _become(
    graph: onnx.GraphProto,
    by_output: Mapping[str, onnx.NodeProto],
    synapse: Synapse,
    node: onnx.NodeProto,
    op: str,
    rest: Collection[str],
) -> None:
    """Let a node compute a synapse itself, with the rest of its inputs, and remove the synapse."""
    if NO_BIAS in synapse.inputs:
        state_no_bias(graph)
    inputs = [*synapse.inputs, *rest]
    del node.input[:]
    node.input.extend(inputs)
    if node.domain != DOMAIN:
        del node.attribute[:]
    node.op_type, node.domain = op, DOMAIN
    node.attribute.extend(synapse.attributes)
    for name in synapse.nodes:
        if name != node.output[0]:
            graph.node.remove(by_output[name])
