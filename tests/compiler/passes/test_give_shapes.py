"""give_shapes: nodes of ours take the shapes of their transposes."""

from __future__ import annotations

import onnx_ir as ir
from graphs import parsed

from synapse_onnx.compiler.passes import (
    give_shapes,
)


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
