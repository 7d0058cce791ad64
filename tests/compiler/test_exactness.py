"""Which values are exact: one operator at a time, and what a layer says of its sums."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from synapse_onnx.compiler.exactness import exact_values, has_exact_sums

#: operators that move data about, and those that round once an element at the most
KEEP = [
    "Cast", "CastLike", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather",
    "GatherElements", "GatherND", "Identity", "Pad", "Range", "Reshape", "ScatterElements",
    "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    "DepthToSpace", "SpaceToDepth", "ArgMax", "ArgMin", "TopK", "Abs", "Add", "And", "Ceil", "Clip",
    "Div", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min",
    "MaxPool", "Mod", "Mul", "Neg", "Not", "Or", "ReduceMax", "ReduceMin", "Relu", "Round", "Sign",
    "Sub", "Where", "Xor",
]  # fmt: skip
#: sums in no fixed order, and functions that every library computes in its own way
END = [
    "MatMul", "Gemm", "Conv", "ConvTranspose", "ReduceSum", "ReduceMean", "AveragePool", "CumSum",
    "Einsum", "Exp", "Log", "Sigmoid", "Tanh", "Softmax", "Sqrt", "Pow", "Erf", "Sin", "Cos",
    "LayerNormalization", "BatchNormalization", "Resize", "LSTM",
]  # fmt: skip


def exact(nodes: str, layers: dict[str, bool] | None = None) -> set[str]:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21, "ai.synapse" : 1]>\n'
        f"g (float[N, 2] x) => (float[N, 2] y) <float[2] w = {{1, 2}}> {{ {nodes} }}"
    )
    for node in model.graph.node:
        if node.domain:
            node.metadata_props.add(key="synapse_onnx.layer", value="net.layer")
    return exact_values(model, layers or {}) - {"", "x", "w"}


@pytest.mark.parametrize("kind", KEEP)
def test_what_keeps_a_value_exact(kind: str) -> None:
    assert exact(f"a = {kind}(x, w) y = {kind}(a, , x)") == {"a", "y"}


@pytest.mark.parametrize("kind", END)
def test_what_ends_it(kind: str) -> None:
    assert exact(f"a = {kind}(x) b = Neg(x) y = Add(b, a)") == {"b"}


@pytest.mark.parametrize("first", ["Add(z, x)", "Add(x, z)"])
def test_every_input_counts(first: str) -> None:
    assert exact(f"z = MatMul(x, x) a = {first} b, c = Split(x) y = Add(b, a)") == {"b", "c"}


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ("Sigma(x, w)", True),
        ("Cuba(x, w, w, w, w)", True),
        ("CubaFloat(x, w, w, w, w)", False),
        ("Dense(x, w)", False),
        ("QuantizedDense(x, w, w)", None),
    ],
)
def test_ops_say_it_or_leave_it_to_their_layer(node: str, says: bool | None) -> None:
    text = f"y = ai.synapse.{node}"
    assert exact(text) == ({"y"} if says else set())
    for sums in (False, True):
        sound = sums if says is None else says
        assert exact(text, {"net.layer": sums}) == ({"y"} if sound else set())
    assert (
        exact(f"z = Exp(x) y = ai.synapse.{node.replace('x', 'z')}", {"net.layer": True}) == set()
    )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, False),
        ({"regime": "float"}, False),
        ({"sums": True}, True),
        ({"sums": False}, False),
        ({"quantized": True, "power_of_two": True, "wide": False}, True),
        ({"quantized": True, "power_of_two": False, "wide": False}, False),
        ({"quantized": True, "power_of_two": True, "wide": True}, False),
        ({"quantized": True, "wide": False, "sums": True}, False),
        ({"feedback": {"quantized": True, "power_of_two": True, "wide": False}}, True),
        ({"feedback": {"quantized": True, "power_of_two": True, "wide": True}}, False),
        ({"feedback": {}, "sums": True}, True),
    ],
)
def test_a_layers_sums(facts: dict[str, object], expected: bool) -> None:
    assert has_exact_sums(facts) is expected
