"""move_transposes: before, after, and the same values."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from graphs import assert_same_values, kinds, parsed
from onnx.reference import ReferenceEvaluator

from synapse_onnx.compiler.passes import (
    cancel_transposes,
    clean_up,
    move_transposes,
)

_TIME_FIRST = "a = Transpose<perm = [2, 0, 1]>(x)  b = Neg(a)  c = Transpose<perm = [1, 2, 0]>(b)"


@pytest.mark.parametrize(
    ("body", "moved", "left"),
    [
        ("d = Relu(c)  y = Neg(d)", 2, ["Transpose", "Neg", "Relu", "Neg", "Transpose"]),
        ("y = Add(c, x)", 1, ["Transpose", "Neg", "Add", "Transpose"]),
        ("y = Concat<axis = 1>(c, x, c)", 1, ["Transpose", "Neg", "Concat", "Transpose"]),
        ("y = Concat<axis = -1>(x, c)", 1, ["Transpose", "Neg", "Concat", "Transpose"]),
        ("y = Concat<axis = 0>(c, c)", 1, ["Transpose", "Neg", "Concat", "Transpose"]),
        (
            "k = Constant<value_float = 0.5>()  y = Mul(c, k)",
            1,
            ["Transpose", "Neg", "Mul", "Transpose"],
        ),
        (
            "k = Constant<value = float[1] {0.5}>()  y = Sub(k, c)",
            1,
            ["Transpose", "Neg", "Sub", "Transpose"],
        ),
        # a constant with axes has a layout of its own
        (
            "k = Constant<value = float[3, 1] {1.0, 2.0, 3.0}>()  y = Mul(c, k)",
            0,
            ["Transpose", "Neg", "Transpose", "Mul"],
        ),
        # what is read along an axis, too
        ("y = Softmax<axis = 1>(c)", 0, ["Transpose", "Neg", "Transpose", "Softmax"]),
        # another order of axes
        (
            "d = Transpose<perm = [1, 0, 2]>(b)  y = Relu(d)",
            0,
            ["Transpose", "Neg", "Transpose", "Relu"],
        ),
    ],
    ids=[
        "chain", "sum", "concat", "concat over time", "concat over the batch", "number", "one",
        "scale a channel", "softmax", "other axes",
    ],
)  # fmt: skip
def test_what_works_on_any_layout_stays_time_major(body: str, moved: int, left: list[str]) -> None:
    proto = parsed(f"g (float[2, 3, 4] x) => (float[A, B, C] y) {{ {_TIME_FIRST} {body} }}")
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    assert move_transposes.run(model) == moved
    cancel_transposes.run(model)
    clean_up.run(model)
    assert kinds(model) == left
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    assert_same_values(proto, model, x)
    assert [output.name for output in model.graph.outputs] == ["y"]


def test_what_was_turned_later_is_read_in_order() -> None:
    proto = parsed(f"""
    g (float[2, 3, 4] x, float[2, 3, 4] z) => (float[A, B, C] y, float[A, B, C] w) {{
      {_TIME_FIRST}
      y = Add(c, z)
      d = Transpose<perm = [2, 0, 1]>(z)
      w = Neg(d)
    }}""")
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    assert move_transposes.run(model) == 1
    found = ir.to_proto(model)
    onnx.checker.check_model(found)
    x, z = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype(np.float32)
    for a, b in zip(
        *(ReferenceEvaluator(m).run(None, {"x": x, "z": z}) for m in (proto, found)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("shape", "sizes", "moved"),
    [
        ((2, 3, 4, 5, 6), (2, 60, 6), 1),
        ((2, 12, 6), (2, 3, 2, 2, 6), 1),
        ((2, 12, 6), (2, 3, 4, 6), 1),
        ((2, 12, 6), (2, 72), 0),
        ((2, 12, 6), (12, 2, 6), 0),
        ((2, 12, 6), (2, 6, 12), 0),
    ],
    ids=str,
)
def test_a_flatten_keeps_time_first(
    shape: tuple[int, ...], sizes: tuple[int, ...], moved: int
) -> None:
    rank = len(shape)
    there, back = [rank - 1, *range(rank - 1)], [*range(1, rank), 0]
    proto = parsed(f"""
    g (float{list(shape)} x) => (float{list(sizes)} y) {{
      a = Transpose<perm = {there}>(x)
      b = Neg(a)
      c = Transpose<perm = {back}>(b)
      k = Constant<value_ints = {list(sizes)}>()
      d = Reshape(c, k)
      y = Relu(d)
    }}""")
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    assert move_transposes.run(model) == 2 * moved
    clean_up.run(model)
    if moved:
        assert kinds(model) == ["Transpose", "Neg", "Reshape", "Relu", "Transpose"]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert_same_values(proto, model, x)


ELEMENTWISE = [
    "Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Elu", "Equal", "Exp", "Floor", "Greater",
    "GreaterOrEqual", "HardSigmoid", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max",
    "Min", "Mul", "Neg", "Not", "Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Softplus",
    "Sqrt", "Sub", "Sum", "Tanh", "Where",
]  # fmt: skip


def turned(nodes: str) -> ir.Model:
    """c is x as a layer hands it on, b the same with time first; y is what is made of it."""
    head = "g (float[2, 3, 4] x, float[2, 3] w) => (float[A, B, C] y)"
    model = ir.from_proto(parsed(f"{head} {{ {_TIME_FIRST} {nodes} }}"))
    for node, shape in zip(model.graph, ([4, 2, 3], [4, 2, 3], [2, 3, 4]), strict=False):
        node.outputs[0].shape = ir.Shape(shape)
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return model


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_every_elementwise_operator_is_moved(kind: str) -> None:
    for node in (f"{kind}(c)", f"{kind}(c, x)"):
        model = turned(f"y = {node}")
        assert move_transposes.run(model) == 1
        moved = model.graph.node(-2)
        assert moved.op_type == kind
        assert [value.name for value in moved.inputs] == ["b", "a"][: node.count(",") + 1]
        assert model.graph.node(-1).op_type == "Transpose"
        # in a domain of its own a name means something else
        foreign = turned(f"y = other.{node}")
        assert move_transposes.run(foreign) == 0


@pytest.mark.parametrize("unknown", ["input", "output"])
def test_a_reshape_of_unknown_shape_is_not_moved(unknown: str) -> None:
    model = turned("k = Constant<value_ints = [2, 3, 4]>()  y = Reshape(c, k)")
    node = model.graph.node(-1)
    for value in (node.inputs[0], node.outputs[0]):
        assert value is not None
        value.shape = ir.Shape([2, 3, 4])
    value = node.inputs[0] if unknown == "input" else node.outputs[0]
    assert value is not None
    value.shape = None
    assert move_transposes.run(model) == 0


@pytest.mark.parametrize(
    "nodes",
    [
        "y = ai.synapse.Reshape(c, x)",
        "k = Constant<value_ints = [2, 3, 4]>()  y = Reshape(x, k)",  # nothing was turned
        "y = Add(x, x)",
        "y = Add(c, w)",  # another rank, which is broadcast along other axes
        "y = Concat<axis = 0>(c, w)",
        "k = Constant<value = float {1}>()  y = Concat<axis = 0>(c, k)",
        "d = Transpose(b)  y = Relu(d)",  # no axes named
        "k = Constant<value = float[1, 1] {1}>()  y = Add(c, k)",
        "k = Constant<value = float[2] {1, 2}>()  y = Add(c, k)",
    ],
)
def test_what_is_not_moved(nodes: str) -> None:
    model = turned(nodes)
    nodes_before = list(model.graph)
    inputs = [node.inputs for node in nodes_before]
    assert move_transposes.run(model) == 0
    assert list(model.graph) == nodes_before
    assert [node.inputs for node in model.graph] == inputs


def test_what_is_moved_keeps_name_type_shape_and_marks() -> None:
    model = turned("k = Constant<value = float {0.25}>()  y = Clip(c, , k)")
    model.graph.node(-1).name = "limit"
    model.graph.node(-1).metadata_props["mark"] = "here"
    model.graph.outputs[0].shape = ir.Shape([2, 3, 4])
    assert move_transposes.run(model) == 1
    clip, back = model.graph.node(-2), model.graph.node(-1)
    assert (clip.name, back.name) == ("limit", "limit/Transpose")
    assert clip.metadata_props["mark"] == "here"
    assert [None if v is None else v.name for v in clip.inputs] == ["b", None, "k"]
    assert clip.outputs[0].name == "y/time_first"
    assert list(clip.outputs[0].shape) == [4, 2, 3]
    assert clip.outputs[0].dtype == ir.DataType.FLOAT
    assert list(back.attributes["perm"].as_ints()) == [1, 2, 0]


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        (["N", 3, 4, 5, "T"], ["N", 60, "T"], [0, 0, 60]),
        (["N", 60, "T"], ["N", 3, 4, 5, "T"], [0, 0, 3, 4, 5]),
        (["N", 3, 4, 5, "T"], ["N", 3, 20, "T"], [0, 0, 3, 20]),
        (["N", 3, 4, 5, "T"], ["N", "K", "T"], None),
        (["N", "C", 4, 5, "T"], ["N", 60, "T"], None),
        (["N", 3, 4, 5, "T"], ["T", 60, "N"], None),
        (["N", 3, 4, 5, "T"], ["N", 60, "S"], None),
        (["N", 3, 4, 5, "T"], ["M", 60, "T"], None),
        (["N", 60, "T"], ["N", "T"], None),
        (["N", 0, 5, "T"], ["N", 0, "T"], None),  # a zero would keep another axis
        ([None, 3, 4, 5, "T"], [None, 60, "T"], None),  # two sizes of which nothing is known
        ([2, 3, 4, 5, None], [2, 60, None], None),
    ],
    ids=str,
)
def test_a_flatten_of_open_sizes(
    before: list[int | str | None], after: list[int | str | None], moved: list[int] | None
) -> None:
    rank = len(before)
    perm = [*range(1, rank), 0]
    model = turned(
        f"d = Transpose<perm = {perm}>(b)  k = Constant<value_ints = [1]>()  y = Reshape(d, k)"
    )
    flatten = model.graph.node(-1)
    flatten.inputs[0].shape, flatten.outputs[0].shape = ir.Shape(before), ir.Shape(after)
    assert move_transposes.run(model) == (moved is not None)
    if moved is not None:
        constant, flatten, back = (model.graph.node(i) for i in (-3, -2, -1))
        assert flatten.inputs[0].name == "b"
        assert flatten.inputs[1] is constant.outputs[0]
        assert constant.attributes["value"].as_tensor().numpy().tolist() == moved
        assert list(flatten.outputs[0].shape) == [after[-1], *after[:-1]]
        assert list(back.attributes["perm"].as_ints()) == [*range(1, len(after)), 0]
