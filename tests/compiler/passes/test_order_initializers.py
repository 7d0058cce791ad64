"""order_initializers: the order of use, for whatever order the exporter chose."""

from __future__ import annotations

import onnx_ir as ir
from graphs import parsed

from synapse_onnx.compiler.passes import order_initializers

TEXT = """
g (float[2] x, bool c) => (float[2] y, float[2] unread)
<float[2] unread = {0, 0}, float[2] b = {1, 2}, float[2] inner = {3, 4}, float[2] a = {5, 6}> {
  z = Add(x, a)
  w = If(c) <then_branch = t () => (float[2] r) { r = Add(z, inner) },
             else_branch = e () => (float[2] s) { s = Neg(z) }>
  y = Sum(w, b, a)
}"""


def test_initializers_come_in_the_order_of_use() -> None:
    model = ir.from_proto(parsed(TEXT))
    assert order_initializers.run(model) == 4
    assert list(model.graph.initializers) == ["a", "inner", "b", "unread"]
    assert order_initializers.run(model) == 0


def test_each_is_still_an_initializer_with_its_readers() -> None:
    model = ir.from_proto(parsed(TEXT))
    order_initializers.run(model)
    written = {t.name: list(t.float_data) for t in ir.to_proto(model).graph.initializer}
    assert [*written] == ["a", "inner", "b", "unread"]
    a = model.graph.initializers["a"]
    assert a.is_initializer()
    assert a.const_value.numpy().tolist() == [5, 6]
    assert len(a.uses()) == 2
