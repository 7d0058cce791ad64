"""Shared by recipes of networks that others trained: where the files are, tables, the page of them.

The files are not part of this project. A recipe takes them from a folder, and writes nothing to
``models/``.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from torch import nn

import synapse_onnx as so
from exporters._recipe import console
from synapse_onnx.files import write_atomically

#: networks of the NIR paper and of NeuroBench, where somebody has put them beside the checkout
REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "others"
OUTPUT = Path(__file__).parents[1] / "build" / "published"

_SECTION = "<!-- python -m exporters {name} -->\n"
_END = "<!-- end -->\n"


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of these recipes: ``--reference``, ``--output`` and ``--page``."""
    folder = click.Path(file_okay=False, path_type=Path)
    command = click.option(
        "--page",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Page of documentation whose section on this recipe is written anew.",
    )(command)
    command = click.option(
        "--output", type=folder, default=OUTPUT, show_default=False,
        help="Folder to write to; build/published by default.",
    )(command)  # fmt: skip
    return click.option(
        "--reference", type=folder, default=REFERENCE, show_default=False,
        help="Folder of networks by others; ../shared/reference/others by default.",
    )(command)  # fmt: skip


def found(names: Sequence[str], folders: Sequence[Path | None]) -> Path | None:
    """Return the first file of these names, relative to these folders; None without one."""
    places = [folder / name for folder in folders if folder is not None for name in names]
    return next((place for place in places if place.is_file()), None)


def needs(name: str) -> Any:
    """Import a package that a recipe cannot do without.

    Raises:
        click.UsageError: it is not installed.
    """
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise click.UsageError(f"{name} is not installed; see peers.txt")
    return importlib.import_module(name)


@dataclass(frozen=True)
class Table:
    """A table of results."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def show(self) -> None:
        """Print it."""
        table = RichTable(
            title=self.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD
        )
        for i, name in enumerate(self.head):
            table.add_column(name, justify="left" if i == 0 else "right")
        for row in self.rows:
            table.add_row(*row)
        Console(width=10_000, highlight=False).print(table)  # at its natural width

    def markdown(self) -> str:
        """Return it in Markdown, under its title."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"**{self.title}**\n\n{text}\n"


@dataclass(frozen=True)
class Proof:
    """A file that was written and verified.

    Attributes:
        path: the file.
        report: the report of ``so.verify``.
    """

    path: Path
    report: so.Report

    @property
    def values(self) -> int:
        """Number of values that were compared in all layers."""
        return sum(row.values for row in self.report.layers)

    @property
    def flips(self) -> int:
        """Number of spikes that differ, in all layers."""
        return sum(row.spike_flips or 0 for row in self.report.layers)


def prove(
    network: nn.Module, inputs: torch.Tensor, path: Path, *, streaming: bool = False, **how: Any
) -> Proof:
    """Export a network and verify the file: the whole, or a stream in chunks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    so.export(network, inputs, path, streaming=streaming, **how)
    report = so.verify(network, path, inputs)
    console.print(f"[bold]{path.name}[/bold]")
    console.print(str(report), markup=False, soft_wrap=True)
    return Proof(path, report)


def flips(found: np.ndarray, expected: np.ndarray) -> int:
    """Return how many of two arrays' spikes differ.

    Raises:
        click.ClickException: their shapes differ.
    """
    if found.shape != expected.shape:
        raise click.ClickException(f"outputs of shapes {found.shape} and {expected.shape}")
    return int(((found > 0) != (expected > 0)).sum())


def finish(
    name: str, tables: Sequence[Table], output: Path, page: Path | None, faults: Sequence[str]
) -> None:
    """Print the tables, renew the section of the page; exit 1 where something is not equal."""
    for table in tables:
        table.show()
    if page is not None:
        renew(page, name, "\n".join(table.markdown() for table in tables))
    if faults:
        for fault in faults:
            console.print(f"NOT equal: {fault}", markup=False, soft_wrap=True)
        sys.exit(1)
    console.print(f"equal; files are in {output}", markup=False, soft_wrap=True)


def section(page: str, name: str) -> str:
    """Return the section of a recipe in a page.

    Raises:
        click.UsageError: the page has no place for it.
    """
    pattern = re.escape(_SECTION.format(name=name)) + "(.*?)" + re.escape(_END)
    inside = re.search(pattern, page, re.DOTALL)
    if inside is None:
        raise click.UsageError(f"the page has no section {_SECTION.format(name=name).strip()}")
    return inside[1]


def renew(path: Path, name: str, text: str) -> None:
    """Write the section of a recipe in a page anew."""
    page = path.read_text()
    start = _SECTION.format(name=name)
    old = start + section(page, name) + _END
    write_atomically(path, page.replace(old, f"{start}\n{text}\n{_END}").encode())
