"""Networks of sinabs and Rockpool, by their own NIR export, against their own forward.

Both spike several times in a time step by default, and sinabs has a lowest voltage. Neither writes
that, nor the shape of its input without time.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

STEPS = 40
# of the peers' own code and what it imports
pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.filterwarnings(f"ignore::{kind}")
        for kind in ("DeprecationWarning", "FutureWarning", "UserWarning", "SyntaxWarning")
    ),
]


def peer(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = name.partition(".")[0]
        return pytest.importorskip(name, reason=f"{package} is not installed")


def compare(
    graph: Any, x: Tensor, expected: Tensor, tmp: Path, *, file: bool = True, **how: Any
) -> Any:
    """A peer's output (N, ..., T) against ours, from the graph and from its file."""
    import nir

    if file:
        nir.write(tmp / "a.nir", graph)
    for given in (graph, tmp / "a.nir") if file else (graph,):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            net = so.load_nir(given, **how)
        with torch.no_grad():
            found = net(x)
        assert found.shape == expected.shape
        if (expected == expected.round()).all():
            assert torch.equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-4)
    model = so.export(net, x)
    assert so.verify(net, model, x).ok
    return [str(warning.message) for warning in caught]


# -- sinabs ----------------------------------------------------------------------------------------


def sinabs_neurons(sl: Any, activation: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    tau, level = torch.full((6,), 8.0), torch.linspace(0.3, 0.6, 6)
    single = activation.SingleSpike
    return {
        "as from_model makes it": (sl.IAF(min_v_mem=-1.0), {}),
        "IAF without lowest": (sl.IAF(), {"min_v_mem": "none"}),
        "IAF, single spikes": (
            sl.IAF(spike_fn=single, min_v_mem=-0.5),
            {"max_spikes": 1, "min_v_mem": -0.5},
        ),
        "IAF, two at the most": (
            sl.IAF(spike_fn=activation.MaxSpike(2), min_v_mem=-1.0),
            {"max_spikes": 2},
        ),
        "IAF, reset to zero": (
            sl.IAF(reset_fn=activation.MembraneReset(), min_v_mem=-1.0),
            {"reset": "zero"},
        ),
        "LIF": (sl.LIF(tau_mem=tau, spike_threshold=level), {}),
        "LIF, whole input": (
            sl.LIF(tau_mem=tau, spike_threshold=level, norm_input=False),
            {"enters": "whole"},
        ),
        "ExpLeak": (sl.ExpLeak(tau_mem=tau), {}),
    }


@pytest.mark.parametrize(
    "name",
    ["as from_model makes it", "IAF without lowest", "IAF, single spikes", "IAF, two at the most",
     "IAF, reset to zero", "LIF", "LIF, whole input", "ExpLeak"],
)  # fmt: skip
def test_sinabs(name: str, tmp_path: Path) -> None:
    layers, activation = peer("sinabs.layers"), peer("sinabs.activation")
    export = peer("sinabs.nir")
    torch.manual_seed(0)
    neuron, how = sinabs_neurons(layers, activation)[name]
    net = nn.Sequential(nn.Linear(4, 6), neuron)
    x = 4 * torch.randn(2, STEPS, 4)
    graph = export.to_nir(net, x[:1])
    neuron.reset_states()
    with torch.no_grad():
        expected = net(x).movedim(1, -1)
    assert name == "ExpLeak" or expected.max() == how.get("max_spikes", expected.max().clamp(min=2))
    said = compare(graph, x.movedim(1, -1), expected, tmp_path, framework="sinabs", **how)
    assert len(said) == 1
    assert ("max_spikes=inf (MultiSpike)" in said[0]) == (
        name != "ExpLeak" and "max_spikes" not in how
    )


def test_sinabs_reads_its_own_graph_as_we_do(tmp_path: Path) -> None:
    """Its from_nir: the lowest voltage is minus the threshold."""
    export = peer("sinabs.nir")
    import nir

    weight = np.array([[1.0, -2.0], [0.6, 0.7]], np.float32)
    graph = nir.NIRGraph.from_list(
        nir.Affine(weight, np.zeros(2, np.float32)),
        nir.IF(np.ones(2, np.float32), np.array([0.75, 1.5], np.float32)),
    )
    x = 2 * torch.randn(3, STEPS, 2, generator=torch.Generator().manual_seed(1))
    theirs = export.from_nir(graph, batch_size=3)
    with torch.no_grad():
        spikes, _ = theirs(x.flatten(0, 1))
    expected = spikes.unflatten(0, (3, STEPS)).movedim(1, -1)
    assert expected.max() > 1
    how = {"reset": "subtract", "max_spikes": math.inf}
    compare(graph, x.movedim(1, -1), expected, tmp_path, framework="sinabs", **how)


def test_a_convolutional_network_of_sinabs(tmp_path: Path) -> None:
    layers, export = peer("sinabs.layers"), peer("sinabs.nir")
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        layers.IAFSqueeze(min_v_mem=-1.0, batch_size=1),
        layers.SumPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
        layers.IAFSqueeze(min_v_mem=-1.0, batch_size=1),
    )
    net[0].weight.data *= 3
    net[4].weight.data.abs_()
    x = (torch.rand(STEPS, 2, 8, 8) < 0.4).float()
    graph = export.to_nir(net, x)
    for layer in net:
        if hasattr(layer, "reset_states"):
            layer.reset_states()
    with torch.no_grad():
        expected = net(x).movedim(0, -1).unsqueeze(0)
    x = x.movedim(0, -1).unsqueeze(0)
    # sinabs leaves the shape of a convolution's input open, and nir 1.0.8 writes no such graph
    compare(graph, x, expected, tmp_path, file=False, framework="sinabs")
    assert expected.sum() > 10


# -- Rockpool --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("dt", [1e-3, 2e-4])
@pytest.mark.parametrize("name", ["LIFNeuronTorch", "LIFTorch", "two at the most", "ExpSynTorch"])
def test_rockpool(name: str, dt: float, sampled: bool, tmp_path: Path) -> None:
    """Its dt follows from what it writes; a sample leaves time in the shape of the input."""
    modules = peer("rockpool.nn.modules")
    sequential = peer("rockpool.nn.combinators").Sequential
    torch.manual_seed(3)
    tau, level = torch.full((6,), 0.02), torch.linspace(0.5, 1.5, 6)
    most = {"max_spikes_per_dt": torch.tensor(2.0)} if name == "two at the most" else {}
    if name == "ExpSynTorch":
        neuron = modules.ExpSynTorch(6, tau=tau, dt=dt)
    elif name == "LIFNeuronTorch":
        neuron = modules.LIFNeuronTorch(6, tau_mem=tau, threshold=level, dt=dt)
    else:
        neuron = modules.LIFTorch(6, tau_mem=tau, tau_syn=tau / 2, threshold=level, dt=dt, **most)
    net = sequential(modules.LinearTorch((4, 6), weight=2 * torch.randn(4, 6)), neuron)
    graph = modules.to_nir(net, torch.zeros(1, STEPS, 4) if sampled else None)
    x = (torch.rand(2, STEPS, 4) < 0.4).float()
    expected = net(x)[0].detach().movedim(1, -1)
    how: dict[str, Any] = {"max_spikes": 2} if most else {}
    how["file"] = (
        name != "ExpSynTorch"
    )  # its node holds a torch parameter, which nir does not write
    said = compare(graph, x.movedim(1, -1), expected, tmp_path, framework="rockpool", **how)
    assert expected.max() > 1
    assert not most or expected.max() == 2
    if most or name == "ExpSynTorch":
        assert said == []
    else:
        (text,) = said
        assert "assumed max_spikes=65536 (max_spikes_per_dt); give load_nir" in text
