"""Networks of snnTorch, Norse and SpikingJelly, by their own NIR export, against their own forward.

Both compute in float32 and round in another order: membranes must agree within TOLERANCE of the
largest, at every step. No membrane of these inputs comes nearer than MARGIN to its threshold, which
is more than the membranes differ by, so that not a single spike may flip.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

#: of the largest membrane; a step rounds a few times (6e-8 each), and a leak forgets
TOLERANCE = 2e-6
#: in units of the membrane
MARGIN = 1e-5
STEPS = 60

# of the peers' own code and what it imports
pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.filterwarnings(f"ignore::{kind}")
        for kind in (
            "DeprecationWarning",
            "PendingDeprecationWarning",
            "FutureWarning",
            "UserWarning",
        )
    ),
]


def peer(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: see peers.txt")


def drive(*shape: int, seed: int = 0, rate: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, STEPS, generator=generator) < rate).float()


def compare(
    graph: Any, framework: str, x: Tensor, expected: Tensor, tmp: Path, *, file: bool = True,
    **how: Any,
) -> Any:  # fmt: skip
    """The peer's output against ours, by way of a file too, in torch and ONNX Runtime."""
    import nir

    for i, given in enumerate([graph, tmp / "a.nir"] if file else [graph]):
        if i:
            nir.write(given, graph)
        net = so.load_nir(given, framework=framework, **how)
        model = so.export(net, x)
        found = so.Session(model).run(x.numpy())
        reference = expected.detach().numpy()
        assert found.shape == reference.shape
        spikes = set(np.unique(reference)) <= {0, 1}
        if spikes:
            assert 0.02 < reference.mean() < 0.9
            flips = int((found != reference).sum())
            assert flips == 0, f"{flips} of {found.size} spikes differ"
        else:
            assert np.abs(found - reference).max() <= TOLERANCE * np.abs(reference).max()
        assert so.verify(net, model, x).ok
    return net


def membranes(
    net: Any, x: Tensor, index: int, reference: Tensor, *, reset: bool, shift: float | Tensor = 0.0
) -> None:
    """Membranes of a layer of the network against those of the peer.

    Args:
        net: our network.
        x: its input.
        index: number of the layer.
        reference: the peer's membranes (N, C[, H, W], T).
        reset: whether the peer tells them behind the reset; steps with a spike are left out then.
        shift: what ours are counted from.
    """
    name = list(net.wires)[index]
    with torch.no_grad():
        values = net.run(x)
        (source,) = net.wires[name]
        neuron = getattr(net.layers, name)
        found = neuron.dynamics(values[source])[1]
    threshold = neuron.v_threshold.reshape(*neuron.v_threshold.shape, *(1,) * (
        found.dim() - 1 - neuron.v_threshold.dim()))  # fmt: skip
    margin = float((found - threshold).abs().min())
    silent = values[name] == 0 if reset else torch.ones_like(found, dtype=torch.bool)
    difference = float((found + shift - reference)[silent].abs().max())
    assert difference <= TOLERANCE * float(reference.abs().max())
    assert margin > MARGIN > difference, "a case too near its threshold"


# -- snnTorch ------------------------------------------------------------------------------------


def by_steps(
    net: nn.Module, x: Tensor, membrane: str = "", layers: tuple[int, ...] = ()
) -> tuple[Tensor, dict[int, Tensor]]:
    """Run a network that takes one step at a time, (N, ...) in and out.

    Returns:
        Its output (N, ..., T), and the attribute ``membrane`` of some of its layers.
    """
    outputs: list[Tensor] = []
    seen: dict[int, list[Tensor]] = {i: [] for i in layers}
    with torch.no_grad():
        for t in range(x.shape[-1]):
            y = net(x[..., t])
            outputs.append(y[0] if isinstance(y, tuple) else y)
            for i, steps in seen.items():
                steps.append(getattr(net[i], membrane).clone())  # type: ignore[index]
    return torch.stack(outputs, -1), {i: torch.stack(steps, -1) for i, steps in seen.items()}


#: ``reset_mechanism="zero"`` with ``reset_delay=True``: all but Leaky lose the next step's input
LATE_ZERO = {"reset": "zero", "zero_behind": "delayed_zero"}


def snn_export(net: nn.Module, sample: Tensor) -> Any:
    peer("nirtorch")
    return peer("snntorch.export_nir").export_to_nir(net, sample[:1], ignore_dims=[0])


def snn_networks(snn: Any, reset: str) -> dict[str, Callable[[], tuple[nn.Module, Tensor]]]:
    torch.manual_seed(0)
    more = {"init_hidden": True, "reset_mechanism": reset}

    def wide(layer: Any, scale: float = 2.0) -> Any:
        layer.weight.data *= scale
        return layer

    def leaky() -> tuple[nn.Module, Tensor]:
        net = nn.Sequential(
            wide(nn.Linear(12, 20)),
            snn.Leaky(beta=0.9 * torch.ones(20), threshold=torch.ones(20), **more),
            wide(nn.Linear(20, 6, bias=False)),
            snn.Leaky(beta=torch.linspace(0.5, 0.95, 6), threshold=0.8 * torch.ones(6), **more),
        )
        return net, drive(3, 12)

    def synaptic() -> tuple[nn.Module, Tensor]:
        net = nn.Sequential(
            wide(nn.Linear(12, 20)),
            snn.Synaptic(
                alpha=0.6 * torch.ones(20), beta=0.8 * torch.ones(20),
                threshold=torch.ones(20), **more,
            ),
        )  # fmt: skip
        return net, drive(3, 12)

    return {"leaky": leaky, "synaptic": synaptic}


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("name", ["leaky", "synaptic"])
def test_snntorch(name: str, reset: str, tmp_path: Path) -> None:
    snn = peer("snntorch")
    net, x = snn_networks(snn, reset)[name]()
    graph = snn_export(net, x[..., 0])
    for layer in net:
        if hasattr(layer, "reset_mem"):
            layer.reset_mem()
    layers = tuple(i for i, layer in enumerate(net) if hasattr(layer, "reset_mem"))
    expected, seen = by_steps(net, x, "mem", layers)
    how = LATE_ZERO if reset == "zero" else {}
    ours = compare(graph, "snntorch", x, expected, tmp_path, **how)
    for i, reference in seen.items():
        membranes(ours, x, i, reference, reset=False)


def test_snntorchs_reset_matters() -> None:
    """The mechanism that its export leaves out changes the spikes: the check can fail."""
    snn = peer("snntorch")
    net, x = snn_networks(snn, "subtract")["leaky"]()
    graph = snn_export(net, x[..., 0])
    spikes = {}
    for reset in ("", "zero", "subtract"):
        with torch.no_grad():
            spikes[reset] = so.load_nir(graph, framework="snntorch", reset=reset)(x)
    assert not torch.equal(spikes[""], spikes["zero"])
    assert not torch.equal(spikes[""], spikes["subtract"])


@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
@pytest.mark.parametrize("all_to_all", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_snntorch_recurrent(kind: str, all_to_all: bool, reset: str, tmp_path: Path) -> None:
    snn = peer("snntorch")
    torch.manual_seed(1)
    more: dict[str, Any] = {"beta": 0.8, "init_hidden": True, "all_to_all": all_to_all}
    more["reset_mechanism"] = reset
    if kind == "RSynaptic":
        more["alpha"] = 0.5
    if all_to_all:
        more["linear_features"] = 10
    else:
        more["V"] = torch.linspace(-1, 0.5, 10)
    net = nn.Sequential(nn.Linear(8, 10), getattr(snn, kind)(**more))
    net[0].weight.data *= 3
    x = drive(2, 8)
    graph = snn_export(net, x[..., 0])
    net[1].reset_mem()
    expected, _ = by_steps(net, x)
    how = LATE_ZERO if reset == "zero" else {}
    compare(graph, "snntorch", x, expected, tmp_path, **how)


def test_snntorch_convolutional(tmp_path: Path) -> None:
    snn = peer("snntorch")
    torch.manual_seed(2)
    shapes = {1: (4, 8, 8), 5: (5,)}
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        snn.Leaky(beta=0.8 * torch.ones(shapes[1]), threshold=torch.ones(shapes[1]),
                  init_hidden=True),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
        snn.Leaky(beta=0.9 * torch.ones(5), threshold=torch.ones(5), init_hidden=True),
    )  # fmt: skip
    net[0].weight.data *= 4
    net[4].weight.data = 0.6 * net[4].weight.data.abs()  # so that some spikes reach the end
    x = drive(2, 2, 8, 8)
    graph = snn_export(net, x[..., 0])
    for i in (1, 5):
        net[i].reset_mem()
    compare(graph, "snntorch", x, by_steps(net, x)[0], tmp_path)


# -- Norse ---------------------------------------------------------------------------------------


def norse_cases(norse: Any) -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(3)
    many = torch.ones

    def dense(scale: float) -> nn.Module:
        layer = nn.Linear(10, 12)
        layer.weight.data *= scale
        return layer

    box = norse.LIFBoxParameters(
        tau_mem_inv=100 * many(12), v_th=0.3 * many(12), v_leak=0.05 * many(12)
    )
    cell = norse.LIFParameters(
        tau_mem_inv=120 * many(12), tau_syn_inv=200 * many(12), v_th=0.5 * many(12),
        v_leak=0 * many(12), v_reset=0 * many(12),
    )  # fmt: skip
    leak = norse.LIBoxParameters(tau_mem_inv=90 * many(12), v_leak=0.1 * many(12))
    image = torch.ones(4, 6, 6)
    conv = nn.Conv2d(2, 4, 3)
    conv.weight.data *= 6
    pixels = norse.LIFBoxParameters(tau_mem_inv=100 * image, v_th=0.25 * image, v_leak=0 * image)
    return {
        "LIFBoxCell of an image": (
            nn.Sequential(conv, norse.LIFBoxCell(pixels)),
            drive(1, 2, 8, 8),
        ),
        "LIFBoxCell": (nn.Sequential(dense(4), norse.LIFBoxCell(box)), drive(2, 10)),
        "LIFCell": (nn.Sequential(dense(2), norse.LIFCell(cell)), drive(2, 10)),
        "LIBoxCell": (nn.Sequential(dense(1), norse.LIBoxCell(leak)), drive(2, 10)),
        "IAFCell": (
            nn.Sequential(dense(1), norse.IAFCell(norse.IAFParameters(v_th=2 * many(12)))),
            drive(2, 10),
        ),
    }


@pytest.mark.parametrize(
    "name", ["LIFBoxCell", "LIFBoxCell of an image", "LIFCell", "LIBoxCell", "IAFCell"]
)
def test_norse(name: str, tmp_path: Path) -> None:
    norse = peer("norse.torch")
    export = peer("norse.torch.utils.export_nir")
    net, x = norse_cases(norse)[name]
    graph = export.to_nir(norse.SequentialState(*net), x[..., 0])
    state, outputs, voltages = None, [], []
    with torch.no_grad():
        for t in range(STEPS):
            y, state = net[1](net[0](x[..., t]), state)
            outputs.append(y)
            voltages.append(state.v)
    # Norse leaves the shape of a convolution's input open, and nir 1.0.8 writes no such graph
    file = "image" not in name
    ours = compare(graph, "norse", x, torch.stack(outputs, -1), tmp_path, file=file)
    if name != "LIBoxCell":  # a readout, whose output is its membrane
        rest = getattr(net[1].p, "v_leak", torch.zeros(1)).unsqueeze(-1)
        membranes(ours, x, 1, torch.stack(voltages, -1), reset=True, shift=rest)


# -- SpikingJelly --------------------------------------------------------------------------------


def jelly_cases(sj: Any) -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(4)
    neuron, layer = sj.neuron, sj.layer

    def dense(scale: float) -> nn.Module:
        made = layer.Linear(10, 12)
        made.weight.data *= scale
        return made

    def two(node: Any, scale: float = 4.0) -> tuple[nn.Module, Tensor]:
        return nn.Sequential(dense(scale), node), drive(2, 10)

    return {
        "if": two(neuron.IFNode(), 2),
        "lif": two(neuron.LIFNode(tau=2.5, v_reset=0.0)),
        "lif that rests elsewhere": two(neuron.LIFNode(tau=3.0, v_reset=-0.25, v_threshold=0.5)),
        "lif without decay of the input": two(neuron.LIFNode(tau=4.0, decay_input=False), 2),
        "plif": two(neuron.ParametricLIFNode(init_tau=2.0)),
        "cuba": two(neuron.CUBALIFNode(c_decay=0.5, v_decay=0.75), 1),
        "conv": (
            nn.Sequential(
                layer.Conv2d(2, 4, 3, padding=1, stride=2),
                neuron.LIFNode(tau=2.0, decay_input=False),
                layer.AvgPool2d(2),
                layer.Flatten(),
                layer.Linear(16, 5),
                neuron.IFNode(),
            ),
            drive(2, 2, 8, 8),
        ),
    }


@pytest.mark.parametrize(
    "name",
    ["if", "lif", "lif that rests elsewhere", "lif without decay of the input", "plif", "cuba",
     "conv"],
)  # fmt: skip
def test_spikingjelly(name: str, tmp_path: Path) -> None:
    sj = peer("spikingjelly.activation_based")
    export = peer("spikingjelly.activation_based.nir_exchange")
    functional = peer("spikingjelly.activation_based.functional")
    net, x = jelly_cases(sj)[name]
    if name == "conv":
        net[0].weight.data *= 6
        net[4].weight.data *= 8
    functional.set_step_mode(net, "s")
    graph = export.export_to_nir(net, x[..., 0])
    functional.reset_net(net)
    layers = tuple(i for i, layer in enumerate(net) if hasattr(layer, "v_threshold"))
    expected, seen = by_steps(net, x, "v", layers)
    ours = compare(graph, "spikingjelly", x, expected, tmp_path)
    for i, reference in seen.items():
        membranes(ours, x, i, reference, reset=True, shift=net[i].v_reset)
