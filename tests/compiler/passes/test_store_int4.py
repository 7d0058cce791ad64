"""store_int4: which weights are packed, and that their values stay."""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from graphs import parsed

from synapse_onnx.compiler.passes import (
    store_int4,
)


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
