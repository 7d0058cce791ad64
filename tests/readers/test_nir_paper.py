"""The graphs and recordings of the NIR paper: one neuron in six simulators, and Braille letters.

The recordings hold input, voltage and spikes of 1,000 steps of 0.1 ms. All but Rockpool ran the
graph that Norse wrote (``paper/01_lif`` of neuromorphs/NIR).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import synapse_onnx as so

FOLDER = Path(__file__).parents[3] / "shared" / "reference" / "others" / "nir_paper"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there is no folder {FOLDER}")

#: simulator -> its graph, and by which convention it ran it
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "norse": ("norse", {"framework": "norse", "version": "1.0.0", "dt": 1e-4, "reset": "zero"}),
    "rockpool": ("rockpool", {"framework": "rockpool", "max_spikes": 2.0**16}),
    # the authors brought tau to time steps of 0.1 ms, and from_nir leaves norm_input off
    "sinabs": (
        "norse",
        {"framework": "sinabs", "dt": 1e-4, "enters": "whole", "reset": "subtract",
         "max_spikes": math.inf},
    ),
    "snntorch": ("norse", {"framework": "snntorch", "reset": "zero"}),
    "nengo": ("norse", {"framework": "nir", "dt": 1e-4, "integration": "exponential"}),
    # it takes the threshold off in the next step
    "spyx": ("norse", {"framework": "nir", "dt": 1e-4, "reset": "delayed"}),
}  # fmt: skip
#: simulator -> unit of its voltages: the threshold, or what the input is divided by
UNITS = {"nengo": 0.1, "snntorch": 0.04}


@pytest.mark.parametrize("simulator", RUNS)
def test_one_neuron_spikes_as_recorded(simulator: str, tmp_path: Path) -> None:
    graph, how = RUNS[simulator]
    drive, voltage, spikes = np.genfromtxt(FOLDER / f"lif_{simulator}.csv", delimiter=",").T
    # Spyx returns the spikes of the step before: it fires on the voltage that it was left with
    late = 1 if simulator == "spyx" else 0
    expected = spikes[late:] > 0
    net: Any = so.load_nir(FOLDER / f"lif_{graph}.nir", **how)
    x = torch.from_numpy(drive).float().reshape(1, 1, -1)
    with torch.no_grad():
        found = net(x)
        before = net.run(x)
        neuron = list(net.wires)[-1]
        current = before[net.wires[neuron][0]]
        own = getattr(net.layers, neuron).dynamics(current)[1].numpy()[0, 0]
    assert expected.sum() == 4
    np.testing.assert_array_equal(found[0, 0, : len(expected)], expected)
    model = so.export(net, x)
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), found)
    # voltages are recorded behind the reset
    silent = spikes == 0
    if simulator == "nengo":  # from its first spike on it resets within the step
        silent[int(np.flatnonzero(spikes)[0]) :] = False
    difference = np.abs(own - voltage * UNITS.get(simulator, 1.0))[silent]
    assert difference.max() < (3e-6 if simulator != "rockpool" else 1e-5)


def test_the_neuron_without_options_says_what_it_assumes() -> None:
    with pytest.warns(UserWarning, match="assumed framework='nir'"):
        so.load_nir(FOLDER / "lif_norse.nir")
    with pytest.warns(UserWarning, match="assumed ") as caught:
        so.load_nir(FOLDER / "lif_norse.nir", framework="norse", dt=1e-4)
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 2
    assert "assumed another than 1.1.0, one that writes tau = 1 / tau_inv" in texts[0]
    assert "assumed reset='zero'" in texts[1]


def braille() -> tuple[Any, dict[str, torch.Tensor], torch.Tensor]:
    net = so.load_nir(FOLDER / "braille_noDelay_bias_zero.nir", framework="snntorch", reset="zero")
    weights = torch.load(FOLDER / "model_noDelay_bias_ref_zero.pt", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    return net, weights, (torch.rand(3, 12, 256, generator=generator) < 0.05).float()


class Braille(nn.Module):
    """The authors' network: RSynaptic and Synaptic of snnTorch, reset to zero in the same step."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.w = weights

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        w = self.w
        spikes = mem = syn = torch.zeros(len(x), 38)
        out_mem = out_syn = torch.zeros(len(x), 7)
        hidden, outputs = [], []
        for x_t in x.unbind(-1):
            current = nn.functional.linear(x_t, w["fc1.weight"], w["fc1.bias"])
            fed = nn.functional.linear(spikes, w["lif1.recurrent.weight"], w["lif1.recurrent.bias"])
            syn = w["lif1.alpha"] * syn + current + fed
            mem = w["lif1.beta"] * mem + syn
            spikes = (mem > w["lif1.threshold"]).float()
            mem = mem * (1 - spikes)
            current = nn.functional.linear(spikes, w["fc2.weight"], w["fc2.bias"])
            out_syn = w["lif2.alpha"] * out_syn + current
            out_mem = w["lif2.beta"] * out_mem + out_syn
            fired = (out_mem > w["lif2.threshold"]).float()
            out_mem = out_mem * (1 - fired)
            hidden.append(spikes)
            outputs.append(fired)
        return torch.stack(hidden, -1), torch.stack(outputs, -1)


def test_braille_letters_are_the_authors_network() -> None:
    net, weights, x = braille()
    with torch.no_grad():
        hidden, outputs = Braille(weights)(x)
        values = net.run(x)
        found = net(x)
    assert torch.equal(values["lif1_lif"], hidden)
    assert torch.equal(found, outputs)
    assert 0.01 < float(hidden.mean()) < 0.9
    assert 0.01 < float(outputs.mean()) < 0.9
    model = so.export(net, x)
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), outputs)
    other = so.load_nir(
        FOLDER / "braille_noDelay_bias_zero.nir", framework="snntorch", reset="delayed"
    )
    with torch.no_grad():
        assert not torch.equal(other(x), outputs)


def test_braille_weights_are_the_authors() -> None:
    net, weights, _ = braille()
    for ours, theirs in (("fc1", "fc1"), ("fc2", "fc2")):
        dense, bias = getattr(net.layers, ours)
        assert torch.equal(dense.weight.flatten(1), weights[f"{theirs}.weight"])
        assert torch.equal(-bias.mean, weights[f"{theirs}.bias"])
    lif = net.layers.lif1_lif
    recurrent = lif.recurrent_synapse.weight.flatten(1)
    assert torch.equal(recurrent, weights["lif1.recurrent.weight"])
    for layer, name in ((lif.neuron, "lif1"), (net.layers.lif2, "lif2")):
        for ours, theirs in (("alpha", "alpha"), ("beta", "beta")):
            value = float(getattr(layer, ours).detach().flatten()[0])
            assert value == pytest.approx(float(weights[f"{name}.{theirs}"]), abs=2e-7)
        np.testing.assert_allclose(layer.gain.detach().numpy(), 1, rtol=1e-6)


def test_braille_letters_in_snntorch() -> None:
    """The last layer in snnTorch itself; its RSynaptic of 1.0.0 ignores ``reset_delay=False``."""
    snn = pytest.importorskip("snntorch", reason="snntorch is not installed: see peers.txt")
    net, w, x = braille()
    synaptic = snn.Synaptic(
        alpha=w["lif2.alpha"], beta=w["lif2.beta"], threshold=w["lif2.threshold"],
        reset_mechanism="zero", reset_delay=False,
    )  # fmt: skip
    syn, mem = synaptic.init_synaptic()
    outputs = []
    with torch.no_grad():
        values = net.run(x)
        for spikes in values["lif1_lif"].unbind(-1):
            current = nn.functional.linear(spikes, w["fc2.weight"], w["fc2.bias"])
            fired, syn, mem = synaptic(current, syn, mem)
            outputs.append(fired)
    assert torch.equal(values["lif2"], torch.stack(outputs, -1))
