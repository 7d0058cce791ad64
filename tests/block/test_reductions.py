"""Time decimation and averages against plain sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from plain_equations import IDS, SHAPES, through_onnx, values

import synapse_onnx as so


@pytest.mark.parametrize("factor", [1, 4, 16])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_time_decimation(shape: tuple[int, ...], factor: int) -> None:
    block, x = so.block.cuba.TimeDecimation(factor), values(*shape, unit=1 / 32)
    bins = -(-shape[-1] // factor)
    expected = np.zeros((*shape[:-1], bins), dtype=np.float32)
    for index in np.ndindex(*expected.shape):
        first = index[-1] * factor
        expected[index] = sum(x[index[:-1]][first : first + factor].tolist()) / factor
    assert expected.any()
    np.testing.assert_array_equal(block.train()(x).numpy(), expected)
    np.testing.assert_array_equal(block.eval()(x).numpy(), expected)
    if factor == 4:
        np.testing.assert_array_equal(through_onnx(block, x), expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(2, 12, 25), (1, 2, 2, 3, 12)], ids=IDS)
def test_average(shape: tuple[int, ...], groups: int) -> None:
    block, x = so.block.cuba.Average(groups), values(*shape, unit=1 / 32)
    neurons = math.prod(shape[1:-1])
    size = neurons // groups
    rows = x.reshape(shape[0], neurons, shape[-1]).tolist()
    expected = np.zeros((shape[0], groups, shape[-1]), dtype=np.float32)
    for n, group, t in np.ndindex(*expected.shape):
        members = rows[n][group * size : (group + 1) * size]
        expected[n, group, t] = np.float32(sum(row[t] for row in members)) / np.float32(size)
    assert expected.any()
    np.testing.assert_array_equal(block.train()(x).numpy(), expected)
    np.testing.assert_array_equal(block.eval()(x).numpy(), expected)
    if groups == 4:
        np.testing.assert_array_equal(through_onnx(block, x), expected)
