"""Quantisation: hooks, and the grid found behind any of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import synapse_onnx as so
from synapse_onnx.grid import Quantizer, find_grid, is_power_of_two, q8, stored_bits


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def product(grid: so.quantize.Grid, axis: int | None = 0) -> torch.Tensor:
    shape = [-1 if i == axis else 1 for i in range(grid.integers.dim())]
    scale = grid.scale if grid.scale.numel() == 1 else grid.scale.reshape(shape)
    return grid.integers.to(torch.float32) * scale


def test_q8_is_lava_dls() -> None:
    w = drawn(1000) * 3
    expected = (torch.round(w * 32) / 32).clamp(-4, 254 / 64)
    assert torch.equal(q8(w), expected)
    assert torch.equal(q8(w, descale=True), expected * 64)
    assert float(q8(w).min()) == -4
    assert float(q8(w).max()) == 254 / 64
    # rounds halves to even, as torch.round does
    halves = torch.tensor([0.5, 1.5, 2.5]) / 32
    assert torch.equal(q8(halves) * 32, torch.tensor([0.0, 2.0, 2.0]))


@pytest.mark.parametrize("bits", range(2, 17))
def test_a_quantizer_of_any_width(bits: int) -> None:
    quantizer = Quantizer(scale=16, bits=bits)
    w = drawn(500) * 2.0**bits
    integers = quantizer(w) * 8
    assert torch.equal(integers, torch.round(integers))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert (float(integers.min()), float(integers.max())) == (low, high)
    inside = (w * 8 > low) & (w * 8 < high)
    assert torch.equal(integers[inside], torch.round(w[inside] * 8))


def test_nine_bits_are_lava_dls_quantize_hook() -> None:
    """Its num_bits=8 clamps to -2 * 2**8 / scale and 2 * (2**8 - 1) / scale."""
    w = drawn(1000) * 20
    expected = (torch.round(w / (2 / 64)) * (2 / 64)).clamp(-512 / 64, 510 / 64)
    assert torch.equal(Quantizer(bits=9)(w), expected)


def test_the_gradient_passes_straight_through_inside_the_range() -> None:
    w = torch.tensor([0.013, -1.7, 9.0, -9.0], requires_grad=True)
    (q8(w) * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert torch.equal(w.grad, torch.tensor([1.0, 2.0, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"bits": 1}, "bits must be 2 to 16, got 1"),
        ({"bits": 17}, "bits must be 2 to 16, got 17"),
        ({"bits": 8.0}, "bits must be 2 to 16, got 8.0"),
        ({"scale": float("inf")}, "scale must be positive, got inf"),
        ({"scale": 0}, "scale must be positive, got 0"),
        ({"scale": float("nan")}, "scale must be positive, got nan"),
        ({"scale": 33.3}, "scale must be an integer of at most 2..100, got 33.3"),
        ({"scale": 1e300}, "scale must be an integer of at most 2..100, got 1e.300"),
    ],
)
def test_quantizers_that_make_no_sense(kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(so.InputError, match=message):
        Quantizer(**kwargs)


# -- grids -------------------------------------------------------------------------------------


def test_the_grid_of_q8_weights() -> None:
    w = q8(drawn(6, 5, 3, 3, 1))
    grid = find_grid(w)
    assert grid is not None
    assert torch.equal(product(grid), w)
    assert (grid.integers.dtype, grid.bits, grid.scale.tolist()) == (torch.int8, 8, [1 / 32])
    assert is_power_of_two(grid.scale)


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(-8, 7, 4), (-9, 7, 8), (-8, 8, 8), (-128, 127, 8), (-129, 0, 16), (0, 128, 16),
     (-32768, 32767, 16)],
)  # fmt: skip
def test_the_narrowest_width_is_taken(low: int, high: int, bits: int) -> None:
    assert stored_bits(low, high) == bits
    w = torch.tensor([[low, high, 1.0]]) / 4
    grid = find_grid(w)
    assert grid is not None
    assert grid.bits == bits
    assert torch.equal(product(grid), w)


def test_a_power_of_two_is_preferred_to_fewer_bits() -> None:
    grid = find_grid(torch.tensor([[3.0, 6.0, -9.0]]))
    assert grid is not None
    assert (grid.scale.tolist(), grid.integers.tolist()) == ([1.0], [[3, 6, -9]])


def test_one_scale_a_channel() -> None:
    w = drawn(7, 4, 3, 3, 1)
    scale = w.abs().amax(dim=(1, 2, 3, 4), keepdim=True) / 127
    w = torch.round(w / scale) * scale
    grid = find_grid(w)
    assert grid is not None
    assert grid.scale.shape == (7,)
    assert torch.equal(product(grid), w)
    assert find_grid(w, channel_axis=None) is None


def test_one_scale_a_channel_on_another_axis() -> None:
    scale = torch.tensor([0.1, 0.7, 0.33]).reshape(1, 3, 1, 1, 1)
    integers = torch.randint(-127, 128, (5, 3, 2, 2, 1), generator=torch.Generator().manual_seed(0))
    w = integers * scale
    grid = find_grid(w, channel_axis=1)
    assert grid is not None
    assert grid.scale.shape == (3,)
    assert torch.equal(product(grid, axis=1), w)


@pytest.mark.parametrize(
    "values", [[0.0, 0.0], [0.0, -0.0], [0.37, 0.0], [-1e-30, 2e-30], [3e38, -1.5e38]]
)
def test_small_and_strange_weights(values: list[float]) -> None:
    w = torch.tensor([values])
    grid = find_grid(w)
    assert grid is not None
    assert torch.equal(product(grid), w + 0.0)


def test_float_weights_have_no_grid() -> None:
    assert find_grid(drawn(8, 30)) is None
    # a grid, but of more than 16 bits
    for least in (65536.0, -32769.0, 32768.0):
        assert find_grid(torch.tensor([[1.0, least]]), channel_axis=None) is None
    for last in (-32768.0, 32767.0):
        assert find_grid(torch.tensor([[1.0, last]]), channel_axis=None) is not None


def test_scales_multiply_exactly_where_all_are_powers_of_two() -> None:
    for scales, exact in (
        ([0.5, 2.0, 1 / 32], True), ([1.0], True), ([0.5, 0.3], False), ([3.0, 4.0], False),
    ):  # fmt: skip
        assert is_power_of_two(torch.tensor(scales)) == exact


@settings(max_examples=200, deadline=None)
@given(
    integers=hnp.arrays(np.int32, (3, 8), elements=st.integers(-127, 127)),
    scale=st.floats(2.0**-20, 2.0**10, width=32),
)
def test_any_scale_is_found_to_the_last_bit(integers: np.ndarray, scale: float) -> None:
    w = torch.from_numpy(integers.astype(np.float32) * np.float32(scale))
    grid = find_grid(w)
    assert grid is not None
    assert torch.equal(product(grid), w)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, (2, 5), elements=st.floats(-1e6, 1e6, width=32)))
def test_whatever_is_found_gives_the_weights_back(values: np.ndarray) -> None:
    w = torch.from_numpy(values)
    grid = find_grid(w)
    if grid is None:
        assert len(np.unique(np.abs(values))) > 1
    else:
        assert torch.equal(product(grid), w + 0.0)


def test_sums_too_large_for_float32_are_taken_in_two_parts() -> None:
    """700 weights near 2**15 sum to more than 2**24: float32 alone would round."""
    generator = torch.Generator().manual_seed(0)
    integers = 32767 - 2 * torch.randint(0, 50, (3, 700), generator=generator)
    layer = so.synapse.Dense(700, 3, pre_hook_fx=lambda w: w)
    with torch.no_grad():
        layer.weight.copy_(integers.reshape(3, 700, 1, 1, 1))
    frozen = so.freeze(layer)
    assert frozen.weight_high is not None
    assert frozen.describe()["wide"]
    x = (torch.rand(2, 700, 5, generator=generator) < 0.9).float()
    exact = torch.einsum("oc,nct->not", integers.double(), x.double())
    assert float(exact.max()) > 2**24
    # correctly rounded once from the exact sum
    assert torch.equal(frozen(x), exact.float())
    model = so.export(layer, x)
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), exact.float().numpy())
    assert torch.equal(frozen.effective_weight, layer.weight)
    # the layer itself rounds its sum, so equality with it cannot be demanded
    report = so.verify(layer, model, x)
    assert report.ok, str(report)
    assert not report.layers[0].exact
    complex_layer = so.synapse.complex.Dense(700, 3, pre_hook_fx=lambda w: w)
    with torch.no_grad():
        complex_layer.real.weight.copy_(layer.weight)
        complex_layer.imag.weight.copy_(torch.sign(layer.weight))
    real, imag = so.Session(so.export(complex_layer, x)).run(x.numpy())
    np.testing.assert_array_equal(real, exact.float().numpy())
    np.testing.assert_array_equal(imag, x.sum(1, keepdim=True).expand(2, 3, 5).numpy())
