"""Handwritten digits: a convolutional CUBA network, trained with 8-bit weights.

The data are scikit-learn's digits: 1,797 images of 8x8 pixels with 17 grey levels. A pixel of level
g spikes g times in 16 time steps, evenly spaced, so that the encoding needs no random numbers.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

import synapse_onnx as so
from exporters import _recipe as recipe

STEPS = 16
NEURON = {
    "threshold": 1.0,
    "current_decay": 0.5,
    "voltage_decay": 0.1,
    "tau_grad": 0.03,
    "scale_grad": 3.0,
}


class Digits(nn.Module):
    """Spikes (N, 1, 8, 8, T) -> output spikes (N, 10, T)."""

    def __init__(self, hook: so.synapse.layer.Hook | None = so.quantize.q8) -> None:
        super().__init__()
        synapse, neuron = so.synapse, so.neuron.cuba.Neuron
        self.conv1 = synapse.Conv(1, 16, 3, padding=1, weight_scale=3, pre_hook_fx=hook)
        self.conv1_neuron = neuron(**NEURON)
        self.pool = synapse.Pool(2)
        self.pool_neuron = neuron(**NEURON)
        self.conv2 = synapse.Conv(16, 32, 3, padding=1, weight_scale=3, pre_hook_fx=hook)
        self.conv2_neuron = neuron(**NEURON)
        self.dense = synapse.Dense((4, 4, 32), 10, weight_scale=3, pre_hook_fx=hook)
        self.dense_neuron = neuron(**NEURON)

    def forward(self, spikes: Tensor) -> Tensor:
        """Return output spikes (N, 10, T)."""
        x = self.conv1_neuron(self.conv1(spikes))
        x = self.pool_neuron(self.pool(x))
        x = self.conv2_neuron(self.conv2(x))
        x = self.dense_neuron(self.dense(x))
        return x.flatten(1, 3)


def encode(images: np.ndarray) -> Tensor:
    """Images (N, 8, 8), levels 0 to 16 -> spikes (N, 1, 8, 8, 16), evenly spaced in time."""
    level = torch.from_numpy(images).to(torch.int64).unsqueeze(1).unsqueeze(-1)
    t = torch.arange(STEPS)
    return ((t + 1) * level // STEPS - t * level // STEPS).to(torch.float32)


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return spikes and labels of the training and of the test images (a fifth of all)."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise click.ClickException(
            "the digits come with scikit-learn: pip install 'synapse-onnx[train]'"
        ) from error
    digits = load_digits()
    split = train_test_split(
        digits.images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    train_x, test_x, train_y, test_y = split
    return encode(train_x), torch.from_numpy(train_y), encode(test_x), torch.from_numpy(test_y)


def train(epochs: int = 30, seed: int = 0) -> Digits:
    """Train with 8-bit weights in the forward pass; prints the loss as it falls."""
    torch.manual_seed(seed)
    spikes, labels, _, _ = data()
    network = Digits().train()

    def loss(batch: Tensor) -> Tensor:
        rate = network(spikes[batch]).mean(-1)
        return nn.functional.cross_entropy(10 * rate, labels[batch])

    recipe.fit(network, loss, len(labels), epochs=epochs, batch=64, rate=6e-3)
    return network


def page(spikes: Tensor, labels: Tensor) -> so.play.Show:
    """Text and samples of the streaming model's page: a test image of every digit."""
    firsts = [int((labels == digit).nonzero()[0]) for digit in range(10)]
    return so.play.Show(
        title="Handwritten digits",
        text="A convolutional spiking network reads images of 8x8 pixels, each in 16 steps: the "
        "brighter a pixel, the more often it spikes. Draw a digit by hand, or choose one.",
        labels=tuple(map(str, range(10))),
        decode="count",
        window=STEPS,
        period=STEPS,
        samples={str(digit): spikes[i].numpy() for digit, i in enumerate(firsts)},
    )


@click.command()
@recipe.options
def main(anew: bool, output: Path) -> None:
    """Handwritten digits, a convolutional CUBA network: float and 8-bit weights."""
    checkpoint = recipe.checkpoint_for("digits", output, train, anew=anew)
    _, _, spikes, labels = data()
    accuracy = partial(recipe.accuracy, labels=labels)
    results = []
    for name, hook in (("float", None), ("q8", so.quantize.q8), ("stream", so.quantize.q8)):
        network = Digits(hook).eval()
        recipe.load_checkpoint(network, checkpoint)
        path, show = output / f"digits_{name}.onnx", None
        if name == "stream":
            show = page(spikes, labels)
        results.append(recipe.prove("digits", name, network, spikes, path, accuracy, show=show))
    title = f"{len(labels)} test images, {STEPS} steps"
    recipe.finish(
        "digits", title, "accuracy", results, output,
        CARD, images=len(labels), checkpoint=recipe.checksum(checkpoint),
    )  # fmt: skip


CARD = """# digits

A convolutional spiking network that tells handwritten digits apart.

| | |
|---|---|
| data | scikit-learn's `load_digits`: 1,797 images of 8x8 pixels; a fifth ({images}) for the test |
| input | `spikes` (N, 1, 8, 8, T): a pixel of level g spikes g times in 16 steps, evenly spread |
| output | `output` (N, 10, T): spikes; the class is the neuron that spikes most in all |
| network | conv 3x3, 16 channels; sum pool 2x2; conv 3x3, 32 channels; dense 10; CUBA neurons |
| training | Adam on spike rates, 30 epochs, 8-bit weights in the forward pass (`so.quantize.q8`) |
| numbers | neurons in lava-dl's fixed point; the float model has the same weights, not rounded |
| limits | a demonstration: small images of one data set, nothing that a person should rely on |

| file | accuracy in torch | in ONNX Runtime | spike flips | weights, bytes | sha256 |
|---|---|---|---|---|---|
{rows}

`digits_stream.onnx` takes the spikes in steps or chunks, and plays in a browser:
`synapse-onnx play models/digits_stream.onnx --serve`. Checkpoint `digits.pt` (sha256
`{checkpoint}`). Made by `python -m exporters digits`, which exports and verifies every test image;
`--train` trains anew.
"""
