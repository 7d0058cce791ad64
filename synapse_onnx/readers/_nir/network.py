"""From the nodes and edges of a NIR graph to a network of our layers."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.readers._fields import MAX_NEURONS, Shape, located
from synapse_onnx.readers._network import Add, Network
from synapse_onnx.readers._nir.convention import Convention
from synapse_onnx.readers._nir.feedback import remove_cycles
from synapse_onnx.readers._nir.graph import Edges, check_primitive
from synapse_onnx.readers._nir.node import Node, declared_shape, sample_shape
from synapse_onnx.readers._nir.primitives import PRIMITIVES

#: names of attributes that every module has, such as "type" and "training": a child hides them
_RESERVED = {"self", *dir(nn.Module())}


def build_network(
    file: str, nodes: Mapping[str, Any], edges: Edges, convention: Convention
) -> Network:
    """Return the network of a graph without subgraphs.

    Args:
        file: the file, for errors.
        nodes: the ``nir.NIRNode`` objects, by name.
        edges: pairs (source, target); several edges into a node are added.
        convention: how the framework that wrote the graph discretises it.
    """
    for name, node in nodes.items():
        check_primitive(file, name, type(node).__name__)
    parts = {name: Node(file, name, node, convention, None) for name, node in nodes.items()}
    order, parts, edges = remove_cycles(file, parts, edges)
    return _Builder(file, parts, edges).build(order)


class _Builder:
    """Adds nodes to a network in topological order, with the shapes of their outputs."""

    def __init__(self, file: str, nodes: Mapping[str, Node], edges: Edges) -> None:
        self.file, self.nodes, self.edges = file, nodes, edges
        self.layers: dict[str, nn.Module] = {}
        self.wires: dict[str, list[str]] = {}
        self.names = _Names()
        #: node -> name of what gives its output, and the shape of that
        self.outputs: dict[str, tuple[str, Shape | None]] = {}

    def build(self, order: list[str]) -> Network:
        """Return the network."""
        labels = {name: self.names.unused(name) for name in order}
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
        total = self.names.unused(f"{label}_sum")
        self.layers[total], self.wires[total] = Add(), [source for source, _ in sources]
        return total, next(iter(shapes), None)

    def _input_shape(self, node: Node) -> Shape | None:
        """The shape of one sample at an Input node.

        Some exporters leave the batch axis of their example input in the declared shape; the node
        that the input feeds tells.
        """
        try:
            sizes = declared_shape(node.node)
            targets = [self.nodes[target] for source, target in self.edges if source == node.name]
            axes = {"Linear": 1, "Affine": 1, "Conv1d": 2, "Conv2d": 3}
            if sizes and targets:
                neurons = np.shape(getattr(targets[0].node, "r", ()))
                expected = axes.get(targets[0].kind)
                if len(sizes) - 1 == expected or (neurons and neurons == sizes[1:]):
                    sizes = sizes[1:]
            return sample_shape(sizes)
        except ShapeError as error:
            raise ShapeError(f"{self.file}: node {node.name} (Input): {error}") from error


class _Names:
    """Names for child modules and arguments: identifiers, no two alike."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def unused(self, name: str) -> str:
        """Return a name, changed where it is no identifier or is used already."""
        label = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not label or label[0].isdigit() or keyword.iskeyword(label) or label in _RESERVED:
            label = f"node_{label}"
        stem, count = label, 2
        while label in self.used:
            label, count = f"{stem}_{count}", count + 1
        self.used.add(label)
        return label
