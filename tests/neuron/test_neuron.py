"""The CUBA neuron: a plain statement of its equation, its parameters, states and refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from networks import NEURON, cuba
from torch import nn

import synapse_onnx as so
from synapse_onnx.ops.arithmetic.fixed import decay_state, integer_threshold


def currents(*shape: int, seed: int = 0, unit: float = 1 / 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-24, 40, shape, generator=generator).float() * unit


def stated(x: np.ndarray, neuron: so.neuron.cuba.Neuron) -> tuple[np.ndarray, ...]:
    """lava-dl's arithmetic on the CPU, one Python integer at a time."""
    scale = neuron.s_scale
    level = np.float32(neuron.threshold + 0.01 / scale)
    limit = np.float32((neuron.threshold + 0.01 / scale) * scale)
    u_decays, v_decays = (
        np.broadcast_to(np.round(getattr(neuron, name).detach().numpy()), x.shape[1])
        for name in ("current_decay", "voltage_decay")
    )
    spikes, trace = np.zeros_like(x), np.zeros_like(x)
    for index in np.ndindex(*x.shape[:-1]):
        u = v = 0
        keep_u, keep_v = (4096 - int(d[index[1]]) for d in (u_decays, v_decays))
        for t in range(x.shape[-1]):
            drive = int(np.float32(scale) * x[(*index, t)])  # int() truncates towards zero
            u = shifted(u * keep_u) + drive
            passed = np.float32(u) / np.float32(scale)
            v = shifted(v * keep_v) + int(np.float32(scale) * passed)
            out = np.float32(v) / np.float32(scale)
            trace[(*index, t)] = out
            fired = out >= level
            spikes[(*index, t)] = (out if neuron.graded_spike else 1) if fired else 0
            if np.float32(v) >= limit:
                v = 0
    return spikes, trace


def shifted(product: int) -> int:
    """A right shift by 12 bits towards zero."""
    return abs(product) // 4096 * (1 if product >= 0 else -1)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("scale", [64, 32, 100, 4096])
@pytest.mark.parametrize("shape", [(2, 3, 25), (1, 2, 2, 3, 12)], ids=["neurons", "images"])
def test_the_equation_as_lava_dl_computes_it(graded, shared, scale, shape) -> None:
    torch.manual_seed(0)
    decays = {} if shared else {"current_decay": (0.1, 0.9), "voltage_decay": (0.0, 0.5)}
    neuron = cuba(graded_spike=graded, shared_param=shared, scale=scale, **decays)
    # not on the grid of the states, so that the truncation of the input shows
    x = currents(*shape, unit=0.0301)
    with torch.no_grad():
        composed = neuron.train()(x)
        fused = neuron.eval()(x)
        _, voltage = neuron.dynamics(x)
    spikes, trace = stated(x.numpy(), neuron)
    assert spikes.sum() > 0
    np.testing.assert_array_equal(composed.numpy(), spikes)
    np.testing.assert_array_equal(fused.numpy(), spikes)
    np.testing.assert_array_equal(voltage.numpy(), trace)
    if shape[0] == 2 and graded:
        model = so.export(neuron, x)
        np.testing.assert_array_equal(so.Session(model).run(x.numpy()), spikes)


def test_the_float_regime_is_the_plain_equation() -> None:
    neuron = cuba(regime="float").eval()
    x = currents(2, 3, 40, unit=0.0301)
    u = v = np.zeros((2, 3))
    spikes = np.zeros((2, 3, 40))
    for t in range(40):
        u = u * 0.75 + x[..., t].double().numpy()
        v = v * 0.95 + u
        assert np.abs(v - 1.0).min() > 1e-4, "no decision may hang on rounding"
        spikes[..., t] = v >= 1.0
        v = np.where(spikes[..., t] > 0, 0, v)
    np.testing.assert_array_equal(neuron(x).numpy(), spikes)
    np.testing.assert_array_equal(neuron.train()(x).detach().numpy(), spikes)


def test_a_spike_needs_more_than_the_threshold() -> None:
    """Loihi spikes at v > threshold; a hundredth of a state step makes v >= the same."""
    neuron = so.neuron.cuba.Neuron(1.0, 1.0, 1.0).eval()
    x = torch.tensor([[[1.0, 1.0 + 1 / 4096, 1.0 - 1 / 4096]]])
    assert neuron(x).tolist() == [[[0, 1, 0]]]


@pytest.mark.parametrize("scale", [64 * 64, 64 * 100, 6400 * 7, 1 << 20])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0, 17.3, 4095.99, 9999.0])
def test_one_integer_stands_for_the_float_comparison(scale: int, threshold: float) -> None:
    level = threshold + 0.01 / scale
    k = integer_threshold(level, scale)
    around = np.arange(max(k - 300, -5), k + 300)
    np.testing.assert_array_equal(
        around.astype(np.float32) >= np.float32(level * scale), around >= k
    )


def test_decays_truncate_towards_zero() -> None:
    states = torch.tensor([4095, -4095, 1, -1, 4096, -4096, 123456789, -123456789])
    for keep in (0, 1, 3000, 4095, 4096):
        expected = [shifted(int(s) * keep) for s in states]
        assert decay_state(states, torch.tensor(keep)).tolist() == expected


# -- parameters --------------------------------------------------------------------------------


def test_parameters_for_loihi() -> None:
    neuron = so.neuron.cuba.Neuron(1.25, 0.25, 0.03, graded_spike=True)
    assert neuron.device_params == {
        "type": "CUBA", "iDecay": 1024, "vDecay": 123, "vThMant": 80, "refDelay": 1,
        "gradedSpike": True,
    }  # fmt: skip
    again = so.neuron.cuba.Neuron(**so.neuron.cuba.neuron_params(neuron.device_params))
    assert again.threshold == 1.25
    assert torch.equal(torch.round(again.voltage_decay), torch.round(neuron.voltage_decay))
    assert (neuron.scale, neuron.weight_exponent, neuron.ref_delay) == (64, 0, 1)
    with pytest.raises(so.InputError, match="float regime has no Loihi parameters"):
        _ = cuba(regime="float").device_params


def test_the_threshold_lies_on_the_grid_of_the_weights() -> None:
    assert so.neuron.cuba.Neuron(0.3, 0.5, 0.5).threshold == 19 / 64
    assert so.neuron.cuba.Neuron(0.3, 0.5, 0.5, regime="float").threshold == 0.3


def test_channels_draw_their_decays_from_the_range() -> None:
    torch.manual_seed(0)
    neuron = cuba(shared_param=False, current_decay=(0.2, 0.4), voltage_decay=0.1)
    neuron(currents(1, 50, 3))
    decay = neuron.current_decay.detach() / 4096
    assert decay.shape == (50,)
    assert 0.2 <= float(decay.min()) < 0.25
    assert 0.35 < float(decay.max()) <= 0.4
    jitter = neuron.voltage_decay.detach() / 4096
    assert 0.099 <= float(jitter.min()) < float(jitter.max()) <= 0.101


def test_checkpoints_give_the_shape_before_any_forward() -> None:
    torch.manual_seed(0)
    trained = cuba(shared_param=False)
    x = currents(2, 5, 30)
    y = trained(x)
    fresh = cuba(shared_param=False)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(x), y)
    assert so.freeze(fresh).current_decay.shape == (5,)
    assert list(trained.state_dict()) == ["current_decay", "voltage_decay"]


@pytest.mark.parametrize("regime", ["slayer", "float"])
def test_decays_are_learned_and_stay_in_range(regime: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        so.synapse.Dense(8, 4, weight_scale=3), cuba(requires_grad=True, regime=regime)
    )
    decay = network[1].current_decay
    before = decay.detach().clone()
    optimizer = torch.optim.SGD([decay], lr=1e6)
    network(currents(2, 8, 20)).sum().backward()
    assert float(decay.grad.abs()) > 0
    optimizer.step()
    network(currents(2, 8, 20))
    assert not torch.equal(decay, before)
    assert 0 <= decay.item() <= (4096 if regime == "slayer" else 1)


@pytest.mark.parametrize("regime", ["slayer", "float"])
@pytest.mark.parametrize("graded", [False, True])
def test_training_lowers_the_loss(regime: str, graded: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        so.synapse.Dense(12, 16, weight_scale=2),
        cuba(regime=regime, tau_grad=0.05, scale_grad=3),
        so.synapse.Dense(16, 2, weight_scale=2),
        cuba(regime=regime, graded_spike=graded, tau_grad=0.05, scale_grad=3),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    x = (currents(8, 12, 20) > 0.3).float()
    target = torch.tensor([[0.3, 0.0], [0.0, 0.3]]).repeat(4, 1)
    losses = []
    for _ in range(40):
        loss = (network(x).mean(-1) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.6 * losses[0]


# -- states ------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", ["slayer", "float"])
@pytest.mark.parametrize("training", [False, True])
def test_chunks_equal_the_whole(regime: str, training: bool) -> None:
    whole = cuba(regime=regime).train(training)
    parted = copy.deepcopy(whole)
    parted.persistent_state = True
    # beyond 2**24 state units too, where a float32 state would lose bits
    x = currents(2, 3, 40) * torch.tensor([1.0, 1.0, -3e4]).reshape(1, 3, 1)
    with torch.no_grad():
        expected = whole(x)
        found = torch.cat([parted(chunk) for chunk in x.split([1, 7, 20, 12], dim=-1)], dim=-1)
    assert torch.equal(found, expected)
    assert parted.voltage_state.shape == (2, 3)
    if regime == "slayer":
        assert int(parted.voltage_state.abs().max()) > 2**24
        assert parted.voltage_state.dtype == torch.int64
    parted.reset()
    with torch.no_grad():
        assert torch.equal(parted(x), expected)


def test_dropout_and_norm_apply_where_lava_dl_has_them() -> None:
    class Shift(nn.Module):
        def forward(self, current: torch.Tensor) -> torch.Tensor:
            return current - 0.25

    x = currents(2, 3, 20)
    neuron = cuba(norm=Shift).eval()
    current, _ = neuron.dynamics(x)
    plain, _ = cuba().dynamics(x)
    assert torch.equal(current, plain - 0.25)
    report = so.verify(neuron, so.export(neuron, x), x)
    assert report.ok, str(report)
    dropped = cuba(dropout=nn.Dropout(1.0)).train()
    assert float(dropped(x).sum()) == 0
    assert float(dropped.eval()(x).sum()) > 0


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": -1.0}, "threshold must be a finite number >= 0, got -1.0"),
        ({"threshold": float("nan")}, "threshold must be a finite number >= 0"),
        ({"current_decay": 1.5}, r"current_decay must lie in \[0, 1\], got 1.5"),
        ({"voltage_decay": -0.1}, r"voltage_decay must lie in \[0, 1\]"),
        ({"voltage_decay": (0.1, 0.2)}, "voltage_decay must be a number when shared_param is True"),
        (
            {"shared_param": False, "voltage_decay": (0.3, 0.2)},
            r"voltage_decay must lie in \[0, 1\]",
        ),
        (
            {"shared_param": False, "voltage_decay": (0.1, 0.2, 0.3)},
            r"voltage_decay must be a number or a pair \(least, most\)",
        ),
        ({"regime": "loihi2"}, "regime must be one of slayer, float, loihi, got 'loihi2'"),
        ({"scale": 0}, "scale must be a positive integer"),
    ],
)
def test_arguments_out_of_range(changes: dict[str, object], message: str) -> None:
    with pytest.raises(so.InputError, match=message):
        so.neuron.cuba.Neuron(**(NEURON | changes))


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(
        so.ShapeError, match=r"cuba neuron: expected a current of shape \(N, C, T\)"
    ):
        cuba()(torch.zeros(2, 3))
    neuron = cuba(persistent_state=True)
    neuron(currents(2, 3, 4))
    with pytest.raises(
        so.ShapeError, match="states for a batch of 2 and got a batch of 4; call reset"
    ):
        neuron(currents(4, 3, 4))
    with pytest.raises(so.ShapeError, match=r"built up with shape \(3,\) .* another shape"):
        neuron(currents(2, 5, 4))
    channels = cuba(shared_param=False)
    channels(currents(1, 3, 2))
    other = cuba(shared_param=False)
    other.load_state_dict(channels.state_dict())
    with pytest.raises(so.ShapeError, match="current_decay holds 3 channels and the current has 5"):
        other(currents(1, 5, 2))
