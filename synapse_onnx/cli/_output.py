"""Output of the commands: facts, tables, notes, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
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
    "print_facts",
    "print_layers",
    "print_note",
    "print_table",
    "progress",
    "say",
    "size_text",
]


class _Console(Console):
    """A console that prints names unchanged, and lets the group handle a closed pipe."""

    def __init__(self, **settings: Any) -> None:
        # no [markup], no :emoji:, no highlights: a layer may have any name
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def on_broken_pipe(self) -> None:
        """Raise the error again that rich has caught; rich would exit with code 1."""
        raise  # noqa: PLE0704


def say(text: str | Text, *, wrapped: bool = True) -> None:
    """Print a paragraph: wrapped between words in a terminal, one line in a pipe."""
    console = _Console()
    console.print(text, soft_wrap=not (wrapped and console.is_terminal))


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and values, aligned."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        say(Text.assemble((f"{name:<{width}}", "bold"), "  ", value), wrapped=False)


def print_note(note: str) -> None:
    """Print a note as a paragraph."""
    say(Text.assemble(("note: ", "yellow"), note))


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Container[str] = ()
) -> None:
    """Print a table at its natural width: names are never cut.

    Args:
        head: title of each column; empty columns are omitted.
        rows: the cells.
        right: titles of the columns that are aligned to the right.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    for i in kept:
        side: Any = "right" if head[i] in right else "left"
        table.add_column(head[i], justify=side, no_wrap=True)
    for row in rows:
        table.add_row(*(row[i] for i in kept))
    _Console(width=10_000).print(table)


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
    from rich import progress as bars

    console = _Console(stderr=True)
    # isatty as well: FORCE_COLOR makes rich take a file for a terminal
    if quiet or not (console.file.isatty() and console.is_interactive):
        yield lambda number: None
        return
    bar = bars.Progress(
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn(unit + "{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("left"),
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


def size_text(size: int) -> str:
    """Write a number of bytes in a readable unit."""
    if size < 10_000:
        return f"{size} bytes"
    return f"{size / 1000:.1f} kB" if size < 10_000_000 else f"{size / 1e6:.1f} MB"


def print_layers(
    layers: Sequence[Mapping[str, Any]], states: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Print one row a layer; for a streaming model, with the bytes of its states for one sample."""
    rows = []
    for layer in layers:
        path = str(layer.get("path") or "")
        sizes = [
            math.prod(state["shape"][1:]) * np.dtype(state["dtype"]).itemsize
            for state in states
            if str(state["input"]).startswith(f"{path}." if path else "")
        ]
        rows.append(
            [
                path or "(the model)",
                ("complex " if layer.get("complex") else "") + str(layer.get("kind", "")),
                weights_text(layer.get("weight_shape", [])),
                str(layer.get("bits", "float")) if "quantized" in layer else "",
                scale_text(layer["scales"]) if layer.get("scales") else "",
                str(layer.get("regime", "")),
                span_text(layer.get("threshold")),
                span_text(layer.get("delays")),
                f"{sum(sizes):,} B" if sizes else "",
            ]
        )
    head = ("layer", "kind", "weights", "bits", "scale", "regime", "threshold", "delay", "state")
    print_table(head, rows, right=("bits", "scale", "threshold", "delay", "state"))
