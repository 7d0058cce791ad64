"""Layout and type of inputs and outputs: small graphs in ONNX text, before and after."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from synapse_onnx.compiler._io_layout import move_time, take_bytes

FLOAT, BYTES = ir.DataType.FLOAT, ir.DataType.UINT8


def graph(signature: str, body: str) -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : 21, "ai.synapse" : 1]> g {signature} {{ {body} }}'
    return ir.from_proto(onnx.parser.parse_model(text))


def nodes(model: ir.Model) -> list[str]:
    """Every node as "y = Kind[attributes](x)", in order."""
    found = []
    for node in model.graph:
        values = [str(list(a.as_ints())) for a in node.attributes.values() if a.name == "perm"]
        values += [f"{a.name} {a.as_int()}" for a in node.attributes.values() if a.name != "perm"]
        outputs = ", ".join(str(value.name) for value in node.outputs)
        inputs = ", ".join(str(value.name) for value in node.inputs)
        found.append(f"{outputs} = {node.op_type}[{'; '.join(values)}]({inputs})")
    return found


def shape(value: ir.Value) -> str:
    return str(value.shape)


def evaluated(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: x})


SEQUENCE = "(float[N, 3, T] x) => (float[N, 3, T] y)"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "a = Transpose<perm = [2, 0, 1]>(x) b = Neg(a) y = Transpose<perm = [1, 2, 0]>(b)",
            ["b = Neg[](x)"],
        ),
        (
            "y = Neg(x)",
            [
                "x/Transpose:out = Transpose[[1, 2, 0]](x)",
                "y = Neg[](x/Transpose:out)",
                "y/Transpose:out = Transpose[[2, 0, 1]](y)",
            ],
        ),
        # other axes are no layout of ours
        (
            "a = Transpose<perm = [0, 2, 1]>(x) y = Transpose<perm = [0, 2, 1]>(a)",
            [
                "x/Transpose:out = Transpose[[1, 2, 0]](x)",
                "a = Transpose[[0, 2, 1]](x/Transpose:out)",
                "y = Transpose[[0, 2, 1]](a)",
                "y/Transpose:out = Transpose[[2, 0, 1]](y)",
            ],
        ),
        # one reader is content, another is not
        (
            "a = Transpose<perm = [2, 0, 1]>(x) b = Add(a, a) c = Transpose<perm = [1, 2, 0]>(b) "
            "y = Add(c, x)",
            [
                "x/Transpose:out = Transpose[[1, 2, 0]](x)",
                "b = Add[](x, x)",
                "c = Transpose[[1, 2, 0]](b)",
                "y = Add[](c, x/Transpose:out)",
                "y/Transpose:out = Transpose[[2, 0, 1]](y)",
            ],
        ),
        # who reads the output within the graph goes on reading it
        (
            "a = Transpose<perm = [2, 0, 1]>(x) y = Transpose<perm = [1, 2, 0]>(a) z = Neg(y)",
            ["y = Transpose[[1, 2, 0]](x)", "z = Neg[](y)"],
        ),
    ],
)
def test_sequences_are_turned(body: str, expected: list[str]) -> None:
    model, plain = graph(SEQUENCE, body), graph(SEQUENCE, body)
    (x,) = model.graph.inputs
    move_time(model.graph, [x], [0], "TNC")
    assert nodes(model) == expected
    assert shape(x) == "[T,N,3]"
    assert shape(model.graph.outputs[0]) in ("[T,N,3]", "None") or model.graph.outputs[0] is x
    values = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
    model.graph.outputs[0].name = "out"
    model.graph.outputs[0].type = ir.TensorType(FLOAT)
    (found,) = evaluated(model, np.moveaxis(values, -1, 0))
    np.testing.assert_array_equal(np.moveaxis(found, 0, -1), evaluated(plain, values)[0])


def test_what_a_transpose_gives_has_type_and_shape() -> None:
    model = graph(SEQUENCE, "y = Neg(x)")
    move_time(model.graph, list(model.graph.inputs), [0], "TNC")
    first, _, last = model.graph
    assert (shape(first.outputs[0]), first.outputs[0].dtype) == ("[N,3,T]", FLOAT)
    assert (shape(last.outputs[0]), last.outputs[0].dtype) == ("[T,N,3]", FLOAT)
    assert (first.name, last.name) == ("x/Transpose", "y/Transpose")
    assert model.graph.outputs[0] is last.outputs[0]


def test_images_have_time_too_and_single_steps_have_not() -> None:
    model = graph(
        "(float[N, 3] x, float[N, 2, 4, 5, T] z) => (float[N, 3] y, float[N, 2, 4, 5, T] w)",
        "y = Neg(x) w = Neg(z)",
    )
    move_time(model.graph, list(model.graph.inputs), [0, 1], "TNC")
    assert nodes(model) == [
        "z/Transpose:out = Transpose[[1, 2, 3, 4, 0]](z)",
        "y = Neg[](x)",
        "w = Neg[](z/Transpose:out)",
        "w/Transpose:out = Transpose[[4, 0, 1, 2, 3]](w)",
    ]
    assert [shape(value) for value in model.graph.inputs] == ["[N,3]", "[T,N,2,4,5]"]


def test_only_what_is_asked_for_is_turned() -> None:
    signature = "(float[N, 3, T] x, float[N, 3, T] s) => (float[N, 3, T] y, float[N, 3, T] z)"
    model = graph(signature, "y = Neg(x) z = Neg(s)")
    move_time(model.graph, [model.graph.inputs[0]], [0], "TNC")
    assert [shape(value) for value in model.graph.inputs] == ["[T,N,3]", "[N,3,T]"]
    assert [value.name for value in model.graph.outputs] == ["y/Transpose:out", "z"]


def test_an_output_twice_is_turned_once_and_an_input_stays() -> None:
    signature = "(float[N, 3, T] x) => (float[N, 3, T] y, float[N, 3, T] y, float[N, 3, T] x)"
    model = graph(
        signature, "a = Transpose<perm = [2, 0, 1]>(x) y = Transpose<perm = [1, 2, 0]>(a)"
    )
    move_time(model.graph, list(model.graph.inputs), [0, 1, 2], "TNC")
    outputs = list(model.graph.outputs)
    assert outputs[0] is outputs[1]
    assert outputs[0] is outputs[2]
    assert nodes(model) == []


def test_one_of_several_inputs_that_is_returned_is_not_turned_twice() -> None:
    model = graph(
        "(float[N, 3, T] x, float[N, 3, T] z) => (float[N, 3, T] z, float[N, 3, T] y)",
        "a = Transpose<perm = [2, 0, 1]>(x) y = Transpose<perm = [1, 2, 0]>(a)",
    )
    inputs = list(model.graph.inputs)
    move_time(model.graph, inputs, [0, 1], "TNC")
    assert model.graph.outputs[0] is inputs[1]
    assert nodes(model) == []


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("start = 0, end = 1", "start 1; end 2"),  # the batch
        ("start = 1, end = 2", "start 2; end 3"),
        ("start = 2, end = 3", "start 0; end 1"),  # time
    ],
)
def test_sizes_are_asked_of_the_axis_where_they_are(asked: str, expected: str) -> None:
    model = graph("(float[N, 3, T] x) => (int64[1] y)", f"y = Shape<{asked}>(x)")
    move_time(model.graph, list(model.graph.inputs), [0], "TNC")
    assert nodes(model) == [f"y = Shape[{expected}](x)"]


@pytest.mark.parametrize(
    "asked", ["", "<start = 1>", "<end = 1>", "<start = 0, end = 2>", "<start = -1, end = 0>"]
)
def test_several_sizes_are_asked_of_the_old_layout(asked: str) -> None:
    model = graph("(float[N, 3, T] x) => (int64[K] y)", f"y = Shape{asked}(x)")
    move_time(model.graph, list(model.graph.inputs), [0], "TNC")
    assert nodes(model)[0] == "x/Transpose:out = Transpose[[1, 2, 0]](x)"
    assert nodes(model)[1].endswith("(x/Transpose:out)")


def test_names_that_are_taken_are_not_taken_again() -> None:
    model = graph(SEQUENCE, "a = Neg(x) b = Neg(a) y = Neg(b)")
    for node, name in zip(model.graph, ("x/Transpose", "x/Transpose#2", "z"), strict=True):
        node.name = name
    move_time(model.graph, list(model.graph.inputs), [], "TNC")
    assert model.graph[0].name == "x/Transpose#3"
    assert model.graph[0].outputs[0].name == "x/Transpose#3:out"


# -- bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Neg(x)", ["x/Cast:out = Cast[to 1](x)", "y = Neg[](x/Cast:out)"]),
        ("y = Add(x, x)", ["x/Cast:out = Cast[to 1](x)", "y = Add[](x/Cast:out, x/Cast:out)"]),
        # a dense product takes bytes; another op of ours does not
        (
            "y = ai.synapse.QuantizedDense<integers = 1>(x, x)",
            ["y = QuantizedDense[integers 1](x, x)"],
        ),
        (
            "y = ai.synapse.Sigma(x, x)",
            ["x/Cast:out = Cast[to 1](x)", "y = Sigma[](x/Cast:out, x/Cast:out)"],
        ),
        ("a = Shape(x) y = Neg(a)", ["a = Shape[](x)", "y = Neg[](a)"]),
        (
            "a = ai.synapse.Shape(x) y = Neg(a)",
            ["x/Cast:out = Cast[to 1](x)", "a = Shape[](x/Cast:out)", "y = Neg[](a)"],
        ),
        (
            "a = Transpose<perm = [2, 0, 1]>(x) y = Neg(a)",
            [
                "a = Transpose[[2, 0, 1]](x)",
                "a/Cast:out = Cast[to 1](a)",
                "y = Neg[](a/Cast:out)",
            ],
        ),
        (
            "a = Transpose<perm = [2, 0, 1]>(x) "
            "b = ai.synapse.QuantizedDense<integers = 1>(a) y = Add(x, b)",
            [
                "x/Cast:out = Cast[to 1](x)",
                "a = Transpose[[2, 0, 1]](x)",
                "b = QuantizedDense[integers 1](a)",
                "y = Add[](x/Cast:out, b)",
            ],
        ),
    ],
)
def test_bytes_are_cast_where_floats_are_wanted(body: str, expected: list[str]) -> None:
    model = graph(SEQUENCE, body)
    take_bytes(model.graph, list(model.graph.inputs))
    assert nodes(model) == expected
    assert model.graph.inputs[0].dtype == BYTES
    for node in model.graph:
        if node.op_type == "Transpose":
            assert node.outputs[0].dtype == BYTES
        if node.op_type == "Cast":
            assert node.outputs[0].dtype == FLOAT
            assert shape(node.outputs[0]) == shape(node.inputs[0])


def test_an_input_that_is_returned_comes_back_as_floats() -> None:
    model = graph("(float[N, 3, T] x) => (float[N, 3, T] x, float[N, 3, T] y)", "y = Neg(x)")
    take_bytes(model.graph, list(model.graph.inputs))
    assert [value.name for value in model.graph.outputs] == ["x/Cast:out", "y"]
    assert [value.dtype for value in model.graph.outputs] == [FLOAT, FLOAT]


def test_a_turned_input_that_is_returned_comes_back_as_floats() -> None:
    model = graph(
        "(float[N, 3, T] x) => (float[T, N, 3] y, float[N, 3, T] z)",
        "y = Transpose<perm = [2, 0, 1]>(x) z = Neg(x)",
    )
    take_bytes(model.graph, list(model.graph.inputs))
    assert [value.name for value in model.graph.outputs] == ["y/Cast:out", "z"]
