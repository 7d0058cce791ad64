"""Contexts of torch that change nothing in a model: the model is that of a network without them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.quantize import q8

pytestmark = pytest.mark.usefixtures("compiled_once")

X = spikes(2, 6, 5)


class Within(nn.Module):
    """A linear layer and two of ours, run within a context, and what follows it."""

    def __init__(self, context: Callable[[], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.context = context
        self.linear = nn.Linear(6, 6)
        self.dense = so.synapse.Dense(6, 4, weight_scale=3, pre_hook_fx=q8)
        self.neuron = so.neuron.cuba.Neuron(1.0, 0.25, 0.1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with self.context():
            y = self.neuron(self.dense(self.linear(x.transpose(1, 2)).transpose(1, 2)))
            z = y * 2
        return y + z, z


def autocast(device: str, *, enabled: bool) -> Callable[[], Any]:
    return lambda: torch.autocast(device, dtype=torch.bfloat16, enabled=enabled)


@contextlib.contextmanager
def one_in_another() -> Iterator[None]:
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        yield


@contextlib.contextmanager
def enabled_in_disabled() -> Iterator[None]:
    with torch.autocast("cpu", enabled=False), torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@contextlib.contextmanager
def disabled_in_enabled() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.autocast("cpu", enabled=False):
        yield


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize(
    "context",
    [
        autocast("cpu", enabled=False),
        autocast("cuda", enabled=True),
        torch.enable_grad,
        torch.no_grad,
        one_in_another,
    ],
    ids=["autocast off", "autocast of a GPU", "enable_grad", "no_grad", "one in another"],
)
def test_a_context_without_effect_leaves_no_trace(context: Callable[[], Any]) -> None:
    plain = so.export(Within(contextlib.nullcontext), X)
    net = Within(context)
    model = so.export(net, X)
    assert model.SerializeToString(deterministic=True) == plain.SerializeToString(
        deterministic=True
    )
    report = so.verify(net, model, X)
    assert report.ok, str(report)
    assert [row.name for row in report.layers] == ["dense", "neuron"]


class Switched(Within):
    """Switches gradients by calls instead of blocks, also before and after all else."""

    def __init__(self, *switches: bool | None) -> None:
        super().__init__(contextlib.nullcontext)
        self.switches = switches

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before, between, after = self.switches
        _switch(before)
        y = self.neuron(self.dense(self.linear(x.transpose(1, 2)).transpose(1, 2)))
        _switch(between)
        z = y * 2
        results = y + z, z
        _switch(after)
        return results


class Plain(nn.Module):
    """Layers of ours alone, whose program torch's exporter takes as it is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense = so.synapse.Dense(6, 4, weight_scale=3, pre_hook_fx=q8)

    def forward(self, x: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        y: Tensor = self.dense(x)
        torch.set_grad_enabled(True)
        return y


def test_gradients_may_be_switched_on_at_the_end() -> None:
    net = Plain()
    report = so.verify(net, so.export(net, X), X)
    assert report.ok, str(report)


def _switch(enabled: bool | None) -> None:
    if enabled is not None:
        torch.set_grad_enabled(enabled)


@pytest.mark.parametrize(
    "switches",
    [
        (False, None, True),
        (True, None, False),
        (False, True, None),
        (False, True, False),
        (True, False, True),
        (None, None, True),
        (True, None, None),
    ],
    ids=str,
)
def test_switched_gradients_leave_no_trace(switches: tuple[bool | None, ...]) -> None:
    plain = so.export(Within(contextlib.nullcontext), X)
    net = Switched(*switches)
    enabled = torch.is_grad_enabled()
    model = so.export(net, X)
    assert torch.is_grad_enabled() == enabled
    assert [node.op_type for node in model.graph.node] == [
        node.op_type for node in plain.graph.node
    ]
    report = so.verify(net, model, X)
    assert report.ok, str(report)
    assert [row.name for row in report.layers] == ["dense", "neuron"]
    assert torch.is_grad_enabled() == enabled


@pytest.mark.parametrize(
    "context",
    [autocast("cpu", enabled=True), enabled_in_disabled, disabled_in_enabled],
    ids=["on", "on in off", "off in on"],
)
def test_autocast_that_is_on_is_refused(context: Callable[[], Any]) -> None:
    with pytest.raises(so.ExportError, match=r"^Within enters torch\.autocast.*leave it out"):
        so.export(Within(context), X)


def test_what_runs_in_a_context_is_checked() -> None:
    net = Within(torch.enable_grad)
    net.linear.double()
    net.linear.register_forward_pre_hook(lambda _, args: (args[0].double(),))
    with pytest.raises(so.InputError, match=r"^dense: the input is float64"):
        so.export(net, X)
