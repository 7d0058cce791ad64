"""Integers with a real number beside them, which carries the gradient."""

from __future__ import annotations

import pytest
import torch

from synapse_onnx.ops.arithmetic import Pair


def test_pairs_compute_with_the_integer_and_the_real_number_alike() -> None:
    def pair(value: int, real: float) -> Pair:
        return Pair(torch.tensor([value]), torch.tensor([real]), 64)

    one, other = pair(12, 0.3), pair(5, 0.1)
    for found, value, real in (
        (one + other, 17, 0.4), (one - other, 7, 0.2), (one * 3, 36, 0.9), (3 * one, 36, 0.9),
        (one + 64, 76, 1.3), (64 + one, 76, 1.3), (one - 64, -52, -0.7), (64 - one, 52, 0.7),
    ):  # fmt: skip
        assert int(found.value) == value
        assert float(found.real) == pytest.approx(real)
        assert found.scale == 64
    assert [bool(one >= 12), bool(one >= 13), bool(one < 12), bool(one < 13)] == [
        True, False, False, True,
    ]  # fmt: skip
    exact = one.exact()
    assert (int(exact.value), float(exact.real)) == (12, 12 / 64)
