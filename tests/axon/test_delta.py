"""The delta encoder against a plain statement of its equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_equations import IDS, SHAPES, assert_some_spike, encoded, through_onnx, values

import synapse_onnx as so


@pytest.mark.parametrize("cumulative", [False, True], ids=["change", "cumulative"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "channels"])
@pytest.mark.parametrize("scale", [64, 100])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_delta_encoder(shape, scale, shared, cumulative) -> None:
    encoder = so.axon.Delta(0.61, scale, cum_error=cumulative, shared_param=shared)
    x = values(*shape)
    encoder(x)
    if not shared:
        encoder.threshold.data = torch.linspace(0.3, 1.1, shape[1])
    expected = encoded(x.numpy(), encoder.threshold.detach().numpy(), scale, cumulative)
    assert_some_spike(expected)
    np.testing.assert_array_equal(encoder.train()(x).detach().numpy(), expected)
    np.testing.assert_array_equal(encoder.eval()(x).detach().numpy(), expected)
    if not shared and len(shape) == 5:
        np.testing.assert_array_equal(through_onnx(encoder, x), expected)
