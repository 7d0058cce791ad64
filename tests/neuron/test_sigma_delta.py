"""The sigma-delta neuron: its equation, its activation, its bias, its states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import assert_exact, spikes
from neurons import made
from plain_equations import IDS, SHAPES, assert_some_spike, encoded, summed, through_onnx, values
from torch import nn

import synapse_onnx as so
from synapse_onnx.verification.membranes import undecided

pytestmark = pytest.mark.usefixtures("compiled_once")


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


def test_an_activation_is_a_function_or_none() -> None:
    with pytest.raises(so.InputError, match="activation must be a function of a tensor, or None"):
        made("sigma_delta", activation="relu")
    assert made("sigma_delta", activation=None).device_params["activation"] == "none"
    assert made("sigma_delta").device_params["activation"] == "relu"


def test_the_bias_of_a_sigma_delta_neuron() -> None:
    """One for all, one a channel or one a neuron; that of a checkpoint counts unless it is 0."""
    x = torch.zeros(1, 3, 2, 2, 3)
    for bias in (torch.tensor([0.5]), torch.tensor([0.5, 1.0, 2.0]), torch.rand(3, 2, 2)):
        neuron = made("sigma_delta", threshold=0.0)
        neuron.set_bias(bias)
        sent = neuron(x)
        shape = bias.shape if bias.dim() == 3 else (-1, 1, 1)
        expected = (bias.reshape(shape) * 4096).floor().expand(3, 2, 2) / 4096
        torch.testing.assert_close(sent.sum(-1)[0], expected, rtol=0, atol=2 / 4096)
        fresh = made("sigma_delta", threshold=0.0)
        fresh.load_state_dict(neuron.state_dict())
        assert fresh.bias_is_set
        assert torch.equal(fresh(x), sent)
    small, zero = made("sigma_delta"), made("sigma_delta")
    small.load_state_dict({**zero.state_dict(), "bias": torch.tensor([0.0, 1.0])})
    zero.load_state_dict({**zero.state_dict(), "bias": torch.zeros(2)})
    assert (small.bias_is_set, zero.bias_is_set) == (True, False)
    wrong = made("sigma_delta")
    wrong.set_bias(torch.ones(3, 2, 2))
    with pytest.raises(so.ShapeError, match=r"the bias has shape \(3, 2, 2\) and the current"):
        wrong(torch.zeros(1, 3, 2, 4, 3))


def test_encoder_and_decoder_keep_their_states_together() -> None:
    neuron = made("sigma_delta", persistent_state=True)
    assert neuron.sigma.persistent_state
    assert neuron.delta.persistent_state
    x = torch.rand(1, 3, 20, generator=torch.Generator().manual_seed(0)) - 0.4
    whole = made("sigma_delta")(x)
    assert torch.equal(torch.cat([neuron(x[..., :7]), neuron(x[..., 7:])], -1), whole)
    neuron.reset()
    assert torch.equal(neuron(x), whole)
    neuron.persistent_state = False
    assert torch.equal(neuron(x), whole)
    assert not neuron.delta.persistent_state
    assert not undecided(neuron, (x,), 1.0, 0.0).any()


@pytest.mark.gpu
def test_a_sigma_delta_neuron_has_a_bias() -> None:
    neuron = made("sigma_delta")
    neuron.set_bias(torch.tensor([0.5, -0.5, 0.0]))
    x = torch.zeros(1, 3, 4)
    assert neuron(x).detach()[0, :, 0].tolist() == [0.5, 0.0, 0.0]
    fresh = made("sigma_delta")
    fresh.load_state_dict(neuron.state_dict())
    assert torch.equal(fresh(x), neuron(x))
    assert_exact(nn.Sequential(neuron), spikes(2, 3, 15))
