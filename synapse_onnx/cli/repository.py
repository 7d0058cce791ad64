"""``synapse-onnx repository``: put a model into an inference server's repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from synapse_onnx.cli import _options as options
from synapse_onnx.cli._output import print_facts, print_note

__all__ = ["command"]


@click.command(
    "repository",
    epilog="""\b
Example:
  synapse-onnx repository net.onnx --triton models
  tritonserver --model-repository=$PWD/models""",
)
@options.model
@click.option(
    "--triton",
    required=True,
    metavar="DIR",
    help="Model repository of NVIDIA Triton Inference Server; created if it does not exist.",
)
@click.option("--name", help="Name of the model for clients; default: the name of the file.")
@click.option(
    "--max-batch",
    "largest",
    type=options.COUNT,
    default=32,
    metavar="N",
    help="Largest number of samples in one call of the model.",
)
@click.option(
    "--delay",
    type=click.IntRange(min=0),
    default=500,
    metavar="MICROSECONDS",
    help="How long a request may wait to be batched with others.",
)
@click.option(
    "--idle",
    type=options.Number(0, min_open=True),
    default=60.0,
    metavar="SECONDS",
    help="Streaming models: time without requests after which the server drops a sequence.",
)
@click.option(
    "--sequences",
    type=options.COUNT,
    default=1024,
    metavar="N",
    help="Streaming models: number of sequences that the server keeps at a time.",
)
def command(model: str, triton: str, name: str | None, **batching: Any) -> None:
    """Put a model into the repository of an inference server.

    Requests to a model of whole sequences are batched dynamically. For a streaming model the
    server keeps the states of every sequence, and clients send only inputs.
    """
    from synapse_onnx.deploy.triton import Batching, write_repository
    from synapse_onnx.model.file import load_model

    proto = load_model(model)
    written = write_repository(proto, triton, name or Path(model).stem, Batching(**batching))
    kind = "whole sequences" if written.states is None else f"streams, {written.states} states each"
    joined = f"up to {batching['largest']}" if written.batched else "none: a request is a call"
    print_facts({"wrote": str(written.path), "requests": kind, "batching": joined})
    if not written.batched:
        print_note(
            "Triton batches requests along the first axis, which is no open batch in this model; "
            "export it without layout TNC and with an open batch"
        )
    if written.chunk > 1:
        print_note(
            f"the steps of a request must be a multiple of {written.chunk}, except for the last "
            f"request of a sequence"
        )
