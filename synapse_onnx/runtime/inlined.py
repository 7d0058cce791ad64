"""One graph without functions, for runtimes that do not support functions of a model.

OpenVINO has no functions, no captured values in the body of a Scan, and infers no types there. So
functions are inlined, a captured value becomes a state that never changes, and all values get their
types and shapes:

    s = Scan <body = (v, x) { ... Mul (v, decay) ... }> (v0, x)                      becomes
    s, _ = Scan <body = (v, d, x) { ... Mul (v, d) ... d_next = Identity (d) }> (v0, decay, x)

OpenVINO 2026.4 also computes wrong values if the next state is the input of the step itself; the
body then returns Max(x, x). ONNX Runtime needs none of this, and would copy the added states at
every step.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from synapse_onnx.model.file import load_model
from synapse_onnx.model.tiles import without_tiles

if TYPE_CHECKING:
    import onnx


def flat(model: onnx.ModelProto | str | os.PathLike[str]) -> onnx.ModelProto:
    """Return an equivalent copy that is one graph without functions.

    Inputs, outputs, states, metadata, and open sizes of batch and time do not change.

    Args:
        model: a model of :func:`export`, or its file.

    Raises:
        InputError: the file cannot be read.
        ModelError: it is no ONNX model, or one that is refused.
    """
    import onnx.inliner
    import onnx.shape_inference
    import onnx_ir as ir

    source = load_model(model) if isinstance(model, (str, os.PathLike)) else copy.deepcopy(model)
    source = without_tiles(source)
    inlined = ir.from_proto(onnx.inliner.inline_local_functions(source))
    _carry(inlined.graph, itertools.count())
    # with types in the bodies of loops, too
    typed = onnx.shape_inference.infer_shapes(ir.to_proto(inlined), data_prop=True)
    del typed.functions[:]
    return typed


def _bodies(node: Any) -> Iterator[Any]:
    """Yield the graphs within a node."""
    for attribute in node.attributes.values():
        if attribute.type.name == "GRAPH":
            yield attribute.value


def _captured(graph: Any) -> list[Any]:
    """Return the values that a graph and its subgraphs capture, each once."""
    own: set[Any] = set()
    read: dict[Any, None] = {}

    def walk(inner: Any) -> None:
        own.update(inner.inputs, inner.initializers.values())
        for node in inner:
            own.update(node.outputs)
            read.update(dict.fromkeys(value for value in node.inputs if value is not None))
            for body in _bodies(node):
                walk(body)
        read.update(dict.fromkeys(inner.outputs))

    walk(graph)
    return [value for value in read if value not in own]


def _replace(graph: Any, old: Any, new: Any) -> None:
    """Replace a value in a graph and its subgraphs."""
    for node in graph:
        for i, value in enumerate(node.inputs):
            if value is old:
                node.replace_input_with(i, new)
        for body in _bodies(node):
            _replace(body, old, new)
    for i, value in enumerate(graph.outputs):
        if value is old:
            graph.outputs[i] = new


def _carry(graph: Any, numbers: Iterator[int]) -> None:
    """Turn the captured values of every Scan into states, innermost bodies first."""
    for node in list(graph):
        for body in _bodies(node):
            _carry(body, numbers)
        if node.op_type == "Scan" and not node.domain:
            _compute_next(node)
            outside = _captured(node.attributes["body"].value)
            if outside:
                _with_states(graph, node, outside, numbers)


def _compute_next(scan: Any) -> None:
    """Compute the next states that the body of a Scan copies from its inputs."""
    import onnx_ir as ir

    body = scan.attributes["body"].value
    states = len(scan.inputs) - scan.attributes["num_scan_inputs"].as_int()
    for i, value in enumerate(body.outputs[:states]):
        source = value
        while (node := source.producer()) is not None and node.op_type == "Identity":
            source = node.inputs[0]
        if source in body.inputs[states:]:
            larger = ir.Node("", "Max", [source, source], name=f"{value.name}:computed")
            larger.outputs[0].name = f"{value.name}:computed"
            larger.outputs[0].type, larger.outputs[0].shape = value.type, value.shape
            body.append(larger)
            body.outputs[i] = larger.outputs[0]


def _with_states(graph: Any, scan: Any, outside: list[Any], numbers: Iterator[int]) -> None:
    """Replace a Scan by one with these captured values as additional states."""
    import onnx_ir as ir

    body = scan.attributes["body"].value
    states = len(scan.inputs) - scan.attributes["num_scan_inputs"].as_int()
    before, after = [], []
    for value in outside:
        number = next(numbers)
        kept = ir.Value(name=f"{value.name}:kept_{number}", type=value.type, shape=value.shape)
        _replace(body, value, kept)
        same = ir.Node("", "Identity", [kept], name=f"{value.name}:keep_{number}")
        same.outputs[0].name = f"{value.name}:still_{number}"
        body.append(same)
        before.append(kept)
        after.append(same.outputs[0])
    inputs, outputs = list(body.inputs), list(body.outputs)
    body.inputs[:] = [*inputs[:states], *before, *inputs[states:]]
    body.outputs[:] = [*outputs[:states], *after, *outputs[states:]]
    operands = [*scan.inputs[:states], *outside, *scan.inputs[states:]]
    replacement = ir.Node(
        "", "Scan", operands, attributes=list(scan.attributes.values()), name=scan.name,
        num_outputs=len(scan.outputs) + len(outside),
    )  # fmt: skip
    graph.insert_before(scan, replacement)
    ends = replacement.outputs[states : states + len(outside)]
    for end, value in zip(ends, after, strict=True):
        end.name = f"{value.name}:end"
    rest = [value for value in replacement.outputs if value not in ends]
    for old, new in zip(scan.outputs, rest, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(scan)
