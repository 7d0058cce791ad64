"""store_integers: which float weights become integers with a scale, and that their values stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from graphs import parsed

from synapse_onnx.compiler.passes import store_integers
from synapse_onnx.grid import stored_bits

RNG = np.random.default_rng(0)


def rounded(*shape: int, bits: int = 8, axis: int = 0) -> np.ndarray:
    """Return random weights of one scale an index of an axis."""
    most = (1 << (bits - 1)) - 1
    integers = RNG.integers(-most, most + 1, shape).astype(np.float32)
    scale = RNG.uniform(0.01, 0.02, shape[axis]).astype(np.float32)
    return integers * scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def model(body: str, weight: np.ndarray, x: str = "float[N, 16] x") -> ir.Model:
    proto = parsed(f"g ({x}) => (float[?, ?] y) {{ {body} }}")
    tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(weight, np.float32), "w")
    proto.graph.initializer.append(tensor)
    return ir.from_proto(proto)


def ran(graph: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(graph)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("body", "weight", "bits"),
    [
        ("y = MatMul(x, w)", rounded(16, 12, axis=1), 8),
        ("y = MatMul(x, w)", rounded(16, 12, bits=4, axis=1), 4),
        ("t = Transpose<perm = [1, 0]>(w)  y = MatMul(x, t)", rounded(12, 16), 8),
        ("y = Gemm<transB = 1>(x, w)", rounded(12, 16), 8),
        ("a = MatMul(x, w)  b = MatMul(a, w)  y = Add(a, b)", rounded(16, 16, axis=1), 8),
        ("y = MatMul(x, w)", rounded(16, 12, bits=12, axis=1), 16),
    ],
)
def test_a_weight_on_a_grid_is_stored_as_integers(body: str, weight: np.ndarray, bits: int) -> None:
    before, after = model(body, weight), model(body, weight)
    assert store_integers.run(after) == 1
    tensor = after.graph.initializers["w"].const_value
    wide = stored_bits(int(tensor.numpy().min()), int(tensor.numpy().max()))
    assert wide == bits
    assert tensor.dtype == {4: ir.DataType.INT4, 8: ir.DataType.INT8, 16: ir.DataType.INT16}[bits]
    scale = after.graph.initializers["w_scale"].const_value.numpy()
    assert np.array_equal(tensor.numpy().astype(np.float32) * scale, weight)
    x = RNG.standard_normal((5, 16)).astype(np.float32)
    assert np.array_equal(ran(before, x), ran(after, x))
    assert store_integers.run(after) == 0


@pytest.mark.parametrize(
    ("body", "weight"),
    [
        ("y = MatMul(x, w)", RNG.standard_normal((16, 12))),
        ("y = MatMul(x, w)", np.full((16, 12), 0.3)),  # one magnitude has a scale by chance
        ("y = MatMul(x, w)", np.where(RNG.random((16, 12)) < 0.5, 0.3, -0.3)),
        ("y = Mul(x, w)", rounded(5, 16)),  # no product with a weight
        ("a = MatMul(x, w)  y = Add(a, w)", rounded(16, 16)),  # read as it is, too
        ("y = MatMul(w, x)", np.where(np.eye(12, 5) > 0, np.nan, 1)),
    ],
)
def test_other_weights_stay_floats(body: str, weight: np.ndarray) -> None:
    graph = model(body, weight)
    assert store_integers.run(graph) == 0
    assert set(graph.graph.initializers) == {"w"}


def test_a_vector_stays_a_vector_of_floats() -> None:
    graph = model("y = MatMul(x, w)", rounded(16))
    assert store_integers.run(graph) == 0
