"""Native dense products: sums of integers are exact, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from of_one_node import (
    session_of,
    whole,
)
from onnx import helper, numpy_helper
from pairwise import pairwise

from synapse_onnx import ops
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)
RNG = np.random.default_rng(0)


def dense(
    x: np.ndarray, weight: onnx.TensorProto, step: np.ndarray, *, constant: bool = True
) -> np.ndarray:
    node = helper.make_node(
        "QuantizedDense", ["x", "weight", "step"], ["y"], domain=ops.DOMAIN, integers=1, spikes=0
    )
    values = [("x", x), ("step", step)]
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)
        )
        for name, array in values
    ]
    feeds = dict(values)
    if not constant:
        inputs.append(helper.make_tensor_value_info("weight", weight.data_type, list(weight.dims)))
        feeds["weight"] = numpy_helper.to_array(weight)
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", inputs, [output], [weight] * constant)
    return session_of(whole(graph)).run(None, feeds)[0]


def weights(outputs: int, inputs: int, bits: int) -> tuple[onnx.TensorProto, np.ndarray]:
    half = 1 << (bits - 1)
    array = RNG.integers(-half, half, (outputs, inputs, 1, 1, 1))
    kind = {4: onnx.TensorProto.INT4, 8: onnx.TensorProto.INT8, 16: onnx.TensorProto.INT16}[bits]
    return helper.make_tensor("weight", kind, array.shape, array.flatten()), array[..., 0, 0, 0]


@pytest.mark.parametrize(
    ("bits", "sizes", "kind"),
    pairwise(
        (4, 8, 16),
        ((1, 1), (13, 10), (64, 40), (700, 129), (1031, 512)),
        ("spikes", "all", "none", "signs", "counts", "signed", "large", "uint8"),
    ),
)
def test_sums_of_integers_are_exact(bits: int, sizes: tuple[int, int], kind: str) -> None:
    inputs, outputs = sizes
    shape = (7, 3, inputs)
    x = {
        "spikes": RNG.random(shape) < 0.3,
        "all": np.ones(shape),
        "none": np.zeros(shape),
        "counts": RNG.integers(0, 128, shape),
        "signs": RNG.integers(-1, 2, shape),
        "signed": RNG.integers(-60, 60, shape),
        "large": RNG.integers(-32767, 32768, shape),
        "uint8": RNG.integers(0, 256, shape).astype(np.uint8),
    }[kind]
    x = x if kind == "uint8" else x.astype(np.float32)
    tensor, array = weights(outputs, inputs, bits)
    step = (RNG.integers(1, 9, outputs) / 64).astype(np.float32)
    sums = x.astype(np.int64) @ array.T.astype(np.int64)
    wanted = sums.astype(np.float32) * step
    np.testing.assert_array_equal(dense(x, tensor, step), wanted)


@pytest.mark.parametrize("weight", [127, -128])
def test_no_number_of_spikes_is_too_large(weight: int) -> None:
    """Bytes are summed in 16 bits for as long as they fit."""
    array = np.full((70, 1600, 1, 1, 1), weight, np.int8)
    x = np.ones((2, 1, 1600), np.float32)
    step = np.ones(1, np.float32)
    found = dense(x, numpy_helper.from_array(array, "weight"), step)
    np.testing.assert_array_equal(found, np.full((2, 1, 70), 1600.0 * weight, np.float32))


def test_other_inputs_go_through_floats() -> None:
    x = RNG.normal(size=(6, 2, 300)).astype(np.float32)
    x[2] = x[2] > 0  # a row of spikes among them
    x[4, 0, 7], x[5, 1, 0] = np.inf, np.nan
    tensor, array = weights(40, 300, 8)
    step = np.array([1 / 32], np.float32)
    found = dense(x, tensor, step)
    with np.errstate(invalid="ignore"):
        wanted = (x @ array.T.astype(np.float32)) * step
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(found[2], wanted[2])


def test_weights_may_come_as_an_input() -> None:
    x = (RNG.random((4, 2, 9)) < 0.4).astype(np.float32)
    tensor, array = weights(7, 9, 8)
    step = np.array([0.5], np.float32)
    np.testing.assert_array_equal(
        dense(x, tensor, step, constant=False), x @ array.T.astype(np.float32) * step
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 9), "axes .T, N, C."), ((4, 2, 10), "does not fit an input of .4, 2, 10.")],
)
def test_a_dense_input_that_does_not_fit(shape: tuple[int, ...], message: str) -> None:
    tensor, _ = weights(7, 9, 8)
    with pytest.raises(Exception, match=message):
        dense(np.zeros(shape, np.float32), tensor, np.array([0.5], np.float32))
