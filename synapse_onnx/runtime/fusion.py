"""What native kernels compute at once, put together in a model before ONNX Runtime loads it.

A file holds what every runtime can run. Where the native kernels are registered, some neighbours in
its graph need not be apart: the outputs are the same, and less goes through memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from synapse_onnx.model.graph import DOMAIN, taken_by

if TYPE_CHECKING:
    import onnx

__all__ = ["fused"]

#: dense synapses and their number of outputs; their kernels read (N, C, T) themselves where the
#: attribute time_last says so
_DENSE = {"QuantizedDense": 1, "QuantizedComplexDense": 2}


def fused(model: onnx.ModelProto, together: Collection[str] = ()) -> onnx.ModelProto | None:
    """Return a model for the native kernels; None where there is nothing to put together.

    A Transpose that brings time to the front goes where dense synapses alone read it: their kernels
    find the spikes along time, and the turned copy of the input is never written. A dense synapse
    and the neuron behind it become one node where nothing else reads its currents, which then never
    reach memory.

    Args:
        model: the model as it is in its file; it stays as it is.
        together: names of the ops that compute a synapse and a neuron, as
            :func:`native.together` gives them.
    """
    read = _read(model.graph)
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
    """Return the Transposes that bring time to the front for nothing but dense synapses."""
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
    """Return dense synapses and the neurons that alone read their currents, by first outputs."""
    synapses = {tuple(node.output): node for node in graph.node if _is_dense(node)}
    found = []
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
                found.append((synapse.output[0], node.output[0]))
    return found


def _join(graph: onnx.GraphProto, dense: onnx.NodeProto, neuron: onnx.NodeProto) -> None:
    """Make of a neuron one that computes its currents itself, and take its synapse away."""
    behind = neuron.input[_DENSE[dense.op_type] :]
    del neuron.input[:]
    neuron.input.extend([*dense.input, *behind])
    neuron.op_type = f"{dense.op_type}And{neuron.op_type}"
    neuron.attribute.extend(dense.attribute)
    graph.node.remove(dense)


def _read(graph: onnx.GraphProto) -> Counter[str]:
    """Count how often each value is taken, as an output of the graph too."""
    read = Counter(name for node in graph.node for name in taken_by(node))
    read.update(output.name for output in graph.output)
    return read
