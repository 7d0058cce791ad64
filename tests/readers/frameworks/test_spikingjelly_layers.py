"""Live layers of SpikingJelly, and what ``convert`` makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from converted import IGNORED, by_steps, drive, framework, same, time_at, whole_way
from torch import Tensor, nn

import synapse_onnx as so

jelly, neuron, layer, functional, surrogate = framework(
    *(f"spikingjelly.activation_based{name}"
      for name in ("", ".neuron", ".layer", ".functional", ".surrogate"))
)  # fmt: skip
pytestmark = IGNORED

RESETS = {"soft": None, "to 0": 0.0, "to -0.3": -0.3}


def run(module: Any, x: Tensor) -> Tensor:
    functional.reset_net(module)
    modes = [getattr(part, "step_mode", "") for part in module.modules()]
    never = any(type(part).__name__.startswith("NonSpiking") for part in module.modules())
    return time_at(0, module, x) if "m" in modes or never else by_steps(module, x)


def in_mode(mode: str, made: Any) -> Any:
    functional.set_step_mode(made, mode)
    return made


LAYERS: dict[str, Callable[[], Any]] = {
    **{f"{make.__name__}, {mode}, {name}": lambda make=make, mode=mode, reset=reset: in_mode(
        mode, make(v_reset=reset))
        for make in (neuron.IFNode, neuron.SimpleIFNode, neuron.CUBALIFNode)
        for mode in "sm" for name, reset in RESETS.items()},
    **{f"{make.__name__}, {name}, decay_input={decay}": lambda make=make, tau=tau, reset=reset,
       decay=decay: in_mode("m", make(**tau, v_reset=reset, decay_input=decay, v_threshold=0.6))
        for make, tau in ((neuron.LIFNode, {"tau": 2.5}),
                          (neuron.ParametricLIFNode, {"init_tau": 2.5}),
                          (neuron.SimpleLIFNode, {"tau": 2.5}))
        for name, reset in RESETS.items() for decay in (True, False)
        if reset is not None or make is not neuron.SimpleLIFNode},
    "detach_reset": lambda: neuron.LIFNode(detach_reset=True, surrogate_function=surrogate.ATan()),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_spikes_as_in_spikingjelly(name: str) -> None:
    same(LAYERS[name](), drive(3, 5, 60, mean=0.4), run)


def started_at_02() -> Any:
    made = neuron.IFNode(v_reset=None)
    made._memories_rv["v"] = 0.2
    return made


@pytest.mark.parametrize("make", [neuron.NonSpikingIFNode, neuron.NonSpikingLIFNode])
def test_a_layer_that_never_spikes_returns_its_voltage(make: Any) -> None:
    same(make(), drive(3, 5, 60), run, spikes=False)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (neuron.KLIFNode, "it is a spikingjelly.*KLIFNode, which ours is not"),
        (lambda: neuron.PSN(5), "it is a spikingjelly.*PSN, which ours is not"),
        (neuron.SLTTLIFNode, "SLTTLIFNode, which ours is not"),
        (neuron.HalfThresholdIFNode, "HalfThresholdIFNode, which ours is not; so.export"),
        (layer.SynapseFilter, "SynapseFilter, which ours is not"),
        (lambda: neuron.IFNode(store_v_seq=True), "its store_v_seq is True, and ours keeps no"),
        (lambda: neuron.NonSpikingIFNode("max-mem"), "its decode is max-mem, and ours returns"),
        (started_at_02, "its initial voltage is 0.2, which ours has not with v_reset=None; so.exp"),
        (lambda: neuron.IFNode(surrogate_function=surrogate.Sigmoid(spiking=False)),
         "its surrogate_function is Sigmoid.*, which gives other values than 0 and 1"),
    ],
)  # fmt: skip
def test_what_ours_has_not_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(so.InputError, match=f"^convert: 1.* cannot be converted: .*{sentence}"):
        so.convert(nn.Sequential(layer.Linear(5, 5), make()))


def network(mode: str) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1), layer.BatchNorm2d(4), neuron.IFNode(), layer.MaxPool2d(2),
        nn.Sequential(layer.Conv2d(4, 4, 3), neuron.LIFNode(decay_input=False)), layer.AvgPool2d(2),
        layer.Dropout(0.2), layer.Flatten(), layer.Linear(4, 20), neuron.ParametricLIFNode(),
        layer.VotingLayer(10),
    )  # fmt: skip
    net[1].running_var.uniform_(0.1, 0.5)
    for part in (net[4][0], net[8]):
        part.weight.data.mul_(3).add_(0.2)
    return in_mode(mode, net)  # type: ignore[no-any-return]


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_network_goes_the_whole_way(mode: str) -> None:
    net, x = network(mode), drive(2, 2, 8, 8, 20)
    new = same(net, x, run)
    assert type(new[0]) is nn.Conv2d
    assert new[0].weight is net[0].weight
    assert type(net[0]) is layer.Conv2d
    assert net[0].step_mode == mode
    whole_way(new, x)


def test_containers_and_layers_of_torch_see_what_they_saw() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)),
        neuron.IFNode(v_threshold=0.3, step_mode="m"),
        layer.MultiStepContainer(nn.Conv2d(4, 4, 3), neuron.LIFNode(v_threshold=0.1)),
        nn.Flatten(2),  # of (T, N, C, H, W)
        nn.Linear(64, 5),
        layer.StepModeContainer(True, "m", neuron.IFNode(v_threshold=0.4)),
    )
    same(net, drive(2, 2, 8, 8, 20), run)


def test_two_step_modes_in_one_network_are_refused() -> None:
    net = nn.Sequential(neuron.IFNode(), layer.Linear(5, 5), neuron.IFNode(step_mode="m"))
    with pytest.raises(so.InputError, match="its layers 0 and 2 have step modes s and m"):
        so.convert(net)


def test_neurons_that_containers_run_otherwise_are_refused() -> None:
    for net, sentence in (
        (layer.SeqToANNContainer(nn.Conv2d(2, 4, 3), neuron.IFNode()),
         "runs its layers on all steps at once, and holds IFNode, which keeps a state"),
        (layer.StepModeContainer(False, "m", neuron.IFNode()), "on all steps at once"),
        (layer.MultiStepContainer(nn.Sequential(neuron.IFNode(step_mode="m"))),
         "0.0 cannot be converted: its step mode is m, in a sequence whose step mode is s"),
    ):  # fmt: skip
        with pytest.raises(so.InputError, match=sentence):
            so.convert(net)


def test_dropout_draws_one_mask_for_all_steps() -> None:
    for make in (layer.Dropout, layer.Dropout2d):
        new: Any = so.convert(nn.Sequential(make(0.5), neuron.IFNode()))
        y = new.train()[0](torch.ones(4, 6, 2, 2, 9))
        assert torch.equal(y, y[..., :1].expand_as(y))
        assert set(y.unique().tolist()) == {0.0, 2.0}
        x = torch.randn(1, 2, 3)
        assert torch.equal(new.eval()[0](x), x)
