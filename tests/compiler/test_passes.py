"""Lowering passes, each on a small graph in ONNX text: before, after, and the same values."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from synapse_onnx.compiler import _transposes, passes
from synapse_onnx.compiler.passes import (
    all_passes,
    cancel_transposes,
    clean_up,
    give_shapes,
    mark_spikes,
    move_transposes,
    name_after_modules,
    store_int4,
)
from synapse_onnx.errors import RegistryError

HEADER = '<ir_version: 10, opset_import: ["" : 21, "ai.synapse" : 1]>\n'


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEADER + text)


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def evaluated(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    return ReferenceEvaluator(model).run(None, {"x": x})


def test_every_pass_is_tested_here_and_runs_in_this_order() -> None:
    assert list(all_passes().items()) == [
        ("give_shapes", give_shapes.run),
        ("move_transposes", move_transposes.run),
        ("cancel_transposes", cancel_transposes.run),
        ("clean_up", clean_up.run),
        ("mark_spikes", mark_spikes.run),
        ("store_int4", store_int4.run),
        ("name_after_modules", name_after_modules.run),
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose files count as passes, as if they lay beside the others."""
    monkeypatch.setattr(passes, "__path__", [*passes.__path__, str(tmp_path)])
    all_passes.cache_clear()
    yield tmp_path
    all_passes.cache_clear()
    for path in tmp_path.glob("*.py"):
        if sys.modules.pop(f"{passes.__name__}.{path.stem}", None):
            delattr(passes, path.stem)


_NO_CHANGES = "def run(model):\n    return 0\n"


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("", "mark_spikes"),  # names no other pass: m comes before n, and n before s
        ('AFTER = ("store_int4",)\n', "store_int4"),
        ('BEFORE = ("cancel_transposes",)\n', "move_transposes"),
        ('AFTER = ("clean_up",)\nBEFORE = ("store_int4",)\n', "mark_spikes"),
    ],
)
def test_a_new_pass_is_found_and_runs_where_it_says(folder: Path, text: str, follows: str) -> None:
    (folder / "new_pass.py").write_text(text + _NO_CHANGES)
    order = list(all_passes())
    assert len(order) == 8
    assert order[order.index("new_pass") - 1] == follows


def test_a_pass_that_names_no_pass_is_refused(folder: Path) -> None:
    (folder / "new_pass.py").write_text('AFTER = ("tidy",)\n' + _NO_CHANGES)
    with pytest.raises(RegistryError, match="pass new_pass names 'tidy', which is no pass"):
        all_passes()


@pytest.mark.parametrize(
    ("text", "circle"),
    [
        ('AFTER = ("clean_up",)\nBEFORE = ("give_shapes",)\n', "new_pass before give_shapes"),
        # nothing runs after the last one
        ('AFTER = ("name_after_modules",)\n', "new_pass before name_after_modules"),
    ],
)
def test_passes_without_an_order_are_refused(folder: Path, text: str, circle: str) -> None:
    (folder / "new_pass.py").write_text(text + _NO_CHANGES)
    with pytest.raises(RegistryError, match="the passes have no order: ") as raised:
        all_passes()
    assert circle in str(raised.value)


# -- move_transposes ---------------------------------------------------------------------------

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
    (expected,), (found,) = evaluated(proto, x), evaluated(ir.to_proto(model), x)
    np.testing.assert_array_equal(found, expected)
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
    (expected,), (found,) = evaluated(proto, x), evaluated(ir.to_proto(model), x)
    np.testing.assert_array_equal(found, expected)


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


# -- _transposes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Transpose<perm = [0, 1]>(x)", True),
        ("Transpose(x)", False),
        ("ai.synapse.Transpose<perm = [0, 1]>(x)", False),
        ("Relu<perm = [0, 1]>(x)", False),
        ("ai.synapse.Relu<perm = [0, 1]>(x)", False),
    ],
)
def test_a_transpose_names_its_axes(node: str, expected: bool) -> None:
    model = ir.from_proto(parsed(f"g (float[2, 2] x) => (float[2, 2] y) {{ y = {node} }}"))
    assert (_transposes.permutation(model.graph.node(0)) is not None) is expected


def test_axes_of_time() -> None:
    assert _transposes.time_first(4) == [3, 0, 1, 2]
    assert _transposes.time_last(4) == [1, 2, 3, 0]


# -- give_shapes -------------------------------------------------------------------------------


def test_what_a_node_of_ours_returns_gets_the_shape_of_its_transpose() -> None:
    model = ir.from_proto(
        parsed("""
    g (float[T, N, 2, H] x) => (float[N, 2, H, T] y, float[N, 2, H, T] z) {
      a = ai.synapse.Sigma(x)
      y = Transpose<perm = [1, 2, 3, 0]>(a)
      b = ai.synapse.Sigma(a)
      c = Transpose<perm = [1, 2, 3, 0]>(b)
      z = Relu(c)
    }""")
    )
    assert give_shapes.run(model) == 1  # the tracer said nothing of c
    first, _, second, *_ = model.graph
    assert str(first.outputs[0].shape) == "[T,N,2,H]"
    assert first.outputs[0].type == model.graph.outputs[0].type
    assert second.outputs[0].shape is None
    assert give_shapes.run(model) == 0


# -- cancel_transposes -------------------------------------------------------------------------


def test_a_pair_that_undoes_itself_goes() -> None:
    proto = parsed("""
    g (float[A, B, C] x) => (float[A, B, C] y) {
      a = Transpose<perm = [2, 0, 1]>(x)
      b = Relu(a)
      c = Transpose<perm = [1, 2, 0]>(b)
      d = Transpose<perm = [2, 0, 1]>(c)
      e = Neg(d)
      y = Transpose<perm = [1, 2, 0]>(e)
    }""")
    model = ir.from_proto(proto)
    assert cancel_transposes.run(model) == 1
    clean_up.run(model)
    assert kinds(model) == ["Transpose", "Relu", "Neg", "Transpose"]
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    for a, b in zip(evaluated(proto, x), evaluated(ir.to_proto(model), x), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("second", "changes"), [([1, 2, 0], 1), ([2, 0, 1], 0), ([0, 1, 2], 0), ([1, 0, 2], 0)]
)
def test_only_the_inverse_permutation_counts(second: list[int], changes: int) -> None:
    proto = parsed(f"""
    g (float[2, 3, 4] x) => (float[A, B, C] y) {{
      a = Transpose<perm = [2, 0, 1]>(x)
      b = Transpose<perm = {second}>(a)
      y = Relu(b)
    }}""")
    model = ir.from_proto(proto)
    assert cancel_transposes.run(model) == changes
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    for a, b in zip(evaluated(proto, x), evaluated(ir.to_proto(model), x), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_output_of_the_graph_keeps_its_transpose() -> None:
    model = ir.from_proto(
        parsed("""
    g (float[A, B, C] x) => (float[A, B, C] y) {
      a = Transpose<perm = [2, 0, 1]>(x)
      y = Transpose<perm = [1, 2, 0]>(a)
    }""")
    )
    assert cancel_transposes.run(model) == 0


def test_a_value_that_others_read_stays() -> None:
    proto = parsed("""
    g (float[2, 3, 4] x) => (float[2, 3, 4] y, float[4, 2, 3] z) {
      a = Transpose<perm = [2, 0, 1]>(x)
      z = Relu(a)
      b = Transpose<perm = [1, 2, 0]>(a)
      y = Neg(b)
    }""")
    model = ir.from_proto(proto)
    assert cancel_transposes.run(model) == 1
    clean_up.run(model)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    for a, b in zip(evaluated(proto, x), evaluated(ir.to_proto(model), x), strict=True):
        np.testing.assert_array_equal(a, b)


# -- clean_up ----------------------------------------------------------------------------------


def test_dead_and_double_work_goes_and_equal_parameters_stay_apart() -> None:
    proto = parsed("""
    g (float[N, 2] x) => (float[N, 2] y)
    <float[2] first = {1, 2}, float[2] second = {1, 2}> {
      a = Relu(x)
      b = Relu(x)
      dead = Neg(x)
      c = Add(a, first)
      d = Mul(b, second)
      y = Sub(c, d)
    }""")
    model = ir.from_proto(proto)
    assert clean_up.run(model) == 2
    assert kinds(model) == ["Relu", "Add", "Mul", "Sub"]
    assert {"first", "second"} <= set(model.graph.initializers)
    x = np.array([[-1, 2], [3, -4]], np.float32)
    for a, b in zip(evaluated(proto, x), evaluated(ir.to_proto(model), x), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_call_of_a_layer_stays() -> None:
    """Verify and inspect find each layer by its nodes."""
    proto = parsed("""
    g (float[T, N, 2] x, double[N, 2] total) => (float[T, N, 2] y) {
      a, i = ai.synapse.Sigma(x, total)
      b, j = ai.synapse.Sigma(x, total)
      c = Relu(a)
      d = Relu(a)
      e = Add(b, c)
      y = Add(e, d)
    }""")
    model = ir.from_proto(proto)
    assert clean_up.run(model) == 1
    assert kinds(model) == ["Sigma", "Sigma", "Relu", "Add", "Add"]
    assert not any(node.attributes for node in model.graph)


def test_constants_are_folded_and_become_initialisers() -> None:
    proto = parsed("""
    g (float[N, 2] x) => (float[N, 2] y) {
      two = Constant<value = float {2}>()
      three = Constant<value = float {3}>()
      k = Mul(two, three)
      y = Mul(x, k)
    }""")
    model = ir.from_proto(proto)
    assert clean_up.run(model) == 3
    assert kinds(model) == ["Mul"]
    used = [v.const_value.numpy() for v in model.graph.initializers.values() if v.uses()]
    assert [float(value) for value in used] == [6]


# -- mark_spikes -------------------------------------------------------------------------------

#: operators that hand on the elements of their first input
MOVES = [
    "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
]  # fmt: skip


@pytest.mark.parametrize(
    ("between", "marked"),
    [
        ("Identity(s)", True),
        ("Transpose<perm = [1, 0, 2]>(s)", True),
        ("Relu(s)", False),
        ("Add(s, s)", False),
        ("Concat<axis = 0>(s, s)", True),
        ("Concat<axis = 0>(s, x)", False),
        ("Gather(, s)", False),
        ("other.Identity(s)", False),
        ("other.Concat(s, s)", False),
        *((f"{kind}(s, x)", True) for kind in MOVES),
        *((f"{kind}(x, s)", False) for kind in MOVES),
        ("Identity(last)", False),
        ("Identity(x)", False),
    ],
)
@pytest.mark.parametrize("graded", [0, 1])
def test_what_reads_spikes_is_told_so(between: str, marked: bool, graded: int) -> None:
    model = ir.from_proto(
        parsed(f"""
    g (float[T, N, 2] x, float[1] d, int64[N, 2] u) => (float[T, N, 2] y)
    <int8[2, 2, 1, 1, 1] w = {{1, 2, 3, 4}}, float[1] step = {{1}}> {{
      s, last, other = ai.synapse.Cuba<scale = 64, threshold = 64, graded = {graded}>(x, d, d, u, u)
      z = {between}
      y = ai.synapse.QuantizedDense<integers = 1, spikes = 0>(z, w, step)
    }}""")
    )
    marked = marked and not graded
    assert mark_spikes.run(model) == marked
    assert [n.attributes["spikes"].as_int() for n in model.graph if "spikes" in n.attributes] == [
        int(marked)
    ]
    assert mark_spikes.run(model) == 0


# -- store_int4 --------------------------------------------------------------------------------


def weights(values: list[int], reader: str = "ai.synapse.QuantizedDense(x, w, s)") -> ir.Model:
    proto = parsed(f"""
    g (float[N, 2] x) => (float[N, 2] y)
    <int8[1, {len(values)}, 1, 1, 1] w = {{{", ".join(map(str, values))}}}, float[1] s = {{1}}> {{
      y = {reader}
    }}""")
    return ir.from_proto(proto)


MANY = [-8, 7] * 64


@pytest.mark.parametrize(
    ("values", "packed"),
    [
        (MANY, True),
        (MANY[:-1], False),  # 127 bytes, or 64: it saves 63
        (MANY[:-2], False),
        ([*MANY, 0], True),
        ([-9, *MANY], False),
        ([8, *MANY], False),
        ([1], False),
    ],
)
def test_weights_of_four_bits_are_packed_where_it_saves_64_bytes(
    values: list[int], packed: bool
) -> None:
    model = weights(values)
    assert store_int4.run(model) == packed
    tensor = model.graph.initializers["w"].const_value
    assert tensor.dtype == (ir.DataType.INT4 if packed else ir.DataType.INT8)
    assert tensor.nbytes == (-(-len(values) // 2) if packed else len(values))
    stored = ir.to_proto(model).graph.initializer
    array = onnx.numpy_helper.to_array(next(t for t in stored if t.name == "w"))
    assert array.astype(int).ravel().tolist() == values


def test_integers_of_the_users_own_are_left_alone() -> None:
    both = weights(MANY, "ai.synapse.QuantizedDense(x, w, s)  z = Cast<to = 1>(w)")
    assert store_int4.run(both) == 0
    assert store_int4.run(weights(MANY, "Cast<to = 1>(w)")) == 0


# -- name_after_modules ------------------------------------------------------------------------


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
    <float constant_0 = {1}, float val_0 = {2}, float constant_2 = {3}, float val_1 = {4}> {
      y = Sum(x, constant_0, val_0, constant_2, val_1)
    }""")
    )
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
