"""The graphs of the NIR paper: one neuron in ten simulators, and Braille letters.

Each simulator ran one neuron on the same 1,000 steps of 0.1 ms and recorded input, voltage and
spikes (``paper/01_lif`` of neuromorphs/NIR). ``so.load_nir`` reads the graph by the convention of
that simulator, and the file is compared with the recording. The Braille network is compared with
the authors' own weights (``paper/03_rnn``), run by the equations of snnTorch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

import synapse_onnx as so
from exporters import _published as published
from exporters._published import Table

#: what the recipe cannot do without
NEEDS = "nir"

_EULER: Mapping[str, Any] = {"framework": "nir", "dt": 1e-4}


@dataclass(frozen=True)
class Simulator:
    """One of the simulators, and the convention by which its run is read.

    Attributes:
        name: its recording is ``lif_<name>.csv``.
        shown: its name in tables.
        how: options of ``so.load_nir``.
        graph: which graph it ran: ``lif_<graph>.nir``.
        late: steps by which its recording is later than the neuron's own spikes.
        unit: unit of its voltages; 0 of voltages that are integers of their own scale.
        note: what is not reproduced.
    """

    name: str
    shown: str
    how: Mapping[str, Any] = field(default_factory=dict)
    graph: str = "norse"
    late: int = 0
    unit: float = 1.0
    note: str = ""


SIMULATORS = (
    Simulator("exact", "exact solution", {**_EULER, "integration": "exponential",
                                          "reset": "subtract"}),
    Simulator("norse", "Norse", {"framework": "norse", "version": "1.0.0", "dt": 1e-4,
                                 "reset": "zero"}),
    Simulator("rockpool", "Rockpool", {"framework": "rockpool", "max_spikes": 2.0**16},
              graph="rockpool"),
    # the authors brought tau to time steps of 0.1 ms, and from_nir leaves norm_input off
    Simulator("sinabs", "sinabs", {"framework": "sinabs", "dt": 1e-4, "enters": "whole",
                                   "reset": "subtract", "max_spikes": math.inf}),
    Simulator("snntorch", "snnTorch", {"framework": "snntorch", "reset": "zero"}, unit=0.04),
    Simulator("nengo", "Nengo", {**_EULER, "integration": "exponential"}, unit=0.1,
              note="Nengo resets at the moment of the spike within the step"),
    # it returns the spikes of the step before: it fires on the voltage that it was left with
    Simulator("spyx", "Spyx", {**_EULER, "reset": "delayed"}, late=1),
    # its synapse and neuron are two processes, and a message takes a step
    Simulator("lava_cpu_float", "Lava, floats", {**_EULER, "reset": "zero"}, late=1),
    Simulator("lava_cpu_fixed", "Lava, fixed point", {**_EULER, "reset": "zero"}, late=1, unit=0,
              note="integers are read as floats"),
    Simulator("lava_loihi_fixed", "Loihi 2", {**_EULER, "reset": "zero"}, late=1, unit=0,
              note="integers are read as floats"),
    Simulator("spinnaker2", "SpiNNaker2 (Brian 2)", {**_EULER, "reset": "zero"}, unit=0.04,
              note="weights are rounded to integers"),
)  # fmt: skip

#: Braille: graph, weights, and the reset that it was trained with
_BRAILLE = (
    ("braille_noDelay_bias_zero.nir", "model_noDelay_bias_ref_zero.pt", "zero"),
    ("braille_noDelay_noBias_subtract.nir", "model_noDelay_noBias_ref_subtract.pt", "subtract"),
)


# -- one neuron -----------------------------------------------------------------------------------


def read(path: Path, how: Mapping[str, Any]) -> nn.Module:
    """Read a graph; what is assumed is in the table's convention."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        network: nn.Module = so.load_nir(path, **how)
    return network


def neuron(
    simulator: Simulator, recording: Path, graph: Path, output: Path
) -> tuple[tuple[str, ...], list[str]]:
    """Compare a simulator's recording with the file; return its row, and faults."""
    drive, voltage, spikes = np.genfromtxt(recording, delimiter=",").T
    network: Any = read(graph, simulator.how)
    x = torch.from_numpy(drive).float().reshape(1, 1, -1)
    proof = published.prove(network, x, output / f"nir_paper_{simulator.name}.onnx")
    found = so.Session(proof.path).run(x.numpy())[0, 0]
    late = simulator.late
    as_recorded = published.flips(found, spikes)
    shifted = published.flips(found[: len(found) - late], spikes[late:])
    faults = [] if proof.report.ok else [f"{simulator.name}: {proof.report.verdict}"]
    row = (
        simulator.shown,
        convention(simulator.how),
        str(int((spikes > 0).sum())),
        str(int((found > 0).sum())),
        str(as_recorded),
        str(late),
        str(shifted),
        _voltages(network, x, voltage, spikes, simulator),
        simulator.note,
    )
    return row, faults


def _voltages(
    network: Any, x: Tensor, voltage: np.ndarray, spikes: np.ndarray, simulator: Simulator
) -> str:
    """Return the largest difference of the voltages in steps without a spike, up to the first."""
    if not simulator.unit:
        return "other units"
    name = list(network.wires)[-1]
    with torch.no_grad():
        current = network.run(x)[network.wires[name][0]]
        own = getattr(network.layers, name).dynamics(current)[1].numpy()[0, 0]
    # Spyx and Lava record the voltage of the same step, and spikes a step later or not: the first
    # spike ends what can be compared whatever the reset
    first = int(np.flatnonzero(spikes)[0]) - 1
    candidates = [
        float(np.abs(own[: first - late] - voltage[late:first] * simulator.unit).max())
        for late in {0, simulator.late}
    ]
    return f"{min(candidates):.1e}"


def convention(how: Mapping[str, Any]) -> str:
    """Return options as they are written in a call."""
    return "`" + ", ".join(f"{key}={_value(value)}" for key, value in how.items()) + "`"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return "math.inf" if value == math.inf else f"{value:g}"


# -- Braille letters ------------------------------------------------------------------------------


class Authors(nn.Module):
    """The authors' network, from their weights: RSynaptic and Synaptic of snnTorch.

    Both resets happen within the step of the spike. ``twice`` is what snnTorch does besides where
    the threshold is taken off: a voltage that is still above it is lowered once more, before the
    next comparison, and what this reset took off is given back if no spike follows.
    """

    def __init__(self, weights: Mapping[str, Tensor], reset: str, *, twice: bool = False) -> None:
        super().__init__()
        self.w, self.reset, self.twice = weights, reset, twice

    def _fired(self, current: Tensor, syn: Tensor, mem: Tensor, name: str) -> Any:
        w = self.w
        level = w[f"{name}.threshold"]
        syn = w[f"{name}.alpha"] * syn + current
        before = (mem > level).float() if self.twice else torch.zeros(())
        mem = w[f"{name}.beta"] * mem + syn
        mem = mem - before * (level if self.reset == "subtract" else mem)
        spikes = (mem > level).float()
        taken = spikes - before
        mem = mem - taken * level if self.reset == "subtract" else mem * (1 - taken)
        return spikes, syn, mem

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spikes (N, C, T) of both layers."""
        w = self.w
        features = w["fc1.weight"].shape[0]
        spikes = mem = syn = torch.zeros(len(x), features)
        out_mem = out_syn = torch.zeros(len(x), w["fc2.weight"].shape[0])
        hidden, outputs = [], []
        for x_t in x.unbind(-1):
            current = nn.functional.linear(x_t, w["fc1.weight"], w.get("fc1.bias"))
            current = current + nn.functional.linear(
                spikes, w["lif1.recurrent.weight"], w.get("lif1.recurrent.bias")
            )
            spikes, syn, mem = self._fired(current, syn, mem, "lif1")
            current = nn.functional.linear(spikes, w["fc2.weight"], w.get("fc2.bias"))
            fired, out_syn, out_mem = self._fired(current, out_syn, out_mem, "lif2")
            hidden.append(spikes)
            outputs.append(fired)
        return torch.stack(hidden, -1), torch.stack(outputs, -1)


def braille(
    graph: Path, weights: Path, reset: str, output: Path
) -> tuple[tuple[str, ...], list[str]]:
    """Compare the Braille network, read with one reset, with the authors' own weights."""
    network: Any = read(graph, {"framework": "snntorch", "reset": reset})
    stored = torch.load(weights, weights_only=True, map_location="cpu")
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(8, 12, 256, generator=generator) < 0.05).float()
    name = f"nir_paper_{graph.stem}_{reset}.onnx"
    proof = published.prove(network, x, output / name)
    stream = published.prove(network, x, output / f"{Path(name).stem}_stream.onnx", streaming=True)
    found = so.Session(proof.path).run(x.numpy())
    with torch.no_grad():
        hidden, expected = Authors(stored, reset)(x)
        _, twice = Authors(stored, reset, twice=True)(x)
        own = network.run(x)["lif1_lif" if "lif1_lif" in network.wires else "lif1"]
    faults = [f"{p.path.name}: {p.report.verdict}" for p in (proof, stream) if not p.report.ok]
    inner = published.flips(own.numpy(), hidden.numpy())
    outer = published.flips(found, expected.numpy())
    faults += [f"{name}: {n} flips" for n in (inner, outer) if n]
    row = (
        graph.name, reset, f"{hidden.numel():,}", f"{hidden.mean():.1%}", str(inner),
        f"{expected.numel():,}", f"{expected.mean():.1%}", str(outer),
        str(published.flips(found, twice.numpy())),
    )  # fmt: skip
    return row, faults


# -- the recipe -----------------------------------------------------------------------------------

_NEURON = ("simulator", "read with", "spikes recorded", "spikes of the file",
           "flips as recorded", "recorded later by, steps", "flips behind that",
           "voltages up to the first spike", "not reproduced")  # fmt: skip
_LETTERS = ("graph", "reset", "hidden values", "spikes", "flips", "output values", "spikes ",
            "flips ", "flips against snnTorch's second reset")  # fmt: skip


@click.command()
@published.options
@click.option(
    "--paper",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder paper of a checkout of neuromorphs/NIR: all simulators.",
)
def main(reference: Path, output: Path, page: Path | None, paper: Path | None) -> None:
    """The NIR paper's neuron in ten simulators, and its Braille network: against recordings."""
    published.needs("nir")
    folders = [paper, reference]

    def file(name: str) -> Path | None:
        places = (f"01_lif/{name}", f"03_rnn/{name}", f"03_rnn/data/{name}", f"nir_paper/{name}")
        return published.found(places, folders)

    rows, letters, faults = [], [], []
    for simulator in SIMULATORS:
        recording, graph = file(f"lif_{simulator.name}.csv"), file(f"lif_{simulator.graph}.nir")
        if recording is None or graph is None:
            published.console.print(f"{simulator.shown}: no lif_{simulator.name}.csv, left out")
            continue
        row, more = neuron(simulator, recording, graph, output)
        rows.append(row)
        faults += more
    for name, stored, trained in _BRAILLE:
        graph, weights = file(name), file(stored)
        if graph is None or weights is None:
            published.console.print(f"{name}: not there, left out")
            continue
        for reset in (trained, *({"zero", "subtract"} - {trained})):
            row, more = braille(graph, weights, reset, output)
            letters.append(row)
            faults += more
    if not rows:
        raise click.UsageError(
            f"there are no recordings in {reference}; give --paper, the folder paper of a checkout "
            f"of neuromorphs/NIR"
        )
    tables = [
        Table("One neuron, 1,000 steps of 0.1 ms", _NEURON, tuple(rows)),
        Table("Braille letters, random spikes", _LETTERS, tuple(letters)),
    ]
    published.finish("nir_paper", tables, output, page, faults)
