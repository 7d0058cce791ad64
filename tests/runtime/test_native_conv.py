"""Sums of a convolution that hands events out, and of one that collects them: torch's integers."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

import synapse_onnx as so
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)

#: inputs, outputs, kernel, stride, padding, dilation, height, width
SHAPES = [
    (1, 1, (1, 1), (2, 2), (0, 0), (1, 1), 1, 1),
    (3, 24, (3, 3), (2, 2), (0, 0), (1, 1), 13, 37),
    (2, 32, (3, 3), (1, 2), (1, 1), (1, 1), 9, 16),
    (5, 33, (5, 2), (3, 3), (2, 1), (2, 1), 17, 20),
    (2, 65, (2, 7), (2, 5), (0, 3), (1, 1), 7, 41),
    (2, 130, (3, 3), (2, 2), (1, 1), (1, 1), 5, 9),
    (40, 10, (3, 3), (2, 2), (1, 0), (1, 1), 6, 11),  # more rows than four words hold
    (1, 3, (1, 16), (1, 5), (0, 0), (1, 1), 2, 90),
    (1, 3, (1, 17), (1, 6), (0, 8), (1, 1), 2, 70),  # wider than eight of them in a word
    (2, 3, (3, 3), (2, 2), (1, 1), (1, 2), 8, 9),  # dilated: events are handed out
    (3, 5, (3, 3), (1, 1), (1, 1), (1, 1), 8, 9),
]


@functools.cache
def _case(index: int) -> tuple[torch.nn.Module, so.Session]:
    inputs, outputs, kernel, stride, padding, dilation, height, width = SHAPES[index]
    torch.manual_seed(index)
    synapse = so.synapse.Conv(
        inputs, outputs, kernel, stride, padding, dilation, weight_scale=3,
        pre_hook_fx=so.quantize.q8,
    )  # fmt: skip
    with torch.no_grad():
        synapse.weight.clamp_(-3.9, 3.9).view(-1)[0] = -4.0  # the largest magnitude of a byte
    synapse.eval()
    model = so.export(synapse, torch.zeros(1, inputs, height, width, 2))
    return synapse, so.Session(model, native=True)


@pytest.mark.parametrize("rate", [0.0, 0.002, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("index", range(len(SHAPES)), ids=[str(shape) for shape in SHAPES])
def test_spikes_of_any_rate(index: int, rate: float) -> None:
    synapse, session = _case(index)
    assert session.kernels == ("QuantizedConv",)
    inputs, _, _, _, _, _, height, width = SHAPES[index]
    draw = np.random.default_rng(index)
    x = (draw.random((2, inputs, height, width, 5)) < rate).astype(np.float32)
    with torch.no_grad():
        expected = synapse(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(session.run(x), expected)


def test_images_of_other_sizes_and_numbers_in_turn() -> None:
    """Scratch memory that calls hand on fits the next one."""
    draw = np.random.default_rng(0)
    sessions = [_case(1)[1], _case(4)[1]]
    for kind in ("spikes", "graded", "large", "real", "spikes"):
        for index, session in zip((1, 4), sessions, strict=True):
            inputs, _, _, _, _, _, height, width = SHAPES[index]
            x = (draw.random((1, inputs, height, width, 3)) < 0.2).astype(np.float32)
            if kind != "spikes":
                x *= draw.integers(-9, 9, x.shape) if kind == "graded" else 1000
            if kind == "real":
                x += 0.25
            with torch.no_grad():
                expected = _case(index)[0](torch.from_numpy(x)).numpy()
            tolerance = 1e-5 * np.abs(expected).max() if kind == "real" else 0
            np.testing.assert_allclose(session.run(x), expected, rtol=0, atol=tolerance)
