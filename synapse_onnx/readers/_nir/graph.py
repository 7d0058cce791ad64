"""From a NIR file or graph to plain nodes and edges: checks, subgraphs, and the framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.readers._hdf5 import open_hdf5
from synapse_onnx.readers._nir.convention import CONVENTIONS, Convention
from synapse_onnx.readers._nir.node import as_text
from synapse_onnx.readers._nir.primitives import PRIMITIVES

Edges = list[tuple[str, str]]

#: deepest nesting of subgraphs
_MAX_DEPTH = 20


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
        check_primitive(file, name, kind)
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


def check_primitive(file: str, name: str, kind: str) -> None:
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
    try:
        return CONVENTIONS[framework].with_metadata(metadata)
    except InputError as error:
        raise InputError(f"{file}: the graph's metadata: {error}") from error


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
