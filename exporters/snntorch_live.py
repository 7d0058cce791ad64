"""A live snnTorch network in ONNX: handwritten digits, by neurons with ``init_hidden``."""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import nn

from exporters import _live as live
from exporters import _recipe as recipe

#: what the recipe cannot do without
NEEDS = "snntorch"


def network(seed: int = 0) -> nn.Module:
    """Return the network over sequences, not yet trained."""
    snn = live.imported("snntorch")
    torch.manual_seed(seed)
    return live.network(lambda: snn.Leaky(beta=0.8, init_hidden=True))


@click.command()
@recipe.options
def main(anew: bool, output: Path) -> None:
    """Handwritten digits, a live convolutional snnTorch network: whole and as a stream."""
    live.run("snntorch_live", "snnTorch", network, anew, output)
