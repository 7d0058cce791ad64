"""Sums, feedback and trajectories: what rounding explains, and how far."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import spikes

import synapse_onnx as so
from synapse_onnx.verification.arrays import Agreement, Tolerance, difference, first_place, largest
from synapse_onnx.verification.replay import error_bounds, with_feedback
from synapse_onnx.verification.sums import grid_units, magnitudes, sums_of

# -- sums ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", [so.quantize.q8, None], ids=["q8", "float"])
@pytest.mark.parametrize("frozen", [False, True])
def test_magnitudes_are_those_of_the_terms(hook: Any, frozen: bool) -> None:
    torch.manual_seed(0)
    synapse = so.synapse.Dense(6, 4, weight_scale=3, pre_hook_fx=hook)
    if frozen:
        synapse.freeze()
    x = torch.randn(2, 6, 5)
    weight = synapse.effective_weight[..., 0, 0, 0].abs()
    (sums,) = magnitudes(synapse, x)
    torch.testing.assert_close(sums, torch.einsum("oi,nit->not", weight, x.abs()))
    assert bool((sums >= synapse(x).abs() - 1e-5).all())


def test_magnitudes_of_a_complex_synapse_are_a_pair() -> None:
    synapse = so.synapse.complex.Conv(2, 3, 3, padding=1)
    x = torch.randn(1, 2, 4, 4, 3)
    real, imag = magnitudes(synapse, x)
    assert real.shape == imag.shape == (1, 3, 4, 4, 3)
    assert torch.equal(real, magnitudes(synapse.real, x)[0])
    assert torch.equal(imag, magnitudes(synapse.imag, x)[0])
    assert sums_of(so.neuron.cuba.Neuron(1.0, 0.2, 0.2)) == ()


@pytest.mark.parametrize(
    ("values", "units"),
    [
        ([0.0, 0.0], 0), ([1.0, 0.0], 1), ([0.5, -0.75], 3), ([3.0, 1.0], 3), ([0.1], 13421773),
        ([1 / 1024], 1), ([1 + 2**-20], 2**20 + 1), ([2.0**23, 2.0**-23], np.inf),
        ([3 * 2.0**-100], 3), ([2.0**-101], np.inf), ([1e-40], np.inf),
    ],
)  # fmt: skip
def test_units_of_the_grid(values: list[float], units: float) -> None:
    assert grid_units(torch.tensor(values)) == units


# -- arrays --------------------------------------------------------------------------------------


def test_nan_differs_from_all_but_nan() -> None:
    a, b = np.array([np.nan, np.nan, 1, np.inf]), np.array([np.nan, 1, np.nan, np.inf])
    assert difference(a, b).tolist() == [0, np.inf, np.inf, 0]
    assert largest(np.array([np.nan, -np.inf, -2.0, 1.0])) == 2
    assert largest(np.array([])) == 0


def test_the_first_place_is_the_earliest() -> None:
    mask = np.zeros((2, 3, 4), bool)
    assert first_place(mask) is None
    mask[0, 0, 3] = mask[1, 2, 1] = mask[1, 1, 1] = True
    assert first_place(mask) == (1, 1, 1)
    assert first_place(np.array(True)) == ()


def test_a_tolerance_is_relative_to_the_terms_of_a_sum() -> None:
    tolerance = Tolerance(rtol=1e-3, atol=1e-6)
    x = torch.tensor([[0.5]])
    assert tolerance.of(x.numpy()) == pytest.approx(5e-4 + 1e-6)
    tolerance.remember_sums(x, torch.tensor([[1000.0]]))
    assert tolerance.of(x.numpy()) == pytest.approx(1 + 1e-6)
    assert tolerance.of(np.array([[0.5]])) == pytest.approx(5e-4 + 1e-6)


def test_sums_of_tiny_values_are_off_by_their_last_digits() -> None:
    tolerance = Tolerance(rtol=1e-5, atol=0.0)
    assert tolerance.of(np.array([1e-40], np.float32)) == 1000 * 2.0**-149
    assert tolerance.of(np.array([1e-30], np.float32)) == pytest.approx(1e-35)
    assert tolerance.of(np.array([0.0], np.float32)) == 0
    assert Tolerance(rtol=0.0, atol=0.0).of(np.array([1e-40], np.float32)) == 0


@pytest.mark.parametrize("value", [1e-44, 1e-40, 1e-38])
def test_a_network_is_equal_on_tiny_values(value: float) -> None:
    network = so.synapse.Dense(6, 4, weight_scale=3, pre_hook_fx=so.quantize.q8).eval()
    x = torch.full((2, 6, 9), value)
    report = so.verify(network, so.export(network, x), x)
    assert report.ok, str(report)


# -- trajectories --------------------------------------------------------------------------------


def test_a_sample_counts_up_to_its_first_flip() -> None:
    agreement = Agreement(samples=2, steps=6)
    values = np.zeros((2, 3, 6))
    assert agreement.covers(values).all()
    flipped = np.zeros((2, 3, 6), bool)
    flipped[1, 2, 4] = flipped[1, 0, 3] = True
    agreement.end_at(flipped)
    covered = agreement.covers(values)
    assert covered[0].all()
    assert covered[1, 0].tolist() == [True] * 3 + [False] * 3
    # without time, the whole sample
    assert agreement.covers(np.zeros((2, 3))).tolist() == [[True] * 3, [False] * 3]


def test_a_bin_counts_while_all_of_its_steps_do() -> None:
    agreement = Agreement(samples=1, steps=8)
    flipped = np.zeros((1, 1, 8), bool)
    flipped[..., 5] = True
    agreement.end_at(flipped)
    # two bins of four steps, of which the second holds the flip
    assert not agreement.covers(np.zeros((1, 1, 2)))[0, 0, 1]
    assert agreement.covers(np.zeros((1, 1, 8)))[0, 0].tolist() == [True] * 5 + [False] * 3
    # a flip in the second of two bins may be one of its first step
    binned = Agreement(samples=1, steps=8)
    binned.end_at(np.array([[[False, True]]]))
    assert binned.covers(np.zeros((1, 1, 8)))[0, 0].tolist() == [True] * 4 + [False] * 4


# -- feedback ------------------------------------------------------------------------------------


def recurrent(kind: str, **changes: Any) -> Any:
    torch.manual_seed(1)
    neuron = {**getattr(so.neuron, kind).Neuron.example}
    settings = {"weight_scale": 4, "pre_hook_fx": so.quantize.q8, "delay_shift": False, **changes}
    return getattr(so.block, kind).Recurrent(neuron, 12, 8, **settings).eval()


@pytest.mark.parametrize("kind", ["cuba", "rf_iz"])
def test_a_neuron_that_is_given_its_own_spikes_returns_them(kind: str) -> None:
    block = recurrent(kind)
    x = spikes(2, 12, 30, rate=0.4)
    with torch.no_grad():
        s = block(x)
        result = block.input_synapse(x)
        currents = result if isinstance(result, tuple) else (result,)
        summed, size = with_feedback(block.neuron, currents, s)
        again = block.neuron.forward_without_feedback(summed if len(summed) == 2 else summed[0])
    assert bool(s.any())
    assert torch.equal(again, s)
    assert not torch.equal(summed[0], currents[0])
    assert size >= max(float(current.abs().max()) for current in summed)
    # the feedback is there again
    assert block.neuron.feedback is block.recurrent_synapse
    # without feedback currents stay as they are
    other = getattr(so.neuron, kind).Neuron(**getattr(so.neuron, kind).Neuron.example)
    same, none = with_feedback(other, currents, s)
    assert all(map(torch.equal, same, currents))
    assert none == 0


def test_error_bounds_hold_what_errors_do() -> None:
    """Currents within the rounding flip no spike but where the bounds say so."""
    block = recurrent("cuba", pre_hook_fx=None)
    x = spikes(2, 12, 60, rate=0.4)
    with torch.no_grad():
        s = block(x)
        summed, size = with_feedback(block.neuron, (block.input_synapse(x),), s)
        largest_sum = 1e5 * size  # roundings large enough to flip spikes
        bounds = error_bounds(block.neuron, summed, largest_sum)
        off = (summed[0].shape[1] + 2) * largest_sum / 2**24 * 0.99
        flips = np.zeros(s.shape, bool)
        for sign in (-1, 1):
            moved = block.neuron.forward_without_feedback(summed[0] + sign * off)
            flips |= (moved != s).numpy()
    assert 0 < bounds.may_flip.mean() < 1
    assert flips.any()
    first = np.logical_and(flips, np.logical_or.accumulate(flips, -1).cumsum(-1) == 1)
    assert not (first & ~bounds.may_flip).any()
    assert set(bounds.states) == {"current", "voltage"}
