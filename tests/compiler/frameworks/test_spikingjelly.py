"""SpikingJelly: operators of whole sequences are seen through, and states are reset."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from jelly_standins import MultiStep, standing_in
from torch import nn

import synapse_onnx as so
from synapse_onnx.compiler.axes import count_operators
from synapse_onnx.compiler.frameworks import in_plain_torch, reset_states


@pytest.fixture
def package() -> Iterator[ModuleType]:
    with standing_in() as package:
        yield package


def _network(neuron: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), neuron, nn.Linear(8, 4))
    nn.init.uniform_(network[0].weight, -0.2, 1.0)
    return network.eval()


def _is_right(network: nn.Module) -> None:
    x = torch.rand(7, 3, 6)
    model = so.export(network, x)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in dims][:2] == ["T", "N"]
    report = so.verify(network, model, x)
    assert report.ok, str(report)


@pytest.mark.usefixtures("package", "compiled_once")
def test_a_sequence_in_one_operator_is_a_loop() -> None:
    _is_right(_network(MultiStep()))


@pytest.mark.usefixtures("package")
def test_operators_are_counted_step_by_step() -> None:
    neuron = MultiStep()
    few, more = (count_operators(neuron, [torch.rand(steps, 2, 3)]) for steps in (4, 9))
    assert more > few


def test_the_kernel_is_called_in_the_context_and_in_its_thread_alone(package: ModuleType) -> None:
    calls = []
    kernel = package._cpu._forward_impl

    def counted(*args):
        calls.append(threading.get_ident())
        return kernel(*args)

    package._cpu._forward_impl = counted
    x, neuron = torch.rand(4, 2, 3), MultiStep()
    with in_plain_torch():
        neuron(x)
        other = threading.Thread(target=lambda: MultiStep()(x))
        other.start()
        other.join()
    neuron(x)
    assert calls == [threading.get_ident()]


def test_a_network_is_left_as_it_was(package: ModuleType) -> None:
    operator = package._forward
    network = _network(MultiStep())
    so.export(network, torch.rand(7, 3, 6))
    assert package._forward is operator
    assert network[1].v == 0.0


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_what_an_earlier_call_left_is_refused(scale: float) -> None:
    """However small: no output of the example tells it."""
    network = _network(MultiStep())
    x = torch.rand(5, 2, 6)
    with torch.no_grad():
        network(scale * x)
    with pytest.raises(so.ExportError, match=r"earlier calls, through 1\.v, .*reset the network"):
        so.export(network, x)
    reset_states(network)
    so.export(network, x)


@pytest.mark.usefixtures("package")
def test_states_of_single_steps_are_not_reset() -> None:
    neuron = MultiStep("s")
    neuron.v = torch.ones(2, 3)
    reset_states(nn.Sequential(neuron))
    assert torch.equal(neuron.v, torch.ones(2, 3))


class MultiStepModule(nn.Module):
    """Runs a module of single steps over (T, N, C), and has no step mode of its own."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step


MultiStepModule.__module__ = "spikingjelly.activation_based.base"


@pytest.mark.usefixtures("package")
def test_a_container_of_single_steps_takes_whole_sequences() -> None:
    container = MultiStepModule(MultiStep("s"))
    container.step.v = torch.ones(2, 3)
    reset_states(container)
    assert container.step.v == 0.0
    with pytest.raises(so.InputError, match="takes whole sequences and not single steps"):
        so.over_time(container)


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize(
    "name",
    [
        "LIFNode",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("IFNode", "ParametricLIFNode", "QIFNode", "ILIFNode")
        ),
    ],
)
def test_neurons_of_whole_sequences(name: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        neuron = pytest.importorskip(
            "spikingjelly.activation_based.neuron",
            reason="spikingjelly is not installed: see peers.txt",
        )
    if not hasattr(neuron, name):
        pytest.skip(f"this SpikingJelly has no {name}")
    _is_right(_network(getattr(neuron, name)(step_mode="m")))
