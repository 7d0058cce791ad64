"""``synapse-onnx export``: compile a torch network to one file."""

from __future__ import annotations

import contextlib
import os
import shlex
from typing import Any

import click

import synapse_onnx
from synapse_onnx.cli import _options as options
from synapse_onnx.cli import _quantised as quantising
from synapse_onnx.cli._inputs import in_layout, random_spikes, read_metadata
from synapse_onnx.cli._output import print_facts, print_layers, print_note, say, size_text
from synapse_onnx.cli._source import known_shapes, load_network, match_arguments, users_forward
from synapse_onnx.errors import ExportError, SynapseError
from synapse_onnx.model.layout import LAYOUTS
from synapse_onnx.model.options import INPUT_TYPES, OPSETS

__all__ = ["command"]


@click.command(
    "export",
    epilog="""\b
Example: the function build in net.py returns the network
  synapse-onnx export net.py:build --weights net.pt --shape 1,8,8 -o net.onnx

\b
A network with two inputs, 64 channels and 3 images of 32x32
  synapse-onnx export mynets.fusion:Net --shape 64 --shape 3,32,32 -o fusion.onnx""",
)
@options.source
@click.option("-o", "--output", required=True, metavar="MODEL.onnx", help="Model to write.")
@options.weights
@options.settings
@click.option(
    "--shape",
    "shapes",
    callback=options.parse_shapes,
    metavar="C[,H,W]",
    multiple=True,
    help="Shape of ONE sample without batch and time, as in 1,8,8 (repeatable, once for every "
    "input). Most .net and .nir files contain it.",
)
@click.option(
    "--opset",
    type=click.IntRange(OPSETS[0], OPSETS[-1]),
    default=OPSETS[0],
    help="Version of the standard ONNX operators.",
)
@click.option(
    "--steps", type=options.COUNT, default=16, help="Time steps of the example input for tracing."
)
@click.option(
    "--static",
    is_flag=True,
    help="Fix the batch size to 1 and time to --steps; by default both are open.",
)
@click.option(
    "--streaming",
    is_flag=True,
    help="Make every state an input and an output, so that a sequence can be run in chunks.",
)
@click.option(
    "--axes",
    type=click.Choice(LAYOUTS),
    help="Axes of the network's own inputs: TNC is (T, N, C[, H, W]), as in snnTorch and Norse. By "
    "default NCT, with time last.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    help="Axes of the file's inputs and outputs; by default those of the network.",
)
@click.option(
    "--input-type",
    type=click.Choice(INPUT_TYPES),
    default="float32",
    help="Type of the inputs; uint8 takes spikes and counts up to 255.",
)
@quantising.options
def command(
    source: str,
    output: str,
    weights: str | None,
    settings: dict[str, str],
    shapes: list[tuple[int, ...]],
    steps: int,
    static: bool,
    axes: str | None,
    bits: str | None,
    keep: tuple[str, ...],
    calibration: tuple[str, ...],
    **how: Any,  # --opset, --streaming, --layout, --input-type: arguments of export
) -> None:
    """Compile a torch network to one ONNX file.

    SOURCE is package.module:name or path/to/file.py:name, where name is a torch.nn.Module, or a
    function or class without arguments that returns one. The code of SOURCE is executed. SOURCE
    can also be a network file: network.net (lava-dl) or graph.nir (NIR).

    The model has standard operators only and runs in any ONNX Runtime. To compare it with torch,
    use "synapse-onnx verify".
    """
    options.check_target(output, ".onnx")
    module = load_network(source, weights, settings)
    module = quantising.quantised(module, bits, keep, calibration, axes)
    example = random_spikes(
        [(1, *shape, steps) for shape in shapes or known_shapes(module, source)], rate=0.3, seed=0
    )
    match_arguments(module, example, source, "give --shape once for every argument")
    import torch

    from synapse_onnx.compiler.freezer import copied

    tensors = [torch.from_numpy(in_layout(array, axes)) for array in example]
    # an error in forward() is clearer on numbers than in the tracer, which sees symbols; errors of
    # our own layers are left to the export, which names their paths
    with users_forward(source), contextlib.suppress(SynapseError), torch.no_grad():
        copied(module)(*tensors)
    try:
        with users_forward(source):
            model = synapse_onnx.export(
                module, tensors, output, dynamic=not static, axes=axes, **how
            )
    except ExportError as error:  # its advice is for Python
        raise ExportError(str(error).replace("dynamic=False", "--static")) from error
    metadata = read_metadata(model)
    assert metadata is not None  # export has just written it
    facts = {
        "wrote": output,
        "size": size_text(os.path.getsize(output)),
        "regime": metadata.regime,
        "layers": str(len(metadata.layers)),
    }
    if metadata.streaming:
        facts["states"] = str(len(metadata.states))
    print_facts(facts)
    if metadata.layers:
        click.echo()
        print_layers(metadata.layers, metadata.states)
        click.echo()
    for note in metadata.notes:
        print_note(note)
    verify = ["synapse-onnx", "verify", source, output]
    verify += ["--weights", weights] if weights else []
    for key, value in settings.items():
        verify += ["--set", f"{key}={value}"]
    verify += quantising.arguments_of(bits, keep, calibration)
    say(f"to compare it with torch: {shlex.join(verify)}", wrapped=False)
