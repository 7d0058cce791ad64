"""name_after_modules: names of nodes, values and axes, and no traces of the tracer."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from graphs import parsed

from synapse_onnx.compiler.passes import (
    name_after_modules,
)


@pytest.mark.parametrize(
    ("scopes", "name"),
    [
        ("['relu']", "Relu"),
        ("[]", "Relu"),
        ("['net', 'relu']", "net/Relu"),
        ("['', 'net', 'net.a', 'relu']", "net.a/Relu"),
        ("['', '_guards', 'relu']", "Relu"),
        (None, "Relu"),
    ],
)
def test_a_name_is_that_of_the_innermost_module(scopes: str | None, name: str) -> None:
    model = ir.from_proto(parsed("g (float[2] x) => (float[2] y) { a = Relu(x) y = Neg(a) }"))
    node = model.graph.node(0)
    if scopes is not None:
        node.metadata_props["pkg.torch.onnx.name_scopes"] = scopes
    assert name_after_modules.run(model) == 2
    assert (node.name, node.outputs[0].name) == (name, f"{name}:out")


def test_no_metadata_of_the_tracer_stay() -> None:
    model = ir.from_proto(
        parsed("g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Add(x, w) y = Neg(a) }")
    )
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph for value in node.outputs]
    for thing in (model, model.graph, *model.graph, *values):
        thing.metadata_props["file"] = "/home/somebody/net.py"
    name_after_modules.run(model)
    assert [dict(t.metadata_props) for t in (model, model.graph, *model.graph, *values)] == [{}] * 8


def test_a_constant_takes_no_name_of_the_users() -> None:
    model = ir.from_proto(
        parsed("""
    g (float[N, 2] x) => (float[N, 2] y)
    <float constant_0 = {1}, float val_0 = {2}, float constant_2 = {3}, float mul_1 = {4}> {
      y = Sum(x, constant_0, val_0, constant_2, mul_1)
    }""")
    )
    for name in ("constant_0", "constant_2"):  # parameters of modules, as torch marks them
        properties = model.graph.initializers[name].metadata_props
        properties["pkg.torch.export.graph_signature.InputSpec.kind"] = "PARAMETER"
    name_after_modules.run(model)
    values = {name: float(v.const_value.numpy()) for name, v in model.graph.initializers.items()}
    assert values == {"constant_0": 1, "constant_1": 2, "constant_2": 3, "constant_3": 4}


def test_names_come_from_modules_and_traces_go() -> None:
    model = ir.from_proto(
        parsed("""
    g (float[s77, 2, s53] x) => (float[s77, 2, s53] y) <float val_0 = {2}> {
      a = Mul(x, val_0)
      b = ai.synapse.Spike<threshold = 1.0, graded = 0>(a)
      c = Relu(b)
      y = Relu(c)
    }""")
    )
    scopes = [["", "net", "mul"], ["", "net", "net.neuron", "spike"], ["", "relu"], ["", "relu_1"]]
    for node, scope in zip(model.graph, scopes, strict=True):
        node.metadata_props["pkg.torch.onnx.name_scopes"] = repr(scope)
        node.metadata_props["pkg.torch.onnx.stack_trace"] = "/home/somebody/net.py, line 7"
    assert name_after_modules.run(model) == 4
    names = [node.name for node in model.graph]
    assert names == ["net/Mul", "net.neuron", "Relu", "Relu#2"]
    outputs = [value.name for node in model.graph for value in node.outputs]
    assert outputs == ["net/Mul:out", "net.neuron:s", "Relu:out", "y"]
    assert list(model.graph.initializers) == ["constant_0"]
    assert [dict(node.metadata_props) for node in model.graph] == [
        {}, {"synapse_onnx.layer": "net.neuron"}, {}, {},
    ]  # fmt: skip
    assert str(model.graph.inputs[0].shape) == "[N,2,T]"
