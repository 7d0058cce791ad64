"""Fusion: neighbouring nodes become one for the native kernels, before ONNX Runtime loads a model.

The file holds nodes that every runtime can run. A fused node has the same outputs, and its
intermediate values never reach memory:

    c = ai.synapse.QuantizedDense (x, weight, step)    s = ai.synapse.Cuba (c, ...)     becomes
    s = ai.synapse.QuantizedDenseAndCuba (x, weight, step, ...)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from synapse_onnx.model.graph import DOMAIN, taken_by

if TYPE_CHECKING:
    import onnx

__all__ = ["fused"]

#: dense synapses -> number of outputs; with the attribute time_last their kernels read (N, C, T)
_DENSE = {"QuantizedDense": 1, "QuantizedComplexDense": 2, "QuantizedBiasedDense": 1}


def fused(model: onnx.ModelProto, together: Collection[str] = ()) -> onnx.ModelProto | None:
    """Return a fused copy of a model for the native kernels; None if there is nothing to fuse.

    A Transpose to time first goes if only dense synapses read it: their kernels find the spikes
    along time, and the transposed copy of the input is never written. A dense synapse and its
    neuron become one node if nothing else reads the currents between them.

    Args:
        model: the model of the file; it is not changed.
        together: names of the fused ops that there are, from :func:`native.together`.
    """
    #: how often each value is read, also as an output of the graph
    read = Counter(name for node in model.graph.node for name in taken_by(node))
    read.update(output.name for output in model.graph.output)
    turned = _turned(model.graph, read)
    pairs = _pairs(model.graph, read, together)
    if not turned and not pairs:
        return None
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    sources = {node.output[0]: node.input[0] for node in turned}
    for node in copied.graph.node:
        if _is_dense(node) and node.input[0] in sources:
            node.input[0] = sources[node.input[0]]
            node.attribute.append(onnx.helper.make_attribute("time_last", 1))
    for node in turned:
        copied.graph.node.remove(node)
    by_output = {node.output[0]: node for node in copied.graph.node if node.output}
    for dense, neuron in pairs:
        _join(copied.graph, by_output[dense], by_output[neuron])
    return copied


def _is_dense(node: onnx.NodeProto) -> bool:
    return node.domain == DOMAIN and node.op_type in _DENSE


def _turned(graph: onnx.GraphProto, read: Counter[str]) -> list[onnx.NodeProto]:
    """Return the Transposes to time first that only dense synapses read."""
    first = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Transpose"
        and node.domain == ""
        and [list(a.ints) for a in node.attribute if a.name == "perm"] == [[2, 0, 1]]
    }
    by_kernels = Counter(node.input[0] for node in graph.node if _is_dense(node) and node.input)
    return [node for name, node in first.items() if read[name] and read[name] == by_kernels[name]]


def _pairs(
    graph: onnx.GraphProto, read: Counter[str], together: Collection[str]
) -> list[tuple[str, str]]:
    """Return first outputs of synapses and of the neurons that alone read their currents."""
    synapses = {tuple(node.output): node for node in graph.node if _is_dense(node)}
    pairs = []
    for node in graph.node:
        for count in set(_DENSE.values()):
            currents = tuple(node.input[:count])
            synapse = synapses.get(currents)
            if (
                synapse is not None
                and node.domain == DOMAIN
                and f"{synapse.op_type}And{node.op_type}" in together
                and all(read[name] == 1 for name in currents)
            ):
                pairs.append((synapse.output[0], node.output[0]))
    return pairs


def _join(graph: onnx.GraphProto, dense: onnx.NodeProto, neuron: onnx.NodeProto) -> None:
    """Let a neuron's node compute its currents itself, and remove the synapse's node."""
    rest = neuron.input[_DENSE[dense.op_type] :]
    del neuron.input[:]
    neuron.input.extend([*dense.input, *rest])
    neuron.op_type = f"{dense.op_type}And{neuron.op_type}"
    neuron.attribute.extend(dense.attribute)
    graph.node.remove(dense)
