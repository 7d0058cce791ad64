"""From a NIR file or graph to a network of our layers: checks, subgraphs, cycles, layers.

NIR writes a recurrent layer as a cycle of edges: ``lif -> w_rec -> lif``. A neuron layer of ours
takes such a path as a recurrent synapse, which sees the spikes of the time step before, so that the
layer stays one Scan in the model.
"""

from __future__ import annotations

import dataclasses
import graphlib
import keyword
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from synapse_onnx.errors import InputError, ShapeError, SynapseError
from synapse_onnx.readers._fields import MAX_NEURONS, Array, Shape, located
from synapse_onnx.readers._hdf5 import open_hdf5
from synapse_onnx.readers._network import Add, Network, unused
from synapse_onnx.readers._nir.convention import CONVENTIONS, Convention
from synapse_onnx.readers._nir.node import Feedback, Node, as_text, declared_shape, sample_shape
from synapse_onnx.readers._nir.primitives import LINEAR, PRIMITIVES, SPIKING

Edges = list[tuple[str, str]]

#: deepest nesting of subgraphs
_MAX_DEPTH = 20
#: names of attributes that every module has, such as "type" and "training": a child hides them
_RESERVED = {"self", *dir(nn.Module())}


def read_graph(nir: Any, file: str) -> Any:
    """Read a file as a ``nir.NIRGraph``."""
    with open_hdf5(file, "nir", "load_nir") as hdf5:
        if "node" not in hdf5 or not hasattr(hdf5["node"], "keys") or "type" not in hdf5["node"]:
            raise InputError(f"{file} is not a NIR graph: it has no group 'node' with a type")
        if "nodes" not in hdf5["node"]:
            raise InputError(f"{file} holds a single NIR node, not a graph")
        _check_nodes(nir, file, hdf5["node"], "", 0)
        try:
            return nir.read(hdf5.filename, type_check=False)
        except (SynapseError, MemoryError):
            raise
        except Exception as error:  # nir raises whatever its constructors run into
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise InputError(f"{file}: nir cannot read it: {reason[:200]}") from error


def _check_nodes(nir: Any, file: str, graph: Any, prefix: str, depth: int) -> None:
    """Check that every node has a type and the fields of that type.

    ``nir.read`` raises a KeyError for a missing field, without the name of the node.
    """
    _check_depth(file, depth)
    nodes = graph.get("nodes")
    if not hasattr(nodes, "items"):
        raise InputError(f"{file}: graph {prefix or 'node'} has no nodes")
    for key, group in nodes.items():
        name, kind = f"{prefix}{key}", ""
        if hasattr(group, "keys") and hasattr(group.get("type"), "shape"):
            value = group["type"][()]
            kind = as_text(value) if isinstance(value, bytes | str) else ""
        if not kind:
            raise InputError(f"{file}: node {name} has no type")
        if kind == "NIRGraph":
            _check_nodes(nir, file, group, f"{name}.", depth + 1)
            continue
        _check_primitive(file, name, kind)
        required = [
            field.name
            for field in dataclasses.fields(getattr(nir, kind))
            if field.init
            and field.default is field.default_factory is dataclasses.MISSING
            and field.name not in ("input_type", "output_type", "input_shape")
        ]
        for field_name in required or ["shape"]:  # Input and Output have nothing but a shape
            if field_name not in group and kind != "Flatten":
                raise InputError(f"{file}: node {name} ({kind}), {field_name}: it is missing")


def _check_depth(file: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InputError(f"{file}: graphs within graphs, more than {_MAX_DEPTH} deep")


def _check_primitive(file: str, name: str, kind: str) -> None:
    """Check that a node is of a kind that this reader knows."""
    if kind not in {*PRIMITIVES, "Input", "Output"}:
        known = ", ".join(sorted({*PRIMITIVES, "Input", "Output", "NIRGraph"}))
        raise InputError(f"{file}: node {name} is a {kind}; known are: {known}")


def convention_of(file: str, graph: Any, framework: str) -> Convention:
    """Return the convention of a framework, or of the one that the metadata name."""
    metadata = graph.metadata if isinstance(graph.metadata, Mapping) else {}
    metadata = {str(key).lower(): value for key, value in metadata.items()}
    if not framework:
        writer = as_text(metadata.get("framework", metadata.get("generator", "nir"))).lower()
        # the longest name that occurs: "nir" is part of "snntorch's nir export"
        names = (name for name in CONVENTIONS if name in writer.replace(" ", ""))
        framework = max(names, key=len, default="nir")
    if framework not in CONVENTIONS:
        raise InputError(f"framework must be one of {', '.join(CONVENTIONS)}, got {framework!r}")
    with located(file, "the graph's metadata"):
        return CONVENTIONS[framework].with_metadata(metadata)


def flatten_subgraphs(file: str, graph: Any) -> tuple[dict[str, Any], Edges]:
    """Return nodes and edges with subgraphs inlined.

    A node ``lif`` of a subgraph ``rnn`` is called ``rnn.lif``; the Input and Output nodes of
    subgraphs are replaced by edges.
    """
    nodes: dict[str, Any] = {}
    edges: Edges = []
    inner_ports: list[str] = []

    def add(graph: Any, prefix: str, depth: int) -> None:
        _check_depth(file, depth)
        try:
            pairs = [(str(source), str(target)) for source, target in graph.edges]
        except (TypeError, ValueError) as error:
            raise InputError(f"{file}: its edges are no pairs of nodes") from error
        #: subgraph -> "Input" or "Output" -> its nodes of that kind
        ports: dict[str, dict[str, list[str]]] = {}
        for key, node in graph.nodes.items():
            name = prefix + str(key)
            if type(node).__name__ == "NIRGraph":
                add(node, f"{name}.", depth + 1)
                ports[str(key)] = {
                    kind: [f"{name}.{k}" for k, n in node.nodes.items() if type(n).__name__ == kind]
                    for kind in ("Input", "Output")
                }
                inner_ports.extend(ports[str(key)]["Input"] + ports[str(key)]["Output"])
            else:
                nodes[name] = node
        for source, target in pairs:
            ends = []
            for key, kind in ((source, "Output"), (target, "Input")):
                if key not in graph.nodes:
                    raise InputError(f"{file}: an edge names {prefix}{key}, which is no node")
                candidates = ports.get(key, {kind: [prefix + key]})[kind]
                if len(candidates) != 1:
                    raise InputError(
                        f"{file}: node {prefix}{key} is a graph with {len(candidates)} {kind} "
                        f"nodes, and an edge needs one"
                    )
                ends.append(candidates[0])
            edges.append((ends[0], ends[1]))

    add(graph, "", 0)
    for name in inner_ports:
        sources = [source for source, target in edges if target == name]
        targets = [target for source, target in edges if source == name]
        edges = [edge for edge in edges if name not in edge]
        edges += [(source, target) for source in sources for target in targets]
        del nodes[name]
    return nodes, list(dict.fromkeys(edges))


class Builder:
    """Adds the nodes of a graph without subgraphs to a network, with the shapes of their outputs.

    Args:
        file: the file, for errors.
        nodes: the ``nir.NIRNode`` objects, by name.
        edges: pairs (source, target); several edges into a node are added.
        convention: how the framework that wrote the graph discretises it.
    """

    def __init__(
        self, file: str, nodes: Mapping[str, Any], edges: Edges, convention: Convention
    ) -> None:
        for name, node in nodes.items():
            _check_primitive(file, name, type(node).__name__)
        self.file, self.edges = file, edges
        self.nodes = {name: Node(file, name, node, convention) for name, node in nodes.items()}
        self.layers: dict[str, nn.Module] = {}
        self.wires: dict[str, list[str]] = {}
        self.names: set[str] = set()
        #: node -> name of what gives its output, and the shape of that
        self.outputs: dict[str, tuple[str, Shape | None]] = {}

    def build(self) -> Network:
        """Return the network."""
        order = self._order()
        labels = {name: self._name(name) for name in order}
        inputs: dict[str, Shape | None] = {}
        results: list[str] = []
        for name in order:
            node, label = self.nodes[name], labels[name]
            if node.kind == "Input":
                inputs[label] = self._input_shape(node)
                self.outputs[name] = label, inputs[label]
                continue
            source, node.shape = self._source(name, label)
            if node.kind == "Output":
                results.append(source)
                self.outputs[name] = source, node.shape
                continue
            with located(self.file, f"node {name} ({node.kind})"):
                layer, shape = PRIMITIVES[node.kind](node)
            if shape is not None and math.prod(shape) > MAX_NEURONS:
                raise ShapeError(f"{self.file}: node {name} has too many neurons, {shape}")
            self.layers[label], self.wires[label] = layer, [source]
            self.outputs[name] = label, shape
        if not inputs or not results:
            missing = "Input" if not inputs else "Output"
            raise InputError(f"{self.file}: the graph has no {missing} node")
        return Network(self.layers, self.wires, inputs, results)

    def _name(self, name: str) -> str:
        """Return an identifier for a child module or an argument, no two alike."""
        label = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not label or label[0].isdigit() or keyword.iskeyword(label) or label in _RESERVED:
            label = f"node_{label}"
        label = unused(label, self.names)
        self.names.add(label)
        return label

    def _source(self, name: str, label: str) -> tuple[str, Shape | None]:
        """What feeds a node, and its shape; several sources are added by a layer of their own."""
        sources = [self.outputs[source] for source, target in self.edges if target == name]
        if not sources:
            raise InputError(f"{self.file}: node {name} has no input")
        if len(sources) == 1:
            return sources[0]
        shapes = {shape for _, shape in sources if shape is not None}
        if len(shapes) > 1:
            raise ShapeError(
                f"{self.file}: the inputs of node {name} have different shapes: "
                f"{', '.join(map(str, sorted(shapes)))}"
            )
        total = self._name(f"{label}_sum")
        self.layers[total], self.wires[total] = Add(), [source for source, _ in sources]
        return total, next(iter(shapes), None)

    def _input_shape(self, node: Node) -> Shape | None:
        """The shape of one sample at an Input node.

        Some exporters leave the batch axis of their example input in the declared shape; the node
        that the input feeds tells.
        """
        with located(self.file, f"node {node.name} (Input)"):
            sizes = declared_shape(node.node)
            targets = [self.nodes[target] for source, target in self.edges if source == node.name]
            axes = {"Linear": 1, "Affine": 1, "Conv1d": 2, "Conv2d": 3}
            if sizes and targets:
                neurons = np.shape(getattr(targets[0].node, "r", ()))
                expected = axes.get(targets[0].kind)
                if len(sizes) - 1 == expected or (neurons and neurons == sizes[1:]):
                    sizes = sizes[1:]
            return sample_shape(sizes)

    def _order(self) -> list[str]:
        """Return the nodes in topological order; cycles become the feedback of their neurons."""
        while True:
            sources: dict[str, set[str]] = {name: set() for name in self.nodes}
            for source, target in self.edges:
                sources[target].add(source)
            try:
                return list(graphlib.TopologicalSorter(sources).static_order())
            except graphlib.CycleError as error:
                self._remove_cycle(error.args[1][:-1])  # the first node is at both ends

    def _remove_cycle(self, cycle: list[str]) -> None:
        """Add a cycle to the feedback of its neuron; drop its last edge and the nodes left over."""
        spiking = [name for name in cycle if self.nodes[name].kind in SPIKING]
        around = " -> ".join([*cycle, cycle[0]])
        if not spiking:
            raise InputError(
                f"{self.file}: the nodes {around} are a cycle without a spiking neuron: an "
                f"algebraic loop, with no time step in it"
            )
        if len(spiking) > 1:
            raise InputError(
                f"{self.file}: the nodes {around} are a cycle through {len(spiking)} neurons; "
                f"feedback through one is supported"
            )
        start = cycle.index(spiking[0])
        path = [*cycle[start + 1 :], *cycle[:start]]
        for name in path:
            if self.nodes[name].kind not in LINEAR:
                raise InputError(
                    f"{self.file}: node {name} ({self.nodes[name].kind}) is part of a feedback "
                    f"path, which may hold only {', '.join(LINEAR)}"
                )
            if sum(target == name for _, target in self.edges) > 1:
                raise InputError(f"{self.file}: several edges lead into node {name}, in a cycle")
        neuron = self.nodes[spiking[0]]
        neuron.feedback.append(_product(neuron, [self.nodes[name] for name in path]))
        last = (path[-1] if path else neuron.name, neuron.name)
        self.edges = [edge for edge in self.edges if edge != last]
        for name in reversed(path):
            if any(source == name for source, _ in self.edges):
                break  # this node feeds something else too
            self.edges = [edge for edge in self.edges if edge[1] != name]
            del self.nodes[name]


def _product(neuron: Node, path: list[Node]) -> Feedback:
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
            f"{neuron.file}: the feedback of node {neuron.name} has the shape {weight.shape} and "
            f"must be square"
        )
    recurrent = torch.from_numpy(weight.astype(np.float32))
    return recurrent, None if bias is None else torch.from_numpy(bias.astype(np.float32))
