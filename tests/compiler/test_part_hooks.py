"""Forward hooks on parts within a neuron are refused; those on layers are in the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

X = spikes(2, 6, 5)
NEURON = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}


def double(*args: Any) -> Any:
    """Double what a pre-hook is given, or a hook."""
    if len(args) == 2:
        return tuple(x * 2 for x in args[1])
    return args[2] * 2 if isinstance(args[2], Tensor) else tuple(x * 2 for x in args[2])


def ran(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)  # the same network in every test
    net = make()
    net(X)
    return net.eval()


def dense(kind: str, **more: Any) -> Callable[[], nn.Module]:
    block = getattr(so.block, kind).Dense
    neuron = getattr(so.neuron, kind).Neuron.example
    params = {**neuron, **{k: more.pop(k) for k in ("norm", "dropout") if k in more}}
    return lambda: ran(lambda: block(params, 6, 4, weight_scale=3, **more))


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(4))


MEAN, SCALE = so.neuron.norm.MeanOnlyBatchNorm, so.neuron.norm.WgtScaleBatchNorm

#: part -> (network, path)
WITHIN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "norm": (dense("cuba", norm=MEAN), "neuron.norm"),
    "scaling norm": (dense("cuba", norm=SCALE), "neuron.norm"),
    "norm of another neuron": (dense("alif", norm=MEAN), "neuron.norm"),
    "norm of a resonator": (dense("rf", norm=MEAN), "neuron.imag_norm"),
    "within a norm": (dense("cuba", norm=batch_norm), "neuron.norm.0"),
    "dropout": (dense("cuba", dropout=so.neuron.Dropout(0.5)), "neuron.drop"),
    "torch's dropout": (dense("cuba", dropout=nn.Dropout(0.5)), "neuron.drop"),
    "sigma": (dense("sigma_delta"), "neuron.sigma"),
    "delta": (dense("sigma_delta"), "neuron.delta"),
    "norm of sigma-delta": (dense("sigma_delta", norm=MEAN), "neuron.norm"),
}


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("case", WITHIN)
def test_a_hook_within_a_neuron_is_refused(case: str, register: str) -> None:
    make, path = WITHIN[case]
    net = make()
    hook = getattr(net.get_submodule(path), register)(double)
    part = path.removeprefix("neuron.").replace(".", r"\.")
    sentence = rf"^neuron: {part}, a part of the \w+ neuron, has a forward hook.*remove it"
    for call in (lambda: so.export(net, X), lambda: so.freeze(net)):
        with pytest.raises(so.InputError, match=sentence) as caught:
            call()
        assert "\n" not in str(caught.value)
    hook.remove()
    assert so.verify(net, so.export(net, X), X).ok


#: layer -> (network, path)
LAYERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "synapse": (dense("cuba"), "synapse"),
    "neuron": (dense("cuba"), "neuron"),
    "step": (dense("cuba"), "step"),
    "delay": (dense("cuba", delay=True), "delay"),
    "complex synapse": (dense("rf"), "synapse"),
    "input synapse": (
        lambda: ran(lambda: so.block.cuba.Recurrent(NEURON, 6, 4, weight_scale=3)),
        "input_synapse",
    ),
    "bias": (lambda: ran(lambda: so.block.cuba.KWTA(NEURON, 6, 4, 2, weight_scale=3)), "bias"),
}


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("case", LAYERS)
def test_a_hook_on_a_layer_is_in_the_model(case: str, register: str) -> None:
    make, path = LAYERS[case]
    net, plain = make(), make()
    getattr(net.get_submodule(path), register)(double)
    model = so.export(net, X)
    assert len(model.graph.node) > len(so.export(plain, X).graph.node)
    report = so.verify(net, model, X)
    assert report.ok, str(report)


#: parts that are never called: torch runs no hook of theirs, and neither does a model
UNCALLED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "part of a complex synapse": (dense("rf"), "synapse.real"),
    "recurrent synapse": (
        lambda: ran(lambda: so.block.cuba.Recurrent(NEURON, 6, 4, weight_scale=3)),
        "recurrent_synapse",
    ),
}


@pytest.mark.parametrize("case", UNCALLED)
def test_a_hook_that_torch_never_runs_changes_nothing(case: str) -> None:
    make, path = UNCALLED[case]
    torch.manual_seed(0)
    net = make()
    before = net(X)
    net.get_submodule(path).register_forward_hook(double)
    assert torch.equal(net(X), before)
    assert so.verify(net, so.export(net, X), X).ok


def test_backward_hooks_are_no_matter_of_a_model() -> None:
    net = dense("cuba", norm=MEAN)()
    net.neuron.norm.register_full_backward_hook(lambda *_: None)
    assert so.verify(net, so.export(net, X), X).ok
