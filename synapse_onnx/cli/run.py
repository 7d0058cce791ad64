"""``synapse-onnx run``: a model on arrays."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from synapse_onnx.cli import _engines
from synapse_onnx.cli._arrays import check_target
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
  synapse-onnx run net.onnx --input folder --engine ray -o results
  python -c "import numpy; print(numpy.load('out.npz')['output'].shape)" """,
)
@click.argument("model", metavar="MODEL.onnx")
@inputs_option(
    "Input (N, C[, H, W], T) as .npy or .npz, one for every input of the model, in its order "
    "(repeatable; a single .npz with the inputs' names as keys is taken by name). Or a folder of "
    "such files, one sample without N or a stack each.",
    required=True,
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    help="File to write: .npz with the outputs' names as keys, or .npy for a single output. Of a "
    "folder, a folder, with a file of the same name for every one.",
)
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    metavar="STEPS",
    help="Stream the input in chunks of so many time steps (a model exported with --streaming).",
)
@click.option(
    "--restore",
    metavar="STATE.npz",
    help="Go on where --save left the sequence; streams.",
)
@click.option(
    "--save",
    metavar="STATE.npz",
    help="Save the states behind the input, for --restore; streams.",
)
@click.option(
    "--dt",
    type=Number(0, min_open=True),
    metavar="TIME",
    help="Inputs are events: .npz, .npy or .csv with columns p, t (and x, y for images). Length "
    "of a time step, in the unit of t; a file is one sample.",
)
@click.option("--count", is_flag=True, help="Several events in one step add up (with --dt).")
@click.option(
    "--decode",
    type=click.Choice(list(DECODED)),
    help="Write no sequences but, of every neuron, its spikes a step, the step of its first spike "
    "(-1 without any) or its last value, a readout's membrane.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Run N samples at a time, which takes less memory; default: all at once, and of files in "
    "a folder as many as take 256 MiB. In a terminal, a bar shows rate and time left, of chunks "
    "and files too.",
)
@click.option(
    "--engine",
    type=click.Choice(_engines.ENGINES),
    default="local",
    show_default=True,
    help="What runs the files of a folder: this process, or workers of a Ray cluster, one core "
    "each (the extra ray).",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Ray cluster to run on; default: RAY_ADDRESS, else one is started on this machine.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Workers of Ray; default: one for each core of the cluster.",
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
    engine: str,
    address: str | None,
    workers: int | None,
    providers: tuple[str, ...],
    native: str,
    quiet: bool,
) -> None:
    """Run a model on arrays; needs ONNX Runtime, not torch."""
    settings = Settings(chunk, restore, save, dt, count, decode, batch, quiet)
    if count and dt is None:
        raise InputError("--count is for events; give --dt, the length of a time step")
    if engine == "local" and (address or workers):
        raise InputError("--address and --workers are for --engine ray")
    chosen = (full_names(providers), NATIVE[native])
    folders = [path for path in inputs if Path(path).is_dir()]
    if folders and len(inputs) > 1:
        raise InputError(f"{folders[0]} is a folder, and a folder is the only --input")
    if folders:
        _run_folder(model, folders[0], output, settings, chosen, engine, address, workers)
        return
    if engine != "local":
        raise InputError(f"--engine {engine} runs the files of a folder, and {inputs[0]} is none")
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
    given = scorer.read(inputs)
    if settings.save is not None:
        check_target(settings.save, ".npz")
    named = scorer(given)
    write_outputs(output, named)
    if not settings.quiet:
        _print_written(named, output)


def _run_folder(
    model: str,
    folder: str,
    output: str,
    settings: Settings,
    chosen: Chosen,
    engine: str,
    address: str | None,
    workers: int | None,
) -> None:
    """Run the model on every file of a folder, each into a file of its own."""
    from synapse_onnx.model.limits import read_file

    if not (settings.restore is None and settings.save is None):
        raise InputError(
            "--restore and --save hold the states of one sequence, and --input is a folder"
        )
    data = read_file(model)
    with warnings.catch_warnings():
        if settings.quiet:
            warnings.simplefilter("ignore")
        scorer = FileScorer(data, model, settings, *chosen, None)
    jobs = _engines.jobs_of(folder, output, scorer.suffix)
    for job in jobs:  # before any of them is run
        scorer.check(job.source)
    Path(output).mkdir(exist_ok=True)
    with progress(len(jobs), "files", quiet=settings.quiet) as advance:
        if engine == "ray":
            gpu = any(name.startswith(("CUDA", "Tensorrt")) for name in chosen[0] or ())
            ran = _engines.on_ray(
                FileScorer, (data, model, settings, *chosen, 1), jobs, advance,
                workers=workers, address=address, gpu=gpu,
            )  # fmt: skip
        else:
            ran = _engines.locally(scorer, jobs, advance)
    if not settings.quiet:
        files = f"{len(jobs)} file{'s'[: len(jobs) != 1]}"
        print_facts(make_console(), {"wrote": f"{files} to {output}", "engine": ran})


def _print_written(named: Mapping[str, Array], output: str) -> None:
    console = make_console()
    head = {"output": "left", "shape": "left", "type": "left", "mean": "right"}
    rows = [
        [
            name,
            shape_text(array.shape),
            str(array.dtype),
            f"{array.mean():.6g}" if array.size else "",
        ]
        for name, array in named.items()
    ]
    print_table(head, rows)
    print_facts(console, {"wrote": output})
