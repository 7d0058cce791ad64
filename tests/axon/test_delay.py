"""Delays of channels and of neurons."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plain_equations import IDS, SHAPES, through_onnx, values

import synapse_onnx as so


@pytest.mark.parametrize("each", [False, True], ids=["channels", "every-neuron"])
@pytest.mark.parametrize("sampling_time", [1, 0.5, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_axonal_delay(shape, sampling_time, each) -> None:
    axon, x = so.axon.Delay(sampling_time=sampling_time), values(*shape)
    neurons = math.prod(shape[1:-1])
    delays = torch.rand(neurons if each else shape[1]) * 7
    delays[0] = 6.5  # one delay is longer than a step, whatever is drawn
    axon.load_state_dict({"delay": delays})
    expected = np.zeros(shape, dtype=np.float32)
    for index in np.ndindex(*shape[:-1]):
        place = np.ravel_multi_index(index[1:], shape[1:-1]) if each else index[1]
        steps = math.floor(float(delays[place]) / sampling_time)
        for t in range(steps, shape[-1]):
            expected[(*index, t)] = x[(*index, t - steps)]
    assert (expected != x.numpy()).mean() > 0.01
    assert expected.any()
    np.testing.assert_array_equal(axon.train()(x).detach().numpy(), expected)
    np.testing.assert_array_equal(axon.eval()(x).detach().numpy(), expected)
    if sampling_time == 0.5 and each:
        np.testing.assert_array_equal(through_onnx(axon, x), expected)
