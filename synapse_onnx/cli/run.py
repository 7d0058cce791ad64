"""``synapse-onnx run``: run a model on arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from synapse_onnx.cli import _options as options
from synapse_onnx.cli._output import print_facts, print_table, progress
from synapse_onnx.cli._scoring import DECODED, FileScorer, Scorer, Settings, jobs_of, write_outputs
from synapse_onnx.errors import InputError
from synapse_onnx.formatting import shape_text

__all__ = ["command"]


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
@options.model
@options.inputs(
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
    type=options.COUNT,
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
    type=options.Number(0, min_open=True),
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
    type=options.COUNT,
    metavar="N",
    help="Samples to run at a time; fewer take less memory. Default: all, or for a folder as many "
    "as fit into 256 MiB. In a terminal, a bar shows the progress.",
)
@options.providers()
@options.native()
@options.quiet
def command(
    model: str,
    inputs: tuple[str, ...],
    output: str,
    providers: tuple[str, ...],
    native: str,
    **settings: Any,
) -> None:
    """Run a model on arrays; needs ONNX Runtime, but not torch."""
    chosen = Settings(options.full_names(providers), options.NATIVE[native], **settings)
    if chosen.count and chosen.dt is None:
        raise InputError("--count is for events; give --dt, the length of a time step")
    folders = [path for path in inputs if Path(path).is_dir()]
    if folders and len(inputs) > 1:
        raise InputError(f"{folders[0]} is a folder, and a folder is the only --input")
    if folders:
        _run_folder(model, folders[0], output, chosen)
    else:
        _run_files(model, inputs, output, chosen)


def _run_files(model: str, inputs: tuple[str, ...], output: str, settings: Settings) -> None:
    """Run the model on inputs of one call, into one file."""
    options.check_target(output, ".npz", ".npy")
    if settings.batch is not None and settings.keeps_states:
        raise InputError(
            "--batch cuts the samples, and --restore and --save hold states of all of them; "
            "leave out --batch"
        )
    scorer = Scorer(model, model, settings)
    names = scorer.session.outputs
    if output.endswith(".npy") and len(names) != 1:
        raise InputError(
            f"{output} can hold one array and the model has {len(names)} outputs "
            f"({', '.join(names)}); give a name that ends in .npz"
        )
    arrays = scorer.read(inputs)
    if settings.save is not None:
        options.check_target(settings.save, ".npz")
    outputs = scorer(arrays)
    write_outputs(output, outputs)
    if settings.quiet:
        return
    rows = [
        [name, shape_text(a.shape), str(a.dtype), f"{a.mean():.6g}" if a.size else ""]
        for name, a in outputs.items()
    ]
    print_table(("output", "shape", "type", "mean"), rows, ("mean",))
    print_facts({"wrote": output})


def _run_folder(model: str, folder: str, output: str, settings: Settings) -> None:
    """Run the model on every file of a folder, each into a file of its own."""
    if settings.keeps_states:
        raise InputError(
            "--restore and --save hold the states of one sequence, and --input is a folder"
        )
    scorer = FileScorer(model, settings)
    jobs = jobs_of(folder, output, ".npy" if len(scorer.session.outputs) == 1 else ".npz")
    for source, _ in jobs:  # a wrong shape is reported before anything is run
        scorer.check(source)
    Path(output).mkdir(exist_ok=True)
    with progress(len(jobs), "files", quiet=settings.quiet) as advance:
        for source, target in jobs:
            scorer.score(source, target)
            advance(1)
    if not settings.quiet:
        print_facts({"wrote": f"{len(jobs)} file{'s'[: len(jobs) != 1]} to {output}"})
