"""What recipes share: checkpoints, measured times, tables and model cards."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterable
from pathlib import Path

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


def save_checkpoint(module: nn.Module, path: Path) -> None:
    """Write a state_dict, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(module: nn.Module, path: Path) -> None:
    """Read a state_dict; never runs code from the file."""
    module.load_state_dict(torch.load(path, weights_only=True))


def median_seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of a call, after one that warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the weights in a model: initialisers named weight, weight_high and step."""
    parts = ("weight", "weight_high", "step")
    return sum(
        len(tensor.raw_data)
        for tensor in model.graph.initializer
        if tensor.name.rsplit(".", 1)[-1] in parts
    )


def predict(module: nn.Module, inputs: Tensor) -> np.ndarray:
    """Class of every sample in torch: the output neuron that spikes most."""
    with torch.no_grad():
        return classes(module.eval()(inputs).numpy())


def classes(spikes: np.ndarray) -> np.ndarray:
    """Class of every sample from output spikes (N, C, T)."""
    return spikes.sum(axis=-1).argmax(axis=1)


def table(title: str, head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table: the first column says what, the others hold figures."""
    result = Table(title=title, title_justify="left", title_style="bold")
    for i, name in enumerate(head):
        result.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        result.add_row(*(str(cell) for cell in row))
    console.print(result)


def sha256(path: Path) -> str:
    """Checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


__all__ = [
    "ROOT",
    "classes",
    "console",
    "load_checkpoint",
    "median_seconds",
    "predict",
    "save_checkpoint",
    "sha256",
    "so",
    "table",
    "weight_bytes",
]
