"""Arguments and options that several commands share."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from synapse_onnx.errors import InputError

__all__ = [
    "COUNT",
    "NATIVE",
    "Number",
    "check_target",
    "full_names",
    "generated",
    "inputs",
    "model",
    "native",
    "native_choices",
    "parse_shapes",
    "providers",
    "quiet",
    "settings",
    "source",
    "weights",
]

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

#: short names of execution providers
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "dml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}

#: --native -> the argument of Session
NATIVE: dict[str, bool | None] = {"auto": None, "yes": True, "no": False}

COUNT = click.IntRange(min=1)


class Number(click.FloatRange):
    """A float in a range. NaN and infinity are refused; click's bounds let them pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a finite number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def parse_shapes(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> list[tuple[int, ...]]:
    """Parse each C or C,H,W."""
    shapes = []
    for value in values:
        parts = [part.strip() for part in value.split(",")]
        if len(parts) not in (1, 3) or not all(re.fullmatch(r"0*[1-9]\d*", p) for p in parts):
            raise click.BadParameter(
                f"{value!r} must be C or C,H,W of one sample, positive whole numbers without "
                f"batch and time, as in 1,8,8",
                context,
                parameter,
            )
        shapes.append(tuple(int(part) for part in parts))
    return shapes


def _settings_of(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    """Parse each KEY=VALUE."""
    settings = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not key or not equals:
            raise click.BadParameter(
                f"{value!r} must be KEY=VALUE, as in delay_shift=true", context, parameter
            )
        settings[key.strip().replace("-", "_")] = text.strip()
    return settings


source = click.argument("source")
model = click.argument("model", metavar="MODEL.onnx")
settings = click.option(
    "--set",
    "settings",
    callback=_settings_of,
    metavar="KEY=VALUE",
    multiple=True,
    help="Argument of load_net or load_nir, for .net and .nir files (repeatable).",
)
weights = click.option(
    "--weights",
    metavar="CKPT.pt",
    help="Checkpoint to load: a state_dict, or a dict with the key 'state_dict'.",
)
quiet = click.option("--quiet", is_flag=True, help="Show no progress bar and no messages.")


def providers(*, help: str = "") -> Option:
    """Make the option ``--provider``."""
    return click.option(
        "--provider",
        "providers",
        multiple=True,
        metavar="NAME",
        help="Execution provider of ONNX Runtime: cpu, cuda, or a full name (repeatable, best "
        f"first; default: cpu{help}).",
    )


def inputs(help: str, *, required: bool = False) -> Option:
    """Make the option ``--input``."""
    return click.option(
        "-i", "--input", "inputs", multiple=True, required=required, metavar="FILE", help=help
    )


def native(*more: str, help: str = "") -> Option:
    """Make the option ``--native``, with further choices of one command."""
    return click.option(
        "--native",
        type=click.Choice([*NATIVE, *more]),
        default="auto",
        help=f"Native kernels: auto uses them if there are any; yes requires them; no runs the "
        f"function bodies in the file{help}.",
    )


def native_choices(native: str) -> tuple[bool | None, ...]:
    """Return the arguments of Session for ``--native``: two for "both", native first."""
    return (True, False) if native == "both" else (NATIVE[native],)


def generated(*, steps: int, rate: float) -> Option:
    """Make the options of random spikes, with these defaults: --steps, --rate and --seed."""
    options = (
        click.option("--steps", type=COUNT, default=steps, help="Time steps of the random spikes."),
        click.option(
            "--rate",
            type=Number(0, 1),
            default=rate,
            help="Probability that a random value is a spike.",
        ),
        click.option(
            "--seed", type=click.IntRange(min=0), default=0, help="Seed of the random spikes."
        ),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):  # help lists the last one applied first
            command = option(command)
        return command

    return decorate


def full_names(providers: Sequence[str]) -> list[str] | None:
    """Full names of execution providers; None where none was named."""
    return [_PROVIDERS.get(name.lower(), name) for name in providers] or None


def check_target(path: str, *suffixes: str) -> None:
    """Refuse an output path before the work is done."""
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder")
    if target.suffix not in suffixes:
        raise InputError(f"{path} cannot be written: its name must end in {' or '.join(suffixes)}")
    if not target.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{path} cannot be written: the folder {target.parent} is read-only")
