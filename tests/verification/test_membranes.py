"""How near neurons are to their thresholds: where one rounding error decides on a spike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import cuba
from neurons import ADAPTIVE, EQUATIONS, KINDS, drawn, made
from torch import Tensor

import synapse_onnx as so
from synapse_onnx.verification.membranes import EncodingNeuron, margins, near_change, undecided


def currents(neuron: so.neuron.base.Common, channels: int = 40) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    count = 2 if neuron.complex else 1
    return tuple(torch.randn(2, channels, 60, generator=generator) for _ in range(count))


@pytest.mark.parametrize("kind", KINDS)
def test_every_neuron_answers_what_verification_asks(kind: str) -> None:
    neuron = made(kind)
    stepped = isinstance(neuron, so.neuron.base.Neuron)
    assert stepped == hasattr(neuron, "equation")
    assert isinstance(neuron, EncodingNeuron) == (not stepped)
    # no synapse is taken for a neuron
    synapse = so.synapse.Dense(3, 2)
    assert not isinstance(synapse, so.neuron.base.Neuron | EncodingNeuron)


@pytest.mark.parametrize("kind", KINDS)
def test_a_spike_has_a_margin_above_zero(kind: str) -> None:
    neuron = made(kind)
    x = currents(neuron)
    with torch.no_grad():
        s = neuron(x if neuron.complex else x[0]).numpy()
    margin = margins(neuron, x)
    assert margin is not None
    assert margin.shape == s.shape
    assert 0 < np.count_nonzero(s) < s.size
    assert (margin[s != 0] >= -1e-6).all()
    if not neuron.complex:  # whose spikes also need a phase
        assert (margin[s == 0] <= 1e-6).all()


def test_a_margin_is_of_fresh_states_and_leaves_none() -> None:
    neuron = cuba(persistent_state=True)
    x = currents(neuron)
    with torch.no_grad():
        neuron(x[0])
    first = margins(neuron, x)
    assert np.array_equal(first, margins(cuba(), x))
    assert neuron.voltage_state.dim() == 1


def test_a_layer_without_a_membrane_has_no_margin() -> None:
    class Flip(torch.nn.Module):
        spiking = True

        def reset(self) -> None: ...

    x = torch.ones(1, 2, 3)
    assert margins(Flip(), (x,)) is None
    assert not undecided(Flip(), (x,), 1.0, 1.0).any()


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if hasattr(KINDS[kind].Neuron, "equation")]
)
def test_a_flip_of_a_float_neuron_is_undecided(kind: str) -> None:
    """A gain of the currents is one of the membrane, until the first reset: what it can flip."""
    if "float" not in KINDS[kind].Neuron.equation.regimes:
        pytest.skip(f"{kind} has no float regime")
    neuron = made(kind, regime="float")
    x = currents(neuron, 1000)  # of so many neurons some flip
    off = tuple(part * 1.1 for part in x)
    with torch.no_grad():
        argument, moved = (x, off) if neuron.complex else (x[0], off[0])
        sides = [neuron(argument).numpy() != 0, neuron(moved).numpy() != 0]
    near = undecided(neuron, x, 0.12, 0.0)
    assert near.any()
    assert not near.all()
    # the first spike of each neuron, on either side: states have not been reset before it
    first = (sides[0] | sides[1]).cumsum(-1) == 1
    flips = first & (sides[0] != sides[1]) & (sides[0] | sides[1])
    assert flips.any()
    assert not (flips & ~near).any()
    # sums in another order add what is near by their size, even of a neuron in fixed point
    assert undecided(neuron, x, 1e-6, 1e9).all()
    if "slayer" in KINDS[kind].Neuron.equation.regimes:
        assert not undecided(made(kind), x, 1e-2, 0.0).any()


@pytest.mark.parametrize(("cumulative", "third"), [(False, 2.2), (True, 2.1)])
def test_where_a_rounding_decides_on_what_an_encoder_sends(cumulative: bool, third: float) -> None:
    encoder = so.axon.Delta(0.55, scale=4, cum_error=cumulative)
    # changes of 0.75, three steps and so on the edge of one; 0.9; 0.1, which stays; then what comes
    # to the threshold with that, once more counted where errors are summed; and 0.2 after it
    x = torch.tensor([[[0.75, 1.65, 1.75, third, third + 0.2]]])
    near = near_change(encoder, x, 1e-5)
    assert near.tolist() == [[[True, False, False, True, True]]]
    assert encoder.carried is None
    # inputs that are off by so much, and other messages there
    off = torch.tensor([[[-1, 1, 1, -1, -1]]]) * 1e-6
    other = (encoder(x + off) != encoder(x)) | (encoder(x - off) != encoder(x))
    assert other.tolist() == [[[True, False, False, True, True]]]
    assert not near_change(encoder, x[..., :3] + 0.02, 1e-5).any()


def test_an_activation_of_another_library_decides_on_no_more_than_a_rounding() -> None:
    torch.manual_seed(0)
    current = torch.randn(2, 3, 40)
    exact = so.neuron.sigma_delta.Neuron(0.25, torch.relu)
    other = so.neuron.sigma_delta.Neuron(0.25, torch.tanh)
    assert not undecided(exact, (current,), 1e-3, 0.0).any()
    assert 0 < undecided(other, (current,), 1e-6, 0.0).mean() < 0.5
    off = so.neuron.sigma_delta.Neuron(0.25, lambda x: torch.tanh(x) * (1 + 1e-3))
    flipped = (off(current) != other(current)).numpy()
    assert flipped.any()
    assert not (flipped & ~undecided(other, (current,), 2e-3, 0.0)).any()


def as_tuple(x: Any) -> tuple[torch.Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


@pytest.mark.parametrize("kind", EQUATIONS)
def test_a_margin_is_how_far_the_membrane_is_above_its_limit(kind: str) -> None:
    neuron = made(kind, regime="float").eval()
    x = drawn(kind, 2, 3, 40, size=2.0)
    margin, spikes = margins(neuron, as_tuple(x)), neuron(x).numpy()
    assert margin is not None
    assert margin.shape == spikes.shape
    assert spikes.any()
    assert (margin[spikes > 0] >= 0).all()
    if not neuron.equation.phase:
        assert np.array_equal(margin >= 0, spikes > 0)
    near = undecided(neuron, as_tuple(x), 1e-3, 0.0)
    assert near.dtype == bool
    assert near.mean() < 0.2
    assert undecided(neuron, as_tuple(x), 1e9, 0.0).all(), (
        "with so large an error, all is undecided"
    )


@pytest.mark.parametrize("kind", [kind for kind in EQUATIONS if kind != "lif"])
def test_a_membrane_at_its_limit_spikes(kind: str) -> None:
    """To the last unit of a state, but for cuba, above it; what adapts does so at every spike."""
    changes = {"threshold": 1} | ({"threshold_step": 1} if kind in ADAPTIVE else {})
    neuron = made(kind, scale=1, **changes).eval()
    x = drawn(kind, 4, 32, 400)
    traces = dict(zip(neuron.equation.traces, neuron.dynamics(x), strict=True))
    distances, spikes = margins(neuron, as_tuple(x)), neuron(x) > 0
    assert distances is not None
    margin = torch.from_numpy(distances)
    reached = margin >= 0
    if neuron.equation.phase:
        before = torch.nn.functional.pad(traces["imag"], (1, 0))[..., :-1]
        reached &= (traces["imag"] >= 0) & (before < 0)
    assert (reached & (margin == 0)).any()
    assert torch.equal(spikes, reached & (margin > 0) if kind == "cuba" else reached)
    if kind in ADAPTIVE:
        grows = traces["refractory"].diff() > 0
        assert torch.equal(grows, spikes[..., :-1])


def test_what_a_rounding_could_decide_is_near_its_limit() -> None:
    neuron = so.neuron.lif.Neuron(1.0, beta=0.0)
    x = torch.tensor([[[0.5, 0.999999, 1.000001, 1.5]]])
    assert undecided(neuron, (x,), 1e-5, 0.0).flatten().tolist() == [False, True, True, False]
    turns = made("rf", regime="float", decay=0.0).eval()
    kick = torch.zeros(1, 1, 9)
    kick[..., 0] = 5.0
    near = undecided(turns, (kick, torch.zeros_like(kick)), 1e-3, 0.0).flatten().tolist()
    # the phase is zero at steps 0, 4 and 8, and each is compared in the next step too
    assert near == [True, True, False, False, True, True, False, False, True]
