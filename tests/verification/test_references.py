"""verify against what is not the network of the export: another framework's module, a function."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from networks import cuba, spikes
from torch import Tensor, nn

import synapse_onnx as so

X = spikes(3, 6, 24)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    dense = so.synapse.Dense(6, 5, weight_scale=3, pre_hook_fx=so.quantize.q8)
    return nn.Sequential(dense, cuba()).eval()


@pytest.fixture(scope="module")
def model(network: nn.Module) -> onnx.ModelProto:
    return so.export(network, X)


class Foreign(nn.Module):
    """The network as another framework has it: a loop over time, a state that it keeps."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.weight = network[0].effective_weight.detach()[:, :, 0, 0, 0]
        neuron = network[1]
        self.current_decay = 4096 - round(neuron.current_decay.item())
        self.voltage_decay = 4096 - round(neuron.voltage_decay.item())
        self.level = neuron.integer_threshold
        self.membrane: Tensor | None = None

    def forward(self, spike_train: Tensor) -> tuple[Tensor, Tensor]:
        scaled = (spike_train.movedim(-1, 0) @ self.weight.T * 64 * 64).to(torch.int64)
        current = torch.zeros_like(scaled[0])
        if self.membrane is None:
            self.membrane = torch.zeros_like(current)
        spikes, membranes = [], []
        for x in scaled:
            current = torch.div(current * self.current_decay, 4096, rounding_mode="trunc") + x
            kept = torch.div(self.membrane * self.voltage_decay, 4096, rounding_mode="trunc")
            self.membrane = kept + current
            fired = self.membrane >= self.level
            self.membrane = torch.where(fired, 0, self.membrane)
            spikes.append(fired)
            membranes.append(self.membrane)
        return torch.stack(spikes, -1), torch.stack(membranes)


def test_a_module_of_another_kind_is_compared_by_its_outputs(network, model) -> None:
    foreign = Foreign(network)
    report = so.verify(foreign, model, X)
    assert report.ok, str(report)
    assert report.spike_flips == 0
    assert sum(row.spikes[0] for row in report.outputs if row.spikes) > 20
    assert report.by_run_alone == (
        "the reference is a module of class Foreign, not the network that was exported"
    )
    assert report.verdict == "equal by the run alone"
    assert report.layers == ()
    assert "1 outputs of the reference have no counterpart in the model" in report.notes
    assert foreign.membrane is None  # the caller's module was not run


@pytest.mark.parametrize(
    "reference",
    [
        lambda network: network.forward,
        lambda network: lambda x: network(x).numpy(),
        lambda network: lambda x: {"rates": x.mean(), "spikes": network(x).double()},
        lambda network: lambda x: [x[0], (network(x) > 0,)],
    ],
    ids=["function", "arrays", "dict", "bool"],
)
def test_a_function_is_a_reference(reference: Callable[..., Any], network, model) -> None:
    report = so.verify(reference(network), model, X)
    assert report.ok, str(report)
    assert report.by_run_alone.startswith("the reference is a function")


def test_one_spike_that_differs_is_found(network, model) -> None:
    def off(x: Tensor) -> Tensor:
        y = network(x).clone()
        y[1, 2, 0] = 1 - y[1, 2, 0]
        return y

    report = so.verify(off, model, X)
    assert not report.ok
    assert (report.first_divergence.sample, report.first_divergence.neuron) == (1, (2,))


def test_the_callers_tensors_are_not_changed(network, model) -> None:
    x = X.clone()
    so.verify(lambda x: network(x.add_(1).sub_(1).mul_(1)), model, x)
    assert torch.equal(x, X)


def test_a_module_that_cannot_be_copied_runs_as_it_is(network, model) -> None:
    class Locked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lock, self.net = threading.Lock(), [network]

        def forward(self, x: Tensor) -> Tensor:
            with self.lock:
                return self.net[0](x)

    assert so.verify(Locked(), model, X).ok


def test_inputs_that_are_cut_may_be_refused(network, model) -> None:
    def whole(x: Tensor) -> Tensor:
        if x.shape != X.shape:
            raise ValueError("takes (3, 6, 24)")
        return network(x)

    report = so.verify(whole, model, X)
    assert report.ok
    assert (
        "inputs of shape (1, 6, 31) are not compared: verify: the reference raises ValueError: "
        "takes (3, 6, 24)"
    ) in report.notes


class Counting:
    """A function that remembers its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x[:, :5] + self.calls

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot be copied")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (Counting(), "the reference gives other outputs when it is called again"),
        (lambda x: torch.rand(3, 5, 24), "the reference gives other outputs when it is called"),
        (lambda x: 3, "the reference returns no tensor or array"),
        (lambda: None, r"the reference raises TypeError: .*takes 0 positional arguments"),
        (7, "the reference must be a module or another callable, got a int"),
        (Counting, "the reference must be .*, got the class Counting; make an instance of it"),
    ],
)
def test_what_is_no_reference_is_refused(reference: Any, message: str, model) -> None:
    with pytest.raises(so.InputError, match=f"verify: {message}"):
        so.verify(reference, model, X)


def test_an_output_of_another_shape_is_named(network, model) -> None:
    report = so.verify(lambda x: network(x)[..., 1:], model, X)
    assert not report.ok
    assert report.problems[0] == (
        "output: the model returns shape (3, 5, 24), and the reference (3, 5, 23)"
    )


def test_of_many_outputs_a_few_shapes_are_named(network, model) -> None:
    report = so.verify(lambda x: list(network(x).unbind(-1)), model, X)
    assert report.problems[0] == (
        "output: the model returns shape (3, 5, 24), and the reference (3, 5), (3, 5), (3, 5), "
        "(3, 5), and 20 more"
    )


@pytest.mark.parametrize("given", ["1e-5", None, -1, float("nan"), float("inf"), 1j])
@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_a_tolerance_is_a_finite_number(name: str, given: Any, network, model) -> None:
    with pytest.raises(so.InputError, match=f"verify: {name} must be a finite number >= 0, got "):
        so.verify(network, model, X, **{name: given})


def test_a_stream_is_compared_too(network) -> None:
    stream = so.export(network, X, streaming=True)
    report = so.verify(network.forward, stream, X)
    assert report.ok, str(report)
    assert report.spike_flips == 0
