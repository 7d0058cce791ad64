"""Inputs and outputs of a graph: time elsewhere than last, bytes for floats, names.

The graph is time-major inside, so "time first" removes or moves a Transpose:

    x (N, C, T) -> Transpose -> Dense       becomes     x (T, N, C) -> Dense

Where time comes after the batch, the Transpose stays, with other axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx_ir as ir

from synapse_onnx.compiler._streaming import State
from synapse_onnx.compiler._transposes import permutation, time_first, time_last
from synapse_onnx.compiler.names import unique
from synapse_onnx.model.layout import has_time, time_axis
from synapse_onnx.model.options import Options
from synapse_onnx.ops import DOMAIN

__all__ = ["move_time", "name_inputs_and_outputs", "set_layout", "take_bytes"]


def set_layout(graph: ir.Graph, options: Options, *, inputs: int, states: int) -> None:
    """Give a lowered graph the layout and the input type of the options.

    After so many ``inputs`` come the states, which are also the last of the outputs.
    """
    data = list(graph.inputs)[:inputs]
    if options.layout != "NCT":
        move_time(graph, data, range(len(graph.outputs) - states), options.layout)
    if options.input_type == "uint8":
        take_bytes(graph, data)


# -- time ----------------------------------------------------------------------------------------


def move_time(
    graph: ir.Graph, inputs: Sequence[ir.Value], outputs: Iterable[int], layout: str
) -> None:
    """Give inputs, and outputs of these indices, another layout than (N, C[, H, W], T).

    Those without time stay as they are.
    """
    for value in inputs:
        if _is_timed(value):
            _turn_input(graph, value, layout)
    turned: dict[int, ir.Value] = {}  # one value can be several outputs
    for i in outputs:
        value = graph.outputs[i]
        if _is_timed(value) and not any(value is each for each in inputs):
            if id(value) not in turned:
                turned[id(value)] = _in_layout(graph, _time_major(graph, value), layout)
            graph.outputs[i] = turned[id(value)]
            last = value.producer()
            if last is not None and not value.uses() and not value.is_graph_output():
                graph.remove(last, safe=True)


def _turn_input(graph: ir.Graph, value: ir.Value, layout: str) -> None:
    """Turn an input: its Transposes to time first go, and its other uses read a Transpose.

    In a layout that is not time-major either, Transposes to time first get the axes for it.
    """
    rank, before = _rank(value), value.shape
    sizes = list(before or ())
    order = list(range(rank - 1))
    order.insert(time_axis(layout, rank), rank - 1)  # our axis at each place of the layout
    to_first = [order.index(axis) for axis in time_first(rank)]
    value.shape = ir.Shape([sizes[axis] for axis in order])
    others = []
    for use in list(value.uses()):
        node = use.node
        if permutation(node) == time_first(rank):
            if to_first == list(range(rank)):
                node.outputs[0].replace_all_uses_with(value)
                graph.remove(node, safe=True)
            else:
                node.attributes["perm"] = ir.AttrInt64s("perm", to_first)
        elif node.op_type == "Shape" and (axis := _single_axis(node)) is not None:
            axis = order.index(axis)
            node.attributes["start"] = ir.AttrInt64("start", axis)
            node.attributes["end"] = ir.AttrInt64("end", axis + 1)
        else:
            others.append(use)
    if not others:
        return
    back = [order.index(axis) for axis in range(rank)]
    transpose = _node(graph, "Transpose", value, {"perm": back})
    transpose.outputs[0].shape, transpose.outputs[0].type = before, value.type
    _put_first(graph, transpose)
    for use in others:
        use.node.replace_input_with(use.idx, transpose.outputs[0])


def _time_major(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Return an output's value time-major: the input of its last Transpose, or a new Transpose."""
    rank, sizes = _rank(value), list(value.shape or ())
    last = value.producer()
    source = last.inputs[0] if last is not None else None
    if source is None or permutation(last) != time_last(rank):
        last = _node(graph, "Transpose", value, {"perm": time_first(rank)})
        graph.append(last)
        source = last.outputs[0]
    if source.shape is None:
        source.shape, source.type = ir.Shape([sizes[-1], *sizes[:-1]]), value.type
    return source


def _in_layout(graph: ir.Graph, value: ir.Value, layout: str) -> ir.Value:
    """Return a time-major output in a layout."""
    if layout == "TNC":
        return value
    sizes, rank = list(value.shape or ()), _rank(value)
    node = _node(graph, "Transpose", value, {"perm": [1, 0, *range(2, rank)]})
    graph.append(node)
    result = node.outputs[0]
    result.shape, result.type = ir.Shape([sizes[1], sizes[0], *sizes[2:]]), value.type
    return result


def _single_axis(node: ir.Node) -> int | None:
    """Return the axis whose size a Shape returns; None if it returns several."""
    if not {"start", "end"} <= set(node.attributes):
        return None
    start, end = node.attributes["start"].as_int(), node.attributes["end"].as_int()
    return start if end == start + 1 and start >= 0 else None


# -- bytes ---------------------------------------------------------------------------------------


def take_bytes(graph: ir.Graph, inputs: Sequence[ir.Value]) -> None:
    """Make inputs uint8. They are cast where a node needs floats, after a Transpose if possible.

    A quantised dense product reads bytes as they are.
    """
    for value in inputs:
        value.type = ir.TensorType(ir.DataType.UINT8)
        transposes = [use.node for use in value.uses() if use.node.op_type == "Transpose"]
        for node in transposes:
            node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
            _cast(graph, node.outputs[0])
        _cast(graph, value, besides=transposes)


def _cast(graph: ir.Graph, value: ir.Value, besides: Sequence[ir.Node] = ()) -> None:
    """Cast bytes to float32 for the nodes and graph outputs that cannot take bytes."""
    uses = [use for use in value.uses() if use.node not in besides and not _takes_bytes(use.node)]
    outputs = [i for i, output in enumerate(graph.outputs) if output is value]
    if not uses and not outputs:
        return
    cast = _node(graph, "Cast", value, {"to": ir.DataType.FLOAT})
    cast.outputs[0].shape = value.shape
    cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    producer = value.producer()
    if producer is None:
        _put_first(graph, cast)
    else:
        graph.insert_after(producer, cast)
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])
    for i in outputs:
        graph.outputs[i] = cast.outputs[0]


def _takes_bytes(node: ir.Node) -> bool:
    """Whether a node reads integers as they are: a dense product, or a shape."""
    return "integers" in node.attributes if node.domain == DOMAIN else node.op_type == "Shape"


# -- names ---------------------------------------------------------------------------------------


def name_inputs_and_outputs(
    graph: ir.Graph, states: Sequence[State], arguments: Sequence[str] = ()
) -> None:
    """Name inputs after ``arguments``, those of forward() if it names any; name outputs and states.

    torch's exporter has names of its own for some: ``N`` is ``n`` there.

    One output is ``output``, several are ``output_0``, ``output_1``. The states come last, among
    the inputs and among the outputs: ``fc.neuron.voltage`` and ``fc.neuron.voltage.next``.
    """
    inputs = [value.name or "" for value in graph.inputs]
    inputs[len(inputs) - len(states) :] = [state.name for state in states]
    inputs[: len(arguments)] = arguments
    stem = "output"
    taken = {*inputs, *graph.initializers}
    while any(name.startswith(stem) for name in taken):
        stem += "_"
    _separate(graph, stem)
    outputs = graph.outputs
    last = len(outputs) - len(states)
    for i, value in enumerate(outputs[:last]):
        value.name = stem if last == 1 else f"{stem}_{i}"
    for value, state in zip(outputs[last:], states, strict=True):
        value.name = state.output
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    _name_apart(graph)


def _name_apart(graph: ir.Graph) -> None:
    """Name values that have the name of another anew.

    A value that the network returns twice is two outputs of one name in torch's graph. In another
    layout neither is an output any more.
    """
    ends = [*graph.inputs, *graph.initializers.values(), *graph.outputs]
    kept = {id(value) for value in ends}
    taken = {value.name for value in ends}
    for node in graph:
        for value in node.outputs:
            if id(value) not in kept and value.name:
                value.name = unique(value.name, taken)


def _separate(graph: ir.Graph, stem: str) -> None:
    """Copy an output that is an input as well, or another output: each needs its own name."""
    seen = {id(value) for value in graph.inputs}
    for i, value in enumerate(list(graph.outputs)):
        if id(value) in seen:
            identity = ir.node("Identity", [value], name=f"{stem}_{i}/Identity")
            graph.append(identity)
            output = identity.outputs[0]
            output.shape, output.type = value.shape, value.type
            graph.outputs[i] = output
        seen.add(id(value))


# -- nodes ---------------------------------------------------------------------------------------


def _put_first(graph: ir.Graph, node: ir.Node) -> None:
    """Insert a node before all others; there are none where an input is returned as it is."""
    if len(graph):
        graph.insert_before(graph[0], node)
    else:
        graph.append(node)


def _node(graph: ir.Graph, kind: str, value: ir.Value, attributes: dict[str, Any]) -> ir.Node:
    """Make a node with one input and a unique name, such as ``x/Transpose``."""
    name = unique(f"{value.name}/{kind}", {node.name for node in graph})
    node = ir.node(kind, [value], attributes, name=name)
    node.outputs[0].name = f"{name}:out"
    return node


def _rank(value: ir.Value) -> int:
    return len(value.shape) if value.shape is not None else 0


def _is_timed(value: ir.Value) -> bool:
    return has_time(_rank(value))
