"""Tones and chirps: complex synapses and resonate-and-fire neurons, 8-bit weights.

The recipe generates its data: six tones of similar periods, a rising and a falling chirp, each with
random phase and loudness, in noise of about the same power. The classes differ in frequency over
time, to which resonators respond.
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

import synapse_onnx as so
from exporters import _recipe as recipe

STEPS = 96
#: periods of the tones, and of both ends of the chirps, in time steps
PERIODS = (6.0, 7.5, 9.5, 12.0, 15.0, 19.0)
CHIRP = (20.0, 6.0)
CLASSES = len(PERIODS) + 2
TRAIN, TEST = 2000, 600
#: number of time steps, at the end, over which the readout is averaged
LISTEN = 16


class Tones(nn.Module):
    """Sound (N, 1, T) -> voltages (N, 8, T), one a class."""

    def __init__(self) -> None:
        super().__init__()
        common = {"threshold": 1.0, "shared_param": False, "requires_grad": True}
        # every channel has its own period, from 5 to 24 time steps in geometric spacing
        ear = {**common, "period": (5, 24), "decay": (0.05, 0.12)}
        mix = {**common, "period": (8, 40), "decay": (0.03, 0.1)}
        mix |= {"tau_grad": 0.02, "scale_grad": 3.0}
        readout = {"threshold": 1.0, "current_decay": 0.3, "voltage_decay": 0.03}
        self.ear = so.block.rf.Dense(ear, 1, 48, weight_scale=0.5, delay_shift=False)
        self.mix = so.block.rf_iz.Dense(mix, 48, 32, weight_scale=2, delay_shift=False)
        self.readout = so.block.cuba.Affine(readout, 80, CLASSES)

    def forward(self, sound: Tensor) -> Tensor:
        """Return voltages (N, 8, T)."""
        heard = self.ear(sound)
        return self.readout(torch.cat([heard, self.mix(heard)], dim=1))


def data(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return sounds (N, 1, T), in eighths from -4 to 4, and their classes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform() -> Tensor:
        return torch.rand(samples, 1, generator=generator, dtype=torch.float64)

    labels = torch.randint(0, CLASSES, (samples,), generator=generator)
    t = torch.arange(STEPS, dtype=torch.float64)
    period = torch.tensor([*PERIODS, 1.0, 1.0], dtype=torch.float64)[labels].unsqueeze(1)
    turns = t / (period * (1 + 0.06 * (uniform() - 0.5)))
    low, high = (1 / period for period in CHIRP)
    slope = (high - low) / STEPS
    rising, falling = low * t + slope * t**2 / 2, high * t - slope * t**2 / 2
    turns = torch.where((labels == CLASSES - 2).unsqueeze(1), rising, turns)
    turns = torch.where((labels == CLASSES - 1).unsqueeze(1), falling, turns)
    loudness = 0.6 + 0.6 * uniform()
    noise = torch.randn(samples, STEPS, generator=generator, dtype=torch.float64)
    sound = loudness * torch.sin(2 * math.pi * (turns + uniform())) + 0.7 * noise
    return (torch.round(8 * sound) / 8).clamp(-4, 4).float().unsqueeze(1), labels


def train(epochs: int = 8, seed: int = 0) -> Tones:
    """Train with 8-bit weights in the forward pass; prints the loss as it falls."""
    torch.manual_seed(seed)
    sounds, labels = data(TRAIN, seed=1)
    network = Tones().train()
    network(sounds[:1])  # the first input draws the period of every channel

    def loss(batch: Tensor) -> Tensor:
        voltage = network(sounds[batch])[..., -LISTEN:].mean(-1)
        return nn.functional.cross_entropy(voltage / 4, labels[batch])

    recipe.fit(network, loss, TRAIN, epochs=epochs, batch=100, rate=2e-2, every=1)
    return network


def without_resonance() -> float:
    """Accuracy of a logistic regression on the waveforms: a baseline that sees no frequency."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise click.ClickException(
            "the baseline comes with scikit-learn: pip install 'synapse-onnx[train]'"
        ) from error
    (sounds, labels), (test_sounds, test_labels) = data(TRAIN, seed=1), data(TEST, seed=2)
    model = LogisticRegression(max_iter=500).fit(sounds.flatten(1).numpy(), labels.numpy())
    return float(model.score(test_sounds.flatten(1).numpy(), test_labels.numpy()))


def page(sounds: Tensor, labels: Tensor) -> so.play.Show:
    """Text and samples of the streaming model's page: a sound of every class, and a generator."""
    periods = [(period, period) for period in PERIODS] + [CHIRP, CHIRP[::-1]]
    names = [f"period {period:g}" for period in PERIODS] + ["rising", "falling"]
    firsts = [int((labels == i).nonzero()[0]) for i in range(CLASSES)]
    return so.play.Show(
        title="Tones and chirps",
        text="Resonate-and-fire neurons listen to a noisy sound and tell six tones, a rising and a "
        "falling chirp apart. Choose a sound of the test, or make one.",
        labels=tuple(names),
        decode="mean",
        window=LISTEN,
        period=STEPS,
        wave=so.play.Wave(dict(zip(names, periods, strict=True)), steps=STEPS),
        samples={name: sounds[i].numpy() for name, i in zip(names, firsts, strict=True)},
    )


@click.command()
@recipe.options
def main(anew: bool, output: Path) -> None:
    """Tones and chirps, a complex network of resonators: 8-bit weights, streaming."""
    checkpoint = recipe.checkpoint_for("tones", output, train, anew=anew)
    sounds, labels = data(TEST, seed=2)

    def accuracy(output: np.ndarray) -> float:
        voltages = output[..., -LISTEN:].mean(-1)
        return float((voltages.argmax(1) == labels.numpy()).mean())

    network = Tones().eval()
    recipe.load_checkpoint(network, checkpoint)
    results = [
        recipe.prove(
            "tones", name, network, sounds, output / f"tones_{name}.onnx", accuracy, show=show
        )
        for name, show in (("q8", None), ("stream", page(sounds, labels)))
    ]
    recipe.finish(
        "tones", f"{TEST} test sounds, {STEPS} steps", "accuracy", results, output,
        CARD, test=TEST, train=TRAIN, baseline=f"{without_resonance():.0%}",
        checkpoint=recipe.checksum(checkpoint),
    )  # fmt: skip


CARD = """# tones

A complex spiking network that tells six tones, a rising and a falling chirp apart, in noise.

| | |
|---|---|
| data | made by the recipe: {train} sounds for training, {test} others for the test, 96 steps |
| input | `sound` (N, 1, T): the waveform in eighths, of random phase and loudness, with noise |
| output | `output` (N, 8, T): voltages; the class is the largest, averaged over the last 16 steps |
| network | complex dense 48, resonate-and-fire; complex dense 32, RF-Izhikevich; both to dense 8 |
| training | Adam, 8 epochs, 8-bit weights in the forward pass; periods and decays learned too |
| numbers | neurons in lava-dl's fixed point; complex weights are int8 pairs, steps of 1/32 |
| without resonance | a logistic regression on the same waveforms: {baseline} |
| limits | a demonstration on synthetic sounds |

| file | accuracy in torch | in ONNX Runtime | spike flips | weights, bytes | sha256 |
|---|---|---|---|---|---|
{rows}

`tones_stream.onnx` takes the sound in steps or chunks (`so.Session(...).stream()`), and plays in a
browser: `synapse-onnx play models/tones_stream.onnx --serve`. Checkpoint `tones.pt` (sha256
`{checkpoint}`). Made by `python -m exporters tones`, which exports and verifies every test sound;
`--train` trains anew.
"""
