"""Writes the body of an ONNX function: nodes as onnx_ir values, subgraphs as onnx_ir graphs.

A body is a function of a :class:`Writer`. It reads the node's inputs and attributes, writes nodes
and returns the values of the outputs::

    def body(w: Writer) -> list[ir.Value]:
        threshold = w.attribute("threshold", float)
        fired = w.op("GreaterOrEqual", w.input("voltage"), threshold)
        return [w.cast(fired, FLOAT)]

becomes the ONNX text ::

    threshold = Constant<value_float: float = @threshold>()
    reached = GreaterOrEqual(voltage, threshold)
    s = Cast<to = 1>(reached)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import onnx.parser
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synapse_onnx.errors import RegistryError
from synapse_onnx.formatting import snake_case
from synapse_onnx.model.graph import DOMAIN

__all__ = [
    "BOOL",
    "DOUBLE",
    "FLOAT",
    "INT8",
    "INT32",
    "INT64",
    "UINT8",
    "Signature",
    "Writer",
]

FLOAT, DOUBLE, BOOL = ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.BOOL
INT8, INT32, INT64 = ir.DataType.INT8, ir.DataType.INT32, ir.DataType.INT64
UINT8 = ir.DataType.UINT8

#: operators whose result has a type of its own; that of all others has the type of the first input
_RESULTS = {
    **dict.fromkeys(("Shape", "Size"), INT64),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), BOOL),
    "MatMulInteger": INT32,
}

#: operators whose result is not named after the operator
_STEMS = {
    "Add": "sum",
    "Sub": "difference",
    "Mul": "product",
    "Div": "quotient",
    "GreaterOrEqual": "reached",
    "Less": "below",
    "Not": "inverted",
}

#: attributes of nodes that refer to attributes of the function, by the type of the latter
_REFERENCES = {
    int: ("value_int", ir.AttributeType.INT, INT64),
    float: ("value_float", ir.AttributeType.FLOAT, FLOAT),
}


class Signature(NamedTuple):
    """What a function is called, takes and returns."""

    name: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Any]


class Writer:
    """Writes the nodes of one function, and those of the subgraphs in it.

    What was written before with the same inputs and attributes, in the same graph or in one around
    it, is not written again. Values have the element type that follows from their operator.

    Args:
        signature: name, inputs, outputs and attributes of the function.
        opset: opset of the standard operators.
        omits: what the nodes of a file leave out, one set for each kind of node, see
            :class:`synapse_onnx.ops.OpDef`; empty where nothing is known of the nodes.
        streaming: whether calls of a single time step are usual.
    """

    def __init__(
        self,
        signature: Signature,
        opset: int,
        omits: Sequence[frozenset[str]] = (),
        streaming: bool = False,
    ) -> None:
        self.signature, self.opset = signature, opset
        self.omits, self.streaming = tuple(omits), streaming
        self._inputs = {name: ir.Value(name=name) for name in signature.inputs}
        self._graph = ir.Graph(list(self._inputs.values()), [], nodes=[], opset_imports={"": opset})
        #: graphs that are being written, each in the one before, and the nodes written there
        self._scopes: list[tuple[ir.Graph, dict[Any, ir.Value]]] = [(self._graph, {})]

    @property
    def omitted(self) -> frozenset[str]:
        """What all nodes of the file leave out."""
        return frozenset.intersection(*self.omits) if self.omits else frozenset()

    # -- values ----------------------------------------------------------------------------------

    def input(self, name: str, dtype: ir.DataType | None = None) -> ir.Value:
        """Return an input of the function, of an element type if that is known."""
        value = self._inputs[name]
        if dtype is not None:
            value.dtype = dtype
        return value

    def attribute(self, name: str, kind: type) -> ir.Value:
        """Write ``name = Constant<value_int: int = @name>()``, an attribute as a scalar.

        It is written outside of all subgraphs: ONNX's reference evaluator resolves references to a
        function's attributes there alone.
        """
        key, reference, dtype = _REFERENCES[kind]
        return self._constant((key, name), ir.RefAttr(key, name, reference), dtype, name)

    def number(self, value: float, dtype: ir.DataType, name: str = "") -> ir.Value:
        """Write ``int64_5 = Constant<value = int64 {5}>()``, a scalar."""
        array = np.array(value, dtype.numpy())
        plain = float(value).is_integer() and abs(value) < 1e6
        stem = f"{int(value)}".replace("-", "minus_") if plain else "constant"
        return self._constant(
            (dtype, array.tobytes()),
            ir.AttrTensor("value", ir.tensor(array)),
            dtype,
            name or f"{dtype.name.lower()}_{stem}",
        )

    def ints(self, *values: int, name: str) -> ir.Value:
        """Write ``name = Constant<value_ints = [2, 3]>()``, a vector."""
        return self._constant(values, ir.AttrInt64s("value_ints", values), INT64, name)

    def _constant(self, key: Any, attribute: ir.Attr, dtype: ir.DataType, name: str) -> ir.Value:
        """Write a constant before all subgraphs, which may all read it then; once a key."""
        graph, written = self._scopes[0]
        if key not in written:
            (written[key],) = _append(graph, "Constant", [], [attribute], [name])
            written[key].dtype = dtype
        return written[key]

    # -- nodes -----------------------------------------------------------------------------------

    def op(
        self,
        operator: str,
        *inputs: ir.Value | None,
        name: str = "",
        dtype: ir.DataType | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Write ``name = Operator<attributes>(inputs)`` and return its value.

        Args:
            operator: a standard operator with one output.
            inputs: its inputs, None where one is left out.
            name: of the value; numbered where it is taken.
            dtype: element type of the result, if not that of the first input.
            attributes: those of the node; an :class:`onnx_ir.Attr` refers to one of the function.
        """
        items = [
            value if isinstance(value, ir.Attr) else ir.convenience.convert_attribute(key, value)
            for key, value in attributes.items()
        ]
        key = (
            operator,
            inputs,
            tuple((x.name, x.ref_attr_name, _hashable(x.value)) for x in items),
        )
        known = self._known(key)
        if known is None:
            stem = name or _STEMS.get(operator, snake_case(operator))
            (known,) = _append(self._here, operator, inputs, items, [stem])
            first = inputs[0] if inputs else None
            _set_type(known, dtype or _RESULTS.get(operator) or (first.dtype if first else None))
            self._scopes[-1][1][key] = known
        return known

    def written(self, operator: str, *inputs: ir.Value) -> ir.Value | None:
        """Return the value of ``Operator(inputs)`` if that is written already."""
        return self._known((operator, inputs, ()))

    def _known(self, key: Any) -> ir.Value | None:
        return next((table[key] for _, table in reversed(self._scopes) if key in table), None)

    def cast(self, value: ir.Value, dtype: ir.DataType, name: str = "") -> ir.Value:
        """Write ``voltage_int32 = Cast<to = 6>(voltage)``, unless the type is that already."""
        if value.dtype == dtype:
            return value
        name = name or f"{value.name}_{dtype.name.lower()}"
        return self.op("Cast", value, to=int(dtype), dtype=dtype, name=name)

    def split(self, value: ir.Value, axis: int, names: Sequence[str]) -> list[ir.Value]:
        """Write ``a, b = Split<axis = 0, num_outputs = 2>(value)``."""
        attributes = [ir.AttrInt64("axis", axis), ir.AttrInt64("num_outputs", len(names))]
        parts = _append(self._here, "Split", [value], attributes, names)
        for part in parts:
            _set_type(part, value.dtype)
        return parts

    def text(self, statements: str, **values: ir.Value) -> list[ir.Value]:
        """Write ONNX text, such as ``steps = Shape<start = 0, end = 1>(x)``.

        Args:
            statements: nodes that give the function's outputs, by their names.
            values: what the text reads besides the function's inputs, by the names that it uses.

        Returns:
            The values of the function's outputs.

        Raises:
            RegistryError: the text is not valid.
        """
        name, _, outputs, attributes = self.signature
        known = {**self._inputs, **values}
        references = f"<{', '.join(attributes)}>" if attributes else ""
        text = (
            f'<domain: "{DOMAIN}", opset_import: ["" : {self.opset}]>\n'
            f"{name} {references} ({', '.join(known)}) => ({', '.join(outputs)})\n"
            f"{{\n{statements}\n}}"
        )
        try:
            proto = onnx.parser.parse_function(text)
        except onnx.parser.ParseError as error:
            raise RegistryError(f"the ONNX body of op {name} does not parse: {error}") from error
        parsed = ir.serde.deserialize_function(proto)
        results, nodes = list(parsed.outputs), list(parsed)
        parsed.outputs.clear()
        ir.convenience.replace_all_uses_with(list(parsed.inputs), list(known.values()))
        parsed.remove(nodes)
        self._here.extend(nodes)
        return results

    # -- subgraphs -------------------------------------------------------------------------------

    @property
    def _here(self) -> ir.Graph:
        return self._scopes[-1][0]

    @contextmanager
    def subgraph(self, name: str, inputs: Sequence[ir.Value] = ()) -> Iterator[ir.Graph]:
        """Write to a graph of its own, which reads the values around it as they are."""
        graph = ir.Graph(inputs, [], nodes=[], name=name)
        self._scopes.append((graph, {}))
        yield graph
        self._scopes.pop()

    def choose(
        self,
        condition: ir.Value,
        yes: tuple[str, Callable[[], Sequence[ir.Value]]],
        no: tuple[str, Callable[[], Sequence[ir.Value]]],
        names: Sequence[str],
    ) -> list[ir.Value]:
        """Write a choice: one branch or the other is computed. ::

            a, b = If(condition) <
                then_branch = small () => (a_1, b_1) { ... },
                else_branch = large () => (a_2, b_2) { ... }
            >

        Args:
            condition: a boolean scalar.
            yes: name of the branch for true, and what writes it and returns its results.
            no: the same for false.
            names: of the results.
        """
        branches = []
        for key, (name, write) in (("then_branch", yes), ("else_branch", no)):
            with self.subgraph(name) as graph:
                graph.outputs.extend(_of_its_own(graph, write()))
            branches.append(ir.AttrGraph(key, graph))
        chosen = _append(self._here, "If", [condition], branches, names)
        for value, result in zip(chosen, branches[0].as_graph().outputs, strict=True):
            _set_type(value, result.dtype)
        return chosen

    def scan(
        self,
        body: ir.Graph,
        states: Sequence[ir.Value],
        sequences: Sequence[ir.Value],
        results: Sequence[ir.Value],
        names: Sequence[str],
    ) -> list[ir.Value]:
        """Write a loop over time. ::

            last_voltage, trace = Scan<num_scan_inputs = 1,
                body = step (voltage_before, x_t) => (voltage_next, voltage_t) { ... }
            >(voltage, x)

        Args:
            body: one step, from its states and then one step of each sequence.
            states: what the states start from.
            sequences: what is read step by step, time first.
            results: values of the body: the next states, and then what is kept of every step.
            names: of the last states, and of the sequences over all steps.
        """
        body.outputs.extend(_of_its_own(body, results))
        attributes = [ir.AttrInt64("num_scan_inputs", len(sequences)), ir.AttrGraph("body", body)]
        values = _append(self._here, "Scan", [*states, *sequences], attributes, names)
        for value, result in zip(values, body.outputs, strict=True):
            _set_type(value, result.dtype)
        return values

    # -- the function ----------------------------------------------------------------------------

    def function(self, outputs: Sequence[ir.Value]) -> ir.Function:
        """Return the function of what was written, without what no output needs."""
        graph = self._graph
        graph.outputs.extend(_of_its_own(graph, outputs))
        function = ir.Function(
            DOMAIN,
            self.signature.name,
            graph=graph,
            attributes=[
                ir.Attr(name, ir.AttributeType.UNDEFINED, None)
                for name in self.signature.attributes
            ],
        )
        empty = ir.Graph([], [], nodes=[], opset_imports={"": self.opset})
        RemoveUnusedNodesPass()(ir.Model(empty, ir_version=10, functions=[function]))
        for value, name in zip(graph.outputs, self.signature.outputs, strict=True):
            value.name = name
        _finish(graph, {*self.signature.inputs, *self.signature.outputs})
        return function


def _append(
    graph: ir.Graph,
    operator: str,
    inputs: Sequence[ir.Value | None],
    attributes: Sequence[ir.Attr],
    names: Sequence[str],
) -> list[ir.Value]:
    """Append a node to a graph and return its outputs."""
    outputs = [ir.Value(name=name) for name in names]
    graph.append(ir.Node("", operator, inputs, attributes, outputs=outputs))
    return outputs


def _set_type(value: ir.Value, dtype: ir.DataType | None) -> None:
    """Note the element type of a value, if it is known."""
    if dtype is not None:
        value.dtype = dtype


def _of_its_own(graph: ir.Graph, values: Sequence[ir.Value]) -> list[ir.Value]:
    """Return results of a graph, copied where it does not make them, or returns them already.

    ONNX Runtime refuses a subgraph that returns a value of the graph around it
    (https://github.com/microsoft/onnxruntime/issues/11536), or its own input, or one value twice.
    """
    results: list[ir.Value] = []
    for value in values:
        producer = value.producer()
        if producer is None or producer.graph is not graph or value in results:
            (copy,) = _append(graph, "Identity", [value], [], [value.name or "copy"])
            _set_type(copy, value.dtype)
            results.append(copy)
        else:
            results.append(value)
    return results


def _finish(graph: ir.Graph, taken: set[str]) -> None:
    """Give every value a name of its own, those of subgraphs too, and take off all else.

    Names in two branches of a choice are not shared either: ONNX Runtime inlines a branch where
    the condition is constant. Types are left to the models that call the function.
    """
    kept = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for value in _values(graph):
        if id(value) not in kept:
            stem, count = value.name or "value", 1
            name = stem
            while name in taken:
                count += 1
                name = f"{stem}_{count}"
            taken.add(name)
            value.name = name
        value.type, value.shape = None, None


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield every value that a graph and its subgraphs declare, and strip the names of nodes."""
    yield from graph.inputs
    for node in graph:
        node.name = ""
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _values(attribute.as_graph())
        yield from node.outputs


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value
