"""A copy of a model tells which branches of its function bodies a run has taken."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from synapse_onnx.model.branches import branches_of, names_of_taken, with_branches

#: y is x, or -x where it is below 0; where it is above 10, it is cut to 10
BODY = """
    zero = Constant <value_float = 0.0> ()
    ten = Constant <value_float = 10.0> ()
    negative = Less (x, zero)
    y = If (negative) <
        then_branch = below () => (a) { a = Neg (x) },
        else_branch = above () => (b) {
            large = Greater (x, ten)
            b = If (large) <
                then_branch = cut () => (c) { c = Identity (ten) },
                else_branch = kept () => (d) { d = Identity (x) }
            >
        }
    >
"""


@pytest.fixture
def model() -> onnx.ModelProto:
    text = f"""
        <ir_version: 10, opset_import: ["" : 21, "ai.synapse" : 1]>
        graph (float p, float q) => (float u, float v) {{
            u = ai.synapse.Fold (p)
            v = ai.synapse.Fold (q)
        }}
        <domain: "ai.synapse", opset_import: ["" : 21]>
        Fold (x) => (y) {{ {BODY} }}
    """
    parsed = onnx.parser.parse_model(text)
    for node, name in zip(parsed.graph.node, ("first", "second"), strict=True):
        node.name = name
    return parsed


def taken_by(
    model: onnx.ModelProto, p: float, q: float
) -> tuple[list[float], dict[str, list[str]]]:
    copied = with_branches(model)
    session = onnxruntime.InferenceSession(copied.SerializeToString())
    names = [value.name for value in session.get_outputs()]
    arrays = session.run(names, {"p": np.array(p, np.float32), "q": np.array(q, np.float32)})
    told = dict(zip(names, arrays, strict=True))
    taken = names_of_taken(model, {k: int(v) for k, v in told.items() if k not in "uv"})
    return [float(told["u"]), float(told["v"])], {
        node: [branch.name for branch in branches] for node, branches in taken.items()
    }


def test_branches_are_named_from_the_outside_in(model) -> None:
    assert [branch.name for branch in branches_of(model.functions[0])] == [
        "below", "above", "above.cut", "above.kept",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "result", "branches"),
    [(-3, 3, ["below"]), (12, 10, ["above", "above.cut"]), (5, 5, ["above", "above.kept"])],
)
def test_every_node_tells_its_own(model, value, result, branches) -> None:
    results, taken = taken_by(model, value, 5)
    assert results == [result, 5]
    assert taken == {"first": branches, "second": ["above", "above.kept"]}


def test_the_model_stays_as_it_is(model) -> None:
    before = model.SerializeToString()
    onnx.checker.check_model(with_branches(model))
    assert model.SerializeToString() == before


def test_nodes_may_have_no_names(model) -> None:
    named = with_branches(model)
    for node in model.graph.node:
        node.name = ""
    told = [value.name for value in with_branches(model).graph.output]
    assert len(set(told)) == len(told) == len(named.graph.output)
    values = dict.fromkeys((name for name in told if name not in ("u", "v")), 1)
    assert [len(taken) for taken in names_of_taken(model, values).values()] == [1, 1]


def test_a_body_without_branches_tells_nothing(model) -> None:
    (function,) = model.functions
    del function.node[:]
    function.node.append(helper.make_node("Neg", ["x"], ["y"]))
    assert branches_of(function) == []
    assert with_branches(model) == model
    assert names_of_taken(model, {}) == {}


def test_outputs_that_a_node_leaves_out_are_kept_out(model) -> None:
    (function,) = model.functions
    function.output.append("negative")
    copied = with_branches(model)
    assert [len(node.output) for node in copied.graph.node] == [3, 3]
    session = onnxruntime.InferenceSession(copied.SerializeToString())
    assert [value.name for value in session.get_outputs()] == [
        "u", "v", "first#branches", "second#branches",
    ]  # fmt: skip
    assert session.get_outputs()[2].type == "tensor(int64)"
    assert copied.graph.output[2].type.tensor_type.elem_type == TensorProto.INT64
