"""Networks of NeuroBench's examples in ONNX: live snnTorch, the file, and NeuroBench's metrics.

The architectures are those of ``examples/`` of NeuroBench/neurobench, written here from their
parameters; the weights are the authors' own files.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

import synapse_onnx as so
from exporters import _published as published
from exporters._live import imported
from exporters._published import Table

#: what the recipe cannot do without
NEEDS = "snntorch"


# -- networks -------------------------------------------------------------------------------------


def speech_commands() -> nn.Module:
    """Return the network of ``examples/gsc``: one step, (N, 20) -> spikes (N, 35), voltages."""
    snn = imported("snntorch")
    sizes, layers = (20, 256, 256, 256, 35), [nn.Flatten()]
    for i in range(4):
        layers += [nn.Linear(sizes[i], sizes[i + 1]),
                   snn.Leaky(beta=0.9, init_hidden=True, output=i == 3)]  # fmt: skip
    return nn.Sequential(*layers)


class Gesture(nn.Module):
    """The network of ``examples/dvs_gesture``: one step, (N, 2, 32, 32) -> spikes (N, 11)."""

    def __init__(self) -> None:
        super().__init__()
        snn = imported("snntorch")
        channels = (2, 16, 32, 64)
        leaks = (0.9999903192467171, 0.7291118090686332, 0.9364650136740154, 0.8348241794080301)
        levels = (3.511291184386264, 3.494437965584431, 1.5986853560315544, 0.3641469130041378)
        for i in range(1, 5):
            if i < 4:
                conv = nn.Conv2d(channels[i - 1], channels[i], 5, padding="same")
                self.add_module(f"conv{i}", conv)
                self.add_module(f"pool{i}", nn.MaxPool2d(2))
            else:
                self.linear1 = nn.Linear(64 * 4 * 4, 11)
            neuron = snn.Leaky(
                beta=leaks[i - 1], threshold=levels[i - 1], init_hidden=True, output=i == 4
            )
            self.add_module(f"lif{i}", neuron)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return spikes and voltages of the last layer."""
        for i in (1, 2, 3):
            x = getattr(self, f"conv{i}")(x)
            x = getattr(self, f"lif{i}")(getattr(self, f"pool{i}")(x))
        result: tuple[Tensor, Tensor] = self.lif4(self.linear1(x.flatten(1)))
        return result


class Activity(nn.Module):
    """The network of ``examples/nehar``: one step, (N, 6) of a watch -> spikes (N, 7)."""

    def __init__(self) -> None:
        super().__init__()
        snn = imported("snntorch")
        self.conv1, self.max1 = nn.Conv1d(6, 200, 2, padding=4), nn.MaxPool1d(2)
        self.leaky1 = snn.Leaky(beta=0.4, init_hidden=True, threshold=0.002)
        self.conv2, self.max2 = nn.Conv1d(200, 256, 1), nn.MaxPool1d(2)
        self.leaky2 = snn.Leaky(beta=0.3, init_hidden=True, threshold=0.001)
        self.linear = nn.Linear(512, 7)
        self.leaky3 = snn.Leaky(beta=0.5, init_hidden=True, output=True, threshold=0.001)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return spikes and voltages of the last layer."""
        x = self.leaky1(self.max1(self.conv1(x.unsqueeze(-1))))
        x = self.leaky2(self.max2(self.conv2(x)))
        result: tuple[Tensor, Tensor] = self.leaky3(self.linear(x.flatten(1)))
        return result


class Reaching(nn.Module):
    """SNN2 of ``examples/primate_reaching``: one step, (N, 96) -> velocities (N, 2)."""

    def __init__(self, inputs: int = 96, hidden: int = 50) -> None:
        super().__init__()
        snn = imported("snntorch")
        self.fc1 = nn.Linear(inputs, hidden, bias=False)
        self.fc_out = nn.Linear(hidden, 2, bias=False)
        # thresholds of an integer, as NeuroBench has them: 8 bytes of its footprint
        self.lif1 = snn.Leaky(beta=0.96, threshold=1, init_hidden=True, reset_mechanism="zero")
        self.lif_out = snn.Leaky(
            beta=0.96, threshold=1, init_hidden=True, output=True, reset_mechanism="none"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the voltages of the readout; its spikes are not used."""
        _, voltages = self.lif_out(self.fc_out(self.lif1(self.fc1(x))))
        result: Tensor = voltages
        return result


def _spikes(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Events of -1, 0 and 1."""
    signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    return (torch.rand(shape, generator=generator) < 0.3) * signs.float()


def _counts(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Counts of events."""
    return torch.poisson(torch.full(shape, 0.4), generator=generator)


def _binary(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Spikes of 0 and 1."""
    return (torch.rand(shape, generator=generator) < 0.15).float()


def _values(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Real values, as of an accelerometer."""
    return torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class Example:
    """One of NeuroBench's networks.

    Attributes:
        name: its name in tables and files.
        make: returns the network, of one time step.
        files: where its weights are in NeuroBench's ``examples`` or in the reference folder.
        shape: time steps and shape of an input of a step.
        draw: makes random inputs.
        footprint, dense: the figures that NeuroBench lists beside its benchmark: bytes, and
            operations a sample. A sample of primate reaching is one time step.
    """

    name: str
    make: Callable[[], nn.Module]
    files: tuple[str, ...]
    shape: tuple[int, ...]
    draw: Callable[[tuple[int, ...], torch.Generator], Tensor]
    footprint: int | None = None
    dense: float | None = None

    def load(self, path: Path) -> nn.Module:
        """Return the network with the weights of a file; no code in the file is run."""
        stored = torch.load(path, weights_only=True, map_location="cpu")
        for key in ("model_state_dict", "state_dict"):
            stored = stored.get(key, stored)
        network = self.make()
        network.load_state_dict({k.removeprefix("model."): v for k, v in stored.items()})
        return network.eval()

    def inputs(self, samples: int) -> Tensor:
        """Return random inputs (N, T, ...)."""
        return self.draw((samples, *self.shape), torch.Generator().manual_seed(0))


def _reaching(recording: str, inputs: int) -> Example:
    name = f"SNN2_{recording}.pt"
    dense = 50.0 * inputs + 100
    # its benchmark lists 19,648 bytes of 96 inputs and 38,848 of 192
    return Example(
        f"reaching_{recording}", lambda: Reaching(inputs),
        (f"primate_reaching/model_data/{name}", f"neurobench/{name}"), (200, inputs), _binary,
        4 * int(dense) + 48, dense * 200,
    )  # fmt: skip


EXAMPLES = (
    Example(
        "gsc", speech_commands,
        ("gsc/model_data/s2s_gsc_snntorch", "neurobench/s2s_gsc_snntorch"), (200, 20), _spikes,
        583_900, 29_030_400.0,
    ),
    Example(
        "dvs_gesture", Gesture, ("dvs_gesture/model_data/dvs_gesture_snn",), (150, 2, 32, 32),
        _counts, 304_828, 891_206_400.0,
    ),
    Example("wisdm", Activity, ("nehar/model_data/WISDM_snnTorch.ckpt",), (40, 6), _values),
    *(_reaching(f"indy_{name}", 96) for name in ("20160622_01", "20160630_01", "20170131_02")),
    *(_reaching(f"loco_{name}", 192) for name in ("20170210_03", "20170215_02", "20170301_05")),
)  # fmt: skip


# -- the live network, and NeuroBench's package ---------------------------------------------------


def live(network: nn.Module, inputs: Tensor) -> tuple[np.ndarray, ...]:
    """Run snnTorch's own network as NeuroBench's SNNTorchModel does, from fresh states."""
    imported("snntorch.utils").reset(network)
    with torch.no_grad():
        steps = [network(inputs[:, t]) for t in range(inputs.shape[1])]
    steps = [step if isinstance(step, tuple) else (step,) for step in steps]
    return tuple(torch.stack(values, 1).numpy() for values in zip(*steps, strict=True))


def package(network: nn.Module, inputs: Tensor) -> dict[str, Any] | None:
    """Return the figures of the package neurobench on one batch; None without it."""
    if importlib.util.find_spec("neurobench") is None:
        return None
    from torch.utils.data import DataLoader, TensorDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neurobench.benchmarks import Benchmark
        from neurobench.metrics import static, workload
        from neurobench.models import SNNTorchModel
    metrics = [
        [static.Footprint, static.ConnectionSparsity],
        [workload.ActivationSparsity, workload.SynapticOperations, workload.MembraneUpdates],
    ]

    class Stepped(SNNTorchModel):
        """A network that may return the voltages alone."""

        def __call__(self, data: Tensor) -> Tensor:
            return torch.from_numpy(live(self.net, data)[0])

    data = TensorDataset(inputs, torch.zeros(len(inputs)))
    loader = DataLoader(data, batch_size=len(inputs))
    benchmark = Benchmark(Stepped(network), loader, [], [], metrics)
    results: dict[str, Any] = benchmark.run(quiet=True)
    return results


# -- the recipe -----------------------------------------------------------------------------------

_FILES = ("network", "steps", "nodes", "values compared", "flips", "flips against snnTorch",
          "largest difference", "flips of the stream")  # fmt: skip
_METRICS = ("network", "footprint, bytes", "file, bytes", "connection sparsity",
            "activation sparsity", "dense", "MACs", "ACs", "membrane updates",
            "neurobench 2.1.0")  # fmt: skip


def run(
    example: Example, path: Path, samples: int, output: Path, data: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Export, verify and measure one network; return its rows of both tables, and faults."""
    inputs, faults = example.inputs(samples), []
    sequence = so.over_time(example.load(path), axes="NTC")
    whole = published.prove(sequence, inputs, output / f"neurobench_{example.name}.onnx")
    stream = published.prove(
        sequence, inputs, output / f"neurobench_{example.name}_stream.onnx", streaming=True
    )
    expected = live(example.load(path), inputs)
    results = _outputs(so.Session(whole.path).run(inputs.numpy()))
    chunks = _streamed(stream.path, inputs.numpy())
    # a readout has no spikes: its voltages are compared
    spiking = len(expected) > 1
    flips = published.flips(results[0], expected[0]) if spiking else 0
    late = published.flips(chunks[0], expected[0]) if spiking else 0
    difference = max(float(np.abs(a - b).max()) for a, b in zip(results, expected, strict=True))
    faults += [f"{p.path.name}: {p.report.verdict}" for p in (whole, stream) if not p.report.ok]
    faults += [f"{example.name}: {n} flips against snnTorch" for n in (flips, late) if n]
    model_nodes = len(so.flat(whole.path).graph.node)
    row = (example.name, str(inputs.shape[1]), str(model_nodes), f"{whole.values:,}",
           str(whole.report.spike_flips), f"{flips}" if spiking else "readout",
           f"{difference:.1e}", f"{late}" if spiking else "readout")  # fmt: skip
    figures, more = _measured(example, path, inputs, whole.path)
    if data is not None:
        faults += _scored(example, path, whole.path, data)
    return row, figures, faults + more


def _outputs(value: Any) -> tuple[np.ndarray, ...]:
    return value if isinstance(value, tuple) else (value,)


def _streamed(path: Path, inputs: np.ndarray, chunk: int = 7) -> tuple[np.ndarray, ...]:
    """Run a stream in chunks of a few steps, and join what it gives."""
    stream = so.Session(path).stream(batch=len(inputs))
    parts = [
        _outputs(stream.run(inputs[:, at : at + chunk])) for at in range(0, inputs.shape[1], chunk)
    ]
    return tuple(np.concatenate(values, axis=1) for values in zip(*parts, strict=True))


def _measured(
    example: Example, path: Path, inputs: Tensor, model: Path
) -> tuple[tuple[str, ...], list[str]]:
    """Return a network's row of metrics, and what differs from NeuroBench's own."""
    fresh, faults = example.load(path), []
    metrics = so.neurobench(model, inputs.numpy(), network=fresh)
    theirs = package(fresh, inputs)
    if theirs is not None and theirs != metrics.results:
        faults.append(f"{example.name}: neurobench gives {theirs}, the file {metrics.results}")
    if example.footprint not in (None, metrics.footprint):
        faults.append(f"{example.name}: published footprint {example.footprint:,}")
    if example.dense not in (None, metrics.dense):
        faults.append(f"{example.name}: published dense operations {example.dense:,}")
    figures = (
        example.name,
        f"{metrics.footprint:,}",
        f"{metrics.file_footprint:,}",
        f"{metrics.connection_sparsity:g}",
        f"{metrics.activation_sparsity:.4f}",
        f"{metrics.dense:,.0f}",
        f"{metrics.effective_macs:,.1f}",
        f"{metrics.effective_acs:,.1f}",
        f"{metrics.membrane_updates:,.1f}",
        "not installed" if theirs is None else "equal" if not faults else "differs",
    )
    return figures, faults


def _scored(example: Example, path: Path, model: Path, data: Path) -> list[str]:
    """Compare file and live network on a data set, and print the accuracy of both."""
    inputs, labels = (data / f"{example.name}_{part}.npy" for part in ("inputs", "labels"))
    if not inputs.is_file() or not labels.is_file():
        return []
    x, y = np.load(inputs).astype(np.float32), np.load(labels)
    (ours, *_), (theirs, *_) = (
        _outputs(so.Session(model).run(x)), live(example.load(path), torch.from_numpy(x))
    )  # fmt: skip
    right = [float((spikes.sum(1).argmax(1) == y).mean()) for spikes in (ours, theirs)]
    flips = published.flips(ours, theirs)
    published.console.print(
        f"{example.name}: {len(y)} samples, accuracy {right[0]:.2%} in ONNX Runtime, "
        f"{right[1]:.2%} in snnTorch, {flips} flips"
    )
    return [f"{example.name}: {flips} flips on the data"] if flips else []


@click.command()
@published.options
@click.option(
    "--examples",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder examples of a checkout of NeuroBench/neurobench: all networks.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of gsc_inputs.npy (N, T, 20) and gsc_labels.npy (N,), and so on: accuracy.",
)
@click.option("--samples", default=2, show_default=True, help="Random samples of each network.")
def main(
    reference: Path, output: Path, page: Path | None, examples: Path | None, data: Path | None,
    samples: int,
) -> None:  # fmt: skip
    """NeuroBench's networks: against live snnTorch, with NeuroBench's metrics from the file."""
    imported("snntorch")
    torch.set_num_threads(min(2, torch.get_num_threads()))
    places = [(e, published.found(e.files, (examples, reference))) for e in EXAMPLES]
    if not any(path for _, path in places):
        raise click.UsageError(
            f"there are no networks in {reference}; give --examples, the folder of a checkout of "
            f"NeuroBench/neurobench"
        )
    files, metrics, faults = [], [], []
    for example, path in places:
        if path is None:
            published.console.print(f"{example.name}: no file {example.files[-1]}, left out")
            continue
        row, figures, more = run(example, path, samples, output, data)
        files.append(row)
        metrics.append(figures)
        faults += more
    tables = [
        Table("NeuroBench's networks, random inputs", _FILES, tuple(files)),
        Table("NeuroBench's metrics of the same inputs", _METRICS, tuple(metrics)),
    ]
    published.finish("neurobench", tables, output, page, faults)
