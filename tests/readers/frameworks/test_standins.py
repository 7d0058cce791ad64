"""``convert`` on stand-ins of every framework: without the frameworks, and what holds for all."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import standins
import torch
from converted import by_steps, drive, same, time_at, whole_way, with_state
from torch import Tensor, nn

import synapse_onnx as so

FRAMEWORKS: dict[str, tuple[Any, Any]] = {
    "snnTorch": (lambda **more: standins.Leaky(0.8, **more), by_steps),
    "SpikingJelly": (standins.LIFNode, by_steps),
    "Norse": (standins.LIFCell, with_state),
    "sinabs": (lambda **more: standins.LIF(5.0, norm_input=False, **more),
               lambda layer, x: time_at(1, layer, x)),
    "Rockpool": (lambda **more: standins.LIFTorch(5, **more),
                 lambda layer, x: time_at(1, layer, x)),
}  # fmt: skip
#: framework -> options of its neuron
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "snnTorch": [{}, {"reset_mechanism": "zero"}, {"threshold": torch.linspace(0.5, 1.5, 5)}],
    "SpikingJelly": [{}, {"v_reset": None}, {"v_reset": -0.3, "decay_input": False},
                     {"tau": 5.0, "v_threshold": 0.3}],
    "Norse": [{}, {"dt": 0.002}, {"p": standins.Parameters(
        v_leak=torch.tensor(0.2), v_reset=torch.tensor(-0.1), v_th=torch.tensor(0.6))}],
    "sinabs": [{}, {"spike_fn": standins.SingleSpike}, {"tau_syn": 3.0, "min_v_mem": -0.2}],
    "Rockpool": [{}, {"max_spikes_per_dt": 1.0}, {"bias": 0.1, "beta": 0.5, "threshold": 0.7}],
}  # fmt: skip
CASES = [(name, i) for name, options in OPTIONS.items() for i in range(len(options))]


@pytest.mark.parametrize(("name", "i"), CASES)
def test_a_neuron_spikes_as_in_its_framework(name: str, i: int) -> None:
    make, run = FRAMEWORKS[name]
    new = same(make(**OPTIONS[name][i]), drive(3, 5, 60, mean=0.4), run)
    assert isinstance(new, so.neuron.lif.Neuron)


def jelly_run(net: Any, x: Tensor) -> Tensor:
    for part in net.modules():
        if isinstance(part, standins.LIFNode):
            part.v = part.v_reset or 0.0
    return time_at(0, net, x) if net[0].step_mode == "m" else by_steps(net, x)


def networks() -> dict[str, tuple[Any, Any, Tensor]]:
    torch.manual_seed(0)
    images, vectors = drive(2, 2, 6, 6, 20), drive(2, 6, 20)
    mode = {"step_mode": "m"}
    found = {
        "snnTorch": (
            nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), standins.Leaky(0.8),
                          nn.Flatten(), nn.Linear(64, 5), standins.Leaky(0.9, learn_beta=True)),
            by_steps, images),
        "SpikingJelly": (
            nn.Sequential(standins.Conv2d(2, 4, 3, **mode), standins.LIFNode(**mode), nn.Flatten(2),
                          nn.Linear(64, 5), standins.LIFNode(**mode)), jelly_run, images),
        "Norse": (
            standins.SequentialState(nn.Linear(6, 8), standins.LIFCell(), standins.SequentialState(
                nn.Linear(8, 5), standins.LIFCell())), with_state, 2 * vectors),
        "sinabs": (
            nn.Sequential(nn.Linear(6, 8), standins.LIF(5.0, min_v_mem=-1.0), nn.Linear(8, 5),
                          standins.LIF(4.0, spike_threshold=0.2)),
            lambda net, x: time_at(1, net, x), vectors),
        "Rockpool": (
            standins.TorchSequential(standins.LinearTorch(6, 8), standins.LIFTorch(8),
                                     standins.LinearTorch(8, 5), standins.LIFTorch(5)),
            lambda net, x: time_at(1, net, x), vectors),
    }  # fmt: skip
    for net, _, _ in found.values():
        for part in net.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                nn.init.uniform_(part.weight, -0.4, 1.0)
    nn.init.uniform_(found["snnTorch"][0][4].weight, -0.4, 0.45)
    return found


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_network_goes_the_whole_way(name: str) -> None:
    net, run, x = networks()[name]
    before, modules = copy.deepcopy(net.state_dict()), list(net.modules())
    new = same(net, x, run)
    theirs = {id(p) for p in net.parameters()}
    shared = [p for p in new.parameters() if id(p) in theirs]
    assert bool(shared) == (name != "Rockpool")
    whole_way(new, x)
    assert list(net.modules()) == modules
    after = net.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items() if "running" not in
               key and "tracked" not in key)  # fmt: skip


class Users(nn.Module):
    """A forward that loops over time."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layer(step) for step in x])


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_forward_of_the_users_is_refused(name: str) -> None:
    make, _ = FRAMEWORKS[name]
    for net, path in ((Users(make()), "the module"), (nn.Sequential(Users(make())), "0")):
        with pytest.raises(
            so.InputError,
            match=rf"^convert: {path} is a test_standins.Users, whose forward is code for single "
            r"steps or .*; so.export\(net, x\) takes the live network as it is, and so.convert",
        ):
            so.convert(net)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_options_that_nobody_knows_are_refused(name: str) -> None:
    make, _ = FRAMEWORKS[name]
    layer = make()

    def init(self: Any, flavour: str = "plain") -> None:
        """Of a later version of the framework."""

    newer = type(type(layer).__name__, (type(layer),), {"__init__": init})
    newer.__module__ = type(layer).__module__
    layer.__class__ = newer
    layer.flavour = "plain"
    so.convert(layer)  # at its default
    layer.flavour = "hot"
    with pytest.raises(so.InputError, match=r"its flavour is hot, an option that convert does not"):
        so.convert(layer)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_class_that_overrides_the_step_is_refused(name: str) -> None:
    make, _ = FRAMEWORKS[name]
    layer = make()
    named = type("Named", (type(layer),), {"label": "named"})
    layer.__class__ = named
    assert isinstance(so.convert(layer), so.neuron.lif.Neuron)
    layer.__class__ = type("Other", (named,), {"forward": lambda self, x: x})
    with pytest.raises(so.InputError, match="Other, which overrides forward, which the conversi"):
        so.convert(layer)


@pytest.mark.parametrize(
    "path",
    [
        "snntorch._layers.bntt",
        "spikingjelly.activation_based.model.sew_resnet",
        "norse.torch.models.conv",
        "sinabs.layers.alif",
        "rockpool.nn.networks.synnet",
    ],
)
def test_what_else_a_framework_has_is_refused(path: str) -> None:
    other = standins.at(path)(type("Other", (nn.Module,), {}))
    for net, place in ((other(), "the module"), (nn.Sequential(nn.ReLU(), other()), "1")):
        with pytest.raises(
            so.InputError,
            match=rf"^convert: {place} cannot be converted: it is a {path}.Other, which ours is",
        ) as caught:
            so.convert(net)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_neuron_in_two_places_is_refused(name: str) -> None:
    make, _ = FRAMEWORKS[name]
    layer = make()
    with pytest.raises(so.InputError, match=r"^convert: 2 stands in two places, which share"):
        so.convert(nn.Sequential(layer, nn.Linear(5, 5), layer))


def test_hooks_are_refused_and_torchs_own_are_kept() -> None:
    net = nn.Sequential(nn.Linear(5, 5), standins.Leaky(0.8))
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(net[0])
    so.convert(net)
    net[1].register_forward_hook(lambda module, args, output: output)
    with pytest.raises(so.InputError, match=r"convert: 1 has a hook, .*lambda.*, which was made"):
        so.convert(net)


def test_parameters_of_vectors_go_with_no_images() -> None:
    """A tensor (C,) goes with the width of an image in a framework, and with channels here."""
    each = torch.linspace(0.5, 0.9, 4)
    so.convert(standins.Leaky(each))(torch.ones(2, 4, 9))
    new = so.convert(standins.Leaky(each))
    with pytest.raises(so.ShapeError, match=r"built up with shape \(4,\)"):
        new(torch.ones(2, 4, 4, 4, 9))


def test_layers_of_torch_that_keep_states_are_refused() -> None:
    net = nn.Sequential(nn.GRU(5, 5), standins.Leaky(0.8))
    with pytest.raises(so.InputError, match=r"^convert: 0 is a .*GRU, whose forward"):
        so.convert(net)


def test_what_was_trained_apart_is_learned_apart() -> None:
    new: Any = so.convert(nn.Sequential(standins.Leaky(0.8), standins.Leaky(0.7, learn_beta=True)))
    assert [new[0].beta.requires_grad, new[1].beta.requires_grad] == [False, True]
    assert not new[1].v_threshold.requires_grad


def test_training_flags_are_kept_one_by_one() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2), standins.Leaky(0.8), nn.Sequential(nn.Dropout(0.5)))
    net.train()
    net[0].eval()
    net[2].eval()
    new: Any = so.convert(net)
    assert [part.training for part in (new, *new, new[2][0])] == [True, False, True, False, False]


def test_parts_of_a_network_are_networks() -> None:
    net, _, x = networks()["snnTorch"]
    new: Any = so.convert(net.eval())
    with torch.no_grad():
        assert torch.equal(new[3:](new[:3](x)), new(x))
    assert len(new) == 6
