"""NeuroBench's metrics of a file against the package neurobench, and against sums by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import spikes
from published import FOLDER, neurobench_of
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.errors import InputError, ModelError

# of snnTorch's and neurobench's own code
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
]


def snntorch() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("snntorch", reason="snntorch is not installed: see peers.txt")


# -- sums by hand ---------------------------------------------------------------------------------

NEURON = {"threshold": 0.3, "current_decay": 0.25, "voltage_decay": 0.05}


def test_operations_of_a_dense_layer_by_loops() -> None:
    torch.manual_seed(0)
    synapse = so.synapse.Dense(4, 3)
    with torch.no_grad():
        synapse.weight[:, 1] = 0  # no operation of input 1
        synapse.weight[2, 0] = 0
    x = spikes(2, 4, 6, seed=1, rate=0.6)
    x[0, 3, 2] = 0.5  # one value makes MACs of the whole step, of both samples
    metrics = so.neurobench(so.export(synapse.eval(), x), x.numpy())
    macs = acs = 0
    for t in range(6):
        count = sum(
            int(x[n, i, t] != 0 and synapse.weight[o, i] != 0)
            for n in range(2) for i in range(4) for o in range(3)
        )  # fmt: skip
        macs, acs = (macs + count, acs) if t == 2 else (macs, acs + count)
    assert macs > 0
    assert (metrics.effective_macs, metrics.effective_acs) == (macs / 2, acs / 2)
    assert metrics.dense == 4 * 3 * 6
    assert metrics.connection_sparsity == round(4 / 12, 4)
    assert (metrics.samples, metrics.membrane_updates, metrics.activation_sparsity) == (2, 0, 0)


def test_a_negative_spike_is_added_and_two_are_multiplied() -> None:
    model = so.export(so.synapse.Dense(1, 1), torch.zeros(1, 1, 3))
    metrics = so.neurobench(model, np.array([[[-1, 2, 1]]], np.float32))
    assert (metrics.effective_macs, metrics.effective_acs) == (1, 2)


def test_spikes_and_feedback_of_our_neurons() -> None:
    torch.manual_seed(0)
    net = so.block.cuba.Recurrent(
        NEURON, 4, 6, weight_scale=3, pre_hook_fx=so.quantize.q8, delay_shift=False
    ).eval()
    x = spikes(3, 4, 9, seed=3, rate=0.6)
    out = so.freeze(net)(x)
    fed = int((out[..., :-1] != 0).sum())
    alive = np.count_nonzero(so.freeze(net).recurrent_synapse.weight.flatten(1), axis=0)
    metrics = so.neurobench(so.export(net, x), x.numpy())
    assert fed > 0
    into, back = metrics.connections
    assert back.layer.endswith("(feedback)")
    assert back.acs == int((out[..., :-1] != 0).sum((0, 2)).numpy() @ alive)
    assert (into.dense, back.dense) == (3 * 9 * 24, 3 * 9 * 36)
    assert metrics.activation_sparsity == float((out == 0).double().mean())
    # NeuroBench knows snnTorch's membranes alone, and a CUBA neuron's are not counted as such
    assert metrics.membrane_updates is None
    assert any("the file shows no voltage" in note for note in metrics.notes)


def test_what_cannot_be_counted_is_not_known() -> None:
    x = spikes(2, 4, 5, seed=4)
    metrics = so.neurobench(so.export(so.synapse.complex.Dense(4, 3), x), x.numpy())
    assert metrics.results["SynapticOperations"] == {
        "Effective_MACs": None, "Effective_ACs": None, "Dense": None
    }  # fmt: skip
    assert metrics.connection_sparsity is None
    assert any("(ComplexDense) cannot be counted" in note for note in metrics.notes)


def test_faults() -> None:
    model = so.export(so.synapse.Dense(4, 3), spikes(1, 4, 5))
    with pytest.raises(InputError, match="takes 1 input"):
        so.neurobench(model, (np.ones((1, 4, 5)), np.ones((1, 4, 5))))
    with pytest.raises(InputError, match="give the inputs"):
        so.neurobench(model, [])
    foreign = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 19]>'
        "twice (float[N, 2] x) => (float[N, 2] y) { y = Add(x, x) }"
    )
    with pytest.raises(ModelError, match="was not written by this tool"):
        so.neurobench(foreign, np.ones((1, 2)))


def test_no_torch_is_imported(tmp_path: Path) -> None:
    so.export(so.synapse.Dense(4, 3), spikes(1, 4, 5), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", np.ones((1, 4, 5), np.float32))
    code = (
        "import sys\nfrom synapse_onnx.cli import main\n"
        "try:\n    main(['inspect', 'net.onnx', '-i', 'x.npy', '--neurobench'])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'synapse_onnx.report.metrics' in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = str(Path(so.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


class Static(nn.Module):
    """A weight of an image that is the same at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.steps = nn.Linear(3, 2), nn.Linear(2, 2), 6

    def forward(self, image: Tensor) -> Tensor:
        v, out = torch.zeros(len(image), 2), []
        for _ in range(self.steps):
            v = 0.5 * v + self.first(image)
            s = (v > 0.1).float()
            v = v - 0.1 * s
            out.append(self.second(s))
        return torch.stack(out)


def test_a_layer_that_is_computed_once_is_counted_once_and_said() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3)
    metrics = so.neurobench(so.export(Static().eval(), image), image.numpy())
    first, second = metrics.connections
    assert (first.layer, first.dense) == ("first", 2 * 6)
    assert (second.layer, second.dense) == ("second", 6 * 2 * 4)
    assert any(note.startswith("first: computed once") for note in metrics.notes)


class Hidden(nn.Module):
    """A neuron whose spikes are read in its loop alone, and the voltage of a trace of them."""

    def forward(self, x: Tensor) -> Tensor:
        v = w = torch.zeros(x.shape[1:])
        out = []
        for x_t in x:
            v = 0.5 * v + x_t - 0.1 * w
            s = (v > 0.5).float()
            v = v * (1 - s)
            w = 0.9 * w + s
            out.append((w > 0.8).float())
        return torch.stack(out)


class Pair(nn.Module):
    """Two neurons in one loop: the second inhibits the first, and its spikes alone are returned."""

    def forward(self, x: Tensor) -> Tensor:
        v = u = fed = torch.zeros(x.shape[1:])
        out = []
        for x_t in x:
            v = 0.5 * v + x_t - 0.3 * fed
            first = (v > 0.5).float()
            v = v - 0.5 * first
            u = 0.8 * u + first
            fed = (u > 1.2).float()
            u = u - 1.2 * fed
            out.append(fed)
        return torch.stack(out)


@pytest.mark.parametrize("network", [Hidden(), Pair()])
def test_a_loop_that_hides_a_neuron_is_doubtful(network: nn.Module) -> None:
    x = torch.rand(9, 2, 3)
    metrics = so.neurobench(so.export(network, x, axes="TNC"), x.numpy())
    assert (metrics.activation_sparsity, metrics.membrane_updates) == (None, None)
    assert any("may hold neurons" in note for note in metrics.notes)


# -- against the package --------------------------------------------------------------------------


class One(nn.Module):
    """One layer of snnTorch whose states are handed on: (T, N, 6) -> spikes (T, N, 5)."""

    def __init__(self, neuron: nn.Module, start: str, *, fed_back: bool) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 5, bias=False), neuron
        self.start, self.fed_back = start, fed_back

    def forward(self, x: Tensor) -> Tensor:
        states = getattr(self.lif, self.start)()
        states = states if isinstance(states, tuple) else (states,)
        out = []
        for x_t in x:
            given = self.lif(self.fc(x_t), *states)
            states = given if self.fed_back else given[1:]
            out.append(given[0])
        return torch.stack(out)


def silences(seed: int) -> Tensor:
    """Few spikes, and silent steps, in which voltages that were reset do not move: (3, 40, 6)."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(3, 40, 6, generator=generator) < 0.04).float()
    x[:, 20:30] = 0
    return x * (torch.rand(3, 40, 1, generator=generator) < 0.5)


KINDS: dict[str, tuple[Callable[..., Any], str, bool]] = {
    "Leaky": (lambda snn, **how: snn.Leaky(beta=0.5, **how), "init_leaky", False),
    "Synaptic": (lambda snn, **how: snn.Synaptic(alpha=0.5, beta=0.5, **how), "init_synaptic",
                 False),
    "RLeaky": (lambda snn, **how: snn.RLeaky(beta=0.5, linear_features=5, **how), "init_rleaky",
               True),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("delay", [True, False])
def test_neurons_of_snntorch(kind: str, reset: str, delay: bool) -> None:
    make, start, fed_back = KINDS[kind]
    how = {"reset_mechanism": reset, "reset_delay": delay, "threshold": 0.5}
    torch.manual_seed(1)
    net = One(make(snntorch(), **how), start, fed_back=fed_back).eval()
    net.fc.weight.data = net.fc.weight.data.abs() * 2
    x = silences(2)
    model = so.export(net, x.transpose(0, 1).contiguous(), axes="TNC")
    theirs = neurobench_of(net, x, lambda x: net(x.transpose(0, 1)))
    ours = so.neurobench(model, x.transpose(0, 1).numpy(), network=net)
    alone = so.neurobench(model, x.transpose(0, 1).numpy())
    assert 0 < theirs["ActivationSparsity"] < 1
    updates = theirs["MembraneUpdates"]
    assert 0 < updates <= 200
    if kind == "RLeaky" and reset == "zero":
        # snnTorch calls the feedback twice a step, with the same result
        operations, theirs_twice = (r["SynapticOperations"] for r in (ours.results, theirs))
        into, back = (row.dense / 3 for row in ours.connections)
        assert theirs_twice["Dense"] == into + 2 * back
        assert operations["Dense"] == into + back
        assert any("computes its feedback twice" in note for note in ours.notes)
        theirs["SynapticOperations"] = operations
    assert ours.results | {"Footprint": 0} == theirs | {"Footprint": 0}
    # without the network, too: of these neurons a file says enough
    assert alone.results | {"Footprint": 0} == theirs | {"Footprint": 0}


def test_the_reset_of_the_own_step_changes_the_membrane_updates() -> None:
    """Else the test above could not tell one voltage from the other."""
    updates = set()
    for delay in (True, False):
        net = One(
            snntorch().Leaky(beta=0.5, threshold=0.5, reset_mechanism="zero", reset_delay=delay),
            "init_leaky", fed_back=False,
        ).eval()  # fmt: skip
        torch.manual_seed(1)
        net.fc.weight.data = torch.rand(5, 6)
        x = silences(2)
        theirs = neurobench_of(net, x, lambda x, net=net: net(x.transpose(0, 1)))
        updates.add(theirs["MembraneUpdates"])
    assert len(updates) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_voltages_that_a_file_does_not_compute_are_not_known(kind: str) -> None:
    make, start, fed_back = KINDS[kind]
    net = One(make(snntorch(), threshold=0.5), start, fed_back=fed_back).eval()
    x = silences(2).transpose(0, 1).contiguous()
    model = so.export(net, x, axes="TNC")
    assert so.neurobench(model, x.numpy(), network=net).membrane_updates is not None
    # the file resets in the next step, and keeps no voltage after the reset of its own step
    net.lif.reset_delay = False
    metrics = so.neurobench(model, x.numpy(), network=net)
    assert metrics.membrane_updates is None
    assert any("the file shows no voltage of lif" in note for note in metrics.notes)


class Images(nn.Module):
    """Convolutions, norm, ReLU, feedback: (T, N, 2, 8, 8) -> spikes (T, N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        snn = snntorch()
        self.conv1, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.lif1, self.pool = snn.Leaky(beta=0.8), nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, groups=2, dilation=(1, 2), padding=(0, 1))
        self.lif2, self.relu = snn.Leaky(beta=0.8, reset_mechanism="zero"), nn.ReLU()
        self.fc, self.lif3 = nn.Linear(6, 3), snn.RLeaky(beta=0.7, linear_features=3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.lif1.init_leaky(), self.lif2.init_leaky()
        fed, third = self.lif3.init_rleaky()
        out = []
        for x_t in x:
            y, first = self.lif1(self.norm(self.conv1(x_t)), first)
            y, second = self.lif2(self.conv2(self.pool(y)), second)
            fed, third = self.lif3(self.relu(self.fc(y.flatten(1))), fed, third)
            out.append(fed)
        return torch.stack(out)


@pytest.mark.parametrize("values", ["spikes", "real", "mixed"])
@pytest.mark.parametrize("streaming", [False, True])
def test_images(values: str, streaming: bool) -> None:
    torch.manual_seed(0)
    net = Images().eval()
    net.norm.running_mean.normal_()
    net.norm.bias.data.normal_()
    net.conv2.weight.data[net.conv2.weight.abs() < 0.05] = 0
    net.fc.bias.data += 1
    x = torch.rand(2, 9, 2, 8, 8)
    if values != "real":
        x = (x < 0.4).float()
    if values == "mixed":
        x[0, 1::2] *= 0.5  # of one sample; the other's operations are MACs in those steps, too
    model = so.export(net, x.transpose(0, 1).contiguous(), axes="TNC", streaming=streaming)
    theirs = neurobench_of(net, x, lambda x: net(x.transpose(0, 1)))
    ours = so.neurobench(model, x.transpose(0, 1).numpy())
    operations = theirs["SynapticOperations"]
    assert (operations["Effective_MACs"] > 0) == (values != "spikes")
    assert operations["Effective_ACs"] > 0
    assert 0 < theirs["ConnectionSparsity"] < 1
    assert ours.results | {"Footprint": 0} == theirs | {"Footprint": 0}
    assert [row.layer for row in ours.connections] == ["conv1", "conv2", "fc", "lif3.recurrent"]


class Functions(nn.Module):
    """ReLU and sigmoid as functions, or as modules: (T, N, 6) -> (T, N, 5)."""

    def __init__(self, *, modules: bool) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 5), snntorch().Leaky(beta=0.5, threshold=0.5)
        self.relu = nn.ReLU() if modules else nn.functional.relu
        self.sigmoid = nn.Sigmoid() if modules else torch.sigmoid

    def forward(self, x: Tensor) -> Tensor:
        v, out = self.lif.init_leaky(), []
        for x_t in x:
            s, v = self.lif(self.relu(self.fc(x_t)), v)
            out.append(self.sigmoid(s))
        return torch.stack(out)


@pytest.mark.parametrize("modules", [False, True])
def test_functions_are_no_activations(modules: bool) -> None:
    torch.manual_seed(0)
    net, x = Functions(modules=modules).eval(), silences(2)
    model = so.export(net, x.transpose(0, 1).contiguous(), axes="TNC")
    theirs = neurobench_of(net, x, lambda x: net(x.transpose(0, 1)))
    ours = so.neurobench(model, x.transpose(0, 1).numpy(), network=net)
    assert ours.results | {"Footprint": 0} == theirs | {"Footprint": 0}
    assert sum("NeuroBench counts modules alone" in note for note in ours.notes) == 2 * (
        not modules
    )


def test_float32_sums_of_the_package_round_and_ours_do_not() -> None:
    pytest.importorskip("neurobench", reason="neurobench is not installed: see peers.txt")
    from neurobench.metrics.utils.layers import single_layer_MACs

    samples = 5_592_407
    x, layer = np.ones((1, samples, 3), np.float32), nn.Linear(3, 1)

    class Each(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = layer

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.fc(x_t) for x_t in x])

    metrics = so.neurobench(so.export(Each(), torch.rand(4, 2, 3), axes="TNC"), x)
    assert metrics.connections[0].acs == 3 * samples > 2**24
    assert single_layer_MACs(torch.from_numpy(x[0]), layer)[0] == 3 * samples - 1


# -- networks of NeuroBench's examples ------------------------------------------------------------

reference = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there is no folder {FOLDER}")


def example(name: str) -> tuple[Any, Any]:
    from exporters.neurobench import EXAMPLES

    snntorch()
    found = next(e for e in EXAMPLES if e.name == name)
    path = next(FOLDER / f for f in found.files if (FOLDER / f).is_file())
    return found, lambda: found.load(path)


@reference
@pytest.mark.parametrize("name", ["gsc", "reaching_indy_20160622_01"])
@pytest.mark.parametrize("samples", [1, 3])
def test_examples_of_neurobench(name: str, samples: int) -> None:
    from exporters.neurobench import live

    found, load = example(name)
    x = found.inputs(samples)[:, :25]
    model = so.export(so.over_time(load(), axes="NTC"), x)
    net = load()
    ours = so.neurobench(model, x.numpy(), network=net)
    theirs = neurobench_of(net, x, lambda x: torch.from_numpy(live(net, x)[0]))
    assert theirs["SynapticOperations"]["Effective_ACs"] > 0
    assert 0 < theirs["ActivationSparsity"] < 1
    assert ours.results == theirs
    assert ours.footprint == found.footprint
    assert ours.dense == found.dense / found.shape[0] * 25


@reference
def test_a_file_alone_counts_every_sample_and_only_the_spikes_it_computes() -> None:
    from exporters.neurobench import live

    found, load = example("gsc")
    x = found.inputs(3)[:, :25]
    model = so.export(so.over_time(load(), axes="NTC"), x)
    alone, with_network = so.neurobench(model, x.numpy()), so.neurobench(model, x.numpy(), load())
    assert [row.values for row in alone.activations] == [3 * 25 * n for n in (256, 256, 256, 35)]
    # hooks/neuron.py takes output[0]: of one tensor that is the first sample
    assert [row.values for row in with_network.activations] == [25 * n for n in (256,) * 3 + (105,)]
    assert sum("first sample's activations alone" in note for note in with_network.notes) == 3
    spiking = live(load(), x)[0]
    assert alone.activations[-1].nonzero == np.count_nonzero(spiking) > 0
    found, load = example("reaching_indy_20160622_01")
    x = found.inputs(2)[:, :25]
    alone = so.neurobench(so.export(so.over_time(load(), axes="NTC"), x), x.numpy())
    hidden, readout = alone.activations
    assert (hidden.values, readout.values) == (2 * 25 * 50, 0)
    assert any("taken for a membrane" in note for note in alone.notes)
