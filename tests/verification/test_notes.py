"""A Loihi neuron whose threshold no state reaches is silent, and the report says why."""

from __future__ import annotations

import pytest
from networks import spikes
from torch import nn

import synapse_onnx as so
from synapse_onnx.quantize import q8

X = spikes(2, 6, 5)


def notes(threshold: float, regime: str, *, readout: bool = False) -> list[str]:
    net = nn.Sequential(
        so.synapse.Dense(6, 4, pre_hook_fx=q8),
        so.neuron.cuba.Neuron(threshold, 0.25, 0.1, regime=regime),
    )
    if readout:
        net[1].as_readout()
    report = so.verify(net, so.export(net, X), X)
    assert report.ok, str(report)
    return [note for note in report.notes if "never spikes" in note]


@pytest.mark.parametrize("threshold", [2048, 10_000])
def test_a_threshold_beyond_24_bits_is_noted(threshold: int) -> None:
    assert notes(threshold, "loihi") == [
        "1: its threshold is beyond Loihi's 24 bits, so it never spikes"
    ]


@pytest.mark.parametrize(
    ("threshold", "regime", "readout"),
    [(2047, "loihi", False), (1, "loihi", True), (10_000, "slayer", False)],
    ids=["within", "readout", "64 bits"],
)
def test_other_thresholds_are_not(threshold: int, regime: str, readout: bool) -> None:
    assert notes(threshold, regime, readout=readout) == []
