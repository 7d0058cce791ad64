"""A catalogue of faults: every part of a model, changed in the ways that parts of files go wrong.

Each fault is a name and a copy of the model with that fault and no other. The catalogue is drawn
from the model itself, so no part of it is forgotten: every attribute of every node, every operator
and every constant of every body and loop, every initialiser, state, input, output and entry of the
metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import onnx
from graphs import all_nodes

#: operator -> another one of as many inputs, or of one more that it may leave out
ALIKE = {
    "Add": "Sub", "Sub": "Add", "Mul": "Add", "Div": "Mul", "Max": "Min", "Min": "Max",
    "Less": "Greater", "LessOrEqual": "Less", "Greater": "Less", "GreaterOrEqual": "Greater",
    "Equal": "Less", "And": "Or", "Or": "And", "Not": "Identity", "Neg": "Identity",
    "Abs": "Neg", "Floor": "Ceil", "Ceil": "Floor", "Round": "Floor", "Relu": "Identity",
    "Sign": "Abs", "ReduceMax": "ReduceMin", "ReduceMin": "ReduceMax", "ReduceSum": "ReduceMax",
    "BitwiseAnd": "BitwiseOr", "Exp": "Identity", "Identity": "Neg", "Clip": "Identity",
    "Reciprocal": "Neg", "Sqrt": "Identity", "Log": "Identity", "ReduceMean": "ReduceMax",
}  # fmt: skip


class Fault(NamedTuple):
    """One fault: what it is, and the model that has it."""

    name: str
    model: onnx.ModelProto


def catalogue(model: onnx.ModelProto) -> Iterator[Fault]:
    """Yield every fault of a model."""
    for name, change in _changes(model):
        faulty = onnx.ModelProto()
        faulty.CopyFrom(model)
        change(faulty)
        assert faulty != model, f"{name} changes nothing"
        yield Fault(name, faulty)


Change = Callable[[onnx.ModelProto], object]


def _changes(model: onnx.ModelProto) -> Iterator[tuple[str, Change]]:
    yield from _of_nodes(model)
    yield from _of_bodies(model)
    yield from _of_loops(model)
    yield from _of_initializers(model)
    yield from _of_ends(model)
    yield from _of_metadata(model)


def _of_nodes(model: onnx.ModelProto) -> Iterator[tuple[str, Change]]:
    for i, node in enumerate(model.graph.node):
        for j, attribute in enumerate(node.attribute):
            if attribute.type == onnx.AttributeProto.GRAPH:  # see _of_loops
                continue
            yield (
                f"node {node.name}: {attribute.name}",
                lambda m, i=i, j=j: _nudge(m.graph.node[i].attribute[j]),
            )
        if len(node.input) > 1 and node.input[0] != node.input[1]:
            yield (
                f"node {node.name}: inputs swapped",
                lambda m, i=i: _swap(m.graph.node[i].input, 0, 1),
            )
        if node.op_type in ALIKE:
            yield (
                f"node {node.name}: {ALIKE[node.op_type]}",
                lambda m, i=i, k=ALIKE[node.op_type]: setattr(m.graph.node[i], "op_type", k),
            )


def _of_bodies(model: onnx.ModelProto) -> Iterator[tuple[str, Change]]:
    for f, function in enumerate(model.functions):
        yield from _of_body(
            f"body of {function.name}", model, lambda m, f=f: list(all_nodes(m.functions[f].node))
        )


def _of_body(
    name: str, model: onnx.ModelProto, nodes: Callable[[onnx.ModelProto], list[onnx.NodeProto]]
) -> Iterator[tuple[str, Change]]:
    for i, node in enumerate(nodes(model)):

        def at(m: onnx.ModelProto, i: int = i) -> onnx.NodeProto:
            return nodes(m)[i]

        where = f"{name}, node {i} ({node.op_type})"
        if node.op_type in ALIKE:
            kind = ALIKE[node.op_type]
            yield f"{where}: {kind}", lambda m, at=at, k=kind: setattr(at(m), "op_type", k)
        if node.op_type in ("Where", "Sub", "Div", "MatMul", "Less") and len(node.input) > 1:
            yield (
                f"{where}: inputs swapped",
                lambda m, at=at: _swap(at(m).input, -2, -1),
            )
        for j, attribute in enumerate(node.attribute):
            if attribute.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.UNDEFINED):
                yield (
                    f"{where}: {attribute.name}",
                    lambda m, at=at, j=j: _nudge(at(m).attribute[j]),
                )


def _of_loops(model: onnx.ModelProto) -> Iterator[tuple[str, Change]]:
    """Yield faults of the loops over time of torch code: a Scan and its body."""
    for i, node in enumerate(model.graph.node):
        if node.op_type != "Scan":
            continue

        def body(m: onnx.ModelProto, i: int = i) -> onnx.GraphProto:
            return next(a.g for a in m.graph.node[i].attribute if a.name == "body")

        name = f"body of node {node.name}"
        yield from _of_body(name, model, lambda m, body=body: list(all_nodes(body(m).node)))
        ends, results = body(model).input, body(model).output
        for k in range(1, len(ends)):
            yield (
                f"{name}: inputs {k - 1} and {k} swapped",
                lambda m, body=body, k=k: _swap(body(m).input, k - 1, k),
            )
        for k in range(1, len(results)):
            yield (
                f"{name}: outputs {k - 1} and {k} swapped",
                lambda m, body=body, k=k: _swap(body(m).output, k - 1, k),
            )
            yield f"{name}: output {k} a step early", lambda m, body=body, k=k: _early(body(m), k)


def _early(body: onnx.GraphProto, k: int) -> None:
    """Return the first state, as it was before the step, in the place of an output."""
    copy = onnx.helper.make_node("Identity", [body.input[0].name], ["before"], "before")
    body.node.append(copy)
    body.output[k].name = "before"


def _of_initializers(model: onnx.ModelProto) -> Iterator[tuple[str, Change]]:
    for i, tensor in enumerate(model.graph.initializer):
        yield (
            f"initialiser {tensor.name}: last value",
            lambda m, i=i: _nudge_tensor(m.graph.initializer[i]),
        )


def _of_ends(model: onnx.ModelProto) -> Iterator[tuple[str, Change]]:
    for kind in ("input", "output"):
        values = getattr(model.graph, kind)
        for i, value in enumerate(values):
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if dim.dim_param:  # N or T fixed in the file
                    yield (
                        f"{kind} {value.name}: axis {axis} is fixed",
                        lambda m, kind=kind, i=i, axis=axis: setattr(
                            getattr(m.graph, kind)[i].type.tensor_type.shape.dim[axis],
                            "dim_value", 2,
                        ),
                    )  # fmt: skip
        for i in range(1, len(values)):
            yield (
                f"{kind}s {i - 1} and {i} swapped",
                lambda m, kind=kind, i=i: _swap(getattr(m.graph, kind), i - 1, i),
            )
    for i, value in enumerate(model.graph.output):
        yield f"output {value.name}: a constant", lambda m, i=i: _constant_output(m, i)
        yield f"output {value.name}: another value", lambda m, i=i: _clipped_output(m, i)
    for i, value in enumerate(model.graph.input):
        yield f"input {value.name}: clipped", lambda m, i=i: _clipped_input(m, i)


def _of_metadata(model: onnx.ModelProto) -> Iterator[tuple[str, Change]]:
    written = {prop.key: prop.value for prop in model.metadata_props}
    for key, text in (("chunk", "3"), ("streaming", "x"), ("layout", "x"), ("dynamic", "x")):
        old = written[f"synapse_onnx.{key}"]
        other = {"true": "false", "false": "true", "NCT": "TNC"}.get(old, text)
        yield f"metadata: {key}", lambda m, key=key, new=other: _set(m, key, new)
    states = json.loads(written["synapse_onnx.states"])
    for i in range(len(states)):
        for change in ("start", "output"):

            def damage(m: onnx.ModelProto, i: int = i, change: str = change) -> None:
                changed = json.loads(json.dumps(states))
                if change == "start":
                    changed[i]["start"] += 1
                else:  # that of another state, which then is carried twice
                    changed[i]["output"] = changed[i - 1]["output"]
                _set(m, "states", json.dumps(changed))

            if change == "start" or len(states) > 1:
                yield f"metadata: {change} of state {states[i]['input']}", damage


def _nudge(attribute: onnx.AttributeProto) -> None:
    """Change a value by the least that is another one of its type."""
    kinds = onnx.AttributeProto
    if attribute.type == kinds.INT:
        attribute.i += 1 if attribute.i < 2**63 - 1 else -1
    elif attribute.type == kinds.FLOAT:
        away = np.float32(-np.inf if attribute.f == np.inf else np.inf)
        attribute.f = float(np.nextafter(np.float32(attribute.f), away))
    elif attribute.type == kinds.INTS:
        if len(attribute.ints):
            attribute.ints[-1] += 1 if attribute.ints[-1] < 2**63 - 1 else -1
        else:
            attribute.ints.append(1)
    elif attribute.type == kinds.FLOATS:
        attribute.floats[-1] += 1
    elif attribute.type == kinds.TENSOR:
        _nudge_tensor(attribute.t)
    elif attribute.type == kinds.STRING:
        attribute.s += b"x"
    else:  # of a body: the name of the attribute of the node
        attribute.ref_attr_name += "x"


def _nudge_tensor(tensor: onnx.TensorProto) -> None:
    array = onnx.numpy_helper.to_array(tensor).copy()
    last = array.reshape(-1)[-1:]
    if array.dtype == np.bool_:
        last[:] = ~last
    elif array.dtype.kind == "f":
        last[:] = np.nextafter(last, array.dtype.type(np.inf))
    else:
        wider = last.astype(np.int64)
        last[:] = (wider + np.where(wider > 6, -1, 1)).astype(array.dtype)  # stays within four bits
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _swap(values: object, i: int, j: int) -> None:
    items: list = list(values)  # type: ignore[call-overload]
    items[i], items[j] = items[j], items[i]
    del values[:]  # type: ignore[attr-defined]
    values.extend(items)  # type: ignore[attr-defined]


def _producer(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if name in node.output)


def _rename(node: onnx.NodeProto, old: str, new: str) -> None:
    names = [new if name == old else name for name in node.output]
    del node.output[:]
    node.output.extend(names)


def _constant_output(model: onnx.ModelProto, i: int) -> None:
    """An output that no longer depends on the input: zeros of its shape."""
    name = model.graph.output[i].name
    _rename(_producer(model, name), name, "computed")
    model.graph.node.append(onnx.helper.make_node("Sub", ["computed", "computed"], [name], "zero"))


def _clipped_output(model: onnx.ModelProto, i: int) -> None:
    name = model.graph.output[i].name
    _rename(_producer(model, name), name, "computed")
    model.graph.node.append(onnx.helper.make_node("Abs", ["computed"], [name], "absolute"))


def _clipped_input(model: onnx.ModelProto, i: int) -> None:
    name = model.graph.input[i].name
    for node in model.graph.node:
        taken = ["clipped" if given == name else given for given in node.input]
        del node.input[:]
        node.input.extend(taken)
    model.graph.node.insert(0, onnx.helper.make_node("Abs", [name], ["clipped"], "clip"))


def _set(model: onnx.ModelProto, key: str, value: str) -> None:
    (prop,) = (p for p in model.metadata_props if p.key == f"synapse_onnx.{key}")
    prop.value = value
