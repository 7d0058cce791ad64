"""What training and torch's tools leave on a network does not keep it from being exported."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from networks import spikes
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import synapse_onnx as so
from synapse_onnx.quantize import q8

pytestmark = pytest.mark.usefixtures("compiled_once")

NEURON = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}
X = spikes(2, 6, 5)


class Net(nn.Module):
    def __init__(self, hook: Any = q8, **neuron: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense = so.synapse.Dense(6, 4, weight_scale=3, pre_hook_fx=hook)
        self.neuron = so.neuron.cuba.Neuron(**NEURON | neuron)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.dense(x))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(-1)


def tail() -> nn.Sequential:
    return nn.Sequential(Net(), Mean(), nn.Linear(4, 3))


class Keeping(Net):
    """Keeps what it computed: as an attribute, a buffer, in a list or in a dict."""

    def __init__(self, place: str) -> None:
        super().__init__(hook=None)
        self.place, self.last, self.all, self.by_name = place, None, [], {}
        self.register_buffer("kept", None)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x)
        if self.place == "attribute":
            self.last = y
        elif self.place == "buffer":
            self.kept = y
        elif self.place == "list":
            self.all.append(y)
        else:
            self.by_name["y"] = (y, y * 2)
        return self.neuron(y)


class Membrane(nn.Module):
    """A leak in plain torch, whose last state stays on the module."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.mem = nn.Linear(6, 4), None

    def forward(self, x: Tensor) -> Tensor:
        mem, steps = torch.zeros(x.shape[0], 4), []
        for t in range(5):
            mem = mem * 0.9 + self.fc(x[..., t])
            steps.append(mem)
        self.mem = mem
        return torch.stack(steps, -1)


class Absolute(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w.abs()


def changed(
    net: nn.Module, change: Callable[..., Any], *args: Any, part: str, **options: Any
) -> Any:
    with warnings.catch_warnings(action="ignore"):  # torch calls its old norms old
        change(net.get_submodule(part), *args, **options)
    return net


def tied() -> nn.Module:
    """Two synapses of one parameter, of which one is pruned."""
    net = nn.Sequential(Net(), nn.Identity(), so.synapse.Dense(4, 4, pre_hook_fx=q8))
    net[1] = so.synapse.Dense(4, 4, pre_hook_fx=q8)
    net[2].weight = net[1].weight
    return changed(net, prune.l1_unstructured, "weight", 0.5, part="1")


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": Net,
    "pruned synapse": lambda: changed(Net(), prune.l1_unstructured, "weight", 0.3, part="dense"),
    "pruned linear": lambda: changed(tail(), prune.l1_unstructured, "weight", 0.3, part="2"),
    "one of two tied": tied,
    "old norm of a synapse": lambda: changed(Net(), nn.utils.weight_norm, part="dense"),
    "old norm of a linear": lambda: changed(tail(), nn.utils.weight_norm, part="2"),
    "old spectral norm": lambda: changed(Net(), nn.utils.spectral_norm, part="dense"),
    "norm of a synapse": lambda: changed(Net(), parametrizations.weight_norm, part="dense"),
    "norm of a linear": lambda: changed(tail(), parametrizations.weight_norm, part="2"),
    "parametrised synapse": lambda: changed(
        Net(), parametrize.register_parametrization, "weight", Absolute(), part="dense"
    ),
    "parametrised floats": lambda: changed(
        Net(hook=None), parametrize.register_parametrization, "weight", Absolute(), part="dense"
    ),
    "parametrised neuron": lambda: changed(
        Net(), parametrize.register_parametrization, "voltage_decay", Absolute(), part="neuron"
    ),
    "lazy, after a run": lambda: nn.Sequential(Net(), Mean(), nn.LazyLinear(3)),
    "learned neuron": lambda: Net(requires_grad=True),
    "states that persist": lambda: Net(requires_grad=True, persistent_state=True),
    "membrane": Membrane,
    **{
        f"keeping, {place}": lambda place=place: Keeping(place)
        for place in ("attribute", "buffer", "list", "dict")
    },
}


def trained(net: nn.Module) -> nn.Module:
    """Go forward and backward once; the graph of what stays on the module is used up."""
    y = net(X)
    if y.requires_grad:
        y.sum().backward()
    return net


@pytest.mark.parametrize("case", NETWORKS)
def test_a_trained_network_is_exported(case: str) -> None:
    net = trained(NETWORKS[case]()).eval()  # spectral norm goes on in training
    with torch.no_grad():
        before = net(X) if case != "states that persist" else None
    model = so.export(net, X, dynamic=case != "membrane")
    report = so.verify(net, model, X)
    assert report.ok, str(report)
    if before is not None:
        assert torch.equal(net(X), before)
    if case != "membrane":
        dims = model.graph.output[0].type.tensor_type.shape.dim
        assert dims[0].dim_param == "N"
    trained(net.train())  # and it can go on training


@pytest.mark.parametrize(
    "case", ["pruned synapse", "parametrised synapse", "old norm of a synapse"]
)
def test_a_computed_weight_is_folded_in_the_frozen_form_alone(case: str) -> None:
    net = NETWORKS[case]()
    names = list(net.state_dict())
    frozen = so.freeze(net)
    assert frozen.dense.weight.dtype == torch.int8
    assert set(frozen.dense.state_dict()) == {"weight", "weight_scale"}
    assert list(net.state_dict()) == names
    assert torch.equal(frozen(X), net(X))


def test_the_other_of_two_tied_weights_is_not_pruned() -> None:
    net = tied()
    frozen = so.freeze(net)
    assert int((frozen[1].weight == 0).sum()) > int((frozen[2].weight == 0).sum())


def test_autocast_around_an_export_changes_nothing(compiled_anew: None) -> None:
    net = tail()
    plain = so.export(net, X).SerializeToString(deterministic=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert so.export(net, X).SerializeToString(deterministic=True) == plain


NAMES = ("constant_0", "input", "dense", "neuron", "N", "T", "größe", "output", "val_0", "weight")


@pytest.mark.parametrize(
    ("name", "streaming"),
    [*((name, True) for name in NAMES), ("constant_0", False), ("N", False), ("output", False)],
)
def test_an_argument_may_have_any_name(name: str, streaming: bool) -> None:
    class Named(Net):
        def forward(self, *args: Tensor) -> Tensor:
            return super().forward(*args)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    Named.forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("self", kind), inspect.Parameter(name, kind)]
    )
    net = Named()
    model = so.export(net, X, streaming=streaming)
    assert model.graph.input[0].name == name
    report = so.verify(net, model, X)
    assert report.ok, str(report)


class Pair(NamedTuple):
    real: Tensor
    imag: Tensor


class OfPair(Net):
    def forward(self, x: Pair) -> Pair:
        y = super().forward(x.real + x.imag)
        return Pair(y, y * 2)


@pytest.mark.parametrize("args", [[Pair(X, X)], Pair(X, X), (X, X)], ids=["one", "bare", "tuple"])
def test_named_tuples_are_pairs(args: Any) -> None:
    net = OfPair()
    if type(args) is tuple:  # the network asks for names that a plain pair has not
        with pytest.raises(so.ExportError, match="no attribute 'real'"):
            so.export(net, args)
        return
    model = so.export(net, args)
    assert [value.name for value in model.graph.input] == ["x_real", "x_imag"]
    assert so.verify(net, model, args).ok


class Caller(Net):
    """Asks for what a frozen network holds as it did before."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.dense.effective_weight[:, :4, 0, 0, 0]
        scaled = super().forward(x) * self.dense.weight.shape[0] * self.neuron.threshold
        return torch.nn.functional.linear(scaled.transpose(1, 2), weight)


class FloatCaller(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.dense.weight.sum()


@pytest.mark.parametrize("net", [Caller(), FloatCaller(hook=None)], ids=["in use", "floats"])
def test_weights_may_be_read_where_they_are_the_same(net: nn.Module) -> None:
    report = so.verify(net, so.export(net, X), X)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y if y.shape[0] > 0 else -y,
        lambda y: y * (2 if y.shape[-1] else 3),
        lambda y: y.sum(-1) / y.shape[-1],
        lambda y: y * max(1, y.shape[-1]),
        lambda y: y[..., -1],
        lambda y: (y, None, {"a": [y * 2]}),
    ],
    ids=["branch", "truth", "quotient", "maximum", "last step", "nested"],
)
def test_open_axes_that_are_used_rightly(function: Callable[[Tensor], Any]) -> None:
    class Using(Net):
        def forward(self, x: Tensor) -> Any:
            return function(super().forward(x))

    net = Using()
    report = so.verify(net, so.export(net, X), X)
    assert report.ok, str(report)
