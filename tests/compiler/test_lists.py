"""Lists of tensors in ``forward``: those of the network as it was, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import spikes
from torch import Tensor, nn
from torch.nn.utils import prune

import synapse_onnx as so
from synapse_onnx.quantize import q8

X = spikes(2, 6, 5)


class Net(nn.Module):
    def __init__(self, use: Callable[[nn.Module], Any], hook: Any = q8, **neuron: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.use = use
        self.dense = so.synapse.Dense(6, 4, weight_scale=3, pre_hook_fx=hook)
        self.neuron = so.neuron.cuba.Neuron(1.0, 0.25, 0.1, dropout=nn.Dropout(0.5), **neuron)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.dense(x)) + self.use(self)


#: what is computed of all weights
SUMS: dict[str, Callable[[Any], Any]] = {
    "parameters": lambda net: sum(p.abs().sum() for p in net.parameters()),
    "named_parameters": lambda net: sum(p.abs().sum() for _, p in net.named_parameters()),
    "those of a layer": lambda net: sum(p.abs().sum() for p in net.dense.parameters()),
    "without recursion": lambda net: sum(p.abs().sum() for p in net.dense.parameters(False)),
    "state_dict": lambda net: sum(p.float().abs().sum() for p in net.state_dict().values()),
}

#: what is asked of them
FACTS: dict[str, Callable[[Any], Any]] = {
    "count": lambda net: sum(p.numel() for p in net.parameters()),
    "number": lambda net: len(list(net.parameters())) + 10 * len(list(net.buffers())),
    "names": lambda net: sum(len(name) for name, _ in net.named_parameters()),
    "device": lambda net: torch.ones(1, device=next(net.parameters()).device),
    "states": lambda net: sum(b.numel() for b in net.buffers()),
    "type": lambda net: torch.ones(1, dtype=next(net.parameters()).dtype),
    "types": lambda net: (
        len({p.dtype for p in net.parameters()}) + len(str(net.dense.weight.shape))
    ),
    "type of a detached one": lambda net: torch.ones(
        1, dtype=[*net.parameters()][-1].detach().dtype
    ),
}


def normed(use: Callable[[nn.Module], Any]) -> Net:
    net = Net(use)
    net.dense.enable_weight_norm()
    return net


def pruned(use: Callable[[nn.Module], Any]) -> Net:
    net = Net(use)
    prune.l1_unstructured(net.dense, "weight", 0.3)
    return net


@pytest.mark.parametrize("make", [Net, normed, pruned])
@pytest.mark.parametrize("case", SUMS)
def test_what_differs_is_refused(case: str, make: Callable[..., Net]) -> None:
    sentence = (
        r"^forward\(\) reads dense\.weight\w* at line \d+ of test_lists\.py.*effective_weight"
    )
    with pytest.raises(so.ExportError, match=sentence) as caught:
        so.export(make(SUMS[case]), X)
    assert "\n" not in str(caught.value)


def test_a_mask_that_freezing_removes_is_refused() -> None:
    net = pruned(lambda net: sum(b.sum() for b in net.dense.buffers()))
    with pytest.raises(so.ExportError, match=r"reads dense\.weight_mask at line"):
        so.export(net, X)


@pytest.mark.parametrize("make", [Net, normed, pruned])
@pytest.mark.parametrize("case", FACTS)
@pytest.mark.usefixtures("compiled_once")
def test_facts_are_those_of_before(case: str, make: Callable[..., Net]) -> None:
    net = make(FACTS[case])
    report = so.verify(net, so.export(net, X), X)
    assert report.ok, str(report)


class Cast(nn.Module):
    """Casts its input to the type of its first parameter, as networks of mixed precision do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        neuron = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}
        self.layer = so.block.cuba.Dense(neuron, 6, 4, weight_scale=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(next(self.parameters()).dtype))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.usefixtures("compiled_once")
def test_a_network_casts_to_its_own_type(streaming: bool) -> None:
    """Its frozen form has integers alone, and no parameters."""
    net = Cast()
    report = so.verify(net, so.export(net, X, streaming=streaming), X)
    assert report.ok, str(report)


def test_an_error_on_other_sizes_is_the_networks_own() -> None:
    """The network runs once more for the sentence, and lists its parameters there, too."""

    class Fixed(Cast):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.ones(1, 1, 5)[..., : x.shape[-1]].expand(2, 4, 5)

    with pytest.raises(so.ExportError, match="as a constant") as caught:
        so.export(Fixed(), X)
    assert "StopIteration" not in str(caught.value)


def test_the_type_of_a_weight_is_refused_in_one_sentence() -> None:
    """Its layer refuses such an input, but that is not the cause."""

    class Own(Cast):
        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.to(self.layer.synapse.weight.dtype))

    with pytest.raises(so.ExportError, match=r"reads layer\.synapse\.weight at line .*effective_w"):
        so.export(Own(), X)


class Given(nn.Module):
    """Calls the second of two quantised layers with the list of one of them."""

    def __init__(self, other: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = so.synapse.Dense(6, 6, weight_scale=3, pre_hook_fx=q8)
        self.second = so.synapse.Dense(6, 6, weight_scale=3, pre_hook_fx=q8)
        self.other = other

    def forward(self, x: Tensor) -> Tensor:
        given = dict(self.get_submodule(self.other).named_parameters())
        return torch.func.functional_call(self.second, given, (self.first(x),))


def test_a_layer_may_be_given_its_own_list() -> None:
    report = so.verify(Given("second"), so.export(Given("second"), X), X)
    assert report.ok, str(report)


def test_a_layer_is_not_given_the_list_of_another_in_silence() -> None:
    """Its file would hold its own weights."""
    with pytest.raises(so.ExportError, match=r"reads first\.weight, which the frozen layer holds"):
        so.export(Given("first"), X)


@pytest.mark.parametrize("case", ["parameters", "named_parameters"])
def test_values_that_stay_may_be_read(case: str) -> None:
    """In the float regime decays only move into buffers."""
    net = Net(SUMS[case], hook=None, regime="float")
    report = so.verify(net, so.export(net, X), X)
    assert report.ok, str(report)


def test_tied_parameters_are_listed_once() -> None:
    net = Net(FACTS["count"])
    net.other = so.synapse.Dense(6, 4, pre_hook_fx=q8)
    net.other.weight = net.dense.weight
    assert sum(p.numel() for p in net.parameters()) == 26
    report = so.verify(net, so.export(net, X), X)
    assert report.ok, str(report)


def test_replicas_list_their_tensors() -> None:
    """The layers of a replica are no modules of the network."""
    net = nn.DataParallel(nn.DataParallel(Net(FACTS["count"])))
    report = so.verify(net, so.export(net, X), X)
    assert report.ok, str(report)


def test_lists_are_torchs_own_afterwards() -> None:
    before = nn.Module.named_parameters, nn.Module.named_buffers
    with pytest.raises(so.ExportError, match="reads"):
        so.export(Net(SUMS["parameters"]), X)
    assert (nn.Module.named_parameters, nn.Module.named_buffers) == before
    frozen = so.freeze(Net(FACTS["count"]))
    assert "dense.weight" not in dict(frozen.named_parameters())
