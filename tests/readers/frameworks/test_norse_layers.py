"""Live layers of Norse, and what ``convert`` makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from converted import IGNORED, drive, framework, same, time_at, whole_way, with_state
from torch import Tensor, nn

import synapse_onnx as so

norse, lif_box, li, li_box, iaf, iaf_step, reset = framework(
    "norse.torch", "norse.torch.module.lif_box", "norse.torch.module.leaky_integrator",
    "norse.torch.module.leaky_integrator_box", "norse.torch.module.iaf",
    "norse.torch.functional.iaf", "norse.torch.functional.reset",
)  # fmt: skip
pytestmark = IGNORED

number = torch.as_tensor
SEQUENCES = ("LIF", "LIFRecurrent", "LI", "IAF", "Lift")
PARAMETERS = {
    "usual": norse.LIFParameters(),
    "leak and reset": norse.LIFParameters(
        v_leak=number(0.2), v_reset=number(-0.1), v_th=number(0.6)),
    "one each": norse.LIFParameters(
        tau_mem_inv=torch.linspace(50, 300, 5), tau_syn_inv=number(400.0)),
    "tanh": norse.LIFParameters(method="tanh"),
}  # fmt: skip


def run(module: Any, x: Tensor) -> Tensor:
    sequences = any(type(part).__name__ in SEQUENCES for part in module.modules())
    return time_at(0, module, x) if sequences else with_state(module, x)


def box(**options: Any) -> Any:
    return lif_box.LIFBoxCell(lif_box.LIFBoxParameters(tau_mem_inv=number(500.0), **options))


def recurrent(make: Any, **options: Any) -> Any:
    torch.manual_seed(2)
    return make(5, 4, PARAMETERS["leak and reset"], **options)


LAYERS: dict[str, Callable[[], Any]] = {
    **{f"LIFCell, {name}": lambda p=p: norse.LIFCell(p) for name, p in PARAMETERS.items()},
    **{f"LIF, {name}": lambda p=p: norse.LIF(p, dt=0.002) for name, p in PARAMETERS.items()},
    "LIFRecurrent": lambda: recurrent(norse.LIFRecurrent),
    "LIFRecurrentCell, autapses": lambda: recurrent(norse.LIFRecurrentCell, autapses=True),
    "LIFBoxCell": box,
    "LIFBoxCell, subtract": lambda: box(reset_method=reset.reset_subtract),
    "IAF": iaf.IAF,
    "IAFCell, reset": lambda: iaf.IAFCell(iaf_step.IAFParameters(v_reset=number(-0.3))),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_spikes_as_in_norse(name: str) -> None:
    same(LAYERS[name](), 1.5 * drive(3, 5, 60, mean=0.6), run)


@pytest.mark.parametrize(
    "make",
    [
        norse.LI,
        lambda: norse.LICell(norse.LIParameters(v_leak=number(0.3))),
        lambda: li.LILinearCell(5, 3),
        li_box.LIBoxCell,
    ],
)
def test_a_layer_that_never_spikes_returns_its_voltage(make: Any) -> None:
    same(make(), drive(3, 5, 60), run, spikes=False)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (norse.LIFAdExCell, "it is a norse.*LIFAdExCell, which ours is not; so.export"),
        (norse.LSNNCell, "LSNNCell, which ours is not"),
        (lambda: norse.LIF(record_states=True), "its record_states is True, and ours returns no"),
        (lambda: box(reset_method=lambda z, v, r, th: v), "its p.reset_method is <lambda>"),
        (lambda: box(reset_method=reset.reset_subtract, v_leak=number(0.2)),
         "its p.reset_method is reset_subtract, which ours has only where voltages start from 0; "
         "so.export"),
        (lambda: norse.SequentialState(norse.LIFCell(), return_hidden=True),
         "its return_hidden is True, and ours returns the last output"),
    ],
)  # fmt: skip
def test_what_ours_has_not_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(so.InputError, match=f"^convert: the module cannot .*{sentence}"):
        so.convert(make())


def spiking(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.uniform_(part.weight, -1.0, 1.6)
    return net


@pytest.mark.usefixtures("compiled_once")
def test_a_network_goes_the_whole_way() -> None:
    net = spiking(norse.SequentialState(
        nn.Conv2d(2, 4, 3), norse.LIFCell(), nn.MaxPool2d(2), nn.Flatten(),
        norse.SequentialState(nn.Linear(36, 8), norse.LIFCell()), nn.Linear(8, 5), norse.LICell(),
    ))  # fmt: skip
    x = drive(2, 2, 8, 8, 20)
    new = same(net, x, run, spikes=False)
    assert new[0].weight is net[0].weight
    with torch.no_grad():
        assert 0.02 < float(new[:2](x).mean()) < 0.9
        assert 0.02 < float(new[:5](x).mean()) < 0.9
    whole_way(new, x)


def test_a_network_of_sequences() -> None:
    net = spiking(norse.SequentialState(
        norse.Lift(nn.Conv2d(2, 4, 3)), norse.LIF(), norse.Lift(nn.MaxPool2d(2)),
        nn.Flatten(2), nn.Linear(36, 5), norse.LIF(),
    ))  # fmt: skip
    same(net, drive(2, 2, 8, 8, 20), run)


def test_cells_beside_sequences_are_refused() -> None:
    with pytest.raises(so.InputError, match="LIFCell, which takes single steps, beside LIF, which"):
        so.convert(norse.SequentialState(norse.LIFCell(), norse.LIF()))


def test_sequences_in_lift_are_refused() -> None:
    with pytest.raises(so.InputError, match="it takes single steps out, and holds LIF, which"):
        so.convert(norse.Lift(norse.LIF()))
    same(norse.Lift(norse.LIFCell()), 2 * drive(3, 5, 40), run)


def test_no_neuron_learns_to_feed_itself() -> None:
    new: Any = so.convert(recurrent(norse.LIFRecurrent)).train()
    new(1.5 * drive(3, 5, 40, mean=0.6)).sum().backward()
    grad = new[1].recurrent_synapse.weight.grad.flatten(1)
    assert bool(grad.any())
    assert not bool(grad.diagonal().any())
