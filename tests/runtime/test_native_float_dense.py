"""Native dense synapses with float weights: the stated order of sums, and where a product is taken.

The order is a sum from 0 on, input after input by multiply-adds that round once, and the bias last.
NumPy's running sums have it, so results are compared bit for bit: a product of two floats is exact
in float64, and the rounding of its sum to float64 first changes no float in these tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from of_one_node import run_floats
from pairwise import pairwise

from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)

#: rows with more than two events in five are a product of all inputs
RATES = {
    "spikes": 0.2,
    "graded": 0.2,
    "all": 1.0,
    "none": 0.0,
    "real": 0.3,
    "tiny": 0.2,
    "half": 0.5,
}


def values(kind: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    x = (draw.random(shape) < RATES[kind]).astype(np.float32)
    if kind == "graded":
        x *= draw.integers(-90, 90, shape)
    elif kind in ("real", "all"):
        x *= draw.standard_normal(shape, dtype=np.float32)
    elif kind == "tiny":
        x *= np.float32(1e-41) * draw.integers(1, 9, shape)
        x[x == 0] = -0.0
    return x.astype(np.float32)


def weights(outputs: int, inputs: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((outputs, inputs), dtype=np.float32)


def run(
    x: np.ndarray, kernels: list[np.ndarray], bias: np.ndarray | None = None, *,
    constant: bool = True, threads: int = 2, **attributes: Any,
) -> list[np.ndarray]:  # fmt: skip
    """Outputs of a dense node; with a bias of the node that fusion makes."""
    name = "DenseAndBias" if bias is not None else "Dense" if len(kernels) == 1 else "ComplexDense"
    return run_floats(name, x, kernels, bias, constant=constant, threads=threads, **attributes)


#: whether there are multiply-adds, and products of all inputs in the same order
EXACT = native.instructions() in ("avx2", "avx512")


def assert_same(found: np.ndarray, wanted: np.ndarray, *, many: bool) -> None:
    """Compare bit for bit, but for rows with many events where these are ONNX Runtime's."""
    if many and not EXACT:
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    else:
        np.testing.assert_array_equal(found, wanted)


def in_order(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """The sums of all inputs in their order, in float32."""
    total = np.zeros((*x.shape[:-1], len(weight)), np.float32)
    with np.errstate(all="ignore"):
        for c in range(x.shape[-1]):
            if EXACT:
                product = x[..., c : c + 1].astype(np.float64) * weight[:, c]
                total = (total + product).astype(np.float32)
            else:
                total += x[..., c : c + 1] * weight[:, c]
        return total if bias is None else total + bias


@pytest.mark.parametrize(
    ("sizes", "kind", "rows", "form"),
    pairwise(
        ((1, 1), (13, 10), (64, 64), (257, 65), (700, 129), (1031, 100)),
        ("spikes", "graded", "none", "real", "tiny", "all", "half"),
        ((7, 3), (1, 1), (0, 2), (3, 0), (330, 1), (41, 2), (5, 2, 3), (9,), ()),
        ("plain", "bias", "inputs first", "time last", "complex"),
    ),
)
def test_inputs_are_added_in_their_order(
    sizes: tuple[int, int], kind: str, rows: tuple[int, ...], form: str
) -> None:
    inputs, outputs = sizes
    weight, x = weights(outputs, inputs), values(kind, (*rows, inputs))
    bias = weights(outputs, 1)[:, 0] if form in ("bias", "inputs first") else None
    wanted, threads = in_order(x, weight, bias), 1 if inputs % 2 else 8
    given, options = weight.copy(), {}
    if form == "inputs first":
        given, options = np.ascontiguousarray(weight.T), {"inputs_first": 1}
    elif form == "time last":
        if len(rows) != 2:
            x, wanted = x.reshape(-1, 1, inputs), wanted.reshape(-1, 1, outputs)
        x, options = np.ascontiguousarray(x.transpose(1, 2, 0)), {"time_last": 1}
    kernels = [given, given[::-1].copy()] if form == "complex" else [given]
    found = run(x, kernels, bias, threads=threads, **options)
    many = kind in ("all", "half", "real")
    assert_same(found[0], wanted, many=many)
    if form == "complex":
        assert_same(found[1], wanted[..., ::-1], many=many)


@pytest.mark.parametrize("rate", [0.02, 0.39, 0.41, 1.0])
def test_rows_with_many_events_have_the_same_sums(rate: float) -> None:
    """So a step of a stream gives what it gives within a sequence, whatever else spikes there."""
    draw = np.random.default_rng(2)
    x = (draw.random((60, 1, 1031)) < rate) * draw.standard_normal((60, 1, 1031))
    x, weight = x.astype(np.float32), weights(70, 1031)
    (found,) = run(x, [weight])
    assert_same(found, in_order(x, weight), many=rate > 0.4)
    for t in (0, 59):
        assert_same(run(x[t : t + 1], [weight])[0], found[t : t + 1], many=rate > 0.4)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("time_last", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite(value: float, time_last: int, many: bool) -> None:
    x, weight = values("all" if many else "spikes", (37, 2, 50)), weights(20, 50)
    x[3, 0, 7] = x[36, 1, 49] = value
    weight[5, 7] = 0.0  # 0 times infinite is NaN
    wanted = in_order(x, weight)
    assert np.isnan(wanted[3, 0, 5])
    given = np.ascontiguousarray(x.transpose(1, 2, 0)) if time_last else x
    assert_same(run(given, [weight], time_last=time_last)[0], wanted, many=many)


@pytest.mark.parametrize("form", ["plain", "inputs first", "complex"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float, form: str) -> None:
    """A silent input times such a weight is NaN, so no input may be left out."""
    x, weight = values("spikes", (37, 2, 50)), weights(20, 50)
    weight[11, 3] = value
    kernels = [weight]
    if form == "complex":
        kernels = [weights(20, 50), weight]
    options = {"inputs_first": 1} if form == "inputs first" else {}
    given = [np.ascontiguousarray(k.T) if options else k for k in kernels]
    found = run(x, given, weights(20, 1)[:, 0] * 0 if options else None, **options)
    wanted = in_order(x, weight)
    assert np.isnan(wanted[..., 11]).any()
    np.testing.assert_allclose(found[-1], wanted, rtol=2e-5, atol=2e-5)


def test_weights_may_come_as_an_input() -> None:
    x, weight, bias = values("spikes", (9, 2, 30)), weights(7, 30), weights(7, 1)[:, 0]
    (found,) = run(x, [weight], bias, constant=False)
    np.testing.assert_allclose(found, in_order(x, weight, bias), rtol=2e-5, atol=2e-5)


def test_a_bias_of_size_0_is_none() -> None:
    x, weight = values("spikes", (9, 2, 30)), weights(7, 30)
    (found,) = run(x, [weight], np.zeros(0, np.float32))
    np.testing.assert_array_equal(found, in_order(x, weight))


def test_no_inputs_give_the_bias() -> None:
    bias = weights(7, 1)[:, 0]
    (found,) = run(np.zeros((9, 2, 0), np.float32), [np.zeros((7, 0), np.float32)], bias)
    np.testing.assert_array_equal(found, np.broadcast_to(bias, (9, 2, 7)))


def test_threads_change_no_bit() -> None:
    x, weight = values("real", (330, 3, 700)), weights(200, 700)
    one, eight = (run(x, [weight], threads=threads)[0] for threads in (1, 8))
    np.testing.assert_array_equal(one, eight)


@pytest.mark.parametrize(
    ("x", "kernels", "bias", "options", "sentence"),
    [
        ((4, 2, 9), (5, 8), None, {}, "a weight for 8 inputs does not fit an input of .4, 2, 9."),
        ((4, 2, 9), (5, 9), (4,), {}, "a bias of shape .4. is not one number for each of 5"),
        ((4, 9), (5, 9), None, {"time_last": 1}, r"axes .N, C, T., got .4, 9."),
        ((4, 2, 9), (9, 5, 1), (5,), {"inputs_first": 1}, r"axes .C, O., got .9, 5, 1."),
    ],
    ids=["inputs", "bias", "axes", "weight"],
)
def test_what_does_not_fit_is_refused(
    x: tuple[int, ...], kernels: tuple[int, ...], bias: Any, options: Any, sentence: str
) -> None:
    biases = None if bias is None else np.zeros(bias, np.float32)
    with pytest.raises(Exception, match=sentence):
        run(np.zeros(x, np.float32), [np.zeros(kernels, np.float32)], biases, **options)
