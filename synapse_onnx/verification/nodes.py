"""Which nodes of a graph are a layer's, and which of their values are compared with torch's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from synapse_onnx.model.graph import with_outputs
from synapse_onnx.model.metadata import Metadata, layer_of
from synapse_onnx.model.tiles import is_in_tiles
from synapse_onnx.ops import DOMAIN, get_op

__all__ = [
    "entering_sequences",
    "in_torch_layout",
    "input_sequences",
    "last_states",
    "layer_nodes",
    "output_sequences",
    "scans_of",
    "with_layer_outputs",
    "with_scan_values",
]


def layer_nodes(model: onnx.ModelProto, layers: Collection[str]) -> dict[str, list[onnx.NodeProto]]:
    """Map the path of each layer to its nodes, in the order of the graph.

    A node of a part of a layer is the layer's: "block.neuron.norm" is the neuron's. A node that
    belongs to none of the layers has its own path as the key.
    """
    nodes: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            path = layer_of(node) or ""
            holders = [layer for layer in layers if f"{path}.".startswith(f"{layer}.") or not layer]
            nodes.setdefault(max(holders, key=len, default=path), []).append(node)
    return nodes


def input_sequences(node: onnx.NodeProto) -> list[str]:
    """Names of the values that enter a node as sequences over time, not weights or states."""
    ends = zip(node.input, get_op(node.op_type).inputs, strict=False)
    return [name for name, formal in ends if formal.startswith("x")]


def entering_sequences(nodes: Sequence[onnx.NodeProto], count: int) -> list[str]:
    """Names of the values that enter a layer: ``count`` of them.

    A pair enters one node, or two that norm its parts.
    """
    return [name for node in nodes for name in input_sequences(node)][:count]


def output_sequences(node: onnx.NodeProto) -> list[str]:
    """Names of the values that a node returns as sequences over time."""
    ends = zip(node.output, get_op(node.op_type).outputs, strict=False)
    return [name for name, formal in ends if name and not formal.startswith("last_")]


def last_states(node: onnx.NodeProto) -> list[tuple[str, str]]:
    """Names of the last states that a node returns, each with the formal name: last_voltage."""
    ends = zip(node.output, get_op(node.op_type).outputs, strict=False)
    return [(name, formal) for name, formal in ends if name and formal.startswith("last_")]


def with_layer_outputs(
    model: onnx.ModelProto, nodes: dict[str, list[onnx.NodeProto]]
) -> onnx.ModelProto:
    """Return a copy of the model that also returns the inputs, outputs and states of its layers."""
    group = [node for nodes_of_one in nodes.values() for node in nodes_of_one]
    names = [
        name for node in group for name in (*input_sequences(node), *filter(None, node.output))
    ]
    copied = with_outputs(model, {name: name for name in names})
    metadata = Metadata.find(model)
    if metadata is not None:  # a session hides the states of a stream
        shown = tuple({**state, "output": ""} for state in metadata.states)
        replace(metadata, states=shown).write(copied)
    return copied


def scans_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the loops over time of a graph."""
    scans = (node for node in model.graph.node if node.op_type == "Scan")
    return [node for node in scans if not is_in_tiles(node)]


def with_scan_values(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the model that also returns what its Scans are given and return."""
    held = {value.name for value in (*model.graph.initializer, *model.graph.input)}
    names = [name for node in scans_of(model) for name in (*node.input, *node.output)]
    return with_outputs(model, {name: name for name in names if name not in held})


def in_torch_layout(array: NDArray[Any], reference: NDArray[Any]) -> NDArray[Any] | None:
    """Bring a time-major array of the graph to the layout of torch's; None if sizes differ.

    The node's array is flat where the layer has axes of size one, or merges channels and rows:
    (T, N, C) is (N, C, 1, 1, T) in torch.
    """
    moved = np.moveaxis(array, 0, -1)
    if moved.size != reference.size or moved.shape[-1] != reference.shape[-1]:
        return None
    return moved.reshape(reference.shape)
