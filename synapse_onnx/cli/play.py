"""``synapse-onnx play``: run a streaming model in a web page."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_onnx.cli import _options as options
from synapse_onnx.cli._inputs import inputs_of, layout_of, read_arrays
from synapse_onnx.cli._output import print_facts, print_note
from synapse_onnx.errors import InputError

__all__ = ["command"]

#: samples of --input that a page takes
_SAMPLES = 64


@click.command(
    "play",
    epilog="""\b
Example:
  synapse-onnx play net.onnx --serve
  synapse-onnx play net.onnx --input spikes.npy --labels cat,dog -o page
  synapse-onnx play --fetch-runtime""",
)
@click.argument("model", metavar="MODEL.onnx", required=False)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    help="Folder to write the page to, for any web server; an existing page is replaced.",
)
@click.option("--serve", is_flag=True, help="Serve the page on this machine until Ctrl-C.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of --serve; default: any free port."
)
@options.inputs(
    "Samples to choose from, (N, C[, H, W], T) as .npy or .npz, one file for every input of the "
    f"model, as for `run` (repeatable); at most the first {_SAMPLES} are used."
)
@click.option(
    "--labels",
    metavar="A,B,...",
    help="Names of the output channels; default: those in the model, or their numbers.",
)
@click.option(
    "--max-size",
    type=options.Number(0, min_open=True),
    metavar="MB",
    help="Largest model to put into a page; default: 268.4 (256 MiB).",
)
@click.option(
    "--fetch-runtime",
    is_flag=True,
    help="Download onnxruntime-web, which pages need, from the npm registry into the user's cache, "
    "if the install does not include it.",
)
def command(
    model: str | None,
    output: str | None,
    serve: bool,
    port: int | None,
    inputs: tuple[str, ...],
    labels: str | None,
    max_size: float | None,
    fetch_runtime: bool,
) -> None:
    """Run a streaming model in a web page.

    The page is static and runs the model in the browser, with onnxruntime-web. It shows the input,
    the spikes of every layer, membranes and the decoded output, step by step. Needs neither torch
    nor ONNX Runtime.
    """
    from synapse_onnx.deploy import play
    from synapse_onnx.model.file import load_model

    if fetch_runtime:
        try:
            runtime = play.find_runtime()
        except InputError:
            runtime = play.fetch_runtime()
        print_facts({"onnxruntime-web": str(runtime)})
        if model is None:
            return
    if model is None:
        raise InputError("name the model to play, as in `synapse-onnx play net.onnx --serve`")
    if (output is None) == (not serve):
        raise InputError(
            "give one of -o DIR, which writes the page for any web server, and --serve, which "
            "shows it from this machine"
        )
    if port is not None and not serve:
        raise InputError("--port is for --serve")
    proto = load_model(model)
    samples = []
    if inputs:
        arrays = read_arrays(inputs, inputs_of(proto))
        samples = play.samples_of(arrays, layout_of(proto), Path(inputs[0]).stem, _SAMPLES)
    files = play.page_files(
        proto,
        Path(model).stem,
        samples=samples,
        labels=[label.strip() for label in labels.split(",")] if labels else (),
        largest=play.LARGEST if max_size is None else int(max_size * 1e6),
    )
    if output is not None:
        play.write_page(output, files)
        print_facts({"wrote": output, "show it": f"python -m http.server -d {output}"})
    else:
        server = play.Server(files, port or 0)
        print_facts({"playing": model, "at": server.url, "end": "Ctrl-C"})
    if len(samples) == _SAMPLES:
        print_note(f"at most the first {_SAMPLES} samples are used")
    if output is not None:
        return
    try:
        server.run()
    except KeyboardInterrupt:
        click.echo()  # ends the line of the terminal's ^C
