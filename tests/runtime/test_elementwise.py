"""Which Scans become a node of the native kernel, and which stay; needs no kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper
from scans import Body

from synapse_onnx.runtime import elementwise

SIGNATURES = elementwise.signatures_of(
    "Add:ff>f Sub:ff>f Mul:ff>f Max:ff>f Min:ff>f Div:ff>f Pow:ff>f Greater:ff>b Where:bff>f "
    "Clip:fff>f Clip:iii>i Add:ii>i Div:ii>i Mod:ii>i Fmod:ii>i Fmod:ff>f Less:ii>b "
    "CastToFloat:b>f CastToInt32:f>i"
)


def _lif() -> Body:
    """v = v * decay + x; s = v > 1; v = v - s."""
    body = Body({"v": np.zeros(4, "f")}, {"x": np.ones((3, 4), "f")})
    body.captured = {"decay": np.full(4, 0.9, "f"), "one": np.array(1, "f")}
    body.constants = {"one"}
    v = body.add("Add", body.add("Mul", "v", "decay"), "x")
    s = body.add("Cast", body.add("Greater", v, "one"), to=onnx.TensorProto.FLOAT)
    body.next_states, body.outputs = [body.add("Sub", v, s)], [s]
    return body


def _attributes(model: onnx.ModelProto) -> dict[str, Any]:
    (node,) = model.graph.node
    assert (node.op_type, node.domain) == (elementwise.OP, "ai.synapse")
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _replaced(body: Body) -> onnx.ModelProto | None:
    return elementwise.replaced(body.model(), SIGNATURES)


def test_a_body_becomes_a_program() -> None:
    model = _lif().model()
    before = model.SerializeToString()
    assert elementwise.replaceable(model, SIGNATURES)
    found = elementwise.replaced(model, SIGNATURES)
    assert model.SerializeToString() == before, "the model itself stays as it is"
    assert found is not None
    (scan,), (node,) = model.graph.node, found.graph.node
    assert (node.name, list(node.output)) == (scan.name, list(scan.output))
    assert list(node.input) == ["first_v", "all_x", "decay", "one"]
    assert _attributes(found) == {
        "states": 1,
        "sequences": 1,
        "operators": b"Mul Add Greater CastToFloat Sub",
        "operands": [0, 2, -1, 4, 1, -1, 5, 3, -1, 6, -1, -1, 5, 7, -1],
        "results": [8, 7],
    }
    assert [(o.domain, o.version) for o in found.opset_import] == [("", 21), ("ai.synapse", 1)]
    onnx.checker.check_model(model)


def test_without_kernels_all_stay() -> None:
    assert elementwise.replaced(_lif().model(), {}) is None
    assert not elementwise.replaceable(_lif().model(), {})


def test_a_model_without_scans_is_not_copied() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[4] x) => (float[4] y) { y = Neg(x) }'
    )
    assert elementwise.replaced(model, SIGNATURES) is None


def _with(op: str, *others: str, sequence: str = "x", **attributes: Any) -> Body:
    body = _lif()
    body.sequences["i"] = np.ones((3, 4), np.int32)
    body.sequences["h"] = np.ones((3, 4), np.float16)
    body.captured |= {
        "two": np.array(2, "f"), "three": np.array(3, "f"), "half": np.array(0.5, "f"),
        "four_twos": np.full(4, 2, "f"), "ten": np.array(10, np.int32),
        "zero": np.array(0, np.int32), "minus": np.array([1, 2, -1, 4], np.int32),
        "open": np.array(5, np.int32), "weight": np.ones((4, 4), "f"),
    }  # fmt: skip
    body.constants |= set(body.captured) - {"open", "decay"}
    body.outputs.append(body.add(op, sequence, *others, **attributes))
    return body


@pytest.mark.parametrize(
    ("body", "operators"),
    [
        (lambda: _with("Pow", "two"), "Mul"),
        (lambda: _with("Pow", "three"), "Mul Mul"),
        (lambda: _with("Pow", "half"), "Pow"),
        (lambda: _with("Max", "v", "one"), "Max Max"),
        (lambda: _with("Max"), ""),
        (lambda: _with("Clip", "one", "two"), "Clip"),
        (lambda: _with("Clip", "", "two"), "Clip"),
        (lambda: _with("Clip", "one"), "Clip"),
        (lambda: _with("Clip", "", "ten", sequence="i"), "Clip"),
        (lambda: _with("Identity"), ""),
        (lambda: _with("Cast", to=1), ""),
        (lambda: _with("Div", "ten", sequence="i"), "Div"),
        (lambda: _with("Mod", "ten", sequence="i"), "Mod"),
        (lambda: _with("Mod", "ten", sequence="i", fmod=1), "Fmod"),
        (lambda: _with("Mod", "two", fmod=1), "Fmod"),
    ],
)
def test_operators_that_are_several_or_none(body: Any, operators: str) -> None:
    built = body()
    del built.sequences["h"]
    found = _replaced(built)
    assert found is not None
    names = _attributes(found)["operators"].decode().split()
    assert names[5:] == operators.split()


def test_a_bound_that_is_left_out_is_the_last_finite_number() -> None:
    body = _with("Clip", "", "two")
    del body.sequences["h"]
    found = _replaced(body)
    assert found is not None
    values = {t.name: numpy_helper.to_array(t) for t in found.graph.initializer}
    assert values["body.constant_0"] == np.finfo(np.float32).min
    assert set(found.graph.node[0].input[-2:]) == {"body.constant_0", "two"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda: _with("MatMul", "weight"), id="sum over neurons"),
        pytest.param(lambda: _with("ReduceSum"), id="reduction"),
        pytest.param(lambda: _with("Erf"), id="unknown function"),
        pytest.param(lambda: _with("Neg", sequence="h"), id="float16"),
        pytest.param(lambda: _with("Cast", to=onnx.TensorProto.INT8), id="cast to int8"),
        pytest.param(lambda: _with("Sub", "ten", sequence="i"), id="type without a function"),
        pytest.param(lambda: _with("Pow", "four_twos"), id="a square that is none"),
        pytest.param(lambda: _with("Div", "zero", sequence="i"), id="divided by 0"),
        pytest.param(lambda: _with("Div", "minus", sequence="i"), id="divided by -1"),
        pytest.param(lambda: _with("Mod", "zero", sequence="i"), id="modulo 0"),
        pytest.param(lambda: _with("Div", "open", sequence="i"), id="divided by an input"),
        pytest.param(lambda: _with("Mod", "i", sequence="i", fmod=1), id="modulo a sequence"),
    ],
)
def test_what_the_kernel_lacks_stays(body: Any) -> None:
    built = body()
    if built.outputs[-1] not in {n.output[0] for n in built.nodes if "h" in n.input}:
        del built.sequences["h"]
    if "four_twos" in built.nodes[-1].input:
        signatures = {key: value for key, value in SIGNATURES.items() if key[0] != "Pow"}
    else:
        signatures = dict(SIGNATURES)
    assert elementwise.replaced(built.model(), signatures) is None


def test_a_divisor_that_a_caller_may_replace_stays() -> None:
    body = _with("Div", "ten", sequence="i")
    del body.sequences["h"]
    model = body.model()
    assert elementwise.replaced(model, SIGNATURES) is not None
    model.graph.input.append(helper.make_tensor_value_info("ten", onnx.TensorProto.INT32, []))
    assert elementwise.replaced(model, SIGNATURES) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scan_input_axes", [1]), ("scan_output_axes", [1]),
        ("scan_input_directions", [1]), ("scan_output_directions", [1]),
    ],
)  # fmt: skip
def test_other_axes_and_directions_stay(name: str, value: list[int]) -> None:
    model = _lif().model()
    model.graph.node[0].attribute.append(helper.make_attribute(name, value))
    assert elementwise.replaced(model, SIGNATURES) is None
    model.graph.node[0].attribute[-1].ints[:] = [0]
    assert elementwise.replaced(model, SIGNATURES) is not None


def test_an_operator_of_another_domain_stays() -> None:
    model = _lif().model()
    (body,) = (a.g for a in model.graph.node[0].attribute if a.name == "body")
    body.node[0].domain = "custom"
    assert elementwise.replaced(model, SIGNATURES) is None


def test_a_captured_value_of_unknown_type_stays() -> None:
    model = _lif().model()
    (body,) = (a.g for a in model.graph.node[0].attribute if a.name == "body")
    model.graph.node.insert(0, helper.make_node("Neg", ["decay"], ["hidden"]))
    body.node[0].input[1] = "hidden"
    assert elementwise.replaced(model, SIGNATURES) is None
    model.graph.value_info.append(helper.make_tensor_value_info("hidden", 1, [4]))
    assert elementwise.replaced(model, SIGNATURES) is not None


def test_constants_of_two_bodies_keep_apart() -> None:
    """Both bodies have a constant named c; the graph gets one of each."""
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[4] v, float[T, 4] x) => (float[4] a, float[T, 4] b, float[4] d, float[T, 4] e) {
        a, b = Scan <num_scan_inputs = 1, body = p (float[4] v1, float[4] x1)
            => (float[4] w1, float[4] y1)
            { c = Constant<value = float {2}>() w1 = Mul(v1, c) y1 = Add(w1, x1) }> (v, x)
        d, e = Scan <num_scan_inputs = 1, body = q (float[4] v2, float[4] x2)
            => (float[4] w2, float[4] y2)
            { c = Constant<value_float = 3.0>() w2 = Mul(v2, c) y2 = Add(w2, x2) }> (v, x)
    }"""
    found = elementwise.replaced(onnx.parser.parse_model(text), SIGNATURES)
    assert found is not None
    values = {t.name: numpy_helper.to_array(t).item() for t in found.graph.initializer}
    assert [values[node.input[2]] for node in found.graph.node] == [2, 3]


def test_outputs_without_a_type_get_one() -> None:
    model = _lif().model()
    model.graph.node.append(helper.make_node("Neg", ["row0"], ["y"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", 1, ["T", 4]))
    found = elementwise.replaced(model, SIGNATURES)
    assert found is not None
    shapes = {
        value.name: [dim.dim_value or "?" for dim in value.type.tensor_type.shape.dim]
        for value in found.graph.value_info
    }
    assert shapes == {"last_v": [4], "row0": ["?", 4]}
