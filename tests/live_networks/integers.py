"""A network with weights of 8 bits, and its file: sizes, numbers, streams and times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx
from torch import nn

import synapse_onnx as so
from synapse_onnx.quantize.summary import Summary

from .distance import Distance
from .network import Network
from .streams import streamed
from .times import beside

__all__ = ["Integers", "integers", "transposes_of_time"]

#: nodes that only hand on what enters them
_MOVES = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}


@dataclass
class Integers:
    """What became of a network with weights of 8 bits.

    Attributes:
        parameters: numbers in the network's parameters and buffers.
        transposes: transposes of time between layers, in the file with float weights.
        kilobytes: sizes of the files with float weights and with integers.
        layers: layers with integers in the file, of those with weights.
        changed: share of output spikes that the other weights change; of outputs that are no
            spikes, the largest change, relative to the largest value.
        spikes: whether outputs are spikes.
        distance: how far the file is from the network with these weights.
        problem: what is wrong, or why the network is refused.
        streamed: whether chunks give the whole.
        times: ms of the file of floats and of that of integers, "portable" and "native".
    """

    parameters: int
    transposes: int
    kilobytes: tuple[float, float] = (0.0, 0.0)
    layers: tuple[int, int] = (0, 0)
    changed: float = 0.0
    spikes: bool = False
    distance: Distance = field(default_factory=Distance)
    problem: str = ""
    streamed: str = ""
    times: dict[str, tuple[float, float]] = field(default_factory=dict)


def integers(
    network: Network, net: nn.Module, model: onnx.ModelProto, fixed: int | None, compare: Any
) -> Integers:
    """Quantise a network, and compare its file with it.

    Args:
        network: the entry.
        net: its module.
        model: its file with float weights.
        fixed: the number of steps of the file, if that is not open.
        compare: compares the file of a module at all sizes; see ``measure``.
    """
    tensors = {id(x): x for x in (*net.parameters(), *net.buffers())}
    result = Integers(sum(x.numel() for x in tensors.values()), transposes_of_time(model.graph))
    inputs = network.inputs(fixed or 9, 3)
    said = {"axes": network.axes} if network.says_axes else {}
    try:
        quantised = so.quantize.apply(net, bits=8, calibration=inputs)
        summary: Summary = so.quantize.summary_of(quantised)
        small = so.export(quantised, inputs, **said)
        comparison = so.quantize.compare(net, quantised, inputs)
    except so.SynapseError as error:
        result.problem = str(error)
        return result
    kept = sum(t.data_type in (3, 5, 22) and len(t.dims) > 1 for t in small.graph.initializer)
    rounded = sum(row.bits is not None for row in summary.layers)
    result.layers = (min(kept, rounded), len(summary.layers))
    sizes = [len(each.SerializeToString()) / 1000 for each in (model, small)]
    result.kilobytes = (sizes[0], sizes[1])
    output = comparison.output
    result.spikes = output is not None
    result.changed = comparison.distance if output is None else output.share
    result.problem = compare(quantised, small, result.distance)
    result.streamed = streamed(network, quantised, fixed)
    if result.streamed.startswith("WRONG"):
        result.problem = result.problem or result.streamed
    result.times = beside(network, model, small, fixed)
    return result


def transposes_of_time(graph: onnx.GraphProto) -> int:
    """Return how many nodes move the axis of time between two layers.

    Those next to an input or output of the graph bring it to the layout of the module.
    """
    producers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}

    def enters(name: str) -> bool:
        node = producers.get(name)
        return node is None or (node.op_type in _MOVES and enters(node.input[0]))

    def leaves(name: str) -> bool:
        return name in outputs or any(
            node.op_type in _MOVES and leaves(node.output[0]) for node in users.get(name, [])
        )

    count = 0
    for node in graph.node:
        if node.op_type == "Transpose":
            perm = onnx.helper.get_attribute_value(node.attribute[0])
            between = not enters(node.input[0]) and not leaves(node.output[0])
            count += perm[0] != 0 and between
    return count
