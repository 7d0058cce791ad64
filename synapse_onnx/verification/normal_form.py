"""One form for graphs that compute the same node by node, whatever tool wrote them.

Constants are folded where every program computes the same, copies removed, and each value is known
by what it is computed from: a digest of its operator, attributes and inputs. So names, the order of
nodes, nodes that nothing reads and subexpressions that are written twice make no difference. A
digest that is equal proves an output equal; tools that fuse operators to others give another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import onnx
import onnx_ir as ir
import onnxscript.optimizer

__all__ = ["same_outputs"]

#: operators that move values, compare them, or round once
_FOLDED = {
    "Add", "And", "Cast", "Concat", "Equal", "Expand", "Gather", "Greater", "GreaterOrEqual",
    "Identity", "Less", "LessOrEqual", "Mul", "Neg", "Not", "Or", "Reshape", "Shape", "Slice",
    "Squeeze", "Sub", "Transpose", "Unsqueeze", "Xor",
}  # fmt: skip

#: types whose numbers NumPy and ONNX Runtime take alike
_WHOLE = {ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64}
_TYPES = _WHOLE | {ir.DataType.FLOAT, ir.DataType.DOUBLE}


def same_outputs(model: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Whether two models have inputs and outputs of the same names, and compute them alike.

    Functions are not looked into: nodes of ours are compared by their attributes and inputs.
    """
    return _outputs(model) == _outputs(other)


def _outputs(model: onnx.ModelProto) -> dict[str, bytes]:
    """Return name -> digest of every output of a model."""
    graph_of = ir.from_proto(model)
    graph_of.functions.clear()  # whose subgraphs a pass may not be able to take
    graph = graph_of.graph
    graph.sort()
    _forget_shapes(graph)
    onnxscript.optimizer.fold_constants(graph_of, should_fold=_is_exact)
    known: dict[ir.Value | None, bytes] = {None: b""}
    for value in graph.inputs:
        known[value] = _digest(b"input", str(value.name).encode())
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None:
            known[value] = _constant(tensor)
    for node in graph:
        if node.op_type == "Constant" and not node.domain and "value" in node.attributes:
            known[node.outputs[0]] = _constant(node.attributes["value"].as_tensor())
            continue
        if node.op_type == "Identity" and not node.domain:
            known[node.outputs[0]] = known[node.inputs[0]]
            continue
        digest = _digest(
            node.domain.encode(),
            node.op_type.encode(),
            (node.overload or "").encode(),
            *(
                _attribute(name, attribute, known)
                for name, attribute in sorted(node.attributes.items())
            ),
            *(known[value] for value in node.inputs),
        )
        for index, value in enumerate(node.outputs):
            known[value] = _digest(digest, str(index).encode())
    return {str(value.name): known[value] for value in graph.outputs}


def _forget_shapes(graph: ir.Graph) -> None:
    """Forget what a file says of the values between its nodes: no program holds it to that."""
    for node in graph.all_nodes():
        for value in node.outputs:
            value.shape = value.type = None


def _is_exact(node: ir.Node) -> bool | None:
    """Return None for what NumPy and ONNX Runtime compute alike of constants, else False.

    Not so Exp, which both round, Pow of integers that overflow, ReduceMax of NaN, Max of two zeros.
    """
    given = {value.dtype for value in node.inputs if value is not None}
    if node.domain or node.op_type not in _FOLDED or not given <= _TYPES:
        return False
    if node.op_type == "Cast":
        to = ir.DataType(node.attributes["to"].as_int())
        return None if given <= _WHOLE and to in _TYPES - {ir.DataType.BOOL} else False
    return None


def _constant(tensor: ir.TensorProtocol) -> bytes:
    return _digest(str((tensor.dtype, tuple(tensor.shape))).encode(), tensor.tobytes())


def _attribute(name: str, attribute: ir.Attr, known: Mapping[ir.Value | None, bytes]) -> bytes:
    """Digest an attribute; of a subgraph also the values around it that it reads."""
    digest = _digest(name.encode(), ir.to_proto(attribute).SerializeToString(deterministic=True))
    if attribute.type != ir.AttributeType.GRAPH:
        return digest
    outer = [
        known[value]
        for node in attribute.as_graph().all_nodes()
        for value in node.inputs
        if value in known and value is not None
    ]
    return _digest(digest, *outer)


def _digest(*parts: bytes) -> bytes:
    """Hash parts, each with its length, so that no two lists of parts read alike."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.digest()
