"""Which branches of the function bodies a run of a model takes.

A body chooses its loop at run time, by ``If``: one in 32 bits where the states fit, one in 64 bits
otherwise. A copy of the model tells what it chose: every node of ours gets one more output, an
integer in which each branch that ran is one bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from synapse_onnx.model.graph import DOMAIN

if TYPE_CHECKING:
    import onnx

__all__ = ["Branch", "branches_of", "is_told", "names_of_taken", "with_branches"]

#: end of the name of the output that tells
_SUFFIX = "#branches"

#: bits of an integer that is not negative
_BITS = 63


class Branch(NamedTuple):
    """A branch of an ``If`` in a function body.

    Attributes:
        op: name of the op.
        name: names of the branches that it is in and its own, such as ``graded.wide``.
    """

    op: str
    name: str


def branches_of(function: onnx.FunctionProto) -> list[Branch]:
    """Return the branches of a body, in the order of their bits."""
    return [Branch(function.name, name) for name in _names(function)][:_BITS]


def names_of_taken(model: onnx.ModelProto, values: Mapping[str, int]) -> dict[str, list[Branch]]:
    """Return name of a node -> the branches that it took, by what its copy told.

    Args:
        model: the model.
        values: name of an output of the copy -> its value.
    """
    tables = {function.name: branches_of(function) for function in model.functions}
    return {
        name.removesuffix(_SUFFIX): [
            branch
            for bit, branch in enumerate(tables[node.op_type])
            if int(values[name]) >> bit & 1
        ]
        for node, name in _own_nodes(model)
        if name in values
    }


def is_told(name: str) -> bool:
    """Whether an output of a copy tells of branches."""
    return name.endswith(_SUFFIX)


def with_branches(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose further outputs tell which branches the nodes of our ops took.

    Bodies without branches stay as they are. Only the function bodies tell: native kernels do not
    know this output.
    """
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    telling = {}
    for function in copied.functions:
        if function.domain == DOMAIN and branches_of(function):
            telling[function.name] = len(function.output)
            function.output.append(_tell(function, "branches", iter(range(_BITS))))
    for node, name in _own_nodes(copied):
        if node.op_type in telling:
            missing = range(len(node.output), telling[node.op_type])
            node.output.extend(f"{name}_{i}" for i in missing)
            node.output.append(name)
            copied.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [])
            )
    return copied


def _own_nodes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Yield our nodes, each with the name of the output that tells; nodes may have no names."""
    nodes = [node for node in model.graph.node if node.domain == DOMAIN]
    taken = {node.name for node in nodes}
    free = (name for i in itertools.count() if (name := f"node {i}") not in taken)
    for node in nodes:
        yield node, f"{node.name or next(free)}{_SUFFIX}"


def _conditions(graph: Any) -> Iterator[tuple[onnx.NodeProto, list[onnx.GraphProto]]]:
    """Yield every ``If`` of a graph or function, and its two branches."""
    for node in list(graph.node):
        if node.op_type == "If":
            yield node, [attribute.g for attribute in node.attribute]


def _names(graph: Any, inside: str = "") -> Iterator[str]:
    for _, branches in _conditions(graph):
        for branch in branches:
            yield f"{inside}{branch.name}"
            yield from _names(branch, f"{inside}{branch.name}.")


def _tell(graph: Any, name: str, bits: Iterator[int]) -> str:
    """Add nodes that compute which branches a graph takes; return the name of their result.

    Bits go to branches in the order of :func:`_names`.
    """
    import onnx

    total = f"{name}_none"
    graph.node.append(_constant(0, total))
    for i, (node, branches) in enumerate(_conditions(graph)):
        taken = f"{name}_{i}"
        for j, branch in enumerate(branches):
            own, result = f"{taken}_{j}_own", f"{taken}_{j}_all"
            bit = next(bits, None)
            inner = _tell(branch, f"{taken}_{j}", bits)
            branch.node.append(_constant(0 if bit is None else 1 << bit, own))
            branch.node.append(onnx.helper.make_node("Add", [inner, own], [result]))
            branch.output.append(
                onnx.helper.make_tensor_value_info(result, onnx.TensorProto.INT64, [])
            )
        node.output.append(taken)
        graph.node.append(onnx.helper.make_node("Add", [total, taken], [f"{name}_sum_{i}"]))
        total = f"{name}_sum_{i}"
    return total


def _constant(value: int, name: str) -> onnx.NodeProto:
    import onnx

    tensor = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [], [value])
    return onnx.helper.make_node("Constant", [], [name], value=tensor)
