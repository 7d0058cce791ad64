"""Output of the commands: facts, tables, notes, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from synapse_onnx.formatting import scale_text, span_text, weights_text

__all__ = [
    "make_console",
    "print_facts",
    "print_layers",
    "print_notes",
    "print_table",
    "progress",
    "say",
    "size_text",
]


class _Console(Console):
    """A console that lets the group handle a closed pipe; rich would exit with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise the error again that rich has caught."""
        raise  # noqa: PLE0704


def make_console(width: int | None = None) -> Console:
    """Make a console that prints names unchanged."""
    # no [markup], no :emoji:, no highlights: a layer may have any name
    return _Console(width=width, markup=False, emoji=False, highlight=False)


def say(console: Console, text: str | Text) -> None:
    """Print a paragraph: wrapped between words in a terminal, one line in a pipe."""
    console.print(text, soft_wrap=not console.is_terminal)


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Print names and values, aligned."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        console.print(Text.assemble((f"{name:<{width}}", "bold"), "  ", value), soft_wrap=True)


def print_table(head: Mapping[str, str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table at its natural width: names are never cut.

    Args:
        head: title of each column -> "left" or "right"; empty columns are omitted.
        rows: the cells.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    for i, (name, side) in enumerate(head.items()):
        if i in kept:
            table.add_column(name, justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(row[i] for i in kept))
    make_console(width=10_000).print(table)


@contextmanager
def progress(total: int, unit: str, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr, with rate and time left, and remove it at the end.

    Nothing is shown within the first second, or if stderr is no terminal.

    Args:
        total: number of units to do, or an estimate.
        unit: name of the units, in the plural.
        quiet: whether to show nothing.

    Yields:
        A function to call with the number of units done since the last call.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = _Console(stderr=True, markup=False, emoji=False, highlight=False)
    # isatty as well: FORCE_COLOR makes rich take a file for a terminal
    if quiet or not (console.file.isatty() and console.is_interactive):
        yield lambda number: None
        return
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        auto_refresh=False,  # a thread would disturb timings
        transient=True,
    )
    task = bar.add_task(unit, total=total, rate="")
    begin, done, due = perf_counter(), 0, 1.0

    def advance(number: int) -> None:
        nonlocal done, due
        done += number
        passed = perf_counter() - begin
        if passed < due:
            return
        due = passed + 0.1
        bar.start()
        rate = f", {done / passed:.1f}/s"
        bar.update(task, total=max(total, done), completed=done, rate=rate, refresh=True)

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def print_notes(console: Console, notes: Sequence[str]) -> None:
    """Print each note as a paragraph."""
    for note in notes:
        say(console, Text.assemble(("note: ", "yellow"), note))


def size_text(size: int) -> str:
    """Write a number of bytes in a readable unit."""
    if size < 10_000:
        return f"{size} bytes"
    return f"{size / 1000:.1f} kB" if size < 10_000_000 else f"{size / 1e6:.1f} MB"


def _layer_row(layer: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> list[str]:
    bits = str(layer.get("bits", "float")) if "quantized" in layer else ""
    return [
        str(layer.get("path") or "(the model)"),
        ("complex " if layer.get("complex") else "") + str(layer.get("kind", "")),
        weights_text(layer.get("weight_shape", [])),
        bits,
        scale_text(layer["scales"]) if layer.get("scales") else "",
        str(layer.get("regime", "")),
        span_text(layer.get("threshold")),
        span_text(layer.get("delays")),
        _state_bytes(str(layer.get("path") or ""), states),
    ]


def _state_bytes(path: str, states: Sequence[Mapping[str, Any]]) -> str:
    """Return the bytes of a layer's states for one sample, as text."""
    prefix = f"{path}." if path else ""
    sizes = [
        math.prod(state["shape"][1:]) * np.dtype(state["dtype"]).itemsize
        for state in states
        if str(state["input"]).startswith(prefix)
    ]
    return f"{sum(sizes):,} B" if sizes else ""


def print_layers(
    layers: Sequence[Mapping[str, Any]], states: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Print one row a layer; for a streaming model, with the size of its states."""
    head = {
        "layer": "left",
        "kind": "left",
        "weights": "left",
        "bits": "right",
        "scale": "right",
        "regime": "left",
        "threshold": "right",
        "delay": "right",
        "state": "right",
    }
    print_table(head, [_layer_row(layer, states) for layer in layers])
