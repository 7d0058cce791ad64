"""Resonators: their period and decay, and the pairs that they take."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from networks import spikes
from neurons import ADAPTIVE, KINDS, RESONATORS, drawn, made
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


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
        ((8, 5), "period must be at least 4 time steps"),
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.gpu
def test_real_and_complex_are_not_mixed_up(kind: str) -> None:
    neuron = made(kind)
    x = torch.zeros(2, 3, 4)
    if kind in RESONATORS:
        with pytest.raises(so.ShapeError, match=f"{kind} neuron: expected a complex current, a"):
            neuron(x)
        with pytest.raises(so.ShapeError, match=r"real current has shape .* they must be equal"):
            neuron((x, x[..., :2]))
    else:
        with pytest.raises(so.ShapeError, match=f"{kind} neuron: expected a real current, one"):
            neuron((x, x))


@pytest.mark.parametrize("kind", RESONATORS)
@pytest.mark.gpu
def test_resonators_have_a_period_and_a_decay(kind: str) -> None:
    neuron = made(kind, period=10, decay=0.07)
    assert neuron.period == pytest.approx(10, rel=1e-3)
    assert neuron.decay == pytest.approx(0.07, abs=1e-3)
    assert neuron.lam == pytest.approx(-np.log(0.93), rel=1e-2)
    channels = made(kind, period=(4, 64), shared_param=False)
    x = torch.zeros(1, 9, 3)
    channels((x, x))
    ratios = channels.frequency[1:] / channels.frequency[:-1]
    assert ratios == pytest.approx(16 ** (1 / 8), rel=0.03)
    assert channels.sin_decay.shape == (9,)


@pytest.mark.parametrize("kind", RESONATORS)
@pytest.mark.gpu
def test_resonators_stay_stable_in_training(kind: str) -> None:
    neuron = made(kind, requires_grad=True)
    neuron.sin_decay.data.fill_(9000.0)
    neuron.cos_decay.data.fill_(-50.0)
    x = torch.zeros(1, 2, 3)
    neuron.train()((x, x))
    assert torch.hypot(neuron.sin_decay, neuron.cos_decay).max().item() <= 4095.5
    assert torch.count_nonzero(neuron.cos_decay).item() == 0


# -- in a network ----------------------------------------------------------------------------------


class Gated(nn.Module):
    """A real and a complex argument."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = made("rf")

    def forward(self, gate: Tensor, current: tuple[Tensor, Tensor]) -> Tensor:
        return gate * self.neuron(current)


@pytest.mark.parametrize("kind", RESONATORS)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.gpu
def test_a_pair_is_two_inputs_of_the_graph(kind: str, streaming: bool) -> None:
    neuron = made(kind).eval()
    x, y = spikes(2, 3, 25, rate=0.4), spikes(2, 3, 25, seed=1, rate=0.4)
    expected = neuron((x, y)).detach().numpy()
    assert expected.sum() > 0
    for args in ((x, y), ((x, y),), [[x, y]]):
        model = so.export(neuron, args, streaming=streaming)
        session = so.Session(model)
        assert session.inputs == ("input_real", "input_imag")
        np.testing.assert_array_equal(session.run(x.numpy(), y.numpy()), expected)
        assert so.verify(neuron, model, args).ok


@pytest.mark.gpu
def test_pairs_stand_beside_other_arguments() -> None:
    x, y = spikes(2, 3, 25, rate=0.4), spikes(2, 3, 25, seed=1, rate=0.4)
    args = (x, (x, y))
    model = so.export(Gated(), args)
    assert so.Session(model).inputs == ("gate", "current_real", "current_imag")
    assert so.verify(Gated(), model, args).ok
    with pytest.raises(so.InputError, match="argument 1 is a tuple of 3"):
        so.export(Gated(), (x, (x, y, x)))
    with pytest.raises(so.InputError, match="argument 0 is a str"):
        so.export(Gated(), ("x", (x, y)))
    with pytest.raises(so.InputError, match=r"argument 1 is empty, of shape \(2, 3, 0\)"):
        so.export(Gated(), (x, (x, y[..., :0])))
