"""Resonators: their period and decay, and the pairs that they take."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from neurons import ADAPTIVE, RESONATORS, drawn, made
from torch import Tensor

import synapse_onnx as so


@pytest.mark.parametrize("kind", RESONATORS)
def test_a_period_has_four_steps_at_the_least(kind: str) -> None:
    neuron = made(kind, period=4)
    assert neuron.period == pytest.approx(4, rel=1e-3)
    assert neuron.decay == pytest.approx(0.1, abs=1e-3)
    assert neuron.frequency == pytest.approx(0.25, rel=1e-3)
    assert neuron.lam == pytest.approx(-math.log(0.9), rel=1e-2)
    floats = made(kind, period=5, regime="float")
    assert floats.period == pytest.approx(5, rel=1e-5)
    assert floats.decay == pytest.approx(0.1, rel=1e-5)
    for period in (3.99, math.inf, math.nan):
        with pytest.raises(so.InputError, match="period must be at least 4 time steps and finite"):
            made(kind, period=period)
    with pytest.raises(so.InputError, match="period must be a number when shared_param is True"):
        made(kind, period=(5, 8))
    for pair, sentence in (
        ((5, 6, 7), r"a number or a pair \(least, most\) when shared_param is False"),
        ((8, 5), "at least 4 time steps"),
    ):
        with pytest.raises(so.InputError, match=sentence):
            made(kind, period=pair, shared_param=False)


@pytest.mark.parametrize("log_init", [None, True, False])
@pytest.mark.parametrize("kind", RESONATORS)
def test_channels_take_their_periods_from_the_range(kind: str, log_init: bool | None) -> None:
    torch.manual_seed(0)
    said = {} if log_init is None else {"log_init": log_init}
    neuron = made(kind, period=(5, 50), decay=(0.1, 0.3), shared_param=False, **said)
    log_init = log_init is not False
    neuron(drawn(kind, 1, 40, 3))
    period, decay = neuron.period, neuron.decay
    assert period.shape == decay.shape == (40,)
    assert 4.9 < period.min() < 8
    assert period.max() == pytest.approx(50, rel=0.05) if log_init else period.max() < 51
    assert 0.09 < decay.min() < decay.max() < 0.31
    assert decay.max() - decay.min() > 0.1
    ratios = neuron.frequency[1:] / neuron.frequency[:-1]
    assert (np.ptp(ratios) < 0.02) == log_init, "equal ratios"
    if kind in ADAPTIVE:
        for name in ("threshold_decay", "refractory_decay"):
            assert getattr(neuron, name).shape == (40,)
    jittered = made(kind, period=20, decay=0.2, shared_param=False)
    jittered(drawn(kind, 1, 40, 3))
    assert 19.7 < jittered.period.min() < jittered.period.max() < 20.3
    assert 0.19 < jittered.decay.min() < jittered.decay.max() < 0.21


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(1, 2, 3), r"one real tensor of shape \(1, 2, 3\)"),
        ([torch.zeros(1, 2, 3)] * 3, "a list of 3"),
        ((), "a tuple of 0"),
        (None, "a NoneType"),
    ],
)
def test_a_resonator_takes_a_pair(given: Any, said: str) -> None:
    with pytest.raises(so.ShapeError, match=f"expected a complex current, a pair .*got {said}"):
        made("rf")(given)
    if not isinstance(given, Tensor):
        with pytest.raises(so.ShapeError, match=f"one tensor, and got {said}; a complex"):
            made("cuba")(given)


def test_the_parts_of_a_pair_have_one_shape() -> None:
    with pytest.raises(so.ShapeError, match=r"the real current has shape \(1, 2, 3\) and the imag"):
        made("rf")((torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)))
    y = made("rf")([torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)])
    assert y.shape == (1, 2, 3)
