"""cancel_transposes: which pairs go, and the same values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import assert_same_values, kinds, parsed

from synapse_onnx.compiler.passes import (
    cancel_transposes,
    clean_up,
)


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
    assert_same_values(proto, model, x)


@pytest.mark.parametrize(
    ("second", "changes"), [([1, 2, 0], 1), ([2, 0, 1], 0), ([0, 1, 2], 1), ([1, 0, 2], 0)]
)
def test_only_the_inverse_permutation_and_none_count(second: list[int], changes: int) -> None:
    proto = parsed(f"""
    g (float[2, 3, 4] x) => (float[A, B, C] y) {{
      a = Transpose<perm = [2, 0, 1]>(x)
      b = Transpose<perm = {second}>(a)
      y = Relu(b)
    }}""")
    model = ir.from_proto(proto)
    assert cancel_transposes.run(model) == changes
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    assert_same_values(proto, model, x)


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
    assert_same_values(proto, model, x)


def test_an_output_of_the_graph_keeps_a_transpose_that_moves_nothing() -> None:
    model = ir.from_proto(
        parsed("""
    g (float[A, B, C] x) => (float[A, B, C] y) {
      a = Relu(x)
      y = Transpose<perm = [0, 1, 2]>(a)
    }""")
    )
    assert cancel_transposes.run(model) == 0
