"""``synapse-onnx repository``: put a model into an inference server's repository."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_onnx.cli._options import Number
from synapse_onnx.cli._output import make_console, print_facts, print_notes

__all__ = ["command"]


@click.command(
    "repository",
    epilog="""\b
Example:
  synapse-onnx repository net.onnx --triton models
  tritonserver --model-repository=$PWD/models""",
)
@click.argument("model", metavar="MODEL.onnx")
@click.option(
    "--triton",
    required=True,
    metavar="DIR",
    help="Model repository of NVIDIA Triton Inference Server; created if it does not exist.",
)
@click.option("--name", help="Name of the model for clients; default: the name of the file.")
@click.option(
    "--max-batch",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Largest number of samples in one call of the model.",
)
@click.option(
    "--delay",
    type=click.IntRange(min=0),
    default=500,
    show_default=True,
    metavar="MICROSECONDS",
    help="How long a request may wait to be batched with others.",
)
@click.option(
    "--idle",
    type=Number(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Streaming models: time without requests after which the server drops a sequence.",
)
@click.option(
    "--sequences",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    metavar="N",
    help="Streaming models: number of sequences that the server keeps at a time.",
)
def command(
    model: str,
    triton: str,
    name: str | None,
    max_batch: int,
    delay: int,
    idle: float,
    sequences: int,
) -> None:
    """Put a model into the repository of an inference server.

    Requests to a model of whole sequences are batched dynamically. For a streaming model the
    server keeps the states of every sequence, and clients send only inputs.
    """
    from synapse_onnx.deploy.triton import Batching, write_repository
    from synapse_onnx.model.file import load_model

    proto = load_model(model)
    batching = Batching(max_batch, delay, idle, sequences)
    written = write_repository(proto, triton, name or Path(model).stem, batching)
    kind = "whole sequences" if written.states is None else f"streams, {written.states} states each"
    joined = f"up to {max_batch}" if written.batched else "none: a request is a call"
    console = make_console()
    print_facts(console, {"wrote": str(written.path), "requests": kind, "batching": joined})
    notes = []
    if not written.batched:
        notes.append(
            "Triton batches requests along the first axis, which is no open batch in this model; "
            "export it without layout TNC and with an open batch"
        )
    if written.chunk > 1:
        notes.append(
            f"the steps of a request must be a multiple of {written.chunk}, except for the last "
            f"request of a sequence"
        )
    print_notes(console, notes)
