"""Step modules of frameworks, over time, against a loop by hand; frameworks that are missing skip.

The states of what has run before start as in a fresh module.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from stepping import as_sequence
from torch import Tensor, nn

import synapse_onnx as so

# their modules warn on import
pytestmark = pytest.mark.filterwarnings("ignore")


def _imported(name: str) -> Any:
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip(name, reason=f"{name} is not installed: see peers.txt")


def _snntorch(**options: Any) -> nn.Module:
    snn = _imported("snntorch")
    return nn.Sequential(
        nn.Linear(6, 16),
        snn.Leaky(beta=0.75, init_hidden=True, **options),
        nn.Linear(16, 4),
        snn.Synaptic(alpha=0.5, beta=0.75, threshold=0.25, init_hidden=True, output=True),
    )


def _image() -> nn.Module:
    snn = _imported("snntorch")
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.5, threshold=0.25, init_hidden=True),
        nn.Flatten(),
        nn.Linear(36, 5),
        snn.Leaky(beta=0.5, threshold=0.25, init_hidden=True),
    )


def _spikingjelly(**options: Any) -> nn.Module:
    _imported("spikingjelly")
    from spikingjelly.activation_based import neuron

    return nn.Sequential(
        nn.Linear(6, 16),
        neuron.LIFNode(**options),
        nn.Linear(16, 4),
        neuron.IFNode(v_threshold=0.25),
    )


def _sinabs() -> nn.Module:
    layers = _imported("sinabs.layers")
    return nn.Sequential(
        nn.Linear(6, 16),
        layers.IAFSqueeze(num_timesteps=1, min_v_mem=-0.5),
        nn.Linear(16, 4),
        layers.LIFSqueeze(num_timesteps=1, tau_mem=4.0, norm_input=False, spike_threshold=0.25),
    )


def _norse() -> nn.Module:
    norse = _imported("norse.torch")
    return norse.SequentialState(
        nn.Linear(6, 16), norse.LIFCell(), nn.Linear(16, 4), norse.LIFCell()
    )


#: name -> what makes a network, whose positive weights let it spike
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "snntorch": _snntorch,
    "snntorch, reset to zero": lambda: _snntorch(reset_mechanism="zero"),
    "snntorch, images": _image,
    "spikingjelly": _spikingjelly,
    "spikingjelly, soft reset": lambda: _spikingjelly(v_reset=None),
    "sinabs": _sinabs,
    "norse": _norse,
}


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for part in network.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.uniform_(part.weight, -0.5, 6.0 if name == "norse" else 1.0)
    return network.eval()


def _example(name: str, steps: int, batch: int) -> Tensor:
    draw = torch.Generator().manual_seed(10 * steps + batch)
    shape = (2, 8, 8) if "images" in name else (6,)
    return (torch.rand(steps, batch, *shape, generator=draw) < 0.3).float()


@torch.no_grad()
def _by_hand(name: str, x: Tensor) -> list[np.ndarray]:
    """Return the outputs of a fresh network, step by step."""
    network, state, rows = _network(name), None, []
    for x_t in x:
        if name == "norse":
            y, state = network(x_t, state)
        else:
            y = network(x_t)
        rows.append(y if isinstance(y, tuple) else (y,))
    return [torch.stack(column).numpy() for column in zip(*rows, strict=True)]


def _rows(values: Any) -> list[np.ndarray]:
    return [np.asarray(y) for y in (values if isinstance(values, tuple) else (values,))]


@pytest.mark.parametrize("name", NETWORKS)
def test_over_time_is_the_loop_by_hand(name: str) -> None:
    net = _network(name)
    looped = so.over_time(net)
    for steps, batch in [(9, 3), (4, 2)]:
        x = _example(name, steps, batch)
        expected = _by_hand(name, x)
        assert expected[0].any()
        with torch.no_grad():
            for _ in range(2):
                for y, whole in zip(_rows(looped(x)), expected, strict=True):
                    np.testing.assert_array_equal(y, whole)
    # what earlier calls have left, of another batch and with a graph, is forgotten
    net(_example(name, 1, 5)[0])
    again = so.over_time(net)
    with torch.no_grad():
        for y, whole in zip(_rows(again(x)), expected, strict=True):
            np.testing.assert_array_equal(y, whole)


@pytest.mark.parametrize(
    "name",
    [
        # the others differ by what the test above runs in torch; steps/ has files of every kind
        "snntorch",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("snntorch, images", "spikingjelly", "sinabs", "norse")
        ),
    ],
)
@pytest.mark.usefixtures("compiled_once")
def test_files_and_streams(name: str) -> None:
    net = _network(name)
    with torch.no_grad():
        net(_example(name, 1, 4)[0])
    looped = so.over_time(net)
    step = _example(name, 1, 3)[0]
    sequence = as_sequence(step)
    model = so.export(looped, sequence)
    assert so.verify(looped, model, sequence).ok
    stream = so.export(net, step, streaming=True)
    # a module that has run is searched anew: once is enough, and Norse's is quick
    report = (
        so.verify(net, stream, step) if name == "norse" else so.verify(looped, stream, sequence)
    )
    assert report.ok, str(report)
    x = _example(name, 23, 2)
    for found in (so.Session(model), so.Session(stream).stream(batch=2)):
        chunks = [23] if found.__class__ is so.Session else [1, 1, 7, 2, 12]
        parts = [_rows(found.run(part.numpy())) for part in x.split(chunks)]
        for column, whole in zip(zip(*parts, strict=True), _by_hand(name, x), strict=True):
            np.testing.assert_allclose(np.concatenate(column), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["spikingjelly", "sinabs", "norse"])
def test_layers_of_whole_sequences_are_refused(name: str) -> None:
    if name == "spikingjelly":
        net = _network(name)
        from spikingjelly.activation_based import functional

        functional.set_step_mode(net, "m")
    elif name == "sinabs":
        net = nn.Sequential(nn.Linear(6, 8), _imported("sinabs.layers").IAF())
    else:
        norse = _imported("norse.torch")
        net = norse.SequentialState(nn.Linear(6, 8), norse.LIF())
    with pytest.raises(so.InputError, match=r"'1', a \w+, takes whole sequences and not single"):
        so.over_time(net)


@pytest.mark.parametrize("name", ["GRUCell", "LIFRecurrentCell", "LSNNRecurrentCell", "LICell"])
def test_cells(name: str) -> None:
    torch.manual_seed(0)
    kind = nn.GRUCell if name == "GRUCell" else getattr(_imported("norse.torch"), name)
    cell = kind() if name == "LICell" else kind(6, 8)
    x, state, rows = 4 * torch.rand(9, 2, 6), None, []
    with torch.no_grad():
        for x_t in x:
            result = cell(x_t, state)
            y, state = (result, result) if name == "GRUCell" else result
            rows.append(y)
        assert torch.equal(so.over_time(cell)(x), torch.stack(rows))


@pytest.mark.parametrize("hidden", [False, True])
def test_one_neuron_of_snntorch(hidden: bool) -> None:
    snn = _imported("snntorch")
    options = {"init_hidden": True, "output": True} if hidden else {}
    x, neuron = torch.rand(9, 2, 6), snn.Leaky(beta=0.75, threshold=0.5, **options)
    rows = [neuron(x_t) for x_t in x]
    spikes, voltages = so.over_time(snn.Leaky(beta=0.75, threshold=0.5, **options))(x)
    assert torch.equal(spikes, torch.stack([row[0] for row in rows]))
    assert torch.equal(voltages, torch.stack([row[1] for row in rows]))


def test_other_neurons_of_snntorch_are_not_reset() -> None:
    """``utils.reset`` resets those of the whole process."""
    snn = _imported("snntorch")
    other = snn.Leaky(beta=0.75, init_hidden=True)
    with torch.no_grad():
        other(torch.ones(2, 3))
        so.over_time(_network("snntorch"))(_example("snntorch", 4, 2))
    assert other.mem.abs().min() > 0
