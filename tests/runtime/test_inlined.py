"""Flat graphs: no functions, nothing read from around a loop, types within, and the same values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import runtimes
from graphs import all_nodes
from onnx import parser

import synapse_onnx as so

MODELS = Path(__file__).parents[2] / "models"

#: a Scan within the body of another, both reading from around them; states that are a step's input
NESTED = """<ir_version: 10, opset_import: ["" : 21]>
loops (float[N] state, float[T, S, N] x) => (float[N] last, float[T, N] y) {
    two = Constant<value_float = 2.0>()
    factor = Add(two, two)
    last, y = Scan<num_scan_inputs = 1, body = outer (before, now) => (after, out) {
        start = Mul(before, factor)
        kept, sums = Scan<num_scan_inputs = 1, body = inner (old, entry) => (new, sum) {
            whole = Add(old, before)
            sum = Mul(whole, two)
            new = Identity(entry)
        }>(start, now)
        axis = Constant<value_ints = [0]>()
        out = ReduceSum<keepdims = 0>(sums, axis)
        after = Sub(kept, before)
    }>(state, x)
}"""


def _bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in all_nodes(graph.node):
        if node.op_type == "Scan":
            yield next(a.g for a in node.attribute if a.name == "body")


def _defined(graph: onnx.GraphProto) -> set[str]:
    """Names of all values in a graph and those within it."""
    names = {value.name for value in graph.input} | {value.name for value in graph.initializer}
    for node in graph.node:
        names |= set(node.output)
        for attribute in node.attribute:
            names |= _defined(attribute.g)
    return names


def _assert_flat(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions
    assert {node.domain for node in all_nodes(model.graph.node)} == {""}
    for body in _bodies(model.graph):
        read = {name for node in all_nodes(body.node) for name in node.input if name}
        assert read | {value.name for value in body.output} <= _defined(body)
        for value in (*body.input, *body.output):
            assert value.type.tensor_type.elem_type, f"{value.name} has no type"
            assert value.type.tensor_type.HasField("shape"), f"{value.name} has no shape"


@pytest.mark.parametrize("name", ["drift_stream", "snntorch_nir_float", "snntorch_live_float"])
def test_a_model_computes_the_same(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    model = onnx.load(path)
    given = runtimes.feeds(model)
    found = so.flat(path)
    _assert_flat(found)
    assert model.functions
    assert runtimes.compared(*(runtimes.onnx_runtime(m, given) for m in (model, found))) == "equal"
    assert {p.key: p.value for p in found.metadata_props} == {
        p.key: p.value for p in model.metadata_props
    }
    assert [str(v) for v in found.graph.input] == [str(v) for v in model.graph.input]
    assert so.Session(found).streaming == name.endswith("stream")


def test_loops_within_loops() -> None:
    model = parser.parse_model(NESTED)
    before = model.SerializeToString()
    found = so.flat(model)
    assert model.SerializeToString() == before, "the model itself was changed"
    _assert_flat(found)
    generator = np.random.default_rng(0)
    given = {
        "state": generator.random(3).astype(np.float32),
        "x": generator.random((4, 2, 3)).astype(np.float32),
    }
    expected, values = (
        ort.InferenceSession(m.SerializeToString()).run(None, given) for m in (model, found)
    )
    assert len(expected) == len(values) == 2
    for value, other in zip(expected, values, strict=True):
        np.testing.assert_array_equal(value, other)


def test_a_state_that_is_the_input_of_a_step_is_computed() -> None:
    """OpenVINO 2026.4 goes on with another value for it."""
    found = so.flat(parser.parse_model(NESTED))
    inner = [body for body in _bodies(found.graph) if len(list(_bodies(body))) == 0]
    for body in inner:
        makers = {output: node.op_type for node in body.node for output in node.output}
        assert makers[body.output[0].name] == "Max"


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(so.InputError, match=r"none\.onnx"):
        so.flat(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(so.ModelError, match=r"text\.onnx"):
        so.flat(tmp_path / "text.onnx")
