"""Norms and dropout by themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import synapse_onnx as so
from synapse_onnx.neuron.dropout import Dropout
from synapse_onnx.neuron.norm import MeanOnlyBatchNorm, WgtScaleBatchNorm


@pytest.mark.parametrize("norm", [MeanOnlyBatchNorm, WgtScaleBatchNorm])
def test_a_norm_that_has_seen_nothing(norm: Any) -> None:
    layer = norm().eval()
    assert (layer.momentum, layer.update, layer.pre_hook_fx) == (0.1, True, None)
    x = torch.randn(2, 3, 4)
    # no variance at all is the least exponent, -3
    assert torch.equal(layer(x), x if norm is MeanOnlyBatchNorm else 8 * x)
    assert torch.equal(norm(3)(x[..., 0]).mean(), norm()(x[..., 0]).mean()), "(N, C) will do"
    assert norm(7).running_mean.shape == (7,)
    with pytest.raises(so.ShapeError, match=r"got an input of shape \(3,\)"):
        layer(torch.zeros(3))
    with pytest.raises(so.ShapeError, match=r"expected 7 channels \(axis 1\), got an input"):
        norm(7)(x)
    for momentum in (-0.1, 1.1, math.nan):
        with pytest.raises(so.InputError, match=r"momentum must lie in \[0, 1\]"):
            norm(momentum=momentum)


@pytest.mark.parametrize("norm", [MeanOnlyBatchNorm, WgtScaleBatchNorm])
def test_a_norm_for_hardware(norm: Any) -> None:
    """Its bias is minus the mean; frozen, it keeps the quantised mean and its power of two."""
    torch.manual_seed(0)
    layer = norm(momentum=1.0).train()
    x = 5 + 3 * torch.randn(4, 2, 30)
    layer(x)
    mean = layer.running_mean.clone()
    assert torch.equal(layer.bias, -mean)
    if norm is WgtScaleBatchNorm:  # of n numbers n / (n + 1) of it, as lava-dl has it
        variance = x.var(unbiased=False) * x.numel() / 2
        torch.testing.assert_close(layer.running_var[0], variance / (x.numel() / 2 + 1))
        assert layer.weight_exp.item() == 2
    layer.pre_hook_fx = so.quantize.q8
    assert torch.equal(layer.bias, -so.quantize.q8(mean, descale=True))
    x = torch.randn(2, 2, 5)
    expected = layer.eval()(x)
    layer.freeze()
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer.running_mean, so.quantize.q8(mean))
    assert layer.pre_hook_fx is None
    assert not layer.training
    fresh = norm()
    fresh.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "frozen_std"})
    assert torch.equal(fresh.eval()(x), expected)
    fresh.num_features = None
    with pytest.raises(so.ShapeError, match="statistics of 2 channels and an input of shape"):
        fresh(torch.zeros(1, 5, 3))


def test_dropout_of_nothing_and_of_all() -> None:
    x = 1 + torch.rand(2, 3, 4)
    assert Dropout(0.3).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert not Dropout(1.0).train()(x).any()
    with pytest.raises(so.ShapeError, match=r"dropout: expected spikes .* got shape \(2, 3\)"):
        Dropout(0.3).train()(x[..., 0])
