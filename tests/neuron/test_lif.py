"""LIF in floats: its equation as a plain loop, resets, parameters, chunks, ONNX Runtime."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("compiled_once")]

STEPS = 50
RESETS = ("zero", "subtract", "delayed", "delayed_zero")
#: an equation with every term in use
TERMS = {"threshold": 0.6, "beta": 0.8, "alpha": 0.3, "gain": 0.7, "drive": 0.03}
#: nearest voltage to a threshold in a double loop; float32 rounds less than that
NEAR = 1e-6


def drive(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, STEPS, generator=generator) < 0.4).float()


def loop(
    x: np.ndarray, reset: str = "zero", reset_value: Any = 0.0, strict: bool = True,
    weight: np.ndarray | None = None, **terms: Any,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Spikes and voltages before a reset at the end of a step, in double, stated independently."""
    p = {name: np.asarray(value, dtype=np.float64)[None] for name, value in terms.items()}
    value = np.asarray(reset_value, dtype=np.float64)[None]
    current = voltage = np.zeros(x.shape[:-1])
    fired = np.zeros(x.shape[:-1], dtype=bool)
    spikes, voltages = [], []
    for t in range(x.shape[-1]):
        seen = x[..., t] + (0 if weight is None else fired @ weight.T)
        current = p["alpha"] * current + p["gain"] * seen
        voltage = p["beta"] * voltage + current + p["drive"]
        if reset == "delayed":
            voltage = voltage - fired * p["threshold"]
        if reset == "delayed_zero":
            voltage = np.where(fired, value, voltage)
        fired = voltage > p["threshold"] if strict else voltage >= p["threshold"]
        spikes.append(fired)
        voltages.append(voltage)
        if reset == "subtract":
            voltage = voltage - fired * p["threshold"]
        if reset == "zero":
            voltage = np.where(fired, value, voltage)
    found = np.stack(voltages, -1)
    assert np.abs(found - p["threshold"][..., None]).min() > NEAR, "a case too near its threshold"
    return np.stack(spikes, -1).astype(np.float32), found


def given(terms: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.from_numpy(value).float() if isinstance(value, np.ndarray) else value
        for name, value in terms.items()
    }


def spread(*shape: int) -> dict[str, np.ndarray]:
    """Parameters of which every one differs from neuron to neuron."""
    ramp = np.linspace(0.8, 1.2, int(np.prod(shape))).reshape(shape)
    terms = {name: value * (ramp if i % 2 else ramp[::-1]) for i, (name, value) in
             enumerate(TERMS.items())}  # fmt: skip
    return {name: value.astype(np.float32).astype(np.float64) for name, value in terms.items()}


# -- equation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("reset", RESETS)
def test_it_is_its_equation(reset: str, strict: bool) -> None:
    x = drive(3, 4)
    how: dict[str, Any] = {"reset": reset, "reset_value": -0.25, "strict": strict}
    neuron = so.neuron.lif.Neuron(**TERMS, **how)
    spikes, voltages = loop(x.numpy(), **how, **TERMS)
    with torch.no_grad():
        np.testing.assert_array_equal(neuron(x), spikes)
        np.testing.assert_allclose(neuron.dynamics(x)[1], voltages, rtol=1e-5, atol=1e-6)
    assert 0.1 < spikes.mean() < 0.9


def test_every_reset_is_another() -> None:
    x = drive(3, 4)
    found = [loop(x.numpy(), reset, -0.25, **TERMS)[0] for reset in RESETS]
    for a, b in itertools.combinations(found, 2):
        assert not np.array_equal(a, b)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize(
    ("shape", "size"), [((4,), (4,)), ((2,), (2, 3, 4)), ((2, 3, 4), (2, 3, 4))], ids=str
)
def test_parameters_of_channels_and_of_neurons(
    shape: tuple[int, ...], size: tuple[int, ...], reset: str
) -> None:
    terms, x = spread(*shape), drive(2, *size)
    neuron = so.neuron.lif.Neuron(**given(terms), reset=reset)
    wide = {name: value.reshape(*shape, *(1,) * (len(size) - len(shape)))
            for name, value in terms.items()}  # fmt: skip
    spikes, _ = loop(x.numpy(), reset, **wide)
    with torch.no_grad():
        np.testing.assert_array_equal(neuron(x), spikes)
        model = so.export(neuron, x)
        assert so.verify(neuron, model, x).ok
        np.testing.assert_array_equal(so.Session(model).run(x.numpy()), spikes)


@pytest.mark.parametrize("threshold", [1.0, 0.1, 3e-5, 1000.0])
def test_at_the_threshold_and_one_float_beside_it(threshold: float) -> None:
    level = np.float32(threshold)
    beside = [np.nextafter(level, np.float32(-np.inf)), level, np.nextafter(level, np.float32(1e9))]
    x = torch.from_numpy(np.array(beside)).reshape(1, 3, 1)
    for strict, expected in ((True, [0, 0, 1]), (False, [0, 1, 1])):
        neuron = so.neuron.lif.Neuron(threshold, beta=1.0, strict=strict)
        with torch.no_grad():
            assert neuron(x).flatten().tolist() == expected
        found = so.Session(so.export(neuron, x)).run(x.numpy())
        assert found.flatten().tolist() == expected


@pytest.mark.parametrize("reset", ["subtract", "delayed"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_spike_takes_off_the_threshold_that_was_learned(reset: str, strict: bool) -> None:
    neuron = so.neuron.lif.Neuron(**TERMS, reset=reset, strict=strict, requires_grad=True)
    x = drive(3, 4)
    neuron.train()(x).sum().backward()
    assert float(neuron.v_threshold.grad) != 0
    assert not neuron.v_reset.requires_grad
    fresh = so.neuron.lif.Neuron(**(TERMS | {"threshold": 1.1}), reset=reset, strict=strict).eval()
    with torch.no_grad():
        neuron.eval().v_threshold.copy_(fresh.v_threshold)
        assert torch.equal(neuron(x), fresh(x))
        spikes, _ = loop(x.numpy(), reset, strict=strict, **(TERMS | {"threshold": 1.1}))
        np.testing.assert_array_equal(neuron(x), spikes)
        assert torch.equal(so.freeze(neuron)(x), fresh(x))
        again = so.load_nir(so.to_nir(neuron, input_shape=(4,)))
        assert torch.equal(again(x), fresh(x))


def test_a_readout_is_its_voltage() -> None:
    neuron, x = so.neuron.lif.Neuron(**TERMS, reset="delayed"), drive(2, 4)
    neuron.as_readout()
    _, voltages = loop(x.numpy(), **(TERMS | {"threshold": np.float64(1e9)}))
    with torch.no_grad():
        np.testing.assert_allclose(neuron(x), voltages, rtol=1e-5, atol=1e-6)
    model = so.export(neuron, x)
    assert so.verify(neuron, model, x).ok
    assert so.freeze(neuron).describe()["threshold"] is None


class Looped(nn.Module):
    """Neurons that see their own spikes one step later."""

    def __init__(self, weight: Tensor, **terms: Any) -> None:
        super().__init__()
        self.neuron = so.neuron.lif.Neuron(**terms)
        self.synapse = so.synapse.Dense(*weight.shape)
        self.synapse.weight.data = weight.reshape(*weight.shape, 1, 1, 1)
        self.neuron.feed_back(self.synapse)

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.neuron(x)
        return spikes


@pytest.mark.parametrize("reset", RESETS)
def test_feedback_acts_one_step_later(reset: str) -> None:
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(5))
    net, x = Looped(weight, **given(spread(4)), reset=reset).eval(), drive(2, 4)
    spikes, _ = loop(x.numpy(), reset, weight=weight.double().numpy(), **spread(4))
    with torch.no_grad():
        np.testing.assert_array_equal(net(x), spikes)
    model = so.export(net, x)
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), spikes)
    assert sum(node.op_type.startswith("RecurrentLif") for node in model.graph.node) == 1
    alone, _ = loop(x.numpy(), reset, **spread(4))
    assert not np.array_equal(alone, spikes)


# -- states --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("fed", [False, True])
def test_chunks_are_the_whole(reset: str, fed: bool) -> None:
    weight, x = -0.5 * torch.eye(4).roll(1, 0), drive(2, 4)
    terms = given(spread(4)) | {"reset": reset, "persistent_state": True}
    net: Any = Looped(weight, **terms) if fed else so.neuron.lif.Neuron(**terms)
    parts = [1, 24, 1, 17, 7]
    with torch.no_grad():
        whole = net.eval()(x)
        (net.neuron if fed else net).reset()
        assert torch.equal(torch.cat([net(part) for part in x.split(parts, -1)], -1), whole)
        (net.neuron if fed else net).reset()
    stream = so.Session(so.export(net, x, streaming=True)).stream(2)
    found = [stream.run(part.numpy()) for part in x.split(parts, -1)]
    np.testing.assert_array_equal(np.concatenate(found, -1), whole)
    assert 0.1 < float(whole.mean()) < 0.9


def test_a_checkpoint_brings_the_shapes_of_its_parameters() -> None:
    trained, x = so.neuron.lif.Neuron(**given(spread(2, 3, 4))), drive(1, 2, 3, 4)
    fresh = so.neuron.lif.Neuron(**TERMS)
    fresh.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(x), trained(x))
        assert not torch.equal(so.neuron.lif.Neuron(**TERMS)(x), trained(x))


# -- gradient ------------------------------------------------------------------------------------


def test_its_gradient_is_that_of_the_surrogate() -> None:
    """One step: ds/dv is slayer's exponential of the distance from the threshold."""
    neuron = so.neuron.lif.Neuron(1.0, beta=0.5, gain=0.5, tau_grad=0.25, scale_grad=2.0).train()
    x = torch.linspace(0, 4, 9).reshape(1, 9, 1).requires_grad_()
    neuron(x).sum().backward()
    distance = (0.5 * x.detach() - 1.0).abs()
    expected = 0.5 * 2.0 / (2 * 0.25) * torch.exp(-distance / 0.25)
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-6)


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"reset": "soft"}, "reset must be one of zero, subtract, delayed, delayed_zero, got 's"),
        ({"regime": "slayer"}, "lif neuron: regime must be float, got 'slayer'"),
        ({"beta": float("nan")}, "lif neuron: beta must be finite, got nan"),
        ({"threshold": float("inf")}, "lif neuron: threshold must be finite, got inf"),
        ({"gain": torch.tensor([1.0, float("inf")])}, "lif neuron: gain must be finite"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(so.InputError, match=sentence):
        so.neuron.lif.Neuron(**arguments)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 5), (24,)], ids=str)
def test_parameters_that_do_not_fit(shape: tuple[int, ...]) -> None:
    neuron = so.neuron.lif.Neuron(beta=torch.full(shape, 0.5))
    with pytest.raises(so.ShapeError, match=r"lif neuron: beta has shape .* and the neurons"):
        neuron(drive(1, 2, 3, 4))
