"""Cycles of a NIR graph: a path from a neuron's spikes back to its input becomes one matrix.

NIR writes a recurrent layer as edges: ``lif -> w_rec -> lif``. A neuron layer of ours takes such a
path as a recurrent synapse, which sees the spikes of the time step before, so that the layer stays
one Scan in the model.
"""

from __future__ import annotations

import graphlib

import numpy as np
import torch

from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.readers._fields import Array
from synapse_onnx.readers._nir.graph import Edges
from synapse_onnx.readers._nir.node import Feedback, Node
from synapse_onnx.readers._nir.primitives import LINEAR, SPIKING


def remove_cycles(
    file: str, nodes: dict[str, Node], edges: Edges
) -> tuple[list[str], dict[str, Node], Edges]:
    """Add every cycle of a graph to the ``feedback`` of its neuron, and remove it.

    Returns:
        The names in topological order, and the nodes and edges that remain.
    """
    nodes = dict(nodes)
    while True:
        sources: dict[str, set[str]] = {name: set() for name in nodes}
        for source, target in edges:
            sources[target].add(source)
        try:
            return list(graphlib.TopologicalSorter(sources).static_order()), nodes, edges
        except graphlib.CycleError as error:
            # CycleError names the first node at both ends
            edges = _remove_cycle(file, nodes, edges, error.args[1][:-1])


def _remove_cycle(file: str, nodes: dict[str, Node], edges: Edges, cycle: list[str]) -> Edges:
    """Add a cycle to the feedback of its neuron; drop its last edge and the nodes left over."""
    spiking = [name for name in cycle if nodes[name].kind in SPIKING]
    around = " -> ".join([*cycle, cycle[0]])
    if not spiking:
        raise InputError(
            f"{file}: the nodes {around} are a cycle without a spiking neuron: an algebraic loop, "
            f"with no time step in it"
        )
    if len(spiking) > 1:
        raise InputError(
            f"{file}: the nodes {around} are a cycle through {len(spiking)} neurons; feedback "
            f"through one is supported"
        )
    start = cycle.index(spiking[0])
    path = [*cycle[start + 1 :], *cycle[:start]]
    for name in path:
        if nodes[name].kind not in LINEAR:
            raise InputError(
                f"{file}: node {name} ({nodes[name].kind}) is part of a feedback path, which may "
                f"hold only {', '.join(LINEAR)}"
            )
        if sum(target == name for _, target in edges) > 1:
            raise InputError(f"{file}: several edges lead into node {name}, in a cycle")
    neuron = nodes[spiking[0]]
    neuron.feedback.append(_product(file, neuron, [nodes[name] for name in path]))
    last = (path[-1] if path else neuron.name, neuron.name)
    edges = [edge for edge in edges if edge != last]
    for name in reversed(path):
        if any(source == name for source, _ in edges):
            break  # this node feeds something else too
        edges = [edge for edge in edges if edge[1] != name]
        del nodes[name]
    return edges


def _product(file: str, neuron: Node, path: list[Node]) -> Feedback:
    """Multiply the nodes of a path to one weight and one bias."""
    weight: Array | None = None
    bias: Array | None = None
    for node in path:
        if node.kind == "Scale":
            factor = np.diag(node.array("scale").reshape(-1))
        else:
            factor = node.array("weight")
        if factor.ndim != 2 or (weight is not None and factor.shape[1] != weight.shape[0]):
            raise node.mismatch("weight", f"{factor.shape} does not fit the node before it")
        weight = factor if weight is None else factor @ weight
        bias = None if bias is None else factor @ bias
        if node.kind == "Affine":
            own = node.array("bias").reshape(-1)
            bias = own if bias is None else bias + own
    if weight is None:  # an edge from the neuron to itself
        weight = np.eye(max(neuron.array("v_threshold").size, 1))
    if weight.shape[0] != weight.shape[1]:
        raise ShapeError(
            f"{file}: the feedback of node {neuron.name} has the shape {weight.shape} and must be "
            f"square"
        )
    recurrent = torch.from_numpy(weight.astype(np.float32))
    return recurrent, None if bias is None else torch.from_numpy(bias.astype(np.float32))
