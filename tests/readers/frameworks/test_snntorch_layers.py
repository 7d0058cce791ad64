"""Live layers of snnTorch, and what ``convert`` makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from converted import IGNORED, by_steps, drive, framework, same, whole_way
from torch import Tensor, nn

import synapse_onnx as so

snn, surrogate = framework("snntorch", "snntorch.surrogate")
pytestmark = IGNORED

EACH = torch.linspace(0.3, 1.0, 5)
RESETS = ("subtract", "zero")


def run(layer: Any, x: Tensor) -> Tensor:
    for part in layer.modules():
        for name in ("mem", "syn", "spk"):
            if hasattr(part, name):
                setattr(part, name, torch.zeros(0))
    return by_steps(layer, x)


def recurrent(make: Any, **options: Any) -> Any:
    torch.manual_seed(1)
    return make(beta=0.8, linear_features=5, **options)


LAYERS: dict[str, Callable[[], Any]] = {
    **{
        f"Leaky, {reset}, {name}": lambda reset=reset, beta=beta: snn.Leaky(
            beta=beta, threshold=0.7, reset_mechanism=reset)
        for reset in RESETS for name, beta in {"shared": 0.9, "each": EACH, "above 1": 1.3}.items()
    },
    **{f"Synaptic, {reset}": lambda reset=reset: snn.Synaptic(
        alpha=0.6, beta=EACH, reset_mechanism=reset) for reset in RESETS},
    **{f"Lapicque, {reset}": lambda reset=reset: snn.Lapicque(
        beta=0.8, threshold=0.3, reset_mechanism=reset) for reset in RESETS},
    **{f"RLeaky, {reset}": lambda reset=reset: recurrent(
        snn.RLeaky, reset_mechanism=reset) for reset in RESETS},
    **{f"RSynaptic, {reset}": lambda reset=reset: recurrent(
        snn.RSynaptic, alpha=0.5, reset_mechanism=reset) for reset in RESETS},
    **{f"{make.__name__}, zero at once": lambda make=make, more=more: make(
        beta=0.8, reset_mechanism="zero", reset_delay=False, **more)
        for make, more in ((snn.Leaky, {}), (snn.Synaptic, {"alpha": 0.6}))},
    "RLeaky, one to one": lambda: snn.RLeaky(
        beta=0.8, all_to_all=False, V=torch.linspace(-0.5, 0.5, 5)),
    "Lapicque, R and C": lambda: snn.Lapicque(R=5.0, C=1e-3, time_step=1e-3, threshold=0.2),
    "inhibition": lambda: snn.Leaky(
        beta=0.8, inhibition=True, threshold=torch.linspace(0.3, 0.5, 5)),
    "graded": lambda: snn.Leaky(beta=0.8, graded_spikes_factor=2.5),
    "surrogate disabled": lambda: snn.Leaky(beta=0.5, surrogate_disable=True),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_spikes_as_in_snntorch(name: str) -> None:
    same(LAYERS[name](), drive(3, 5, 60), run)


def test_output_returns_voltages_too() -> None:
    """The voltage is that before the reset, as snnTorch has it."""
    for reset in RESETS:
        layer = snn.Leaky(beta=0.8, init_hidden=True, output=True, reset_mechanism=reset)
        x = drive(3, 5, 40)
        new = same(layer, x, run)
        layer.mem = torch.zeros(0)
        with torch.no_grad():
            expected = torch.stack([layer(x[..., t])[1] for t in range(40)], -1)
            spikes, voltage = new(x)
        assert torch.equal(voltage, expected)
        model = so.export(new, x)
        assert so.verify(new, model, x).ok
        assert float(spikes.mean()) > 0.02


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: snn.Alpha(0.9, 0.8), "it is a snntorch._neurons.alpha.Alpha, which ours is not"),
        (lambda: snn.SLSTM(5, 5), "SLSTM, which ours is not; so.export"),
        (lambda: snn.Leaky(beta=0.5, reset_delay=False), "its reset_delay is False, and ours has"),
        (lambda: snn.Leaky(beta=0.5, reset_mechanism="none"),
         "its reset_mechanism is none, and ours is always reset; so.export"),
        (lambda: snn.Synaptic(alpha=0.5, beta=0.5, reset_mechanism="none"),
         "its reset_mechanism is none"),
        (lambda: snn.RSynaptic(alpha=0.5, beta=0.5, linear_features=5, reset_delay=False),
         "its reset_delay is False, with which snnTorch 1.0 raises"),
        (lambda: snn.Leaky(beta=0.5, state_quant=torch.round), "its state_quant is .*round"),
        (lambda: snn.Leaky(beta=0.5, spike_grad=torch.sigmoid),
         "its spike_grad is .*sigmoid.*, which gives other values than 0 and 1"),
        (lambda: snn.Leaky(beta=torch.rand(3, 2)), r"its beta's shape is \(3, 2\), which is none"),
        (lambda: snn.RLeaky(beta=0.5, all_to_all=False, V=0.5), r"its V is \(\), its shape, which"),
        (lambda: snn.RLeaky(beta=0.5, conv2d_channels=2, kernel_size=3), "its recurrent is Conv2d"),
        (lambda: snn.RLeaky(beta=0.5, linear_features=2, output=True), "its output is True, and"),
        (lambda: snn.RLeaky(beta=0.5, linear_features=2, inhibition=True), "its inhibition is Tr"),
    ],
)  # fmt: skip
def test_what_ours_has_not_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(
        so.InputError, match=f"^convert: 1 cannot be converted: .*{sentence}"
    ) as caught:
        so.convert(nn.Sequential(nn.Linear(5, 5), hidden(make())))
    assert "\n" not in str(caught.value)
    assert "so.export(net, x) takes the live network" in str(caught.value)


def hidden(layer: Any) -> Any:
    layer.init_hidden = True
    return layer


def test_a_reset_that_is_changed_afterwards_is_refused() -> None:
    layer = snn.Leaky(beta=0.5)
    layer.reset_mechanism = "zero"  # snnTorch goes on subtracting, and says "zero"
    with pytest.raises(so.InputError, match="reset_mechanism is zero, while its state_function is"):
        so.convert(layer)


def network(**last: Any) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), snn.Leaky(beta=0.7, init_hidden=True),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2),
        nn.Sequential(nn.Linear(36, 8), snn.Synaptic(alpha=0.5, beta=0.9, init_hidden=True)),
        nn.Linear(8, 5), snn.Leaky(beta=0.9, init_hidden=True, learn_beta=True, **last),
    )  # fmt: skip
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.3, 0.8)
    for layer in (net[6][0], net[7]):
        layer.weight.data.mul_(3).add_(0.1)
    return net


def test_what_is_learned_in_feedback() -> None:
    """Weights and bias; of numbers one to one the diagonal alone."""
    every: Any = so.convert(recurrent(snn.RLeaky)).train()
    each: Any = so.convert(
        snn.RLeaky(beta=0.8, all_to_all=False, V=torch.linspace(0.1, 0.5, 5))).train()  # fmt: skip
    for new in (every, each):
        new(drive(3, 5, 40)).sum().backward()
    assert bool(every.bias.grad.any())
    grads = [new.recurrent_synapse.weight.grad.flatten(1) for new in (every, each)]
    assert all(bool(grad.diagonal().any()) for grad in grads)
    assert [bool((grad - grad.diagonal().diag()).any()) for grad in grads] == [True, False]
    for new in (every, each):
        x = drive(3, 5, 40)
        assert so.verify(new.eval(), so.export(new, x), x).ok


@pytest.mark.usefixtures("compiled_once")
def test_a_network_goes_the_whole_way() -> None:
    net, x = network(), drive(2, 2, 8, 8, 25)
    new = same(net, x, run)
    assert new[0].weight is net[0].weight
    assert new[1].running_mean is net[1].running_mean
    assert new[8].beta.requires_grad
    assert not new[2].beta.requires_grad
    assert set(new.state_dict()) > {"0.weight", "1.running_mean", "6.0.weight", "8.beta"}
    whole_way(new, x)


def test_the_surrogate_has_height_and_area() -> None:
    for function, height, area in (
        (surrogate.atan(alpha=2.0), 1.0, 1.0),
        (surrogate.sigmoid(slope=8), 2.0, 1.0),
        (surrogate.fast_sigmoid(slope=25), 1.0, 0.08),
    ):
        neuron: Any = so.convert(snn.Leaky(beta=0.5, spike_grad=function))
        assert neuron.scale_rho == pytest.approx(area, rel=0.1)
        assert neuron.scale_rho / (2 * neuron.tau_rho) == pytest.approx(height, rel=0.01)


def test_voltages_within_a_network_are_refused() -> None:
    make = lambda **more: snn.Leaky(beta=0.5, init_hidden=True, **more)  # noqa: E731
    new = so.convert(nn.Sequential(make(output=True), nn.Linear(5, 5), make()))
    with pytest.raises(so.ShapeError, match="layer 1 got spikes and voltages, which the layer"):
        new(torch.ones(1, 5, 3))


def test_neurons_that_return_their_states_are_no_layers_of_a_sequence() -> None:
    net = nn.Sequential(nn.Linear(5, 5), snn.Leaky(beta=0.5))
    with pytest.raises(so.InputError, match=r"convert: 1 has init_hidden=False, so that it"):
        so.convert(net)
