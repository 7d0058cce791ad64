"""The domain of our nodes; what nodes take, give and are needed for; values shown as outputs.

Also how many outputs a convolution has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["DOMAIN", "ends_of", "needed_for", "places_along", "taken_by", "with_outputs"]

#: the ONNX domain of our ops
DOMAIN = "ai.synapse"


def places_along(
    size: int, pads: int, kernel: int, stride: int, dilation: int, *, transposed: bool
) -> int:
    """Return how many outputs a convolution or a pool has along an axis, with pads of both ends."""
    reach = dilation * (kernel - 1) + 1
    if transposed:
        return (size - 1) * stride - pads + reach
    return (size + pads - reach) // stride + 1


def ends_of(
    node: onnx.NodeProto, functions: Mapping[str, onnx.FunctionProto]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return name within the body -> name in the graph, of inputs and of outputs.

    The body of an op names its inputs and outputs, so that none is taken for another.

    Args:
        node: a node; one of another domain has no body, and gives nothing.
        functions: the functions of the model's ops of ours, by op.
    """
    function = functions.get(node.op_type)
    if node.domain != DOMAIN or function is None:
        return {}, {}
    inputs = dict(zip(function.input, node.input, strict=False))
    return inputs, dict(zip(function.output, node.output, strict=False))


def with_outputs(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """Return a copy of the model that also returns some of its values, under these names.

    A value can be an input, an output or a state already; a copy of it, under another name, is none
    of these. It has the type and the shape that the graph states of the value: from there ONNX
    Runtime without its optimisations finds the shapes of a loop's states.

    Args:
        model: the model.
        names: name of a value -> name of the further output; its own returns the value itself.
    """
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    present = {value.name for value in graph.output}
    known = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type for value in known}
    for name, shown in names.items():
        if name == shown and name in present:
            continue
        if name != shown:
            graph.node.append(onnx.helper.make_node("Identity", [name], [shown]))
        output = onnx.helper.make_tensor_value_info(shown, onnx.TensorProto.FLOAT, None)
        if name in types:
            output.type.CopyFrom(types[name])
        graph.output.append(output)
    return copied


def taken_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values that a node takes, by itself and in its subgraphs."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own |= {name for inner in graph.node for name in inner.output}
            inside = (name for inner in graph.node for name in taken_by(inner))
            given = (value.name for value in graph.output)
            yield from (name for name in (*inside, *given) if name not in own)


def needed_for(
    graph: onnx.GraphProto, values: Iterable[str], states: Mapping[str, str] | None = None
) -> set[str]:
    """Return the names of values that some values of a graph are computed from, their own included.

    Args:
        graph: the graph.
        values: names of its values.
        states: of a stream, name of a state's input -> name of the output that comes in there at
            the next call.
    """
    makers = {name: node for node in graph.node for name in node.output if name}
    loops = states or {}
    found = set[str]()
    waiting = list(values)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name in makers:
            waiting += taken_by(makers[name])
        if name in loops:
            waiting.append(loops[name])
    return found
