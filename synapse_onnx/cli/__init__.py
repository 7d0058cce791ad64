"""The command line: each public file of this folder is a command.

Exit codes: 0 done and equal, 1 the numbers differ, 2 wrong input or usage. Every expected failure
is one sentence on stderr that begins with "error: ". Commands that only read or run a model need no
torch: what needs it is imported inside functions.
"""

from __future__ import annotations

import click

from synapse_onnx._version import __version__
from synapse_onnx.cli._group import Group
from synapse_onnx.runtime import native as native_kernels

__all__ = ["main"]


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print the version, and the native kernels of each provider."""
    if value and not context.resilient_parsing:
        click.echo(f"synapse-onnx {__version__}")
        for provider in (native_kernels.CPU, native_kernels.CUDA):
            click.echo(native_kernels.status(provider))
        context.exit()


@click.group(
    "synapse-onnx",
    cls=Group,
    invoke_without_command=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
    epilog="""\b
Example:
  synapse-onnx export net.py:build --weights net.pt --shape 1,8,8 -o net.onnx
  synapse-onnx verify net.py:build net.onnx --weights net.pt
  synapse-onnx run net.onnx --input spikes.npy -o out.npz

\b
Exit codes: 0 done and equal, 1 the numbers differ, 2 wrong input or usage.""",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version and the native kernels, and exit.",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Compile trained spiking neural networks from torch to ONNX, and verify the result."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
