"""Shared by recipes of live networks of other frameworks: a network of single steps for digits."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

import synapse_onnx as so
from exporters import _recipe as recipe
from exporters.digits import STEPS, data, page

CHANNELS, EPOCHS = (8, 16), 12


def imported(name: str) -> Any:
    """Import a module of a framework.

    Raises:
        click.UsageError: it is not installed.
    """
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise click.UsageError(f"{name.partition('.')[0]} is not installed; see peers.txt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def network(neuron: Callable[[], nn.Module]) -> nn.Module:
    """Return a network over spikes (N, 1, 8, 8, T), made of one of single steps: (N, 1, 8, 8).

    ``neuron`` returns a neuron that keeps its voltage between calls.
    """
    first, second = CHANNELS
    step = nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1, bias=False),
        nn.BatchNorm2d(first),
        neuron(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1, bias=False),
        nn.BatchNorm2d(second),
        neuron(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * second, 10),
        neuron(),
    )
    return so.over_time(step, axes="NCT")


def train(net: nn.Module, epochs: int = EPOCHS) -> nn.Module:
    """Train on spike counts, by the framework's own surrogate gradient."""
    spikes, labels, _, _ = data()

    def loss(batch: Tensor) -> Tensor:
        rates = net(spikes[batch]).mean(-1)
        return nn.functional.cross_entropy(10 * rates, labels[batch])

    net.train()
    torch.set_num_threads(1)  # on tensors this small, two threads wait for each other
    recipe.fit(net, loss, len(labels), epochs=epochs, batch=64, rate=6e-3, every=3)
    return net.eval()


def run(name: str, framework: str, make: Callable[[], nn.Module], anew: bool, output: Path) -> None:
    """Train or load a network, and prove its file for whole sequences and its stream."""
    checkpoint = recipe.checkpoint_for(name, output, lambda: train(make()), anew=anew)
    net = make().eval()
    recipe.load_checkpoint(net, checkpoint)
    _, _, spikes, labels = data()
    accuracy = partial(recipe.accuracy, labels=labels)
    results = [
        recipe.prove(name, kind, net, spikes, output / f"{name}_{kind}.onnx", accuracy, show=show)
        for kind, show in (("float", None), ("stream", page(spikes, labels)))
    ]
    recipe.finish(
        name, f"{len(labels)} test images, {STEPS} steps", "accuracy", results, output,
        CARD, name=name, framework=framework, test=len(labels), channels=CHANNELS, epochs=EPOCHS,
        checkpoint=recipe.checksum(checkpoint),
    )  # fmt: skip


CARD = """# {name}

A convolutional spiking network for handwritten digits, built and trained in {framework}, and
exported as it is.

| | |
|---|---|
| data | scikit-learn's digits; {test} test images, the split of the recipe digits |
| input | spikes (N, 1, 8, 8, T), as in the recipe digits |
| network | two convolutions with BatchNorm and MaxPool, {channels} channels; dense 10 |
| neurons | {framework}'s own, which keep their voltage between calls: `so.over_time` |
| training | Adam on the cross entropy of spike rates, {epochs} epochs |
| proof | ONNX Runtime against {framework}'s own forward, whole and in chunks |
| limits | a demonstration on small images, in floats |

| file | accuracy in torch | in ONNX Runtime | flips | weights, bytes | sha256 |
|---|---|---|---|---|---|
{rows}

Checkpoint `{name}.pt` (sha256 `{checkpoint}`). Made by `python -m exporters {name}`, which needs
{framework} (`peers.txt`), and exports and verifies every test image; `--train` trains anew.
"""
