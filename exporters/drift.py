"""Position of a light: a sigma-delta network that follows a bump over 32 sensors, 8-bit weights.

The recipe generates its data: a bump of light that drifts slowly over a row of sensors. Little
changes from one time step to the next, and a sigma-delta network sends only changes.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

import synapse_onnx as so
from exporters import _recipe as recipe

SENSORS, STEPS = 32, 80
TRAIN, TEST = 600, 200
#: width of the bump, in sensors
WIDTH = 2.5


class Drift(nn.Module):
    """Light (N, 32, T) -> position (N, 1, T), 0 to 1 along the row."""

    def __init__(self) -> None:
        super().__init__()
        neuron = {"threshold": 0.04, "activation": torch.relu}
        blocks = so.block.sigma_delta
        self.eye = blocks.Input(neuron)
        self.first = blocks.Dense(neuron, SENSORS, 24, weight_scale=2)
        self.second = blocks.Dense(neuron, 24, 24, weight_scale=2)
        self.position = blocks.Output(neuron, 24, 1)

    def forward(self, light: Tensor) -> Tensor:
        """Return the position at every time step."""
        return self.position(self.second(self.first(self.eye(light))))


def data(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return light (N, 32, T) in 32nds, 0 to 1, and positions (N, 1, T), 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(samples, 1, generator=generator, dtype=torch.float64)
    # a random walk with a smoothed speed, so that it keeps its direction for a while
    pushes = torch.randn(samples, STEPS, generator=generator, dtype=torch.float64)
    speed = 0.004 * torch.nn.functional.avg_pool1d(pushes, 15, stride=1, padding=7) * 15**0.5
    position = start + speed.cumsum(-1)
    position = 1 - (1 - position.remainder(2)).abs()  # reflected at both ends
    place = position.unsqueeze(1) * (SENSORS - 1)
    sensors = torch.arange(SENSORS, dtype=torch.float64).reshape(1, -1, 1)
    light = torch.exp(-((sensors - place) ** 2) / (2 * WIDTH**2))
    return (torch.round(32 * light) / 32).float(), position.unsqueeze(1).float()


def train(epochs: int = 25, seed: int = 0) -> Drift:
    """Train with 8-bit weights in the forward pass; prints the error as it falls."""
    torch.manual_seed(seed)
    light, position = data(TRAIN, seed=1)
    network = Drift().train()

    def loss(batch: Tensor) -> Tensor:
        return (network(light[batch]) - position[batch]).square().mean()

    def error(loss: float) -> str:
        return f"error {SENSORS * loss**0.5:.2f} sensors"

    recipe.fit(network, loss, TRAIN, epochs=epochs, batch=50, rate=1e-2, say=error)
    return network


def messages(network: Drift, light: Tensor) -> list[float]:
    """Fraction of the neurons of each spiking layer that send a message in a time step."""
    shares = []
    x = light
    with torch.no_grad():
        for layer in (network.eye, network.first, network.second):
            x = layer(x)
            shares.append(float((x != 0).float().mean()))
    return shares


def page(light: Tensor) -> so.play.Show:
    """Text and samples of the streaming model's page: three test walks, and a light to move."""
    return so.play.Show(
        title="Where is the light?",
        text="A sigma-delta network follows a light over 32 sensors, and sends changes alone. "
        "Move the light, or choose a walk.",
        labels=("place of the light, 0 to 1",),
        decode="last",
        bump=WIDTH,
        samples={f"walk {i + 1}": light[i].numpy() for i in range(3)},
    )


@click.command()
@recipe.options
def main(anew: bool, output: Path) -> None:
    """A slow bump of light, a sigma-delta network that sends changes alone: 8-bit weights."""
    checkpoint = recipe.checkpoint_for("drift", output, train, anew=anew)
    light, position = data(TEST, seed=2)

    def near(output: np.ndarray) -> float:
        return float((np.abs(output - position.numpy()) * SENSORS <= 1).mean())

    network = Drift().eval()
    recipe.load_checkpoint(network, checkpoint)
    results = [
        recipe.prove("drift", name, network, light, output / f"drift_{name}.onnx", near, show=show)
        for name, show in (("q8", None), ("stream", page(light)))
    ]
    sent = messages(network, light)
    recipe.console.print(
        f"neurons that send in a step: {', '.join(f'{share:.1%}' for share in sent)}"
    )
    recipe.finish(
        "drift", f"{TEST} test walks, {STEPS} steps", "within a sensor", results, output,
        CARD, test=TEST, train=TRAIN, checkpoint=recipe.checksum(checkpoint),
        sent=", ".join(f"{share:.0%}" for share in sent),
    )  # fmt: skip


CARD = """# drift

A sigma-delta network that follows a slow bump of light over a row of 32 sensors.

| | |
|---|---|
| data | made by the recipe: {train} walks for training, {test} others for the test, 80 steps |
| input | `light` (N, 32, T): 0 to 1 in 32nds |
| output | `output` (N, 1, T): the position, 0 to 1; the score is the share within one sensor |
| network | delta encoder; dense 24 and 24, sigma-delta with relu; dense 1 and sigma decoder |
| training | Adam on the squared error, 25 epochs, 8-bit weights in the forward pass |
| messages | neurons that send in a step, by layer: {sent}; a network of values sends 100% |
| limits | a demonstration on synthetic walks |

| file | within a sensor in torch | in ONNX Runtime | flips | weights, bytes | sha256 |
|---|---|---|---|---|---|
{rows}

`drift_stream.onnx` takes the light in steps or chunks (`so.Session(...).stream()`). Checkpoint
`drift.pt` (sha256 `{checkpoint}`). Made by `python -m exporters drift`, which exports and
verifies every test walk; `--train` trains anew.
"""
