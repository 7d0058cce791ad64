"""From the opaque operator of a loop to an ONNX Scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx.defs
import onnx_ir as ir
import torch
from onnxscript.values import Op, Opset
from torch import Tensor

from synapse_onnx.compiler.names import unique
from synapse_onnx.ops import Recurrence, loop_of

__all__ = ["RECURRENCE", "StepModule", "put_scans", "symbolic"]

_DOMAIN = "synapse_onnx.loops"
#: domain and name of the opaque node of a loop
RECURRENCE = (_DOMAIN, "Recurrence")
_TYPES = [f"tensor({kind})" for kind in ("float", "double", "bool", "int32", "int64", "float16")]


def symbolic(
    starts: Sequence[Any],
    sequences: Sequence[Any],
    constants: Sequence[Any],
    steps: Any,
    batch: Any,
    key: int,
) -> Any:
    """Emit one opaque node for a loop, which :func:`put_scans` replaces."""
    loop = loop_of(key)
    inputs = [*starts, *sequences, *constants]
    outputs = len(loop.outputs) + len(loop.states)
    schema = onnx.defs.OpSchema
    parameter = schema.FormalParameter
    signature = schema(
        "Recurrence",
        _DOMAIN,
        1,
        inputs=[parameter(f"input_{i}", f"I{i}") for i in range(len(inputs))],
        outputs=[parameter(f"output_{i}", f"O{i}") for i in range(outputs)],
        type_constraints=[
            (f"{letter}{i}", _TYPES, "")
            for letter, number in (("I", len(inputs)), ("O", outputs))
            for i in range(number)
        ],
        attributes=[schema.Attribute("key", schema.AttrType.INT, required=True)],
    )
    result = Op(Opset(_DOMAIN, 1), "Recurrence", signature)(*inputs, key=key)
    return list(result) if outputs > 1 else [result]


def put_scans(graph: ir.Graph, compiled: Callable[[StepModule], ir.Graph]) -> None:
    """Replace the opaque node of every loop by a Scan.

    Args:
        graph: a lowered graph.
        compiled: gives the lowered graph of a step.
    """
    taken = {value.name for node in graph for value in node.outputs}
    taken |= {value.name for value in graph.inputs} | set(graph.initializers)
    names = {node.name for node in graph}
    for node in [node for node in graph if node.domain == _DOMAIN]:
        loop = loop_of(node.attributes["key"].as_int())
        name = unique(loop.name, names)
        body = _body(loop, node, compiled(StepModule(loop)), name, taken)
        _lift_constants(body, graph, taken)
        scan = ir.node(
            "Scan",
            list(node.inputs[: len(loop.states) + len(loop.sequences)]),
            {"body": body, "num_scan_inputs": len(loop.sequences)},
            num_outputs=len(node.outputs),
            name=name,
        )
        # a Scan returns the states first
        ordered = [*node.outputs[len(loop.outputs) :], *node.outputs[: len(loop.outputs)]]
        for i, (old, new) in enumerate(zip(ordered, scan.outputs, strict=True)):
            new.shape, new.type = old.shape, old.type
            new.name = old.name if old.is_graph_output() else unique(f"{name}:out{i}", taken)
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.insert_before(node, scan)
        graph.remove(node, safe=True)


def _body(
    loop: Recurrence, node: ir.Node, body: ir.Graph, name: str, taken: set[str | None]
) -> ir.Graph:
    """Return the graph of one step: states and slices in, states and outputs out."""
    inner = len(loop.states) + len(loop.sequences)
    for value, read in zip(list(body.inputs)[inner:], list(node.inputs)[inner:], strict=True):
        assert read is not None  # no argument is left out
        value.replace_all_uses_with(read, replace_graph_outputs=True)
    del body.inputs[inner:]
    # a name within a Scan hides one around it, so each is used once
    for i, value in enumerate(body.inputs):
        what = "state" if i < len(loop.states) else "input"
        value.name = unique(f"{name}.{what}_{i}", taken)
    for each in body:
        each.name = f"{name}.{each.name}"
        for value in each.outputs:
            value.name = unique(f"{name}.{value.name}", taken)
    _separate(body, name, taken)
    body.name = name
    return body


def _lift_constants(body: ir.Graph, graph: ir.Graph, taken: set[str | None]) -> None:
    """Make the constants of a step constants of the graph around it."""
    values = list(body.initializers.values())
    body.initializers.clear()
    for value in values:
        value.name = unique("constant_0", taken)
        graph.initializers[value.name] = value


def _separate(body: ir.Graph, name: str, taken: set[str | None]) -> None:
    """Give every output a node of its own: none is an input, or another output."""
    seen = {id(value) for value in body.inputs}
    for i, value in enumerate(list(body.outputs)):
        producer = value.producer()
        if id(value) in seen or producer is None or producer.graph is not body:
            copy = ir.node("Identity", [value], name=f"{name}.Identity_{i}")
            copy.outputs[0].name = unique(f"{name}.output_{i}", taken)
            copy.outputs[0].shape, copy.outputs[0].type = value.shape, value.type
            body.append(copy)
            body.outputs[i] = copy.outputs[0]
        seen.add(id(body.outputs[i]))


class StepModule(torch.nn.Module):
    """A step for the tracer: the batch size is read of the first value that has it.

    Attributes:
        loop: the loop, in a list, which hides it: the tracer would register it.
        tensors: an example of what a step gets.
        shapes: the open axes of these, as ``torch.export.export`` takes them.
    """

    def __init__(self, loop: Recurrence) -> None:
        super().__init__()
        self.loop = [loop]
        first, second = loop.examples()
        self.tensors = first.tensors
        self.shapes: list[dict[int, Any]] = []
        self._batch: tuple[int, int] | None = None
        batch = torch.export.Dim("N")
        for i, (one, other) in enumerate(zip(first.tensors, second.tensors, strict=True)):
            named: dict[int, Any] = {}
            for axis, sizes in enumerate(zip(one.shape, other.shape, strict=True)):
                if sizes == (first.batch, second.batch):
                    named[axis] = batch
                    self._batch = self._batch or (i, axis)
                elif sizes[0] != sizes[1]:
                    named[axis] = torch.export.Dim.AUTO
            self.shapes.append(named)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the states of the next step, and the outputs of this one."""
        batch = None
        if self._batch is not None:
            index, axis = self._batch
            batch = tensors[index].shape[axis]
        results: tuple[Tensor, ...] = self.loop[0](*tensors, batch=batch)
        return results
