"""The sigma-delta neuron."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_equations import IDS, SHAPES, assert_some_spike, encoded, summed, through_onnx, values

import synapse_onnx as so


@pytest.mark.parametrize("cumulative", [False, True], ids=["change", "cumulative"])
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "channels"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_sigma_delta_neuron(shape, shared, bias, cumulative) -> None:
    neuron = so.neuron.sigma_delta.Neuron(
        0.7, torch.relu, cum_error=cumulative, shared_param=shared
    )
    x = values(*shape) - 0.2  # the sums pass zero, where relu counts
    neuron(x)
    if not shared:
        neuron.delta.threshold.data = torch.linspace(0.3, 1.1, shape[1])
    sums = summed(x.numpy())
    if bias:
        offsets = values(*shape[1:-1], seed=5)
        neuron.set_bias(offsets)
        sums = sums + offsets.numpy()[None, ..., None]
    level = neuron.threshold.detach().numpy()
    if shared:
        assert level == 44 / 64, "the threshold lies on the grid of the weights"
    expected = encoded(np.maximum(sums, np.float32(0)), level, neuron.s_scale, cumulative)
    assert_some_spike(expected)
    np.testing.assert_array_equal(neuron.train()(x).detach().numpy(), expected)
    np.testing.assert_array_equal(neuron.eval()(x).detach().numpy(), expected)
    if bias and cumulative and not shared:
        np.testing.assert_array_equal(through_onnx(neuron, x), expected)
