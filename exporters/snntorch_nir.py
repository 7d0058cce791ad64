"""From snnTorch to ONNX through NIR: handwritten digits, a network of leaky neurons.

With ``--train`` the network is built and trained in snnTorch, and exported to NIR by snnTorch.
Without it the committed graph is read. Either way it is compiled to ONNX and verified on every test
image; where snnTorch is installed, the spikes are compared with those of its own forward too.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

import synapse_onnx as so
from exporters import _recipe as recipe
from exporters.digits import data
from synapse_onnx.files import write_atomically

#: width of the hidden layer, and fraction of the membrane that is kept in a time step
HIDDEN, BETA = 64, 0.85


def peer() -> Any:
    """Return snnTorch, or None where it is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("snntorch", "nirtorch")):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import snntorch
        import snntorch.export_nir
    return snntorch


def network(snn: Any) -> nn.Sequential:
    """Two dense layers of leaky neurons, reset by subtraction: snnTorch's default."""

    def leaky(count: int) -> Any:
        return snn.Leaky(
            beta=torch.full((count,), BETA), threshold=torch.ones(count), init_hidden=True
        )

    return nn.Sequential(nn.Linear(64, HIDDEN), leaky(HIDDEN), nn.Linear(HIDDEN, 10), leaky(10))


def reset(net: nn.Sequential) -> None:
    """Reset the membranes, which snnTorch keeps from the last sample."""
    for layer in net:
        if hasattr(layer, "reset_mem"):
            layer.reset_mem()


def forward(net: nn.Sequential, spikes: Tensor) -> Tensor:
    """Run snnTorch's network over spikes (N, 64, T), one time step at a time."""
    reset(net)
    return torch.stack([net(spikes[..., t]) for t in range(spikes.shape[-1])], -1)


def train(snn: Any, epochs: int = 6, seed: int = 0) -> nn.Sequential:
    """Train in snnTorch; prints the loss as it falls."""
    torch.manual_seed(seed)
    images, labels, _, _ = data()
    net = network(snn)

    def loss(batch: Tensor) -> Tensor:
        counts = forward(net, images[batch].flatten(1, -2)).sum(-1)
        return nn.functional.cross_entropy(counts, labels[batch])

    recipe.fit(
        net, loss, len(images), epochs=epochs, batch=128, rate=1e-2, cycle=False, every=2,
        say="loss {:.3f}".format,
    )  # fmt: skip
    return net.eval()


def exported(snn: Any, net: nn.Sequential) -> Any:
    """Export a network to NIR by snnTorch's own exporter."""
    reset(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return snn.export_nir.export_to_nir(net, torch.zeros(1, 64), ignore_dims=[0])


def restored(snn: Any, graph: Any) -> nn.Sequential:
    """Return a network of snnTorch with the weights of a graph."""
    net = network(snn).eval()
    layers = [node for node in graph.nodes.values() if type(node).__name__ == "Affine"]
    for layer, node in zip((net[0], net[2]), layers, strict=True):
        layer.weight.data = torch.as_tensor(node.weight)
        layer.bias.data = torch.as_tensor(node.bias)
    return net


@click.command()
@recipe.options
def main(anew: bool, output: Path) -> None:
    """Handwritten digits, an snnTorch network: its NIR graph to ONNX, against its own forward."""
    import nir

    torch.set_num_threads(min(2, torch.get_num_threads()))
    snn = peer()
    path = output / "snntorch_nir.nir"
    output.mkdir(parents=True, exist_ok=True)
    if anew:
        if snn is None:
            raise click.UsageError("snnTorch is not installed; see peers.txt")
        buffer = io.BytesIO()
        nir.write(buffer, exported(snn, train(snn)))
        write_atomically(path, buffer.getvalue())
    elif not path.exists():
        write_atomically(path, (recipe.ROOT / path.name).read_bytes())
    _, _, images, labels = data()
    spikes = images.flatten(1, -2)  # (N, 64, T)
    net = so.load_nir(path, framework="snntorch", reset="delayed")
    accuracy = partial(recipe.accuracy, labels=labels)
    model = output / "snntorch_nir_float.onnx"
    result = recipe.prove("snntorch_nir", "float", net, spikes, model, accuracy)
    if snn is None:
        recipe.console.print("snnTorch is not installed: its own forward was not compared")
    else:
        compare(snn, path, spikes, so.Session(model).run(spikes.numpy()))
    recipe.finish(
        "snntorch_nir", f"{len(labels)} test images, {spikes.shape[-1]} steps", "accuracy",
        [result], output,
        CARD, test=len(labels), hidden=HIDDEN, beta=BETA, graph=recipe.checksum(path),
    )  # fmt: skip


def compare(snn: Any, path: Path, spikes: Tensor, output: np.ndarray) -> None:
    """Compare ONNX Runtime's output spikes with those of snnTorch's own forward."""
    import nir

    with torch.no_grad():
        expected = forward(restored(snn, nir.read(path)), spikes).numpy()
    flips = int((output != expected).sum())
    recipe.console.print(f"snnTorch's own forward: {expected.size:,} output spikes, {flips} differ")
    if flips:
        raise click.ClickException("ONNX Runtime and snnTorch differ")


CARD = """# snntorch_nir

A dense network for 8x8 handwritten digits, trained in snnTorch and exported to NIR by snnTorch.

| | |
|---|---|
| data | scikit-learn's digits; {test} test images, the split of the recipe digits |
| input | spikes (N, 64, T), as in the recipe digits |
| network | dense {hidden} and 10, leaky neurons that keep {beta} and are reset by subtraction |
| training | snnTorch 1.0, Adam on the cross entropy of spike counts, 6 epochs |
| proof | ONNX Runtime against torch in every layer, and against snnTorch's own forward |
| limits | a demonstration on small images, in floats |

| file | accuracy in torch | in ONNX Runtime | flips | weights, bytes | sha256 |
|---|---|---|---|---|---|
{rows}

Graph `snntorch_nir.nir` (sha256 `{graph}`). Made by `python -m exporters snntorch_nir`, which
exports and verifies every test image; `--train` trains anew, which needs snnTorch (`peers.txt`).
"""
