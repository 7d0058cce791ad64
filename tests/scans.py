"""Scans as models of one node, run by ONNX Runtime's operators and by the native kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from of_one_node import session_of
from onnx import helper, numpy_helper

from synapse_onnx.runtime import elementwise, native

Array = NDArray[Any]


@dataclass
class Body:
    """The body of a Scan, built operator by operator; every value has a name.

    Attributes:
        states: name -> its first value.
        sequences: name -> all its steps, time first.
        captured: name -> value of the graph around it.
        nodes: the operators.
        next_states: value of the next step for each state.
        outputs: values that are put out at each step.
        constants: names of the captured values that are constants of the file.
    """

    states: dict[str, Array]
    sequences: dict[str, Array]
    captured: dict[str, Array] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    next_states: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator, and return the name of its result."""
        result = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [result], **attributes))
        return result

    def model(self, *, opset: int = 21) -> onnx.ModelProto:
        """Return the model: states and sequences are inputs, and what is captured and no constant.

        The states after the last step are outputs, and then the sequences.
        """
        slices = {name: array[0] if len(array) else _slice(array) for name, array in
                  self.sequences.items()}  # fmt: skip
        known = {**self.states, **slices, **self.captured}
        types = _inferred(self.nodes, known, opset)
        results = [*self.next_states, *self.outputs]
        # an output of the body is a value of its own
        names = [f"out{i}" for i in range(len(results))]
        ends = [helper.make_node("Identity", [v], [n]) for v, n in zip(results, names, strict=True)]
        body = helper.make_graph(
            [*self.nodes, *ends], "body",
            [_info(name, known[name].dtype, known[name].shape)
             for name in (*self.states, *self.sequences)],
            [_info(n, *types[v]) for v, n in zip(results, names, strict=True)],
        )  # fmt: skip
        last = [f"last_{name}" for name in self.states]
        rows = [f"row{i}" for i in range(len(self.outputs))]
        firsts = [f"first_{name}" for name in self.states]
        taken = [*firsts, *(f"all_{name}" for name in self.sequences)]
        scan = helper.make_node("Scan", taken, [*last, *rows], name="neuron/Scan", body=body,
                                num_scan_inputs=len(self.sequences))  # fmt: skip
        inputs = [_info(f"first_{n}", a.dtype, a.shape) for n, a in self.states.items()]
        inputs += [
            _info(f"all_{n}", a.dtype, ("T", *a.shape[1:])) for n, a in self.sequences.items()
        ]
        open_values = {n: a for n, a in self.captured.items() if n not in self.constants}
        inputs += [_info(n, a.dtype, a.shape) for n, a in open_values.items()]
        outputs = [
            _info(name, *types[value]) for name, value in zip(last, self.next_states, strict=True)
        ]
        for name, value in zip(rows, self.outputs, strict=True):
            kind, shape = types[value]
            outputs.append(_info(name, kind, ("T", *shape)))
        graph = helper.make_graph(
            [scan], "one", inputs, outputs,
            [numpy_helper.from_array(self.captured[n], n) for n in self.captured
             if n in self.constants],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def feeds(self) -> dict[str, Array]:
        """Return the inputs of the model."""
        return {
            **{f"first_{name}": array for name, array in self.states.items()},
            **{f"all_{name}": array for name, array in self.sequences.items()},
            **{n: a for n, a in self.captured.items() if n not in self.constants},
        }


def _slice(array: Array) -> Array:
    return np.zeros(array.shape[1:], array.dtype)


def _info(name: str, dtype: Any, shape: Sequence[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)


def _inferred(
    nodes: Sequence[onnx.NodeProto], known: Mapping[str, Array], opset: int
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return the type and shape of every value of a body."""
    inputs = [_info(name, array.dtype, array.shape) for name, array in known.items()]
    graph = helper.make_graph(list(nodes), "types", inputs, [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    found = {name: (array.dtype, array.shape) for name, array in known.items()}
    for value in onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info:
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        found[value.name] = (helper.tensor_dtype_to_np_dtype(kind.elem_type), shape)
    return found


def by_operators(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a model in ONNX Runtime as it is, operator by operator."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(feeds))


def by_the_kernel(
    model: onnx.ModelProto, feeds: Mapping[str, Array], threads: int = 1
) -> list[Array]:
    """Run a model whose Scan the native kernel replaces."""
    session = kernel_session(model, threads)
    return session.run(None, dict(feeds))


def kernel_session(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    """Open a session of a model whose Scan the native kernel replaces."""
    before = model.SerializeToString()
    replaced = elementwise.replaced(model, native.elementwise())
    assert replaced is not None, "the Scan stays"
    assert [node.op_type for node in replaced.graph.node] == [elementwise.OP]
    assert model.SerializeToString() == before, "the model itself stays as it is"
    return session_of(replaced, threads)


def assert_same(found: Sequence[Array], wanted: Sequence[Array]) -> None:
    """Compare bit by bit, the sign of zero included; all NaN are the same."""
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        same = a == b
        if a.dtype.kind == "f":
            same = (same & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
        assert same.all(), (a[~same][:5], b[~same][:5], int((~same).sum()))
