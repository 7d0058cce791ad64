"""A live SpikingJelly network in ONNX: handwritten digits, by neurons in step mode "s"."""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import nn

from exporters import _live as live
from exporters import _recipe as recipe

#: what the recipe cannot do without
NEEDS = "spikingjelly"


def network(seed: int = 0) -> nn.Module:
    """Return the network over sequences, not yet trained."""
    neuron = live.imported("spikingjelly.activation_based.neuron")
    torch.manual_seed(seed)
    return live.network(lambda: neuron.LIFNode(tau=2.0, v_threshold=0.5, detach_reset=True))


@click.command()
@recipe.options
def main(anew: bool, output: Path) -> None:
    """Handwritten digits, a live convolutional SpikingJelly network: whole and as a stream."""
    live.run("spikingjelly_live", "SpikingJelly", network, anew, output)
