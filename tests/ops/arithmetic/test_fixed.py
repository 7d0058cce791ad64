"""Fixed-point arithmetic against Python's integers and NumPy's float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synapse_onnx.ops.arithmetic import fixed

#: states from one to the largest that a product with 4096 leaves within 64 bits, of both signs
STATES = [s * (1 << b) + d for b in range(0, 50, 7) for s in (1, -1) for d in (-1, 0, 1)]


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 4095, 4096])
def test_a_decay_is_truncated_towards_zero(keep: int) -> None:
    found = fixed.decay_state(torch.tensor(STATES), torch.tensor(keep))
    expected = [abs(s * keep) // 4096 * (1 if s > 0 else -1) for s in STATES]
    assert found.tolist() == expected
    assert any(s * keep < 0 and s * keep % 4096 for s in STATES) or keep in (0, 4096)


@pytest.mark.parametrize("scale", [1, 64, 6400, 4096])
def test_numbers_come_in_truncated_and_leave_as_float32(scale: int) -> None:
    x = torch.tensor([0.0, 0.1, -0.1, 1.99999, -1.99999, 7.5, -1e6, 0.7])
    # the product is rounded to float32 before it is cut off
    expected = [int(np.float32(scale) * np.float32(value)) for value in x.tolist()]
    found = fixed.to_fixed(x, scale)
    assert found.dtype == torch.int64
    assert found.tolist() == expected
    y = fixed.to_float(torch.tensor(STATES), scale)
    assert y.dtype == torch.float32
    plain = [np.float32(state) / np.float32(scale) for state in STATES]
    np.testing.assert_array_equal(y.numpy(), np.array(plain))


@pytest.mark.parametrize("scale", [1, 64, 4096])
@pytest.mark.parametrize(
    "threshold", [0.0, 1e-6, 0.5, 0.7, 1.0, 1.25, 3.3, 1000.1, (1 << 24) + 2.0, 2.0**30 + 64]
)
def test_the_integer_threshold_is_the_least_that_spikes(threshold: float, scale: int) -> None:
    k = fixed.integer_threshold(threshold, scale)
    limit = np.float32(threshold * scale)
    assert np.float32(k) >= limit
    assert np.float32(k - 1) < limit


def counted_down(threshold: float, scale: int) -> int:
    """The least integer that spikes, found one by one."""
    limit = np.float32(threshold * scale)
    k = int(np.ceil(limit))
    while np.float32(k - 1) >= limit:
        k -= 1
    return k


def neighbours(value: float) -> list[float]:
    """Float32 numbers around a value, and numbers between them."""
    above = [float(np.nextafter(np.float32(value), np.float32(end))) for end in (np.inf, -np.inf)]
    return [value, *above, *((value + x) / 2 for x in above), value - 1, value + 1, value + 0.5]


@pytest.mark.parametrize("scale", [1, 64, 6400])
@pytest.mark.parametrize("exponent", [*range(-6, 36, 3), 23, 24, 25, 26])
def test_the_integer_threshold_is_that_of_counting(exponent: int, scale: int) -> None:
    generator = np.random.default_rng(exponent + 10)
    drawn = [float(x) * 2.0**exponent for x in generator.uniform(0.5, 2, 20)]
    for value in [*neighbours(2.0**exponent), *neighbours(1.5 * 2.0**exponent), *drawn]:
        for threshold in (value / scale, -value / scale):
            assert fixed.integer_threshold(threshold, scale) == counted_down(threshold, scale)


@pytest.mark.parametrize("threshold", [1e12, 2.0**48 + 2.0**26, 2.0**50, 2.0**60, 3.0**38])
def test_the_integer_threshold_of_large_numbers(threshold: float) -> None:
    k = fixed.integer_threshold(threshold, 1)
    limit = torch.tensor(threshold, dtype=torch.float32)
    states = torch.tensor([k - 1, k]).to(torch.float32)
    assert [bool(state >= limit) for state in states] == [False, True]


def test_the_constants_are_those_of_lava_dl() -> None:
    assert fixed.DECAY_ONE == 4096
    assert np.iinfo(np.int64).max == fixed.NO_THRESHOLD
