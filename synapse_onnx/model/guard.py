"""What a model may hold that comes from elsewhere; asked before ONNX Runtime sees it."""

from __future__ import annotations

import json
import math
from collections import ChainMap
from collections.abc import Iterator, Sequence
from typing import Any

from synapse_onnx.errors import ModelError
from synapse_onnx.model.limits import VARIABLE, max_bytes

__all__ = ["check_model", "read_states"]

#: most graphs within graphs, and most functions that call each other
_DEEP = 16
#: bytes of the bound that a node counts for: ONNX Runtime takes 0.1 ms to load one
_NODE = 32 << 10
#: op -> which of its inputs is a shape, or says how often to repeat
_SHAPES = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
#: ops whose attribute "shape" is that of the output
_DRAWS = ("RandomNormal", "RandomUniform")
#: fields of a tensor that hold values
_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")

# of onnx.TensorProto; onnx takes long to import
_EXTERNAL, _INT64 = 1, 7

#: types of states
_STATES = ("float32", "float64", "int32", "int64", "bool", "uint8", "int8")

#: name -> tensor, or the attribute of a Constant; of the graphs around as well
Constants = ChainMap[str, Any]


def check_model(model: Any, where: str) -> None:
    """Refuse what would take memory, time or files that a model has no right to.

    Args:
        model: the ``onnx.ModelProto``.
        where: what it is called in messages.

    Raises:
        ModelError: values in another file, a tensor that is larger than the bound or than what
            the file holds of it, functions that call themselves or that expand to too many nodes,
            graphs within graphs too deep.
    """
    _Guard(model, where).check()


def read_states(text: str) -> list[dict[str, Any]]:
    """Read what the metadata of a streaming model say of its states.

    Raises:
        ValueError: it is not what ``export`` writes, or a state is larger than the bound.
        RecursionError: lists within lists, far too deep.
    """
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError("no list of states")
    for state in found:
        if not isinstance(state, dict) or not all(
            isinstance(state.get(key), str) for key in ("input", "output", "dtype")
        ):
            raise ValueError("a state without names or type")
        shape, start = state.get("shape"), state.get("start")
        if not isinstance(shape, list) or not all(
            type(size) is int and size >= 0 for size in shape[1:]
        ):
            raise ValueError("a state without a shape")
        if state["dtype"] not in _STATES or not isinstance(start, int | float):
            raise ValueError("a state of no numbers")
        if not abs(start) < 1 << 63:
            raise ValueError("a state that starts from no number")
        if math.prod(shape[1:]) * 8 > max_bytes():
            raise ValueError("a state beyond the bound")
    return found


class _Guard:
    def __init__(self, model: Any, where: str) -> None:
        self._model, self._where, self._bytes = model, where, max_bytes()
        self._functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        #: function -> nodes that a call of it expands to, and how deep the calls within it go
        self._sizes: dict[tuple[str, str, str], tuple[int, int]] = {}

    def check(self) -> None:
        graph, props = self._model.graph, self._model.metadata_props
        self._check_texts(self._model.producer_name, self._model.producer_version)
        self._check_texts(*(text for prop in props for text in (prop.key, prop.value)))
        for value in (*graph.input, *graph.output):
            dims = value.type.tensor_type.shape.dim
            self._check_texts(value.name, *(dim.dim_param for dim in dims))
        for function in self._model.functions:
            for attribute in function.attribute_proto:
                for graph in self._check_attribute(attribute):
                    self._check_graph(graph, ChainMap(), 1, [])
            self._expanded(function, [])
        self._check_count(self._check_graph(self._model.graph, ChainMap(), 0, [])[0])

    def _fail(self, what: str) -> ModelError:
        return ModelError(f"{self._where}: {what}, which is refused")

    def _check_texts(self, *texts: str | bytes) -> None:
        """Refuse what is no UTF-8, which protobuf gives as bytes."""
        if any(isinstance(text, bytes) for text in texts):
            raise ModelError(f"{self._where} is no ONNX model: a name in it is no text")

    def _check_count(self, nodes: int) -> None:
        if nodes * _NODE > self._bytes:
            raise self._fail(
                f"it has more than {self._bytes // _NODE:,} nodes when its functions are expanded "
                f"({VARIABLE} allows more)"
            )

    def _expanded(self, function: Any, calls: Sequence[tuple[str, str, str]]) -> tuple[int, int]:
        """Return how many nodes a function expands to, and how deep it calls others."""
        key = (function.domain, function.name, function.overload)
        if key not in self._sizes:
            if key in calls:
                raise self._fail(f"the function {function.name} calls itself")
            nodes, deep = 0, len(calls)
            if deep < _DEEP:
                nodes, deep = self._check_nodes(function.node, ChainMap(), 0, [*calls, key])
            if deep >= _DEEP:
                raise self._fail(f"functions call each other more than {_DEEP} deep")
            self._check_count(nodes)
            self._sizes[key] = nodes, deep + 1
        return self._sizes[key]

    def _check_graph(
        self, graph: Any, outer: Constants, depth: int, calls: Sequence[tuple[str, str, str]]
    ) -> tuple[int, int]:
        if depth > _DEEP:
            raise self._fail(f"graphs within graphs, more than {_DEEP} deep")
        constants = outer.new_child()
        for tensor in graph.initializer:
            self._check_texts(tensor.name)
            self._check_tensor(tensor)
            constants[tensor.name] = tensor
        for sparse in graph.sparse_initializer:
            self._check_sparse(sparse)
        return self._check_nodes(graph.node, constants, depth, calls)

    def _check_nodes(
        self,
        nodes: Sequence[Any],
        constants: Constants,
        depth: int,
        calls: Sequence[tuple[str, str, str]],
    ) -> tuple[int, int]:
        """Check nodes; return how many they expand to, and how deep their calls go."""
        total, deep = len(nodes), 0
        for node in nodes:
            self._check_texts(node.name, node.op_type, node.domain, *node.output)
            for attribute in node.attribute:
                for graph in self._check_attribute(attribute):
                    more, deeper = self._check_graph(graph, constants, depth + 1, calls)
                    total, deep = total + more, max(deep, deeper)
                if attribute.name == "shape" and node.op_type in _DRAWS:
                    self._check_shape(attribute.ints, node)
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name in ("value", "value_ints") and node.output:
                        constants[node.output[0]] = attribute
            elif node.op_type in _SHAPES and len(node.input) > _SHAPES[node.op_type]:
                self._check_shape(_ints(constants.get(node.input[_SHAPES[node.op_type]])), node)
            function = self._functions.get((node.domain, node.op_type, node.overload))
            if function is not None:
                more, deeper = self._expanded(function, calls)
                total, deep = total + more, max(deep, deeper)
        return total, deep

    def _check_attribute(self, attribute: Any) -> Iterator[Any]:
        """Check the tensors of an attribute, and yield its graphs."""
        if attribute.HasField("t"):
            self._check_tensor(attribute.t)
        for tensor in attribute.tensors:
            self._check_tensor(tensor)
        if attribute.HasField("sparse_tensor"):
            self._check_sparse(attribute.sparse_tensor)
        for sparse in attribute.sparse_tensors:
            self._check_sparse(sparse)
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs

    def _check_tensor(self, tensor: Any) -> None:
        if tensor.data_location == _EXTERNAL or tensor.external_data:
            raise ModelError(
                f"{self._where}: the values of {_name(tensor)} are in another file, which is "
                f"refused; where you trust it, onnx.load and onnx.save write it as one file"
            )
        said = math.prod(tensor.dims)
        held = len(tensor.raw_data) or max(len(getattr(tensor, name)) for name in _FIELDS)
        # four values of two bits are in a byte or entry, and no type is smaller
        if said < 0 or (said > 4 * held and (tensor.dims or held)):
            raise self._fail(
                f"{_name(tensor)} is said to have {said:,} values, and the file holds {held:,} "
                f"bytes or values of it"
            )

    def _check_sparse(self, sparse: Any) -> None:
        self._check_tensor(sparse.values)
        self._check_tensor(sparse.indices)
        self._check_size(math.prod(sparse.dims), _name(sparse.values))

    def _check_shape(self, shape: Sequence[int] | None, node: Any) -> None:
        if shape:
            self._check_size(math.prod(max(size, 1) for size in shape), _name(node))

    def _check_size(self, values: int, name: str) -> None:
        if values > self._bytes:
            raise self._fail(
                f"{name} makes {values:,} values, more than the {self._bytes:,} bytes that "
                f"{VARIABLE} allows"
            )


def _name(thing: Any) -> str:
    """Return what a tensor or node is called, on one line."""
    text = thing.name or getattr(thing, "op_type", "") or "a tensor without a name"
    return " ".join(str(text).split())[:100]


def _ints(constant: Any) -> Sequence[int] | None:
    """Return the integers of a constant that is short enough to be a shape."""
    if constant is None:
        return None
    tensor = constant
    if hasattr(constant, "ints"):  # the attribute of a Constant
        if constant.ints:
            return list(constant.ints[:64])
        tensor = constant.t
    if tensor.data_type != _INT64:
        return None
    if tensor.int64_data:
        return list(tensor.int64_data[:64])
    raw = tensor.raw_data[: 8 * 64]
    return [int.from_bytes(raw[i : i + 8], "little", signed=True) for i in range(0, len(raw), 8)]
