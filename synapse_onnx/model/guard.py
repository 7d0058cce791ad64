"""Untrusted models: what would take memory, time or files is refused before anything else sees it.

Neither onnx's checker nor ONNX Runtime is enough. The checker accepts functions that expand without
end. ONNX Runtime bounds the expansion from 1.32 on (``session.function_expansion_node_limit``), but
1.30 does not, and onnx's inliner, which ``so.flat`` and the CUDA path use, never does: 24 functions
of two nodes, each of which calls the one before it twice, take both more than a minute.
"""

from __future__ import annotations

import json
import math
from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from synapse_onnx.errors import ModelError
from synapse_onnx.model.limits import VARIABLE, max_bytes

__all__ = ["check_model", "read_states"]

#: bound on nested graphs, and on nested calls of functions
_DEPTH = 16
#: bytes of the bound that a node counts for: ONNX Runtime takes 0.1 ms to load one
_NODE = 32 << 10
#: op -> which of its inputs is a shape, or a number of repeats
_SHAPES = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
#: ops whose attribute "shape" is the shape of the output
_DRAWS = ("RandomNormal", "RandomUniform")
#: fields of a tensor that hold values
_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")

# of onnx.TensorProto; onnx takes long to import
_EXTERNAL, _INT64 = 1, 7

#: types of states
_STATES = ("float32", "float64", "int32", "int64", "bool", "uint8", "int8")

#: name -> tensor, or the attribute of a Constant; also of the enclosing graphs
Constants = ChainMap[str, Any]

#: domain, name and overload of a function
Key = tuple[str, str, str]


def check_model(model: Any, where: str) -> None:
    """Refuse an ``onnx.ModelProto`` that would take too much memory or time, or read other files.

    ``where`` is its name in errors.

    Raises:
        ModelError: values in another file, a tensor that is larger than the bound or than its
            data in the file, functions that call themselves or expand to too many nodes, graphs
            that are nested too deep.
    """
    _Guard(model, where).check()


def read_states(text: str) -> list[dict[str, Any]]:
    """Read the states of a streaming model from its metadata.

    Raises:
        ValueError: ``export`` does not write such a text, or a state is larger than the bound.
        RecursionError: nested lists, far too deep.
    """
    states = json.loads(text)
    if not (isinstance(states, list) and all(map(_is_state, states))):
        raise ValueError("no list of states")
    for side in ("input", "output"):
        names = [state[side] for state in states if state[side]]  # "" is one that is not returned
        if len(set(names)) < len(names):
            raise ValueError(f"two states have one {side}")
    return states


def _is_state(state: Any) -> bool:
    texts = ("input", "output", "dtype")
    if not isinstance(state, dict) or not all(isinstance(state.get(key), str) for key in texts):
        return False
    shape, start = state.get("shape"), state.get("start")
    return (
        isinstance(shape, list)
        and all(type(size) is int and size >= 0 for size in shape[1:])  # no bool
        and math.prod(shape[1:]) * 8 <= max_bytes()
        and state["dtype"] in _STATES
        and isinstance(start, int | float)
        and abs(start) < 1 << 63
    )


@dataclass
class _Size:
    """Nodes of a graph or function with its subgraphs, and how often it calls each function."""

    nodes: int = 0
    calls: Counter[Key] = field(default_factory=Counter)


class _Guard:
    def __init__(self, model: Any, where: str) -> None:
        self._model, self._where, self._bytes = model, where, max_bytes()
        self._functions = {_key(function) for function in model.functions}

    def check(self) -> None:
        graph, props = self._model.graph, self._model.metadata_props
        self._check_texts(self._model.producer_name, self._model.producer_version)
        self._check_texts(*(text for prop in props for text in (prop.key, prop.value)))
        for value in (*graph.input, *graph.output):
            dims = value.type.tensor_type.shape.dim
            self._check_texts(value.name, *(dim.dim_param for dim in dims))
        sizes = {key: _Size() for key in self._functions}
        for function in self._model.functions:  # two may have one name
            for attribute in function.attribute_proto:
                for default in self._check_attribute(attribute):
                    self._check_graph(default, ChainMap(), 1, _Size())
            self._check_nodes(function.node, ChainMap(), 0, sizes[_key(function)])
        main = _Size()
        self._check_graph(graph, ChainMap(), 0, main)
        self._check_expansion(main, sizes)

    def _check_expansion(self, main: _Size, sizes: Mapping[Key, _Size]) -> None:
        """Refuse functions that call themselves, or expand to too many nodes."""
        try:
            order = [
                *TopologicalSorter({k: size.calls for k, size in sizes.items()}).static_order()
            ]
        except CycleError as error:
            raise self._fail(f"the function {error.args[1][0][1]} calls itself") from None
        expanded: dict[Key, int] = {}
        depths: dict[Key, int] = {}

        def expansion(size: _Size) -> int:
            nodes = size.nodes + sum(n * expanded[key] for key, n in size.calls.items())
            if nodes * _NODE > self._bytes:
                raise self._fail(
                    f"it has more than {self._bytes // _NODE:,} nodes when its functions are "
                    f"expanded ({VARIABLE} allows more)"
                )
            return nodes

        for key in order:  # every function after those that it calls
            depths[key] = 1 + max((depths[called] for called in sizes[key].calls), default=0)
            if depths[key] > _DEPTH:
                raise self._fail(f"functions call each other more than {_DEPTH} deep")
            expanded[key] = expansion(sizes[key])
        expansion(main)

    def _fail(self, what: str) -> ModelError:
        return ModelError(f"{self._where}: {what}, which is refused")

    def _check_texts(self, *texts: str | bytes) -> None:
        """Refuse a text that is not UTF-8: protobuf returns bytes for it."""
        if any(isinstance(text, bytes) for text in texts):
            raise ModelError(f"{self._where} is no ONNX model: a name in it is no text")

    def _check_graph(self, graph: Any, outer: Constants, depth: int, size: _Size) -> None:
        if depth > _DEPTH:
            raise self._fail(f"graphs within graphs, more than {_DEPTH} deep")
        constants = outer.new_child()
        for tensor in graph.initializer:
            self._check_texts(tensor.name)
            self._check_tensor(tensor)
            constants[tensor.name] = tensor
        for sparse in graph.sparse_initializer:
            self._check_sparse(sparse)
        self._check_nodes(graph.node, constants, depth, size)

    def _check_nodes(
        self, nodes: Sequence[Any], constants: Constants, depth: int, size: _Size
    ) -> None:
        """Check nodes and their subgraphs, and count them and their calls."""
        size.nodes += len(nodes)
        for node in nodes:
            self._check_texts(node.name, node.op_type, node.domain, *node.output)
            for attribute in node.attribute:
                for graph in self._check_attribute(attribute):
                    self._check_graph(graph, constants, depth + 1, size)
                if attribute.name == "shape" and node.op_type in _DRAWS:
                    self._check_shape(attribute.ints, node)
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name in ("value", "value_ints") and node.output:
                        constants[node.output[0]] = attribute
            elif node.op_type in _SHAPES and len(node.input) > _SHAPES[node.op_type]:
                self._check_shape(_ints(constants.get(node.input[_SHAPES[node.op_type]])), node)
            key = (node.domain, node.op_type, node.overload)
            if key in self._functions:
                size.calls[key] += 1

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
        if tensor.HasField("segment"):  # which onnx does not read
            raise self._fail(f"{_name(tensor)} is a segment of a tensor and not a whole one")
        count = math.prod(tensor.dims)
        held = len(tensor.raw_data) or max(len(getattr(tensor, name)) for name in _FIELDS)
        # the smallest type has two bits: four values in a byte or entry
        if count < 0 or (count > 4 * held and (tensor.dims or held)):
            raise self._fail(
                f"{_name(tensor)} is said to have {count:,} values, and the file holds {held:,} "
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


def _key(function: Any) -> Key:
    return function.domain, function.name, function.overload


def _name(thing: Any) -> str:
    """Return the name of a tensor or node, on one line."""
    text = thing.name or getattr(thing, "op_type", "") or "a tensor without a name"
    return " ".join(str(text).split())[:100]


def _ints(constant: Any) -> Sequence[int] | None:
    """Return the first integers of a constant; a shape has no more."""
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
