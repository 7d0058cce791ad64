"""What native kernels compute at once, put together in a model before ONNX Runtime loads it.

A file holds what every runtime can run. Where the native kernels are registered, some neighbours in
its graph need not be apart: the outputs are the same, and less goes through memory.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from synapse_onnx.graph import taken_by

if TYPE_CHECKING:
    import onnx

__all__ = ["fused"]

_DOMAIN = "ai.synapse"

#: ops whose kernels read (N, C, T) themselves: the attribute time_last
_TURNING = ("QuantizedDense", "QuantizedComplexDense")


def fused(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a model for the native kernels; None where there is nothing to put together.

    A Transpose that brings time to the front goes where dense synapses alone read it: their kernels
    find the spikes along time, and the turned copy of the input is never written.

    Args:
        model: the model as it is in its file; it stays as it is.
    """
    found = _turned(model.graph)
    if not found:
        return None
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    sources = {node.output[0]: node.input[0] for node in found}
    for node in copied.graph.node:
        if node.domain == _DOMAIN and node.input[0] in sources:
            node.input[0] = sources[node.input[0]]
            node.attribute.append(onnx.helper.make_attribute("time_last", 1))
    for node in found:
        copied.graph.node.remove(node)
    return copied


def _turned(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the Transposes that bring time to the front for nothing but dense synapses."""
    first = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Transpose"
        and node.domain == ""
        and [list(a.ints) for a in node.attribute if a.name == "perm"] == [[2, 0, 1]]
    }
    read = Counter(name for node in graph.node for name in taken_by(node))
    read.update(output.name for output in graph.output)
    by_kernels = Counter(
        node.input[0]
        for node in graph.node
        if node.domain == _DOMAIN and node.op_type in _TURNING and node.input
    )
    return [node for name, node in first.items() if read[name] and read[name] == by_kernels[name]]
