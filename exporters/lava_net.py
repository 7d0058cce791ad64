"""From lava-dl's .net files to ONNX: networks with recorded activity, or your own.

Beside every ``.net`` file in ``tests/reference`` are the spikes of every layer, as lava-dl's own
torch code computed them. The recipe reads the file, exports it, and compares ONNX Runtime with
torch, and torch with the recording.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

import synapse_onnx as so
from exporters import _recipe as recipe

RECORDED = Path(__file__).parents[1] / "tests" / "reference"


def agree(output: np.ndarray, reference: np.ndarray) -> float:
    """Fraction of the values that are equal to the last bit."""
    return float((output == reference).mean())


@click.command()
@click.option(
    "--net",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Your own .net file, on random spikes; without it, the recorded ones.",
)
@click.option("--delay-shift", is_flag=True, help="Send spikes one step later, as in training.")
@recipe.output_option
def main(net: Path | None, delay_shift: bool, output: Path) -> None:
    """Networks of lava-dl's .net files, in Loihi's 24 bits: compared with what lava-dl recorded."""
    if net is not None:
        own(net, delay_shift, output)
        return
    results = []
    for path in sorted(RECORDED.glob("*.net")):
        name = path.stem.removeprefix("net_")
        with np.load(path.with_suffix(".npz")) as file:  # as lava-dl computed them
            spikes, reference = torch.from_numpy(file["input"]), file["output"]
        network = so.load_net(path, delay_shift=True)
        results.append(
            recipe.prove(
                "lava_net", name, network, spikes, output / f"lava_net_{name}.onnx",
                partial(agree, reference=reference),
            )
        )  # fmt: skip
    nets = "\n".join(
        f"| `net_{r.name}.net` | `{recipe.checksum(RECORDED / f'net_{r.name}.net')}` |"
        for r in results
    )
    title = "networks recorded by lava-dl"
    recipe.finish("lava_net", title, "equal to lava-dl", results, output, CARD, nets=nets)


def own(net: Path, delay_shift: bool, output: Path) -> None:
    """Export and verify a user's file on random spikes."""
    network = so.load_net(net, delay_shift=delay_shift)
    (shape,) = network.input_shapes
    if shape is None:
        raise click.UsageError(
            f"{net} does not say the shape of its input; use 'synapse-onnx export {net} --shape "
            f"C,H,W -o {net.stem}.onnx'"
        )
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(4, *shape, 100, generator=generator) < 0.2).float()
    with torch.no_grad():
        reference = network(spikes).numpy()
    result = recipe.prove(
        "lava_net", net.stem, network, spikes, output / f"{net.stem}.onnx",
        partial(agree, reference=reference),
    )  # fmt: skip
    title = f"{net.name}, {len(spikes)} random samples"
    recipe.finish("lava_net", title, "equal to torch", [result], output)


CARD = """# lava_net

Small networks that lava-dl wrote as `.net` files, read by `so.load_net(path, delay_shift=True)`.

| | |
|---|---|
| networks | untrained, random 8-bit weights; every kind of neuron, most kinds of layer |
| input, output | as lava-dl recorded them from its torch code on the CPU |
| regime | loihi, 24-bit states; none is full here, so that slayer gave the same |
| limits | a demonstration of the reader, without a task |

| file | output equal to lava-dl's in torch | in ONNX Runtime | flips | weights, bytes | sha256 |
|---|---|---|---|---|---|
{rows}

| read from | sha256 |
|---|---|
{nets}

Made by `python -m exporters lava_net`, which compares every layer in torch and ONNX Runtime;
`--net FILE.net` takes your own file.
"""
