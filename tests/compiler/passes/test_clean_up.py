"""clean_up: what is dead, double or constant goes, and every call of a layer stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from graphs import assert_same_values, kinds, parsed

from synapse_onnx.compiler.passes import (
    clean_up,
)


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
    assert_same_values(proto, model, x)


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
