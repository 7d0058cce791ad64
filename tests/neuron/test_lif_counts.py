"""LIF with several spikes in a time step, and with a lowest voltage: sinabs' and Rockpool's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

STEPS = 40
TERMS = {"threshold": 0.6, "beta": 0.9, "alpha": 0.3, "gain": 0.7, "drive": 0.03}
KINDS = [
    (reset, most, lowest)
    for reset in ("subtract", "zero")
    for most, lowest in ((math.inf, None), (3, None), (math.inf, -0.4), (1, -0.4))
]


def drive(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(*shape, STEPS, generator=generator)


def loop(
    x: np.ndarray, reset: str, most: float, lowest: float | None,
    weight: np.ndarray | None = None, level: Any = 0.6,
) -> np.ndarray:  # fmt: skip
    """Counts, in double, stated independently: thresholds are taken off one by one."""
    u = v = np.zeros(x.shape[:-1])
    counts = []
    count = np.zeros(x.shape[:-1])
    for t in range(x.shape[-1]):
        seen = x[..., t] + (0 if weight is None else count @ weight.T)
        u = 0.3 * u + 0.7 * seen
        v = 0.9 * v + u + 0.03
        count, left = np.zeros_like(v), v.copy()
        while ((left >= level) & (count < most)).any():
            fires = (left >= level) & (count < most)
            count, left = count + fires, left - level * fires
        assert np.abs(left - np.round(left / level) * level).min() > 1e-6 or most < 9
        counts.append(count)
        v = np.where(count > 0, -0.1, v) if reset == "zero" else left
        v = v if lowest is None else np.maximum(v, lowest)
    return np.stack(counts, -1)


def made(reset: str, most: float, lowest: float | None, **more: Any) -> Any:
    how = {"reset_value": -0.1} if reset == "zero" else {}
    return so.neuron.lif.Neuron(
        **(TERMS | how | more), reset=reset, strict=False, max_spikes=most, lowest=lowest
    )


@pytest.mark.parametrize(("reset", "most", "lowest"), KINDS)
def test_it_is_its_equation(reset: str, most: float, lowest: float | None) -> None:
    neuron, x = made(reset, most, lowest), drive(3, 4)
    expected = loop(x.double().numpy(), reset, most, lowest)
    with torch.no_grad():
        np.testing.assert_array_equal(neuron(x), expected)
    assert expected.max() == min(most, expected.max())
    assert most == 1 or expected.max() > 2
    model = so.export(neuron, x)
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), expected)
    assert so.verify(neuron, model, x).ok


def test_every_kind_is_another() -> None:
    x = drive(3, 4).double().numpy()
    found = [loop(x, *kind).tobytes() for kind in KINDS]
    assert len(set(found)) == len(KINDS)


def test_sinabs_example() -> None:
    neuron = so.neuron.lif.Neuron(
        1.0, beta=1.0, reset="subtract", strict=False, max_spikes=math.inf, lowest=-1.0
    )
    x = torch.tensor([[[-5, 0.6, 0.6, 0.6, 0.6, 0.6, 3.7]]])
    with torch.no_grad():
        assert neuron(x).flatten().tolist() == [0, 0, 0, 0, 1, 1, 3]


@pytest.mark.parametrize("size", [(4,), (2, 3, 4)], ids=str)
def test_a_threshold_and_a_lowest_voltage_a_neuron(size: tuple[int, ...]) -> None:
    level = torch.linspace(0.4, 0.9, math.prod(size)).reshape(size)
    neuron = so.neuron.lif.Neuron(
        level, beta=1.0, reset="subtract", strict=False, max_spikes=math.inf, lowest=-level
    )
    x = drive(2, *size)
    v, counts = torch.zeros(2, *size), []
    for x_t in x.unbind(-1):
        v = v + x_t
        count = torch.where(v >= level, torch.floor(v / level), 0)
        v = torch.relu(v - count * level + level) - level
        counts.append(count)
    with torch.no_grad():
        assert torch.equal(neuron(x), torch.stack(counts, -1))
    assert so.verify(neuron, so.export(neuron, x), x).ok


@pytest.mark.parametrize(("reset", "most", "lowest"), [KINDS[1], KINDS[6]])
def test_feedback_and_chunks(reset: str, most: float, lowest: float | None) -> None:
    weight = -0.2 * torch.eye(4).roll(1, 0)

    class Fed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron, self.synapse = made(reset, most, lowest), so.synapse.Dense(4, 4)
            self.synapse.weight.data = weight.reshape(4, 4, 1, 1, 1)
            self.neuron.feed_back(self.synapse)

        def forward(self, x: Tensor) -> Tensor:
            spikes: Tensor = self.neuron(x)
            return spikes

    net, x = Fed().eval(), drive(2, 4)
    expected = loop(x.double().numpy(), reset, most, lowest, weight.double().numpy())
    with torch.no_grad():
        np.testing.assert_array_equal(net(x), expected)
    stream = so.Session(so.export(net, x, streaming=True)).stream(2)
    parts = [stream.run(part.numpy()) for part in x.split([1, 24, 15], -1)]
    np.testing.assert_array_equal(np.concatenate(parts, -1), expected)


def test_counts_reach_integer_weights() -> None:
    """Weights of 8 bits behind counts: the file does not take them for spikes of 0 and 1."""
    torch.manual_seed(0)
    net = nn.Sequential(
        made("subtract", math.inf, None),
        so.synapse.Dense(4, 6, weight_scale=3, pre_hook_fx=so.quantize.q8),
        made("zero", 2, -0.4),
    ).eval()
    x = 60 * drive(2, 4)  # counts beyond 255
    with torch.no_grad():
        assert net[0](x).max() > 255
    model = so.export(net, x)
    dense = next(node for node in model.graph.node if "Dense" in node.op_type)
    assert {a.name: a.i for a in dense.attribute}.get("spikes", 0) == 0
    assert so.verify(net, model, x).ok


def test_its_gradient_is_that_of_the_nearest_threshold() -> None:
    neuron = so.neuron.lif.Neuron(
        1.0, beta=0.5, tau_grad=0.25, scale_grad=2.0, reset="subtract", strict=False, max_spikes=3
    ).train()
    x = torch.tensor([0.2, 0.9, 1.2, 1.9, 2.4, 2.6, 3.2, 5.9]).reshape(1, 8, 1).requires_grad_()
    neuron(x).sum().backward()
    distance = torch.tensor([0.8, 0.1, 0.2, 0.1, 0.4, 0.4, 0.2, 2.9])
    expected = 2.0 / (2 * 0.25) * torch.exp(-distance / 0.25)
    torch.testing.assert_close(x.grad.flatten(), expected, rtol=1e-4, atol=1e-6)


def test_margins_are_of_the_nearest_threshold() -> None:
    neuron = made("subtract", 3, None, beta=0.0, alpha=0.0, gain=1.0, drive=0.0)
    x = torch.tensor([0.5, 0.7, 1.1, 1.7, 2.5]).reshape(1, 1, 5)
    expected = [-0.1, 0.1, -0.1, -0.1, 0.7]
    np.testing.assert_allclose(neuron.margin(x).detach().flatten(), expected, atol=1e-6)


@pytest.mark.parametrize(("reset", "most", "lowest"), KINDS)
def test_counts_are_not_those_of_one_variable(reset: str, most: float, lowest: Any) -> None:
    neuron, x = made(reset, most, lowest), drive(3, 4)
    with pytest.raises(so.InputError, match="do not follow from one variable; call the neuron its"):
        neuron.spike(neuron.dynamics(x)[-1])
    one = so.neuron.lif.Neuron()
    with torch.no_grad():
        assert torch.equal(one.spike(one.dynamics(x)[-1]), one(x))


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_as_a_readout_it_keeps_its_lowest_voltage(reset: str) -> None:
    neuron = made(reset, 1, -0.5, threshold=1.0, beta=1.0, alpha=0.0, gain=1.0, drive=0.0)
    neuron.as_readout()
    x = torch.tensor([[[-1.0, 0.75, 5.0]]])
    with torch.no_grad():
        assert neuron(x).flatten().tolist() == [-1.0, 0.25, 5.25]  # before it is raised, as sinabs
    assert so.verify(neuron, so.export(neuron, x), x).ok


def test_what_it_is_described_as() -> None:
    facts = so.freeze(made("subtract", math.inf, -0.4)).describe()
    assert facts["max_spikes"] is None
    assert facts["ranges"]["lowest"] == pytest.approx([-0.4, -0.4])
    assert so.freeze(made("zero", 3, None)).describe()["max_spikes"] == 3
    assert "max_spikes" not in so.freeze(so.neuron.lif.Neuron()).describe()


def test_a_checkpoint_brings_the_lowest_voltage() -> None:
    trained = made("subtract", 3, torch.tensor([-0.5, -0.1, -0.2, -0.3]))
    fresh, x = made("subtract", 3, -1.0), drive(2, 4)
    fresh.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(x), trained(x))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"max_spikes": 0}, "max_spikes must be a whole number of at least 1, or infinite, got 0"),
        ({"max_spikes": 2.5}, "max_spikes must be a whole number of at least 1"),
        ({"max_spikes": math.nan}, "max_spikes must be a whole number of at least 1"),
        ({"reset": "delayed"}, "go with reset 'zero' or 'subtract', got 'delayed'"),
        ({"strict": True}, "go with strict=False: a voltage of two thresholds is two spikes"),
        ({"threshold": 0.0}, "go with thresholds above 0, got 0"),
        ({"lowest": math.nan}, "lif neuron: lowest must be finite, got nan"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(so.InputError, match=sentence):
        so.neuron.lif.Neuron(
            **({"max_spikes": 2, "strict": False, "reset": "subtract"} | arguments)
        )
