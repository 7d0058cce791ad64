"""Networks written as NIR graphs: what comes back, and what NIR cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from nir_graphs import BIAS, NEURONS, NODES, STEPS, drive, line, read, recurrent
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.readers._network import Network


def written(module: nn.Module, x: Tensor, tmp_path: Path, **how: Any) -> Network:
    """Write a module, read it, and compare."""
    path = tmp_path / "b.nir"
    graph = so.to_nir(module, path, **how)
    for source in (graph, path):
        net = so.load_nir(source)
        with torch.no_grad():
            expected, output = module(x), net(x)
        if set(expected.unique().tolist()) <= {0, 1}:
            assert torch.equal(output, expected)
            assert 0.01 < float(expected.mean()) < 0.95
        else:
            np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    nir.read(path)  # with nir's own checks of types
    assert isinstance(net, Network)
    return net


@pytest.mark.parametrize("reset", ["zero", "subtract", "delayed"])
def test_lif_networks_come_back(reset: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    params = {"threshold": 0.4, "beta": 0.8, "alpha": 0.3, "reset": reset}
    net = nn.Sequential(
        so.block.lif.Conv(params, 2, 4, 3, padding=1, weight_scale=2, delay_shift=True),
        so.block.lif.Flatten(),
        so.block.lif.Dense(params, 64, 5, weight_scale=3, delay=True),
    ).eval()
    x = drive(2, 2, 4, 4)
    net(x)
    written(net, x, tmp_path, input_shape=(2, 4, 4))


def test_cuba_networks_in_floats_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    params = {"threshold": 0.4, "current_decay": 0.25, "voltage_decay": 0.1, "regime": "float"}
    net = nn.Sequential(
        so.block.cuba.Dense(params, 4, 8, weight_scale=2),
        so.block.cuba.Affine(params, 8, 3),
    ).eval()
    written(net, drive(2, 4), tmp_path, input_shape=(4,), dt=1e-3)


@pytest.mark.parametrize("name", [*NODES, *NEURONS])
@pytest.mark.gpu
@pytest.mark.matrix
def test_what_was_read_comes_back(name: str, tmp_path: Path) -> None:
    node, shape = (NODES[name][0], NODES[name][1]) if name in NODES else (NEURONS[name][0], (4,))
    if name in ("flatten of two axes", "conv2d same"):
        with pytest.raises(so.InputError, match=r"to_nir: n0.* cannot be written"):
            so.to_nir(read(line(node, shape=shape)))
        return
    ours = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    x = drive(2, *ours)
    net = read(line(node, shape=shape))
    again = so.load_nir(so.to_nir(net))
    with torch.no_grad():
        np.testing.assert_allclose(again(x), net(x), rtol=1e-5, atol=1e-6)


def test_recurrent_and_branching_graphs_come_back() -> None:
    net = read(recurrent(np.random.default_rng(3).normal(size=(4, 4)), BIAS))
    x = drive(2, 4)
    with torch.no_grad():
        assert torch.equal(so.load_nir(so.to_nir(net))(x), net(x))


class Doubled(nn.Sequential):
    """A chain that does more than its parts."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = 2 * super().forward(x)
        return y


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: so.block.lif.Input({"threshold": 0.5, "beta": 0.9}, weight=2.0, bias=0.25),
         "module is a Input that cannot be written: it has parameters besides those of its parts"),
        (lambda: Doubled(so.block.lif.Input({"threshold": 0.5, "beta": 0.9})),
         "module is a Doubled that cannot be written: its class has a forward of its own"),
        (lambda: so.block.rf.Dense({"threshold": 1, "period": 8, "decay": 0.1}, 4, 3),
         "synapse is a Dense that cannot be written: NIR has no node for it"),
        (lambda: so.block.cuba.Dense({"threshold": 1, "current_decay": 0.1, "voltage_decay": 0.1},
                                     4, 3), "neuron is a Neuron .* float states"),
        (lambda: nn.Sequential(nn.Linear(STEPS, 3)), "0 is a Linear that cannot be written"),
        (lambda: nn.Sequential(
            so.neuron.lif.Neuron(reset="zero"), so.neuron.lif.Neuron(reset="subtract")),
         "1 is a Neuron .*: its reset is subtract, and that of 0 is zero"),
        (lambda: so.neuron.lif.Neuron(norm=so.neuron.norm.MeanOnlyBatchNorm), "NIR has no norm"),
        (lambda: so.neuron.lif.Neuron(reset="delayed_zero"), "goes with a current or with feed"),
        (lambda: so.neuron.lif.Neuron(beta=1.0, drive=0.5), "must lie in"),
        (lambda: so.synapse.Dense(7, 3), "expected 7|takes 7|does not take"),
    ],
)  # fmt: skip
def test_what_nir_cannot_say_is_refused(make: Any, sentence: str, tmp_path: Path) -> None:
    module = make()
    if isinstance(module, nn.Sequential) and isinstance(module[0], nn.Linear):
        with pytest.raises(so.InputError, match=r"cannot be written|does not take"):
            so.to_nir(module, tmp_path / "a.nir", input_shape=(4,))
        return
    with pytest.raises(so.SynapseError, match=sentence):
        so.to_nir(module, tmp_path / "a.nir", input_shape=(4,))
    assert list(tmp_path.iterdir()) == []


def test_the_shape_of_the_input_is_asked_for() -> None:
    with pytest.raises(so.InputError, match="to_nir: give input_shape"):
        so.to_nir(so.synapse.Dense(4, 3))
