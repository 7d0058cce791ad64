"""cancel_reshapes: which Reshapes go, and the same values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import assert_same_values, kinds, parsed

from synapse_onnx.compiler.passes import cancel_reshapes, clean_up

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def _graph(between: str, after: str, rest: str = "y = Neg(b)") -> str:
    return f"""
    g (float[A, 4] x) => (float[A, 4] y)
    <float[A, 4] r, float[{between}] a, float[{after}] b,
     int64[3] s = {{2, 3, 4}}, int64[2] back = {{-1, 4}}> {{
      r = Relu(x)
      a = Reshape(r, s)
      b = Reshape(a, back)
      {rest}
    }}"""


def test_a_pair_that_gives_the_shape_back_goes() -> None:
    proto = parsed(_graph("T, N, 4", "A, 4"))
    model = ir.from_proto(proto)
    assert cancel_reshapes.run(model) == 1
    clean_up.run(model)
    assert kinds(model) == ["Relu", "Neg"]
    assert_same_values(proto, model, X)


@pytest.mark.parametrize(
    ("between", "after"),
    [("T, N, 4", "B, 4"), ("T, N, 4", "A, 2"), ("T, N, 4", "?, 4"), ("T, N, 4", "1, A, 4")],
)
def test_another_shape_stays(between: str, after: str) -> None:
    model = ir.from_proto(parsed(_graph(between, after)))
    assert cancel_reshapes.run(model) == 0


def test_open_sizes_without_a_name_are_not_known_to_be_equal() -> None:
    model = ir.from_proto(parsed(_graph("T, N, 4", "A, 4")))
    for node in model.graph:
        node.outputs[0].shape = ir.Shape([None, 4])
    assert cancel_reshapes.run(model) == 0


def test_what_is_between_stays_where_others_read_it() -> None:
    proto = parsed(_graph("T, N, 4", "A, 4", "c = Neg(a)  d = Reshape(c, back)  y = Add(b, d)"))
    model = ir.from_proto(proto)
    assert cancel_reshapes.run(model) == 1
    clean_up.run(model)
    assert kinds(model) == ["Relu", "Reshape", "Neg", "Reshape", "Add"]
    assert_same_values(proto, model, X)


def test_an_output_of_the_graph_keeps_its_reshape() -> None:
    proto = parsed(_graph("T, N, 4", "A, 4", "y = Reshape(b, back)"))
    model = ir.from_proto(proto)
    assert cancel_reshapes.run(model) == 1  # that of b alone
    assert_same_values(proto, model, X)


def test_only_reshapes_are_gone_through() -> None:
    proto = parsed("""
    g (float[6, 4] x) => (float[6, 4] y)
    <float[6, 4] r, float[4, 6] a, float[6, 4] b, int64[2] back = {6, 4}> {
      r = Relu(x)
      a = Transpose<perm = [1, 0]>(r)
      b = Reshape(a, back)
      y = Neg(b)
    }""")
    model = ir.from_proto(proto)
    assert cancel_reshapes.run(model) == 0
    assert_same_values(proto, model, X)
