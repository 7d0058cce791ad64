"""read_first_input: a size is read of the first input that has it."""

from __future__ import annotations

import onnx_ir as ir
from graphs import parsed

from synapse_onnx.compiler.passes import read_first_input

TEXT = """
g (float[N, 3, T] x, float[N, 4] state, float[M] other, float[N, 3, T] again)
  => (int64[1] n, int64[1] m, int64[2] both, int64[1] inner, int64[1] t) {
  n = Shape<start = 0, end = 1>(state)
  m = Shape<start = 0, end = 1>(other)
  both = Shape<start = 0, end = 2>(state)
  y = Neg(state)
  inner = Shape<start = 0, end = 1>(y)
  t = Shape<start = 2, end = 3>(again)
}"""


def test_states_and_later_inputs_are_left_alone() -> None:
    model = ir.from_proto(parsed(TEXT))
    assert read_first_input.run(model) == 2
    read = {node.outputs[0].name: node for node in model.graph}
    assert [v.name for v in read["n"].inputs] == [v.name for v in read["t"].inputs] == ["x"]
    assert [read["t"].attributes.get_int(name, -1) for name in ("start", "end")] == [2, 3]
    for name, source in (("m", "other"), ("both", "state"), ("inner", "y")):
        assert [v.name for v in read[name].inputs] == [source]
    assert read_first_input.run(model) == 0
