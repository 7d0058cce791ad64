"""The trained network of the recipe ``digits``, with float weights, quantised."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

import synapse_onnx as so
from exporters.digits import Digits, data

CHECKPOINT = Path(__file__).parents[2] / "models" / "digits.pt"


@cache
def _trained() -> Digits:
    network = Digits(None)
    network.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    return network.eval()


@pytest.mark.parametrize(
    ("bits", "per_channel", "calibrated", "least"),
    [(8, True, False, 0.97), (4, True, True, 0.97), (4, True, False, 0.94), (4, False, True, 0.95)],
)
def test_accuracy_of_a_trained_network(
    bits: int, per_channel: bool, calibrated: bool, least: float
) -> None:
    train, _, test, labels = data()
    calibration = train[:64] if calibrated else None
    small = so.quantize.apply(_trained(), bits, per_channel, calibration)
    found = so.quantize.compare(_trained(), small, test, labels)
    assert found.accuracy is not None
    before, after = found.accuracy
    assert before > 0.97
    assert after > least
    model = so.export(small, test[:1])
    assert so.verify(small, model, test[:4]).ok
    spikes = so.Session(model).run(test.numpy())
    classes = torch.from_numpy(spikes).sum(-1).argmax(1)
    assert float((classes == labels).double().mean()) == pytest.approx(after, abs=1e-9)
    weights = {t.name: t for t in model.graph.initializer if t.name in _WEIGHTS}
    sizes = [len(t.raw_data) for t in weights.values()]
    numbers = [144, 4608, 5120]
    assert sizes == [n if bits == 8 else n // 2 for n in numbers]


_WEIGHTS = ("conv1.weight", "conv2.weight", "dense.weight")


def test_calibration_halves_the_flips_of_four_bits() -> None:
    train, _, test, _ = data()
    flips = []
    for calibration in (None, train[:64]):
        small = so.quantize.apply(_trained(), 4, False, calibration)
        row = so.quantize.compare(_trained(), small, test).output
        assert row is not None
        flips.append(row.share)
    assert flips[1] < 0.7 * flips[0]
