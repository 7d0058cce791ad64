"""freeze: the deployment form still runs and gives the same."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import Complex, Convolutional, cuba, spikes
from torch import nn

import synapse_onnx as so


@pytest.mark.parametrize("kind", [Convolutional, Complex])
def test_a_quantised_network_gives_the_same_bits(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    frozen, x = so.freeze(module), spikes(3, 2, 8, 8, 30)
    with torch.no_grad():
        expected, found = module(x), frozen(x)
    if isinstance(expected, tuple):
        expected, found = torch.stack(expected), torch.stack(found)
    assert float(expected.abs().sum()) > 0
    assert torch.equal(expected, found)


def test_float_weights_stay_as_they_are_with_the_norm_folded() -> None:
    torch.manual_seed(0)
    layer = so.synapse.Dense(7, 4, weight_norm=True)
    frozen = so.freeze(layer)
    assert not frozen.weight_norm_enabled
    assert [name for name, _ in frozen.named_parameters()] == ["weight"]
    assert torch.equal(frozen.weight, layer.weight)
    assert not frozen.weight.requires_grad
    mixed = nn.Sequential(nn.Linear(3, 2), layer)
    assert [p.requires_grad for p in so.freeze(mixed).parameters()] == [False] * 3
    assert all(p.requires_grad for p in mixed.parameters())


def test_what_is_left_in_the_frozen_form() -> None:
    module = Convolutional(dropout=nn.Dropout(0.5), persistent_state=True)
    frozen = so.freeze(module)
    assert not frozen.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    for name in ("conv", "pool", "dense"):
        layer = getattr(frozen, name)
        assert layer.pre_hook_fx is None
        assert layer.weight.dtype == torch.int8
        assert layer.weight_scale is not None
        assert getattr(frozen, f"{name}_neuron").drop is None
        assert not getattr(frozen, f"{name}_neuron").persistent_state
        decay = getattr(frozen, f"{name}_neuron").voltage_decay
        assert torch.equal(decay, torch.round(decay))
    # the original keeps all of it
    assert module.training
    assert module.conv.pre_hook_fx is so.quantize.q8
    assert module.conv_neuron.persistent_state
    assert module.conv_neuron.drop is not None


def test_freezing_twice_changes_nothing() -> None:
    torch.manual_seed(0)
    once = so.freeze(Convolutional())
    twice = so.freeze(once)
    assert list(once.state_dict()) == list(twice.state_dict())
    for key, value in once.state_dict().items():
        assert torch.equal(value, twice.state_dict()[key])
    assert [layer.describe() for layer in (once.conv, once.conv_neuron)] == [
        layer.describe() for layer in (twice.conv, twice.conv_neuron)
    ]


def test_integers_take_neither_hook_nor_weight_norm() -> None:
    layer = so.freeze(so.synapse.Dense(3, 2, pre_hook_fx=so.quantize.q8))
    with pytest.raises(so.InputError, match="pre_hook_fx cannot be set on frozen integer weights"):
        layer.pre_hook_fx = so.quantize.q8
    with pytest.raises(so.InputError, match="weight norm cannot be set on frozen integer weights"):
        layer.enable_weight_norm()


def test_a_frozen_module_can_be_copied_and_saved() -> None:
    torch.manual_seed(0)
    frozen = so.freeze(Convolutional())
    x = spikes(2, 2, 8, 8, 9)
    copied = copy.deepcopy(frozen)
    assert torch.equal(copied(x), frozen(x))
    other = so.freeze(Convolutional())
    other.load_state_dict(frozen.state_dict())
    assert torch.equal(other(x), frozen(x))


def test_the_layer_at_fault_is_named() -> None:
    module = nn.ModuleDict({"body": nn.Sequential(so.synapse.Dense(3, 2), cuba())})
    with torch.no_grad():
        module["body"][0].weight[0, 0] = float("inf")
    with pytest.raises(so.InputError, match=r"^body\.0: Dense: the weight has NaN or infinite"):
        so.freeze(module)


def test_decays_must_be_drawn_before_a_neuron_is_frozen() -> None:
    module = nn.Sequential(so.synapse.Dense(3, 2), cuba(shared_param=False))
    with pytest.raises(so.InputError, match=r"^1: .* run the network once, or load a checkpoint"):
        so.freeze(module)
    module(spikes(1, 3, 4))
    assert so.freeze(module)[1].current_decay.shape == (2,)


def test_a_module_without_our_layers_is_just_copied() -> None:
    module = nn.Linear(3, 2)
    frozen = so.freeze(module)
    assert frozen is not module
    assert torch.equal(frozen.weight, module.weight)
