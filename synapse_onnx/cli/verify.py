"""``synapse-onnx verify``: compare torch with ONNX Runtime."""

from __future__ import annotations

from typing import Any

import click
import numpy as np
from rich.text import Text

import synapse_onnx
from synapse_onnx.cli import _options as options
from synapse_onnx.cli import _quantised as quantising
from synapse_onnx.cli._group import DIFFERENT
from synapse_onnx.cli._inputs import (
    dtype_of,
    generated_inputs,
    in_layout,
    inputs_of,
    read_inputs,
    read_metadata,
)
from synapse_onnx.cli._output import print_facts, say
from synapse_onnx.cli._source import check_source, load_network, match_arguments, users_forward
from synapse_onnx.errors import InputError
from synapse_onnx.files import write_atomically

__all__ = ["command"]


@click.command(
    "verify",
    epilog="""\b
Example: with random spikes, and with recorded ones
  synapse-onnx verify net.py:build net.onnx --weights net.pt
  synapse-onnx verify net.py:build net.onnx --weights net.pt --input spikes.npy

\b
Exit codes: 0 equal, 1 the numbers differ, 2 wrong input or usage.""",
)
@options.source
@options.model
@options.weights
@options.settings
@options.inputs(
    "Inputs (N, C[, H, W], T) as .npy or .npz, one file for every input of the model, in their "
    "order. Default: random 0/1 spikes."
)
@click.option("--samples", type=options.COUNT, default=8, help="Number of random samples.")
@options.generated(steps=50, rate=0.3)
@click.option(
    "--rtol",
    type=options.Number(min=0),
    default=1e-5,
    help="Tolerance relative to the largest torch value, for layers that are not exact.",
)
@click.option(
    "--atol", type=options.Number(min=0), default=0.0, help="Absolute tolerance, added to --rtol."
)
@click.option(
    "--outputs",
    multiple=True,
    metavar="NAME",
    help="Compare only this output of the model (repeatable; default: all). Layers that only other "
    "outputs need are skipped, and named in the report.",
)
@click.option(
    "--report",
    "report_path",
    metavar="REPORT.html",
    help="Write one self-contained page: tables, rasters of torch and ONNX Runtime, and the "
    "membrane around the first divergence.",
)
@click.option(
    "--require-coverage",
    is_flag=True,
    help="Exit with 1 also where an input, a spiking layer or an output was never active, or a "
    "layer always was.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@options.providers()
@options.native("both", help="; both compares with and without them")
@quantising.options
def command(
    source: str,
    model: str,
    weights: str | None,
    settings: dict[str, str],
    inputs: tuple[str, ...],
    rtol: float,
    atol: float,
    outputs: tuple[str, ...],
    providers: tuple[str, ...],
    native: str,
    report_path: str | None,
    require_coverage: bool,
    as_json: bool,
    bits: str | None,
    keep: tuple[str, ...],
    calibration: tuple[str, ...],
    **generated: Any,
) -> None:
    """Compare a torch network with its ONNX model, layer by layer.

    SOURCE is the network that the model was exported from, with the same weights:
    package.module:name, path/to/file.py:name, or a network file. The code of SOURCE is executed.
    Spikes must be equal where the arithmetic is exact. The table shows, for every layer, what is
    required and what was measured.
    """
    from synapse_onnx.model.file import load_model

    if report_path is not None:
        options.check_target(report_path, ".html")
    if native == "both" and (report_path is not None or as_json):
        raise InputError("--native both makes two reports; take yes or no with --report and --json")
    check_source(source)
    proto = load_model(model)
    kinds = [dtype_of(kind) for kind, _ in inputs_of(proto).values()]
    metadata = read_metadata(proto)
    if metadata is not None and metadata.input_type == "uint8":
        kinds = [np.dtype(np.float32)] * len(kinds)  # the module takes floats
    values = read_inputs(proto, inputs) if inputs else generated_inputs(proto, **generated)
    axes = None if metadata is None else metadata.axes
    arrays = [in_layout(x.astype(kind), axes) for x, kind in zip(values, kinds, strict=True)]
    module = load_network(source, weights, settings, quiet=as_json)
    module = quantising.quantised(module, bits, keep, calibration, axes, quiet=True)
    match_arguments(module, arrays, source, "it is not the network that the model was made from")
    import torch

    ok = True
    for choice in options.native_choices(native):
        with users_forward(source):
            report = synapse_onnx.verify(
                module,
                model,
                [torch.from_numpy(array) for array in arrays],
                rtol=rtol,
                atol=atol,
                outputs=outputs or None,
                providers=options.full_names(providers),
                native=choice,
            )
        if native == "both":
            say("with native kernels" if choice else "\nwithout native kernels")
        if as_json:
            click.echo(report.to_json())
        else:
            _print_report(str(report), ok=report.ok)
        ok &= report.ok and not (require_coverage and report.not_exercised)
    if report_path is not None:
        write_atomically(report_path, report.to_html().encode())
        if not as_json:
            print_facts({"wrote": report_path})
    if not ok:
        raise click.exceptions.Exit(DIFFERENT)


def _print_report(report: str, *, ok: bool) -> None:
    """Print a report's own table, coloured; sentences are wrapped, rows are not."""
    head, *lines, verdict = report.splitlines()
    say(Text(head, "bold"), wrapped=False)
    for line in lines:
        text, row = Text(line), line[:1] in "✓✗"
        if row:
            text.stylize("green" if line[0] == "✓" else "red", 0, 1)
        else:
            text.stylize("yellow", 0, line.find(":") + 1)
        say(text, wrapped=not row)
    say(Text(verdict, "bold green" if ok else "bold red"))
