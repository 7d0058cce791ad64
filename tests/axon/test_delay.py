"""Axonal delays: their equation, what they leave to compute, and which are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from networks import assert_exact, spikes
from plain_equations import IDS, SHAPES, through_onnx, values
from torch import nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


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


def delay_of(values: list[float], **arguments: Any) -> so.axon.Delay:
    delay = so.axon.Delay(**arguments)
    delay.load_state_dict({"delay": torch.tensor(values)})
    return delay.eval()


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)])
@pytest.mark.gpu
def test_delays_of_channels_and_of_neurons(shape: tuple[int, ...]) -> None:
    x = spikes(2, *shape, 12, rate=0.5)
    neurons = int(np.prod(shape))
    for delays in ([0.0, 2.9, 5.0], [i * 0.7 for i in range(neurons)], [3.2], [40.0] * 3):
        delay = delay_of(delays)
        groups = x.reshape(2, len(delays), -1, 12)
        expected = torch.zeros_like(groups)
        for g, value in enumerate(delays):
            steps = int(value)
            if steps < 12:
                expected[:, g, :, steps:] = groups[:, g, :, : 12 - steps]
        with torch.no_grad():
            assert torch.equal(delay(x), expected.reshape(x.shape))
        assert_exact(nn.Sequential(delay), x)


@pytest.mark.gpu
def test_delays_of_nothing_leave_nothing_to_compute() -> None:
    delay, x = delay_of([0.0, 0.9]), spikes(2, 2, 9)
    model = so.export(nn.Sequential(delay), x)
    assert not [node for node in model.graph.node if node.op_type == "Delay"]
    assert so.verify(nn.Sequential(delay), model, x).ok


@pytest.mark.gpu
def test_delays_out_of_range_are_refused() -> None:
    with pytest.raises(so.InputError, match="delays must be >= 0, got -1"):
        delay_of([0.0, -1.0])
    with pytest.raises(so.InputError, match="a delay of 7 is longer than max_delay = 5"):
        delay_of([7.0], max_delay=5)
    with pytest.raises(so.InputError, match="max_delay must be a finite number >= 0"):
        so.axon.Delay(-1)
    with pytest.raises(so.InputError, match="draws its delays with the first input"):
        so.freeze(nn.Sequential(so.axon.Delay(5)))
    with pytest.raises(so.ShapeError, match="it holds 2 delays, and the input"):
        delay_of([1.0, 2.0])(spikes(1, 3, 5))
    trained = so.axon.Delay(5)
    trained(spikes(1, 3, 5))
    trained.delay.data += 100  # as an optimiser may
    trained(spikes(1, 3, 5))
    assert float(trained.delay.detach().max()) == 5
