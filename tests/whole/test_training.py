"""Training: losses fall and gradients are right; norms, dropout and delays do as lava-dl's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.neuron.dropout import Dropout
from synapse_onnx.neuron.norm import MeanOnlyBatchNorm, WgtScaleBatchNorm

KINDS = so.neuron.kinds()


def regimes(kind: str) -> list[str]:
    """Regimes that are trained in; sigma_delta computes in one way only."""
    equation = getattr(KINDS[kind].Neuron, "equation", None)
    known = ("slayer",) if equation is None else equation.regimes
    return [regime for regime in ("slayer", "float") if regime in known]


CASES = [(kind, regime) for kind in KINDS for regime in regimes(kind)]
#: surrogate gradients of a width and height that suit small networks
SURROGATE: dict[str, dict[str, float]] = {
    "cuba": {"tau_grad": 0.05, "scale_grad": 3},
    "alif": {"tau_grad": 0.05, "scale_grad": 3},
    "rf_iz": {"tau_grad": 0.05, "scale_grad": 3},
    "adrf_iz": {"tau_grad": 0.05, "scale_grad": 3},
    "rf": {"tau_grad": 4, "scale_grad": 1},
    "adrf": {"tau_grad": 4, "scale_grad": 1},
}
#: neurons that spike where their phase passes zero
PHASE = [kind for kind, m in KINDS.items() if getattr(getattr(m.Neuron, "equation", 0), "phase", 0)]
RESONATORS = [kind for kind, module in KINDS.items() if module.Neuron.complex]


def neuron_of(kind: str, regime: str, **changes: Any) -> Any:
    neuron = KINDS[kind].Neuron
    arguments = {**neuron.example, **SURROGATE.get(kind, {}), **changes}
    if hasattr(neuron, "equation"):
        arguments["regime"] = regime
    return neuron(**arguments)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors as small as these cost more to share out than to compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network_of(kind: str, regime: str, scale: float = 2, **changes: Any) -> nn.Sequential:
    """Dense, neuron, dense, neuron: (N, 12, T) -> (N, 2, T)."""
    synapses = so.synapse.complex if KINDS[kind].Neuron.complex else so.synapse
    return nn.Sequential(
        synapses.Dense(12, 16, weight_scale=scale),
        neuron_of(kind, regime, **changes),
        synapses.Dense(16, 2, weight_scale=scale),
        neuron_of(kind, regime, **changes),
    )


def spikes_of(*shape: int, rate: float = 0.3) -> Tensor:
    return (torch.rand(shape) < rate).float()


# -- every neuron ----------------------------------------------------------------------------------


def losses_of(network: nn.Module, x: Tensor, target: Tensor, lr: float) -> list[float]:
    """Fit the mean output over time, in both halves of the batch, in 40 steps."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    losses = []
    for _ in range(40):
        rate = network(x).unflatten(0, (2, -1)).mean((1, -1))
        loss = (rate - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.parametrize(("kind", "regime"), [c for c in CASES if c[0] not in PHASE])
def test_training_tells_two_inputs_apart(kind: str, regime: str) -> None:
    torch.manual_seed(0)
    network = network_of(kind, regime)
    x, level = spikes_of(8, 12, 24), 0.25
    x[:4, :6], x[4:, 6:] = 0, 0
    if kind == "sigma_delta":  # it sends changes: their sum is the output
        network.append(so.dendrite.Sigma())
        x, level = 0.1 * x, 1.0
    losses = losses_of(network, x, level * torch.eye(2), lr=0.02)
    assert np.mean(losses[-5:]) < 0.7 * losses[0], losses


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "regime"), [c for c in CASES if c[0] in PHASE])
def test_training_wakes_neurons_with_a_phase(kind: str, regime: str) -> None:
    """From hardly any spike to one in ten steps; a turn takes eight."""
    torch.manual_seed(0)
    network = network_of(kind, regime, scale=0.5)
    losses = losses_of(network, spikes_of(8, 12, 24), torch.full((2, 2), 0.1), lr=0.03)
    assert losses[0] > 1e-3
    assert np.mean(losses[-5:]) < 0.7 * losses[0], losses


@pytest.mark.parametrize("shape", [(3, 4, 30), (2, 2, 3, 2, 20)], ids=["neurons", "images"])
@pytest.mark.parametrize(("kind", "regime"), CASES)
def test_evaluation_gives_what_training_gives(kind: str, regime: str, shape) -> None:
    kwargs = {"graded_spike": True} if KINDS[kind].Neuron.grades else {}
    neuron = neuron_of(kind, regime, shared_param=False, **kwargs)
    x: Any = torch.randn(shape)
    if neuron.complex:
        x = (x, torch.randn(shape))
    trained = neuron.train()(x)
    assert float(trained.detach().abs().sum()) > 0
    with torch.no_grad():
        without_gradient = neuron(x)
    assert torch.equal(neuron.eval()(x), trained)
    assert torch.equal(without_gradient, trained)


@pytest.mark.parametrize("graded", [False, True], ids=["binary", "graded"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "channels"])
@pytest.mark.parametrize(("kind", "regime"), CASES)
def test_every_parameter_gets_a_gradient(kind, regime, shared, graded) -> None:
    torch.manual_seed(1)
    changes: dict[str, Any] = {"requires_grad": True, "shared_param": shared}
    if KINDS[kind].Neuron.grades:
        changes["graded_spike"] = graded
    network = network_of(kind, regime, scale=3, **changes)
    if kind == "sigma_delta":
        for index in (1, 3):
            network[index].set_bias(torch.full((1,), 0.05))
    if not network[3].complex:  # so that every output spikes, but not all the time: a threshold
        # adapts where there is a spike, and a voltage decays where there is none
        network[2].weight.data.abs_().div_(6)
    x = spikes_of(8, 12, 40).requires_grad_()
    y = network(x)
    assert bool((y != 0).any(-1).any(0).all())
    assert bool((y == 0).any())
    (y * torch.randn(8, 2, 40)).sum().backward()
    assert x.grad is not None
    gradients = {"input": x.grad} | {name: p.grad for name, p in network.named_parameters()}
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert bool(gradient.isfinite().all()), name
        assert float(gradient.abs().sum()) > 0, name


@pytest.mark.parametrize("channels", [False, True], ids=["shared", "channels"])
@pytest.mark.parametrize("kind", ["alif", *RESONATORS])
def test_the_gradient_of_the_equation(kind: str, channels: bool) -> None:
    """Numerically, below a threshold that nothing reaches: every current, parameter and state."""
    equation = KINDS[kind].Neuron.equation
    op = equation.op("dynamics", "float")
    shape = (2, 3, 7)

    def double(*size: int) -> Tensor:
        return torch.randn(size, dtype=torch.float64).requires_grad_()

    def fraction() -> Tensor:
        size = (3,) if channels else (1,)
        return (0.2 + 0.5 * torch.rand(size, dtype=torch.float64)).requires_grad_()

    args = [double(*shape) for _ in equation.currents]
    args += [fraction() for _ in equation.parameters]
    states = [double(*shape[:-1]) for _ in equation.states]
    for state, value in zip(equation.states, states, strict=True):
        if state.name == "threshold":
            value.data += 1e3
    levels = [1e3 if name != "threshold_step" else 0.5 for name in equation.constants]
    count = len(equation.traces)
    outputs = op(*args, *states, *levels)[:count]
    assert all(output.dtype == torch.float64 for output in outputs)
    assert float(outputs[0].detach().abs().max()) < 1e2

    def traces(*tensors: Tensor) -> tuple[Tensor, ...]:
        return op(*tensors, *levels)[:count]

    assert torch.autograd.gradcheck(traces, (*args, *states))


# -- norms and dropout -----------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, 0.7])
@pytest.mark.parametrize("norm", [MeanOnlyBatchNorm, WgtScaleBatchNorm])
@pytest.mark.parametrize("shape", [(4, 3, 10), (2, 3, 4, 2, 5)], ids=["neurons", "images"])
def test_norms_keep_the_statistics_that_lava_dl_keeps(shape, norm, momentum) -> None:
    layer = norm(momentum=momentum)
    mean, variance = np.zeros(3), 0.0
    for spread in (0.3, 2.0, 5.0):
        x = spread * torch.randn(shape) + torch.tensor([1.0, -2.0, 0.5]).reshape(
            3, *(1,) * (len(shape) - 2)
        )
        rows = np.moveaxis(x.double().numpy(), 1, 0).reshape(3, -1)
        batch, n = rows.mean(1), rows.shape[1]
        mean = (1 - momentum) * mean + momentum * batch
        variance = (1 - momentum) * variance + momentum * rows.var() * n / (n + 1)
        std = power_of_two(rows.var()) if norm is WgtScaleBatchNorm else 1.0
        expected = centred(x, batch) / std
        y = layer.train()(x).detach()
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-5)
    running = 1.0
    if norm is WgtScaleBatchNorm:
        assert layer.running_var.shape == (1,), "one number for all channels"
        np.testing.assert_allclose(layer.running_var.numpy(), [variance], rtol=1e-5)
        running = power_of_two(variance)
        assert float(layer.weight_exp) == np.ceil(np.log2(np.sqrt(variance + 1e-5)))
    before = layer.running_mean.clone()
    y = layer.eval()(x)
    np.testing.assert_allclose(y.numpy(), centred(x, mean) / running, rtol=1e-4, atol=1e-5)
    assert torch.equal(layer.running_mean, before), "evaluation updates nothing"


def centred(x: Tensor, mean: np.ndarray) -> np.ndarray:
    return x.double().numpy() - mean.reshape(1, 3, *(1,) * (x.dim() - 2))


def power_of_two(variance: float, bits: int = 3) -> float:
    """The power of two at or above the deviation, exponent clamped to +-bits."""
    exponent = np.ceil(np.log2(np.sqrt(variance + 1e-5)))
    return float(2 ** np.clip(exponent, -bits, bits))


@pytest.mark.parametrize("spread", [1e-3, 0.1, 0.9, 3.0, 500.0])
@pytest.mark.parametrize("bits", [1, 3])
def test_the_exponent_of_a_norm_is_clamped(spread: float, bits: int) -> None:
    layer = WgtScaleBatchNorm(3, weight_exp_bits=bits)
    x = spread * torch.randn(4, 3, 50)
    std = power_of_two(float(x.double().var(unbiased=False)), bits)
    assert float(layer.std(x.var(unbiased=False).reshape(1))) == std
    centre = x - x.mean(dim=(0, 2)).reshape(1, 3, 1)
    torch.testing.assert_close(layer.train()(x), centre / std)


def test_a_norm_that_does_not_update_uses_what_it_has_seen() -> None:
    layer = MeanOnlyBatchNorm(2)
    layer.train()(torch.ones(3, 2, 4))
    layer.update = False
    x = torch.randn(3, 2, 4)
    torch.testing.assert_close(layer.train()(x), x - 0.1)
    layer.reset_parameters()
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("shape", [(8, 50, 6), (4, 5, 6, 7, 3)], ids=["neurons", "images"])
@pytest.mark.parametrize("inplace", [False, True])
def test_dropout_drops_neurons_for_all_time(shape: tuple[int, ...], inplace: bool) -> None:
    p = 0.3
    x = 1 + torch.rand(shape)
    drop = Dropout(p, inplace).train()
    y = drop(x.clone())
    kept = y != 0
    assert torch.equal(kept, kept[..., :1].expand_as(kept)), "for the whole sequence"
    torch.testing.assert_close(y, torch.where(kept, x / (1 - p), 0))
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=0.1)
    assert (kept[0] != kept[1]).any(), "each sequence of a batch loses its own neurons"
    given = x.clone()
    result = drop(given)
    assert torch.equal(given, result) == inplace
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize("kind", KINDS)
def test_norm_and_dropout_within_a_neuron(kind: str) -> None:
    neuron = neuron_of(kind, regimes(kind)[0], norm=WgtScaleBatchNorm, dropout=Dropout(0.5))
    x = torch.randn(6, 8, 40)
    y = neuron.train()((x, x.roll(1, -1)) if neuron.complex else x).detach()
    plain = copy.deepcopy(neuron)
    plain.drop = None
    full = plain((x, x.roll(1, -1)) if neuron.complex else x).detach()
    silent = (y == 0).all(-1) & (full != 0).any(-1)
    assert silent.any()
    torch.testing.assert_close(y, torch.where((y != 0).any(-1, keepdim=True), 2 * full, 0))


# -- delays ----------------------------------------------------------------------------------------


def test_a_delay_learns_the_target_from_both_sides() -> None:
    """Bumps that must come 5 steps later: a delay too short grows, one too long shrinks."""
    wanted = torch.tensor([5.0, 5.0, 2.0])
    delay = so.axon.Delay(max_delay=20)
    delay.load_state_dict({"delay": torch.tensor([1.0, 9.0, 2.5])})
    t = torch.arange(60.0)
    x = torch.exp(-((t - 20) ** 2) / 50).expand(1, 3, 60)
    exact = so.axon.Delay()
    exact.load_state_dict({"delay": wanted})
    target = exact(x).detach()
    optimizer = torch.optim.Adam(delay.parameters(), lr=0.2)
    losses, first = [], None
    for _ in range(80):
        loss = (delay(x) - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        first = delay.delay.grad.clone() if first is None else first
        optimizer.step()
        losses.append(loss.item())
    assert first is not None
    assert float(first[0]) < 0 < float(first[1])
    assert float(first[2]) == 0
    assert losses[-1] < 0.1 * losses[0]
    assert torch.equal(torch.floor(delay.delay.detach()), wanted)


@pytest.mark.parametrize("shape", [(2, 3, 20), (2, 3, 2, 2, 20)], ids=["neurons", "images"])
def test_the_gradient_of_a_delay_is_the_slope_backwards(shape: tuple[int, ...]) -> None:
    delay = so.axon.Delay(grad_scale=0.5)
    delay.load_state_dict({"delay": torch.tensor([0.0, 2.0, 3.7])})
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(shape)
    y = delay(x)
    (y * weight).sum().backward()
    before = np.zeros(shape)
    before[..., 1:] = y.detach()[..., :-1]
    slope = (before - y.detach().double().numpy()) * weight.double().numpy()
    expected = 0.5 * np.moveaxis(slope, 1, 0).reshape(3, -1).sum(1)
    np.testing.assert_allclose(delay.delay.grad.numpy(), expected, rtol=1e-4, atol=1e-5)
    for channel, steps in enumerate((0, 2, 3)):  # the input's gradient comes as much earlier
        found = x.grad[:, channel]
        assert torch.equal(found[..., : 20 - steps], weight[:, channel][..., steps:])
        assert not found[..., 20 - steps :].any()
