"""Where roundings decide on what torch gives: at a threshold, and never where sums are exact."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from synapse_onnx.compiler.roundings import OtherRoundings, decided


class Voltages(nn.Module):
    """A neuron whose voltages are read: (N, C, T) -> (N, C', T)."""

    def __init__(self, threshold: float, *, exact: bool = False) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        weight = torch.randn(5, 40, generator=draw)
        self.weight = (8 * weight).round() / 8 if exact else weight
        self.decay = 0.5 if exact else 0.9
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        v, voltages = torch.zeros(len(x), 5), []
        for x_t in x.unbind(-1):
            v = self.decay * v + x_t @ self.weight.T
            voltages.append(v)
            v = torch.where(v > self.threshold, torch.zeros_like(v), v)
        return torch.stack(voltages, -1)


def _of_network(network: nn.Module, x: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    """Until when each sample is decided, and which values are."""

    def call(inputs: Sequence[Tensor]) -> list[Tensor]:
        return [network(*inputs)]

    y = network(x)
    found = decided(call, [x], [y], [torch.where(wrong, y + 1, y)], [1e-4])
    return found.until, found.covers(y)


def test_a_sample_is_decided_until_a_value_is_at_its_threshold() -> None:
    x = torch.rand(3, 40, 12, generator=torch.Generator().manual_seed(1))
    voltages = Voltages(1e9)(x)
    sample, neuron, t = (int(i) for i in torch.unravel_index(voltages.argmax(), voltages.shape))
    assert t < 11
    network = Voltages(float(voltages[sample, neuron, t]))
    until, covered = _of_network(network, x, torch.ones(3, 5, 12, dtype=torch.bool))
    assert until.tolist() == [t + 1 if n == sample else 12 for n in range(3)]
    assert bool(covered[sample, :, : t + 1].all())
    assert not bool(covered[sample, :, t + 1 :].any())


def test_a_sample_that_does_not_differ_is_not_run() -> None:
    def fail(_: Sequence[Tensor]) -> list[Tensor]:
        raise AssertionError

    y = torch.rand(3, 5, 12)
    assert decided(fail, [y], [y], [y], [0.0]).until.tolist() == [12, 12, 12]


def test_exact_sums_are_decided_at_the_threshold_itself() -> None:
    x = torch.randint(0, 4, (3, 40, 12), generator=torch.Generator().manual_seed(1)).float()
    voltages = Voltages(1e9, exact=True)(x)
    network = Voltages(float(voltages[1].max()), exact=True)
    until, covered = _of_network(network, x, torch.ones(3, 5, 12, dtype=torch.bool))
    assert until.tolist() == [12, 12, 12]
    assert bool(covered.all())


@pytest.mark.parametrize(
    ("function", "moves"),
    [
        (lambda x: x * 0.1, True),
        (lambda x: x @ x.T, True),
        (lambda x: x.exp(), True),
        (lambda x: nn.functional.conv1d(x.unsqueeze(0), x[:, :, None]), True),
        (lambda x: x.sum(), True),
        (lambda x: x * 0.5, False),
        (lambda x: x.round() @ x.round().T, False),
        (lambda x: x.flip(0).clone(), False),
        (lambda x: x > 0, False),
        (lambda x: (100 * x.double()).sum(), False),
        (lambda x: x.clone().fill_(0.1), False),
    ],
)
def test_what_is_not_exact_moves_within_its_rounding(function, moves: bool) -> None:
    x = torch.randn(8, 8, generator=torch.Generator().manual_seed(2))
    y = function(x)
    moved = []
    for seed in range(4):
        with OtherRoundings(seed):
            other = function(x)
        assert other.dtype == y.dtype
        moved.append(not torch.equal(y, other))
        torch.testing.assert_close(other, y, rtol=1e-5, atol=1e-5)
    assert any(moved) == moves


def test_outputs_without_time_or_batch() -> None:
    x = torch.rand(3, 40, 12, generator=torch.Generator().manual_seed(1))
    voltages = Voltages(1e9)(x)
    sample = int(voltages.amax((1, 2)).argmax())
    network = Voltages(float(voltages[sample, :, :11].max()))

    def call(inputs: Sequence[Tensor]) -> list[Tensor]:
        y = network(*inputs)
        return [y.sum((1, 2)), y.sum()]

    expected = call([x])
    found = decided(call, [x], expected, [y + 1 for y in expected], [1e-3, 1e-3])
    assert [not bool(found.covers(expected[0])[n]) for n in range(3)] == [True, True, True]
    found = decided(call, [x], expected, [expected[0] + 1, expected[1]], [1e-3, 1e6])
    assert [not bool(found.covers(expected[0])[n]) for n in range(3)] == [
        n == sample for n in range(3)
    ]
