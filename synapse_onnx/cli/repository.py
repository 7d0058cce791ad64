"""``synapse-onnx repository``: a model behind an inference server."""

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
    help="Repository of NVIDIA Triton Inference Server to put the model into; made if need be.",
)
@click.option("--name", help="What clients call the model; default: the file's name.")
@click.option(
    "--max-batch",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Most samples in a call of the model.",
)
@click.option(
    "--delay",
    type=click.IntRange(min=0),
    default=500,
    show_default=True,
    metavar="MICROSECONDS",
    help="How long a request may wait for others to join it.",
)
@click.option(
    "--idle",
    type=Number(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Of a stream: when the server forgets a sequence that nothing came for.",
)
@click.option(
    "--sequences",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    metavar="N",
    help="Of a stream: sequences that are kept at a time.",
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

    A model of whole sequences is batched dynamically. Of a streaming one the server keeps the
    states, a set for every sequence; clients send inputs alone.
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
            "Triton puts requests together along the first axis, and the model has another number "
            "of samples there than N; export it without layout TNC and with an open batch"
        )
    if written.chunk > 1:
        notes.append(
            f"the steps of a request must be a multiple of {written.chunk}, but for a sequence's "
            f"last"
        )
    print_notes(console, notes)
