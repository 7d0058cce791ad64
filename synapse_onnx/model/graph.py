"""Reading and extending graphs: our domain, the ends of our nodes, dependencies, extra outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = [
    "DOMAIN",
    "constants_of",
    "dims_of",
    "ends_of",
    "needed_for",
    "places_along",
    "taken_by",
    "types_of",
    "with_outputs",
]

#: the ONNX domain of our ops
DOMAIN = "ai.synapse"


def places_along(
    size: int, pads: int, kernel: int, stride: int, dilation: int, *, transposed: bool
) -> int:
    """Return the output size of a convolution or a pool along an axis; ``pads`` of both ends."""
    reach = dilation * (kernel - 1) + 1
    if transposed:
        return (size - 1) * stride - pads + reach
    return (size + pads - reach) // stride + 1


def dims_of(value: onnx.ValueInfoProto) -> list[int | str]:
    """Return the shape of a value; an open axis is its name, or "?" without one."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]


def ends_of(
    node: onnx.NodeProto, functions: Mapping[str, onnx.FunctionProto]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return name in the function body -> name in the graph, of a node's inputs and outputs.

    Args:
        node: a node; for one of another domain both are empty.
        functions: the functions of our domain in the model, by op.
    """
    function = functions.get(node.op_type)
    if node.domain != DOMAIN or function is None:
        return {}, {}
    inputs = dict(zip(function.input, node.input, strict=False))
    return inputs, dict(zip(function.output, node.output, strict=False))


def with_outputs(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """Return a copy of the model with some of its values as additional outputs.

    A value that is an input, an output or a state already is copied under its new name. An output
    has the type and the shape of the value in the graph, without which ONNX Runtime with its
    optimisations off cannot infer the states of a loop.

    Args:
        model: the model.
        names: name of a value -> name of the output; without a copy if both are the same.
    """
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    present = {value.name for value in graph.output}
    types = types_of(model, names)
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


def types_of(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, onnx.TypeProto]:
    """Return the types of values of a graph, by name; ``names`` are among them if they are known.

    What the model does not state of them is inferred.
    """
    import onnx

    types = _stated_types(model.graph)
    if any(name not in types or not _has_shape(types[name]) for name in names):
        try:
            inferred = _stated_types(onnx.shape_inference.infer_shapes(model).graph)
        except onnx.shape_inference.InferenceError:  # of a graph that contradicts itself
            return types
        types |= {name: kind for name, kind in inferred.items() if _has_shape(kind)}
    return types


def _has_shape(kind: onnx.TypeProto) -> bool:
    return bool(kind.tensor_type.HasField("shape"))


def _stated_types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    known = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: value.type for value in known}


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the initialisers that hold their values in any call, by name.

    One that is an input, too, is a default, which a caller may replace; one in a file of its own
    has no values here.
    """
    replaceable = {value.name for value in graph.input}
    return {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.name not in replaceable and tensor.data_location != tensor.EXTERNAL
    }


def taken_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names of the values that a node reads, itself and in its subgraphs."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own |= {name for inner in graph.node for name in inner.output}
            inside = (name for inner in graph.node for name in taken_by(inner))
            results = (value.name for value in graph.output)
            yield from (name for name in (*inside, *results) if name not in own)


def needed_for(
    graph: onnx.GraphProto, values: Iterable[str], states: Mapping[str, str] | None = None
) -> set[str]:
    """Return the names of the values that some values of a graph depend on, with their own.

    Args:
        graph: the graph.
        values: names of its values.
        states: for a stream, name of a state's input -> name of the output that the next call
            reads there.
    """
    producers = {name: node for node in graph.node for name in node.output if name}
    loops = states or {}
    needed = set[str]()
    waiting = list(values)
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        if name in producers:
            waiting += taken_by(producers[name])
        if name in loops:
            waiting.append(loops[name])
    return needed
