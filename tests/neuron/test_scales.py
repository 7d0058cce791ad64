"""Scales and thresholds that no arithmetic of ours can hold: one sentence in the constructor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import synapse_onnx as so

CUBA = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}


def cuba(**changes: Any) -> Any:
    return so.neuron.cuba.Neuron(**(CUBA | changes))


@pytest.mark.parametrize("make", [cuba, lambda scale: so.axon.Delta(0.5, scale=scale)])
@pytest.mark.parametrize("scale", [0, -64, 64.5, float("nan"), float("inf"), None, "64"])
def test_a_scale_is_a_positive_integer(make: Any, scale: Any) -> None:
    with pytest.raises(so.InputError, match="scale must be a positive integer, got ") as caught:
        make(scale=scale)
    assert str(scale) in str(caught.value)


@pytest.mark.parametrize("make", [cuba, lambda scale: so.axon.Delta(0.5, scale=scale)])
def test_a_scale_leaves_room_for_a_state_of_one(make: Any) -> None:
    with pytest.raises(so.InputError, match=r"scale must be at most 2\*\*44, .* 64 bits, got "):
        make(scale=1 << 45)


@pytest.mark.parametrize("scale", [64, 64.0, torch.tensor(64)])
def test_whole_numbers_of_any_type_are_scales(scale: Any) -> None:
    assert cuba(scale=scale).s_scale == 4096


@pytest.mark.parametrize("threshold", [2.0**39, 1e15, 1e30])
def test_a_threshold_that_64_bits_never_reach(threshold: float) -> None:
    with pytest.raises(so.InputError, match=r"threshold must be below 5\.49756e\+11, .* 64 bits"):
        cuba(threshold=threshold)
    assert cuba(threshold=threshold, regime="float").threshold == threshold


def test_a_large_threshold_is_found_at_once() -> None:
    k = cuba(threshold=1e11).integer_threshold
    states = torch.tensor([k - 1, k]).to(torch.float32) / 4096
    assert (states >= 1e11).tolist() == [False, True]


def test_a_loihi_threshold_that_24_bits_never_reach_is_a_readout() -> None:
    """Networks of lava-dl read voltages so: tests/reference/net_cuba_recurrent.net has one."""
    neuron = cuba(threshold=4095.984375, voltage_decay=0.0, regime="loihi")
    assert float(neuron(torch.full((1, 1, 40), 600.0)).sum()) == 0


def test_the_largest_loihi_threshold_is_reached() -> None:
    neuron = cuba(threshold=2047.984375, voltage_decay=0.0, regime="loihi")
    spikes = neuron(torch.full((1, 1, 12), 600.0))
    assert float(spikes.sum()) > 0
