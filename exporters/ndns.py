"""The baseline of Intel's N-DNS challenge in ONNX: a sigma-delta network that denoises speech.

Three layers of ReLU neurons that send changes alone, 257-512-512-257, with learned axonal delays of
up to 64 steps, masks the magnitudes of a short-time Fourier transform (``baseline_solution/
sdnn_delays`` of IntelLabs/IntelNeuromorphicDNSChallenge). A step is a hop of 128 samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import synapse_onnx as so
from exporters import _published as published
from exporters._published import Table

BINS, HIDDEN, LONGEST, MEAN = 257, 512, 64, 0.2


def to_64ths(x: Tensor) -> Tensor:
    """Round to multiples of 1/64: the network's input."""
    return torch.round(x * 64) / 64


class Denoiser(nn.Module):
    """The network: magnitudes (N, 257, T) of noisy speech -> magnitudes of clean speech.

    Names are those of the authors' checkpoints.
    """

    def __init__(self) -> None:
        super().__init__()
        neuron = {
            "threshold": 0.1, "tau_grad": 0.1, "scale_grad": 0.8, "requires_grad": False,
            "shared_param": True, "activation": F.relu,
        }  # fmt: skip
        block = so.block.sigma_delta
        hidden = {"weight_norm": False, "delay": True, "delay_shift": True}
        self.blocks = nn.ModuleList([
            block.Input(neuron),
            block.Dense(neuron, BINS, HIDDEN, **hidden),
            block.Dense(neuron, HIDDEN, HIDDEN, **hidden),
            block.Output(neuron, HIDDEN, BINS, weight_norm=False),
        ])  # fmt: skip
        self.blocks[0].pre_hook_fx = to_64ths
        for layer in (self.blocks[1], self.blocks[2]):
            layer.delay.max_delay = LONGEST

    def forward(self, noisy: Tensor) -> Tensor:
        """Return the masked magnitudes."""
        x = noisy - MEAN
        for layer in self.blocks:
            x = layer(x)
        return noisy * torch.relu(x + 1)


def trained(path: Path) -> Denoiser:
    """Return the network of a checkpoint; no code in the file is run."""
    network = Denoiser()
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return network.eval()


def untrained(seed: int = 0) -> Denoiser:
    """Return the network with random weights, and with random delays of 0 to 64 steps."""
    torch.manual_seed(seed)
    network = Denoiser()
    with torch.no_grad():
        for i in (1, 2, 3):
            weight = network.blocks[i].synapse.weight
            weight.copy_(torch.randn(weight.shape) * 2 / weight.shape[1] ** 0.5)
        for i in (1, 2):
            delays = torch.rand(HIDDEN) * LONGEST
            delays[-1] = LONGEST  # the longest is there
            network.blocks[i].delay.load_state_dict({"delay": delays})
    return network.eval()


def delays_of(network: nn.Module) -> Iterator[int]:
    """Yield the longest delay of every axon that has some, in steps, as the file has it."""
    for module in so.freeze(network).modules():
        if isinstance(module, so.axon.Delay):
            yield int(module.delay.max())


def magnitudes(samples: int, steps: int) -> Tensor:
    """Magnitudes like those of noisy speech: bursts over a floor of noise, fewer at high pitch."""
    generator = torch.Generator().manual_seed(0)
    bursts = torch.rand(samples, 1, -(-steps // 16), generator=generator).repeat_interleave(16, -1)
    shape = torch.linspace(4, 0.2, BINS).reshape(1, -1, 1)
    noise = torch.rand(samples, BINS, steps, generator=generator)
    return (shape * bursts[..., :steps] + 0.3) * noise


def run(name: str, network: Any, inputs: Tensor, output: Path) -> tuple[tuple[str, ...], list[str]]:
    """Export a network whole and as a stream; return its row, and faults."""
    whole = published.prove(network, inputs, output / f"ndns_{name}.onnx")
    stream = published.prove(network, inputs, output / f"ndns_{name}_stream.onnx", streaming=True)
    with torch.no_grad():
        expected = network(inputs).numpy()
    session, array = so.Session(stream.path), inputs.numpy()
    opened = session.stream(batch=len(inputs))
    # one hop at a time, as a microphone gives them
    hops = [opened.run(array[..., t : t + 1]) for t in range(array.shape[-1])]
    found = so.Session(whole.path).run(array), np.concatenate(hops, axis=-1)
    differences = [float(np.abs(values - expected).max()) for values in found]
    faults = [f"{p.path.name}: {p.report.verdict}" for p in (whole, stream) if not p.report.ok]
    scale = max(1.0, float(np.abs(expected).max()))
    faults += [f"ndns_{name}: off by {d:.1e}" for d in differences if not d <= 1e-4 * scale]
    row = (
        name,
        ", ".join(map(str, delays_of(network))) or "none",
        str(inputs.shape[-1]),
        f"{whole.values:,}",
        str(whole.flips),
        str(stream.flips),
        *(f"{difference:.1e}" for difference in differences),
        f"{whole.path.stat().st_size:,}",
    )
    return row, faults


def apart_by(checkpoint: Any, net: nn.Module, inputs: Tensor) -> tuple[float, int]:
    """Return how far a checkpoint and a .net file are apart, and by how many steps.

    lava-dl's layers send a step later in training, and ``load_net`` adds no delay of its own.
    """
    apart = sum(isinstance(module, so.axon.StepDelay) for module in checkpoint.modules())
    with torch.no_grad():
        x = inputs - MEAN
        for layer in checkpoint.blocks:
            x = layer(x)
        y = net(inputs - MEAN)
    return float((x[..., apart:] - y[..., : y.shape[-1] - apart]).abs().max()), apart


_HEAD = ("network", "longest delays, steps", "steps", "values compared", "flips",
         "flips of the stream", "output, largest difference", "output hop by hop",
         "file, bytes")  # fmt: skip


@click.command()
@published.options
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The authors' network.pt, as training wrote it.",
)
@click.option(
    "--net",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The authors' network.net, as it was written for Loihi.",
)
@click.option("--steps", default=200, show_default=True, help="Steps of the random input.")
def main(
    reference: Path, output: Path, page: Path | None, checkpoint: Path | None, net: Path | None,
    steps: int,
) -> None:  # fmt: skip
    """Intel's N-DNS baseline, a sigma-delta network with delays of 64 steps: whole, hop by hop."""
    del reference  # the networks are not there
    torch.set_num_threads(min(2, torch.get_num_threads()))
    inputs = magnitudes(2, steps)
    networks: list[tuple[str, nn.Module, Tensor]] = []
    if checkpoint is not None:
        networks.append(("checkpoint", trained(checkpoint), inputs))
    if net is not None:
        # it rounds to 64ths itself, and ends before the mask
        networks.append(("net", so.load_net(net), inputs - MEAN))
    if not networks:
        published.console.print(
            "no --checkpoint and no --net: the network has random weights and delays, and denoises "
            "nothing; its file is proved"
        )
        networks.append(("random", untrained(), inputs))
    rows, faults = [], []
    for name, network, x in networks:
        row, more = run(name, network, x, output)
        rows.append(row)
        faults += more
    tables = [Table("N-DNS baseline, random magnitudes", _HEAD, tuple(rows))]
    if checkpoint is not None and net is not None:
        difference, apart = apart_by(networks[0][1], networks[1][1], inputs)
        tables.append(
            Table("Checkpoint and .net file on the same input, before the mask",
                  ("values", "steps apart", "largest difference"),
                  ((f"{inputs.numel():,}", str(apart), f"{difference:.1e}"),))
        )  # fmt: skip
    published.finish("ndns", tables, output, page, faults)
