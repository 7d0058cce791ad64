"""From a NIR file or graph to a network of our layers: checks, subgraphs, cycles, layers.

NIR writes a recurrent layer as a cycle of edges: ``lif -> w_rec -> lif``. A neuron layer of ours
takes such a path as a recurrent synapse, which sees the spikes of the time step before, so that the
layer stays one Scan in the model. Any other cycle becomes a loop over time
(:mod:`synapse_onnx.readers._nir.cycle`).
"""

from __future__ import annotations

import dataclasses
import graphlib
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from synapse_onnx.errors import InputError, ShapeError, SynapseError
from synapse_onnx.readers._fields import MAX_NEURONS, Array, Shape, located
from synapse_onnx.readers._hdf5 import open_hdf5
from synapse_onnx.readers._network import Add, Network, unused
from synapse_onnx.readers._nir import modules
from synapse_onnx.readers._nir.convention import Convention
from synapse_onnx.readers._nir.cycle import Cycle, late_edges, members_of
from synapse_onnx.readers._nir.node import Feedback, Node, as_text, declared_shape, sample_shape
from synapse_onnx.readers._nir.primitives import LINEAR, PRIMITIVES, SPIKING, STATEFUL
from synapse_onnx.readers._nir.steps import steps_of

Edges = list[tuple[str, str]]

#: axes of a sample that a node with a weight takes
_SAMPLE_AXES = {"Linear": 1, "Affine": 1, "Conv1d": 2, "Conv2d": 3}
#: nodes that leave the shape as it is, and do not tell it
_SAME_SHAPE = {"Threshold", "Delay"}

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
        raise InputError(with_advice(f"{file}: node {name} is a {kind}; known are: {known}"))


#: what to do with a network that its graph does not say
_ADVICE = "if you have the live network, so.export(network, x) takes it as it is"


def with_advice(sentence: str) -> str:
    """Return a sentence that ends with what to do instead."""
    return sentence if sentence.endswith(_ADVICE) else f"{sentence}; {_ADVICE}"


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
        #: first node of a cycle that is a loop over time -> all of its nodes
        self.cycles: dict[str, list[str]] = {}
        #: sentences about what is assumed of such cycles
        self.assumed: list[str] = []

    def build(self) -> Network:
        """Return the network."""
        order = self._order()
        labels = {name: self._name(name) for name in order if name not in self.cycles}
        inputs: dict[str, Shape | None] = {}
        results: list[str] = []
        for name in order:
            if name in self.cycles:
                self._add_cycle(name)
                continue
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
            layer, shape = self._layer(node)
            self.layers[label], self.wires[label] = layer, [source]
            self.outputs[name] = label, shape
        if not inputs or not results:
            missing = "Input" if not inputs else "Output"
            raise InputError(f"{self.file}: the graph has no {missing} node")
        return Network(self.layers, self.wires, inputs, results)

    def _layer(self, node: Node) -> tuple[nn.Module, Shape | None]:
        """The layer of a node whose input shape is known, and the shape of its output."""
        with located(self.file, f"node {node.name} ({node.kind})"):
            layer, shape = PRIMITIVES[node.kind](node)
        if shape is not None and math.prod(shape) > MAX_NEURONS:
            raise ShapeError(f"{self.file}: node {node.name} has too many neurons, {shape}")
        return layer, shape

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
        shape = self._shape_of(name, [shape for _, shape in sources])
        total = self._name(f"{label}_sum")
        self.layers[total], self.wires[total] = Add(), [source for source, _ in sources]
        return total, shape

    def _shape_of(self, name: str, shapes: Sequence[Shape | None]) -> Shape | None:
        """The shape of the sum of a node's inputs."""
        known = {shape for shape in shapes if shape is not None}
        if len(known) > 1:
            raise ShapeError(
                f"{self.file}: the inputs of node {name} have different shapes: "
                f"{', '.join(map(str, sorted(known)))}"
            )
        return next(iter(known), None)

    def _input_shape(self, node: Node) -> Shape | None:
        """The shape of one sample at an Input node.

        Some exporters leave axes of their example input in the declared shape: the batch, and time
        before or behind it. The node that the input feeds tells.
        """
        with located(self.file, f"node {node.name} (Input)"):
            sizes = declared_shape(node.node)
            targets = [target for source, target in self.edges if source == node.name]
            if sizes and targets and min(sizes) > 0:
                sizes = self._without_batch_and_time(sizes, targets[0])
            return sample_shape(sizes)

    def _without_batch_and_time(self, sizes: Shape, target: str) -> Shape:
        """Drop the axes before those that a node takes, which it tells by its parameters."""
        node, seen = self.nodes[target], set[str]()
        while node.kind in _SAME_SHAPE and node.name not in seen:
            seen.add(node.name)
            behind = [name for source, name in self.edges if source == node.name]
            if not behind:
                break
            node = self.nodes[behind[0]]
        weight, neurons = (
            tuple(getattr(getattr(node.node, name, None), "shape", ())) for name in ("weight", "r")
        )
        axes = _SAMPLE_AXES.get(node.kind)
        if axes is not None and len(weight) > 1 and len(sizes) > axes:
            groups = node.integers("groups", 1, 1)[0] if node.has("groups") else 1
            if len(sizes) - 1 == axes or sizes[-axes] == weight[1] * groups:
                return sizes[-axes:]
        if neurons and neurons == sizes[-len(neurons) :]:
            return neurons
        return sizes

    def _order(self) -> list[str]:
        """Return the nodes in topological order, without those inside of loops over time.

        A cycle of one neuron and matrices becomes the neuron's feedback; any other one, with all
        that it is connected to in both directions, a loop, at the place of its first node.
        """
        first: dict[str, str] = {name: name for name in self.nodes}
        while True:
            sources: dict[str, set[str]] = {first[name]: set() for name in self.nodes}
            for source, target in self.edges:
                if first[source] != first[target] or first[source] not in self.cycles:
                    sources[first[target]].add(first[source])
            try:
                return list(graphlib.TopologicalSorter(sources).static_order())
            except graphlib.CycleError as error:
                cycle = error.args[1][:-1]  # the first node is at both ends
                members = members_of(cycle[0], self.edges)
                if self._feeds_one_neuron(members):
                    self._remove_cycle(cycle)
                    first = {name: first[name] for name in self.nodes}
                else:
                    inside = [name for name in self.nodes if name in members]
                    self.cycles[inside[0]] = inside
                    first |= dict.fromkeys(inside, inside[0])

    def _feeds_one_neuron(self, members: set[str]) -> bool:
        """Whether a cycle is the feedback of one neuron, through matrices alone."""
        kinds = {name: self.nodes[name].kind for name in members}
        paths = [name for name in members if kinds[name] not in SPIKING]
        return len(paths) == len(members) - 1 and all(
            kinds[name] in LINEAR and sum(target == name for _, target in self.edges) == 1
            for name in paths
        )

    def _remove_cycle(self, cycle: list[str]) -> None:
        """Add a cycle to the feedback of its neuron; drop its last edge and the nodes left over."""
        (name,) = (name for name in cycle if self.nodes[name].kind in SPIKING)
        start = cycle.index(name)
        path = [*cycle[start + 1 :], *cycle[:start]]
        neuron = self.nodes[name]
        neuron.feedback.append(_product(neuron, [self.nodes[name] for name in path]))
        last = (path[-1] if path else neuron.name, neuron.name)
        self.edges = [edge for edge in self.edges if edge != last]
        for name in reversed(path):
            if any(source == name for source, _ in self.edges):
                break  # this node feeds something else too
            self.edges = [edge for edge in self.edges if edge[1] != name]
            del self.nodes[name]

    def _add_cycle(self, name: str) -> None:
        """Add a cycle as one layer, and a layer for every node that feeds another layer."""
        members = self.cycles[name]
        around = ", ".join(members)
        kinds = [self.nodes[member].kind for member in members]
        if {"Input", "Output"} & set(kinds):
            raise InputError(f"{self.file}: the nodes {around} are a cycle through an end")
        if "Delay" in kinds:
            raise InputError(
                f"{self.file}: the nodes {around} are a cycle with a Delay, and NIR does not say "
                f"whether an edge that leads back takes a time step besides"
            )
        if not set(kinds) & set(STATEFUL):
            raise InputError(
                f"{self.file}: the nodes {around} are a cycle without a neuron: an algebraic loop, "
                f"with no time step in it"
            )
        late = late_edges(members, self.edges)
        now = {member: set[str]() for member in members}
        for source, target in self.edges:
            if target in now and source in now and (source, target) not in late:
                now[target].add(source)
        try:
            order = list(graphlib.TopologicalSorter(now).static_order())
        except graphlib.CycleError as error:
            raise InputError(
                f"{self.file}: the nodes {around} are a cycle with several ways in, and which of "
                f"its edges takes a time step would depend on the order of the nodes"
            ) from error
        self._add_loop(order, late)

    def _add_loop(self, order: list[str], late: set[tuple[str, str]]) -> None:
        """Add the layers of a cycle whose nodes run in this order."""
        labels = {member: self._name(member) for member in order}
        outer: list[str] = []
        sources: dict[str, list[int | str]] = {labels[member]: [] for member in order}
        steps: dict[str, list[nn.Module]] = {}
        shapes: dict[str, Shape | None] = {}
        for member in order:
            known = []
            for source in [source for source, target in self.edges if target == member]:
                if source in labels:
                    sources[labels[member]].append(labels[source])
                    known += [] if (source, member) in late else [shapes[source]]
                    continue
                label, shape = self.outputs[source]
                outer += [] if label in outer else [label]
                sources[labels[member]].append(outer.index(label))
                known.append(shape)
            node = self.nodes[member]
            node.shape, node.looped = self._shape_of(member, known), True
            layer, shapes[member] = self._layer(node)
            if shapes[member] is None:
                raise ShapeError(
                    f"{self.file}: node {member} ({node.kind}) is part of a cycle, and the shape "
                    f"of its input is not known"
                )
            steps[labels[member]] = steps_of(layer)
        for source, target in late:
            self._shape_of(target, [self.nodes[target].shape, shapes[source]])
        ends = [
            member
            for member in order
            if any(source == member and target not in labels for source, target in self.edges)
        ]
        cycle = Cycle(
            steps,
            sources,
            {(labels[source], labels[target]) for source, target in late},
            {labels[member]: shape for member, shape in shapes.items() if shape is not None},
            [labels[member] for member in ends],
        )
        self._say_biases(cycle, order)
        name = self._name("loop")
        self.layers[name], self.wires[name] = cycle, outer
        for i, member in enumerate(ends):
            label = name
            if len(ends) > 1:
                label = self._name(f"{labels[member]}_output")
                self.layers[label], self.wires[label] = modules.Part(i), [name]
            self.outputs[member] = label, shapes[member]

    def _say_biases(self, cycle: Cycle, order: list[str]) -> None:
        if cycle.has_biases:
            self.assumed.append(
                f"{self.file}: the nodes {', '.join(order)} are a cycle with a bias on the way "
                f"back; assumed that it acts in the first time step, as in snnTorch's recurrent "
                f"neurons"
            )


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
