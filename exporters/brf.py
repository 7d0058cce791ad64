"""Balanced resonate-and-fire neurons and adaptive LIF neurons that read electrocardiograms.

Both networks are recurrent: 36 neurons see 4 channels and their own spikes, and six leaky readouts
say at every step which part of a heartbeat it is. The weights are those of Higuchi, Kairat, Bohte
and Otte (2024), "Balanced Resonate-and-Fire Neurons" (AdaptiveAILab/brf-neurons,
``experiments/ecg``), who print test accuracies of 86.2 % and 70.75 %. Their data set is the QT
database; ``experiments/ecg/data/QTDB_test.mat`` of their repository holds the test samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

import synapse_onnx as so
from exporters import _published as published
from exporters._published import Table

CHANNELS, NEURONS, CLASSES = 4, 36, 6

#: random samples and steps that are verified
SAMPLES, STEPS = 3, 120


def _spike(v: Tensor) -> Tensor:
    return (v > 0).float()


class Masked(nn.Linear):
    """A synapse without bias; some of its weights may be pruned."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.register_buffer("mask", torch.ones(outputs, inputs))

    def forward(self, input: Tensor) -> Tensor:
        """Return the currents (N, outputs) of an input (N, inputs)."""
        return nn.functional.linear(input, self.weight * self.mask)


class Balanced(nn.Module):
    """Balanced resonate-and-fire neurons, which damp themselves after a spike.

    Where omega is the angular frequency and b the damping, a step of dt is::

        b = p(omega) - b_offset - q
        u' = u + dt (b u - omega v + x)
        v' = v + dt (omega u + b v)
        z = u' > 1 + q
        q' = 0.9 q + z

    p(omega) = (sqrt(1 - (dt omega)^2) - 1) / dt is the damping below which the neuron converges.
    """

    dt = 0.01

    def __init__(self) -> None:
        super().__init__()
        self.linear = Masked(CHANNELS + NEURONS, NEURONS)
        self.omega, self.b_offset = (nn.Parameter(torch.ones(NEURONS)) for _ in range(2))

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the first states: z, u, v and q."""
        return tuple(torch.zeros(len(x), NEURONS) for _ in range(4))

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the states after a step; z, the spikes, is the first."""
        z, u, v, q = states
        current = self.linear(torch.cat((x, z), dim=1))
        omega = self.omega.abs()
        edge = (torch.sqrt(1 - (self.dt * omega) ** 2) - 1) / self.dt
        b = edge - self.b_offset.abs() - q
        following = u + self.dt * (b * u - omega * v + current)
        v = v + self.dt * (omega * u + b * v)
        z = _spike(following - 1 - q)
        return z, following, v, 0.9 * q + z


class Adaptive(nn.Module):
    """Adaptive LIF neurons: every spike raises the threshold.

    a' = rho a + (1 - rho) z, theta = 0.01 + 1.8 a', u' = alpha u + (1 - alpha) x, z' = u' > theta,
    and theta is taken off the voltage at a spike.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = Masked(CHANNELS + NEURONS, NEURONS)
        self.tau_mem, self.tau_adp = (nn.Parameter(torch.ones(NEURONS)) for _ in range(2))

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the first states: z, u and a."""
        return tuple(torch.zeros(len(x), NEURONS) for _ in range(3))

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the states after a step; z, the spikes, is the first."""
        z, u, a = states
        current = self.linear(torch.cat((x, z), dim=1))
        alpha, rho = torch.exp(-1 / self.tau_mem.abs()), torch.exp(-1 / self.tau_adp.abs())
        a = rho * a + (1 - rho) * z
        theta = 0.01 + 1.8 * a
        u = alpha * u + (1 - alpha) * current
        z = _spike(u - theta)
        return z, u - z * theta, a


class Leaky(nn.Module):
    """Leaky readouts: u' = alpha u + (1 - alpha) x."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(NEURONS, CLASSES, bias=False)
        self.tau_mem = nn.Parameter(torch.ones(CLASSES))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """Return the voltages (N, classes) after a step."""
        alpha = torch.exp(-1 / self.tau_mem.abs())
        return alpha * u + (1 - alpha) * self.linear(z)


class Network(nn.Module):
    """Recurrent neurons and readouts: signals (T, N, 4) in, voltages (T, N, 6) out."""

    def __init__(self, hidden: Balanced | Adaptive) -> None:
        super().__init__()
        self.hidden, self.out = hidden, Leaky()

    def forward(self, x: Tensor) -> Tensor:
        """Return the voltages of all steps."""
        states, u, voltages = self.hidden.start(x[0]), torch.zeros(x.shape[1], CLASSES), []
        for x_t in x:
            states = self.hidden(x_t, states)
            u = self.out(states[0], u)
            voltages.append(u)
        return torch.stack(voltages)


#: name -> checkpoint, its neurons, the steps that its authors leave out, the accuracy they print
NETWORKS: dict[str, tuple[str, Callable[[], Balanced | Adaptive], int, float]] = {
    "balanced resonate-and-fire": ("brf/ecg_rf.pt", Balanced, 0, 0.862),
    "adaptive LIF": ("brf/ecg_alif.pt", Adaptive, 10, 0.7075),
}


def trained(path: Path, hidden: Balanced | Adaptive) -> Network:
    """Return a network with the weights of a checkpoint."""
    network = Network(hidden)
    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    network.load_state_dict(checkpoint["model_state_dict"])
    return network.eval()


def samples_of(path: Path) -> tuple[Tensor, Tensor]:
    """Return signals (T, N, 4) and classes (T, N) of a file of the data set."""
    data = published.needs("scipy.io").loadmat(path)
    # the last step of a sample is filled up with -1
    signals, classes = (torch.from_numpy(data[name]).float()[:, :-1] for name in "xy")
    return signals.transpose(0, 1).contiguous(), classes.transpose(0, 1).argmax(dim=2)


def signals(steps: int, samples: int) -> Tensor:
    """Return random signals (T, N, 4): slow waves and beats, as large as those of the data."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(steps, samples, CHANNELS, generator=generator)
    beats = (torch.rand(steps, samples, 1, generator=generator) < 0.05) * 4.0
    return noise.cumsum(0) * 0.2 + beats


def _run(session: so.Session, x: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(session.run(x.numpy())))


def _accuracy(
    name: str, network: Network, session: so.Session, data: Path, left_out: int, known: float
) -> tuple[str, ...]:
    """Return the row of a network: how many steps of the test samples are classified right."""
    x, classes = samples_of(data)

    def right(run: Callable[[Tensor], Tensor]) -> tuple[Tensor, float]:
        begin = time.perf_counter()
        with torch.no_grad():
            found = run(x)[left_out:].argmax(dim=2)
        return found, time.perf_counter() - begin

    quantised = so.quantize.apply(network, bits=8)
    model = so.export(quantised, signals(STEPS, SAMPLES), axes="TNC")
    runs = [right(r) for r in (network, partial(_run, session), partial(_run, so.Session(model)))]
    shares = [float((found == classes[left_out:]).float().mean()) for found, _ in runs]
    agreed = float((runs[0][0] == runs[1][0]).float().mean())
    return (
        name,
        f"{known:.2%}",
        *(f"{share:.2%}" for share in shares),
        f"{agreed:.3%}",
        *(f"{seconds:.2f}" for _, seconds in runs[:2]),
    )


_HEAD = ("network", "steps", "nodes", "values compared", "flips", "flips of the stream",
         "output, largest difference", "file, bytes")  # fmt: skip
_ACCURACY = ("network", "published", "torch", "file", "file with 8 bits",
             "steps classed as in torch", "torch, s", "file, s")  # fmt: skip


@click.command()
@published.options
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The authors' QTDB_test.mat: accuracies of torch and of the files.",
)
def main(reference: Path, output: Path, page: Path | None, data: Path | None) -> None:
    """Balanced resonate-and-fire and adaptive LIF neurons that read electrocardiograms."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    rows, accuracies, faults = [], [], []
    for name, (file, make, left_out, known) in NETWORKS.items():
        path = published.found([file], [reference])
        if path is None:
            raise click.UsageError(f"no {file} in {reference}; give its folder by --reference")
        network, x = trained(path, make()), signals(STEPS, SAMPLES)
        stem = output / path.stem
        whole = published.prove(network, x, stem.with_suffix(".onnx"), axes="TNC")
        stream = published.prove(
            network, x, output / f"{path.stem}_stream.onnx", streaming=True, axes="TNC"
        )
        faults += [f"{p.path.name}: {p.report.verdict}" for p in (whole, stream) if not p.report.ok]
        with torch.no_grad():
            expected = network(x)
        session = so.Session(whole.path)
        difference = float((_run(session, x) - expected).abs().max())
        if not difference <= 1e-4 * float(expected.abs().max()):
            faults.append(f"{name}: off by {difference:.1e}")
        flips = whole.flips, stream.flips
        nodes = len(so.flat(whole.path).graph.node)
        rows.append(
            (
                name, str(STEPS), str(nodes), f"{whole.values:,}", *map(str, flips),
                f"{difference:.1e}", f"{whole.path.stat().st_size:,}",
            )
        )  # fmt: skip
        if data is not None:
            accuracies.append(_accuracy(name, network, session, data, left_out, known))
    tables = [Table("Electrocardiograms, random signals", _HEAD, tuple(rows))]
    if accuracies:
        tables.append(Table("Electrocardiograms, accuracy", _ACCURACY, tuple(accuracies)))
    published.finish("brf", tables, output, page, faults)
