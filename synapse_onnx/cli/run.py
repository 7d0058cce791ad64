"""``synapse-onnx run``: run a model on arrays."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from synapse_onnx.cli._arrays import check_target
from synapse_onnx.cli._folders import jobs_of
from synapse_onnx.cli._options import (
    NATIVE,
    Number,
    full_names,
    inputs_option,
    native_option,
    provider_option,
    quiet_option,
)
from synapse_onnx.cli._output import make_console, print_facts, print_table, progress
from synapse_onnx.cli._scoring import DECODED, FileScorer, Scorer, Settings, write_outputs
from synapse_onnx.errors import InputError
from synapse_onnx.formatting import shape_text

__all__ = ["command"]

Array = NDArray[Any]


@click.command(
    "run",
    epilog="""\b
Example:
  synapse-onnx run net.onnx --input spikes.npy -o out.npz
  synapse-onnx run net.onnx --input events.csv --dt 1000 --decode rate -o rates.npz
  synapse-onnx run net.onnx --input many.npy --batch 32 --quiet -o out.npz
  synapse-onnx run net.onnx --input folder -o results
  python -c "import numpy; print(numpy.load('out.npz')['output'].shape)" """,
)
@click.argument("model", metavar="MODEL.onnx")
@inputs_option(
    "Input (N, C[, H, W], T) as .npy or .npz, one file for every input of the model, in their "
    "order (repeatable), or one .npz whose keys are the names of the inputs. Or a folder of such "
    "files: each holds one sample without N, or a stack of samples.",
    required=True,
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    help="File to write: .npz with the outputs' names as keys, or .npy for a single output. For a "
    "folder of inputs, a folder: it gets one file of the same name for each input.",
)
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    metavar="STEPS",
    help="Stream the input in chunks of this many time steps (model exported with --streaming).",
)
@click.option(
    "--restore",
    metavar="STATE.npz",
    help="Continue a sequence from states that --save wrote (streaming models).",
)
@click.option(
    "--save",
    metavar="STATE.npz",
    help="Save the states after the input, for --restore (streaming models).",
)
@click.option(
    "--dt",
    type=Number(0, min_open=True),
    metavar="TIME",
    help="Read events: .npz, .npy or .csv with columns p, t (and x, y for images), one sample a "
    "file. TIME is the length of a time step, in the unit of t.",
)
@click.option(
    "--count", is_flag=True, help="Count the events of a time step, instead of 0 or 1 (with --dt)."
)
@click.option(
    "--decode",
    type=click.Choice(list(DECODED)),
    help="Write one number per neuron instead of a sequence: its spikes per time step, the step of "
    "its first spike (-1 for none), or its last value, such as the membrane of a readout.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Samples to run at a time; fewer take less memory. Default: all, or for a folder as many "
    "as fit into 256 MiB. In a terminal, a bar shows the progress.",
)
@provider_option()
@native_option(help="")
@quiet_option
def command(
    model: str,
    inputs: tuple[str, ...],
    output: str,
    chunk: int | None,
    restore: str | None,
    save: str | None,
    dt: float | None,
    count: bool,
    decode: str | None,
    batch: int | None,
    providers: tuple[str, ...],
    native: str,
    quiet: bool,
) -> None:
    """Run a model on arrays; needs ONNX Runtime, but not torch."""
    settings = Settings(chunk, restore, save, dt, count, decode, batch, quiet)
    if count and dt is None:
        raise InputError("--count is for events; give --dt, the length of a time step")
    chosen = (full_names(providers), NATIVE[native])
    folders = [path for path in inputs if Path(path).is_dir()]
    if folders and len(inputs) > 1:
        raise InputError(f"{folders[0]} is a folder, and a folder is the only --input")
    if folders:
        _run_folder(model, folders[0], output, settings, chosen)
        return
    _run_files(model, inputs, output, settings, chosen)


#: execution providers and native kernels, as Session takes them
Chosen = tuple[list[str] | None, bool | None]


def _run_files(
    model: str, inputs: tuple[str, ...], output: str, settings: Settings, chosen: Chosen
) -> None:
    """Run the model on inputs of one call, into one file."""
    from synapse_onnx.runtime.session import Session

    check_target(output, ".npz", ".npy")
    if settings.batch is not None and not (settings.restore is None and settings.save is None):
        raise InputError(
            "--batch cuts the samples, and --restore and --save hold states of all of them; "
            "leave out --batch"
        )
    with warnings.catch_warnings():
        if settings.quiet:
            warnings.simplefilter("ignore")
        session = Session(model, *chosen)
    if output.endswith(".npy") and len(session.outputs) != 1:
        raise InputError(
            f"{output} can hold one array and the model has {len(session.outputs)} outputs "
            f"({', '.join(session.outputs)}); give a name that ends in .npz"
        )
    scorer = Scorer(session, model, settings)
    arrays = scorer.read(inputs)
    if settings.save is not None:
        check_target(settings.save, ".npz")
    outputs = scorer(arrays)
    write_outputs(output, outputs)
    if not settings.quiet:
        _print_written(outputs, output)


def _run_folder(model: str, folder: str, output: str, settings: Settings, chosen: Chosen) -> None:
    """Run the model on every file of a folder, each into a file of its own."""
    from synapse_onnx.model.limits import read_file

    if not (settings.restore is None and settings.save is None):
        raise InputError(
            "--restore and --save hold the states of one sequence, and --input is a folder"
        )
    with warnings.catch_warnings():
        if settings.quiet:
            warnings.simplefilter("ignore")
        scorer = FileScorer(read_file(model), model, settings, *chosen)
    jobs = jobs_of(folder, output, scorer.suffix)
    for job in jobs:  # a wrong shape is reported before anything is run
        scorer.check(job.source)
    Path(output).mkdir(exist_ok=True)
    with progress(len(jobs), "files", quiet=settings.quiet) as advance:
        for job in jobs:
            scorer.score(*job)
            advance(1)
    if not settings.quiet:
        files = f"{len(jobs)} file{'s'[: len(jobs) != 1]}"
        print_facts(make_console(), {"wrote": f"{files} to {output}"})


def _print_written(outputs: Mapping[str, Array], output: str) -> None:
    console = make_console()
    head = {"output": "left", "shape": "left", "type": "left", "mean": "right"}
    rows = [
        [
            name,
            shape_text(array.shape),
            str(array.dtype),
            f"{array.mean():.6g}" if array.size else "",
        ]
        for name, array in outputs.items()
    ]
    print_table(head, rows)
    print_facts(console, {"wrote": output})
