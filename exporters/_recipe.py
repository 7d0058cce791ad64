"""Shared by recipes: training, checkpoints, measured times, tables, pictures, model cards."""

from __future__ import annotations

import hashlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.files import write_atomically

ROOT = Path(__file__).parents[1] / "models"

console = Console(highlight=False)


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every recipe that trains, ``--train`` and ``--output``, to a command."""
    return click.option(
        "--train", "anew", is_flag=True, help="Train anew (under a minute or two), then export."
    )(output_option(command))


output_option = click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT,
    show_default=False,
    help="Folder to write to; models/ by default.",
)


def fit(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    samples: int,
    *,
    epochs: int,
    batch: int,
    rate: float,
    cycle: bool = True,
    every: int = 5,
    say: Callable[[float], str] = "loss {:.4f}".format,
) -> None:
    """Train with Adam on shuffled batches; prints a line every so many epochs.

    ``loss`` gets the indices of a batch and returns their mean loss; ``say`` puts the mean loss of
    an epoch into words. With a ``cycle`` the learning rate rises to ``rate`` and falls again.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    rates = torch.optim.lr_scheduler
    schedule: Any = rates.ConstantLR(optimizer, factor=1)
    if cycle:
        steps = epochs * -(-samples // batch)
        schedule = rates.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for indices in torch.randperm(samples).split(batch):
            value = loss(indices)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.item() * len(indices)
        if epoch % every == 0:
            console.print(f"epoch {epoch:3d} of {epochs}: {say(total / samples)}")


def checkpoint_for(name: str, output: Path, train: Callable[[], nn.Module], *, anew: bool) -> Path:
    """Return the checkpoint to export: a new one, the one in the folder, or the committed one."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    checkpoint = output / f"{name}.pt"
    if anew:
        buffer = io.BytesIO()
        torch.save(train().state_dict(), buffer)
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(checkpoint, buffer.getvalue())
    return checkpoint if checkpoint.exists() else ROOT / checkpoint.name


def load_checkpoint(module: nn.Module, path: Path) -> None:
    """Load a state_dict; no code in the file is run."""
    module.load_state_dict(torch.load(path, weights_only=True))


def median_seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of a call, after one warm-up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the weights in a model, and of their scales."""
    return sum(
        len(tensor.raw_data)
        for tensor in _tensors(model.graph)
        if tensor.name.rsplit(".", 1)[-1] in ("weight", "weight_high", "weight_scale")
    )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the constants of a graph and of those within it: convolutions run in tiles."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from _tensors(attribute.g)


def accuracy(spikes: np.ndarray, labels: Tensor) -> float:
    """Share of the samples (N, C, T) whose class is right: the neuron with the most spikes."""
    return float((spikes.sum(axis=-1).argmax(axis=1) == labels.numpy()).mean())


@dataclass(frozen=True)
class Result:
    """Measurements of one exported network.

    Attributes:
        name: the variant: "float", "q8", "stream".
        path: the ONNX file.
        report: the report of ``so.verify``.
        in_torch, in_onnx: score of the output, 0 to 1.
        spikes: spikes that were compared in all layers.
        weights: bytes of the weights in the file.
        torch_seconds, onnx_seconds: median wall time of one run over the inputs.
    """

    name: str
    path: Path
    report: so.Report
    in_torch: float
    in_onnx: float
    spikes: int
    weights: int
    torch_seconds: float
    onnx_seconds: float


def prove(
    recipe: str,
    name: str,
    network: nn.Module,
    inputs: Tensor,
    path: Path,
    score: Callable[[np.ndarray], float],
    *,
    show: so.play.Show | None = None,
) -> Result:
    """Export a network, verify it on every input (N, C[, H, W], T), and measure it.

    The ``score`` of an output (N, C, T) is 0 to 1. With ``show``, text and controls of a page in
    the browser, the model streams: it keeps its states between calls.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    model = so.export(network, inputs[:2], streaming=show is not None)
    if show is not None:
        show.write(model)
    write_atomically(path, model.SerializeToString(deterministic=True))
    report = so.verify(network, path, inputs)
    console.print(f"[bold]{recipe}, {name}[/bold]")
    console.print(str(report), markup=False, soft_wrap=True)
    session, array = so.Session(path), inputs.numpy()

    def in_torch() -> np.ndarray:
        with torch.no_grad():
            output: np.ndarray = network.eval()(inputs).numpy()
        return output

    return Result(
        name=name,
        path=path,
        report=report,
        in_torch=score(in_torch()),
        in_onnx=score(session.run(array)),
        spikes=sum(row.values for row in report.layers if row.spike_flips is not None),
        weights=weight_bytes(model),
        torch_seconds=median_seconds(in_torch),
        onnx_seconds=median_seconds(lambda: session.run(array)),
    )


def finish(
    recipe: str,
    title: str,
    score: str,
    results: Sequence[Result],
    output: Path,
    card: str = "",
    **facts: object,
) -> None:
    """Write the model card, print the measurements; exit 1 where torch and ONNX Runtime differ.

    The fields of the card, in braces, are the ``rows`` of its table and the ``facts``.
    """
    if card:
        # figures that are the same in every run
        card_rows = "\n".join(
            f"| `{r.path.name}` | {r.in_torch:.2%} | {r.in_onnx:.2%} "
            f"| {r.report.spike_flips} of {r.spikes:,} | {r.weights:,} | `{checksum(r.path)}` |"
            for r in results
        )
        text = card.format(rows=card_rows, **facts)
        write_atomically(output / f"{recipe}.md", text.encode())
    rows = [
        (f"{score} in torch", *(f"{r.in_torch:.2%}" for r in results)),
        (f"{score} in ONNX Runtime", *(f"{r.in_onnx:.2%}" for r in results)),
        ("spikes compared", *(f"{r.spikes:,}" for r in results)),
        ("spike flips", *(f"{r.report.spike_flips:,}" for r in results)),
        ("weights, bytes", *(f"{r.weights:,}" for r in results)),
        ("file, bytes", *(f"{r.path.stat().st_size:,}" for r in results)),
        ("torch, ms", *(f"{1000 * r.torch_seconds:.1f}" for r in results)),
        ("ONNX Runtime, ms", *(f"{1000 * r.onnx_seconds:.1f}" for r in results)),
    ]
    head: tuple[str, ...] = ("", *(result.name for result in results))
    if len(results) > 3:  # too many columns: one row a network, with the first five figures
        rows = rows[:5]
        narrow = [name.replace(" ", "\n") for name, *_ in rows]
        rows = list(zip(head[1:], *(cells for _, *cells in rows), strict=True))
        head = ("", *narrow)
    table = Table(title=f"{recipe}: {title}", title_justify="left", title_style="bold")
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    draw(results)
    if not all(result.report.ok for result in results):
        console.print("[red]NOT equal[/red]: torch and ONNX Runtime differ")
        sys.exit(1)
    console.print(f"equal; models and card are in {output}")


def draw(results: Sequence[Result]) -> None:
    """Plot the spikes of every layer as a PNG beside each model, where matplotlib is installed."""
    try:
        for result in results:
            buffer = io.BytesIO()
            so.plot.divergence(result.report).savefig(buffer)
            write_atomically(result.path.with_suffix(".png"), buffer.getvalue())
    except so.InputError as error:
        console.print(f"no picture: {error}", markup=False, soft_wrap=True)


def checksum(path: Path) -> str:
    """First 16 digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
