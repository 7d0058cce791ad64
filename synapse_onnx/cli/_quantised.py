"""Options that quantise the weights of SOURCE, the same for ``export`` and ``verify``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from synapse_onnx.cli._inputs import in_layout, read_arrays
from synapse_onnx.cli._output import say
from synapse_onnx.errors import InputError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["arguments_of", "options", "quantised"]


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options --bits, --keep and --calibration."""
    for option in reversed(_OPTIONS):  # help lists the last one applied first
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--bits",
        type=click.Choice(["8", "4"]),
        help="Round the weights of Linear and Conv layers to integers of so many bits, with one "
        "scale an output channel. What lies on such a grid already stays as it is.",
    ),
    click.option(
        "--keep",
        multiple=True,
        metavar="PATH",
        help="With --bits: a layer that stays in floats (repeatable).",
    ),
    click.option(
        "--calibration",
        multiple=True,
        metavar="FILE",
        help="With --bits: inputs (N, C[, H, W], T) as .npy or .npz, one file for every input. "
        "They choose the scales, and show which norms follow which layers.",
    ),
)


def quantised(
    module: nn.Module,
    bits: str | None,
    keep: Sequence[str],
    calibration: Sequence[str],
    axes: str | None,
    *,
    quiet: bool = False,
) -> nn.Module:
    """Return a network with quantised weights; the network itself without ``--bits``."""
    if bits is None:
        if keep or calibration:
            raise InputError("--keep and --calibration belong to --bits")
        return module
    import torch

    from synapse_onnx._layer import argument_names
    from synapse_onnx.quantize import apply, summary_of

    batch = None
    if calibration:
        try:
            arrays = read_arrays(calibration, argument_names(module) or ["input"])
        except InputError as error:  # that of a model's inputs
            text = str(error).replace("the model takes", "the network takes")
            raise InputError(text.replace("--input", "--calibration")) from error
        turned = (in_layout(array.astype(np.float32), axes) for array in arrays)
        batch = tuple(torch.from_numpy(array) for array in turned)
    result = apply(module, int(bits), calibration=batch, keep=keep)
    if not quiet:
        say(str(summary_of(result)), wrapped=False)
        click.echo()
    return result


def arguments_of(bits: str | None, keep: Sequence[str], calibration: Sequence[str]) -> list[str]:
    """Return the arguments that give another command the same options."""
    arguments = ["--bits", bits] if bits else []
    for name, values in (("--keep", keep), ("--calibration", calibration)):
        for value in values:
            arguments += [name, value]
    return arguments
