"""``synapse-onnx run``: a model on arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from synapse_onnx.cli._arrays import check_target, npy_bytes, npz_bytes, read_arrays, read_events
from synapse_onnx.cli._models import shape_time_last
from synapse_onnx.cli._options import (
    NATIVE,
    Number,
    full_names,
    inputs_option,
    native_option,
    provider_option,
    quiet_option,
)
from synapse_onnx.cli._output import (
    make_console,
    print_facts,
    print_table,
    progress,
)
from synapse_onnx.errors import InputError, ModelError
from synapse_onnx.files import write_atomically
from synapse_onnx.layout import axes_of, has_time, time_first, time_last
from synapse_onnx.words import shape_text

__all__ = ["command"]

Array = NDArray[Any]


def _streamed(
    session: Any,
    arrays: Sequence[Array],
    chunk: int | None,
    restore: str | None,
    save: str | None,
    quiet: bool,
) -> Any:
    """Run a streaming model chunk by chunk, from saved states and to saved states."""
    if not session.streaming:
        raise InputError(
            "the model was not exported for streaming; export it with --streaming, or leave out "
            "--chunk, --restore and --save"
        )
    views = [time_last(array, session.layout) for array in arrays]
    stream = session.stream(int(views[0].shape[0]) if views[0].ndim else 1)
    if restore is not None:
        stream.restore(restore)
    steps = max((view.shape[-1] for view in views if has_time(view.ndim)), default=1)
    parts = []
    size = chunk or steps
    with progress(steps, "time steps", quiet=quiet) as advance:
        for begin in range(0, steps, size):
            end = min(begin + size, steps)
            cut = (view[..., begin:end] if has_time(view.ndim) else view for view in views)
            parts.append(stream.run(*(time_first(view, session.layout) for view in cut)))
            advance(end - begin)
    if save is None:
        parts.append(stream.flush())
    else:
        stream.save(save)
    axis = 0 if session.layout == "TNC" else -1
    if len(session.outputs) == 1:
        return np.concatenate(parts, axis=axis)
    return tuple(np.concatenate(group, axis=axis) for group in zip(*parts, strict=True))


def _checked(session: Any, arrays: Sequence[Array], size: int) -> tuple[int, int]:
    """Return how many samples the inputs have, and how many of them go into a call."""
    axes = [axes_of(session.layout, array.ndim)[0] for array in arrays]
    numbers = [array.shape[i] for array, i in zip(arrays, axes, strict=True) if array.ndim]
    if len(set(numbers)) != 1:
        text = " and ".join(map(str, numbers)) or "no"
        raise InputError(f"--batch needs equally many samples in every input, got {text}")
    total = int(numbers[0])
    size = max(min(size, total), 1)
    for info in session.session.get_inputs():
        if info.name not in session.inputs or not info.shape:
            continue
        fixed = info.shape[axes_of(session.layout, len(info.shape))[0]]
        if isinstance(fixed, int) and (size != fixed or total % fixed):
            raise InputError(
                f"--batch: the model was exported with a fixed batch of {fixed}; give --batch "
                f"{fixed} and a multiple of {fixed} samples, got {total}"
            )
    return total, size


def _in_batches(
    session: Any,
    arrays: Sequence[Array],
    size: int,
    call: Callable[[Sequence[Array]], tuple[Array, ...]],
    quiet: bool,
) -> tuple[Array, ...]:
    """Run so many samples at a time, and put their outputs together."""
    total, size = _checked(session, arrays, size)
    parts = []
    with progress(total, "samples", quiet=quiet) as advance:
        for begin in range(0, max(total, 1), size):
            number = min(size, total - begin)
            part = call([_samples(array, session.layout, begin, number) for array in arrays])
            for name, array in zip(session.outputs, part, strict=True):
                axis = axes_of(session.layout, array.ndim)[0]
                if not array.ndim or array.shape[axis] != number:
                    raise InputError(
                        f"--batch: output {name} of shape {shape_text(array.shape)} does not "
                        f"hold {number} samples, one for each of a batch; leave out --batch"
                    )
            parts.append(part)
            advance(number)
    return tuple(
        np.concatenate(group, axis=axes_of(session.layout, group[0].ndim)[0])
        for group in zip(*parts, strict=True)
    )


def _samples(array: Array, layout: str, begin: int, number: int) -> Array:
    """View some samples of an array; a scalar belongs to all."""
    if not array.ndim:
        return array
    axis, _ = axes_of(layout, array.ndim)
    return array[(slice(None),) * axis + (slice(begin, begin + number),)]


def _events(session: Any, paths: Sequence[str], dt: float, count: bool) -> list[Array]:
    """Bin events for the one input that a model takes."""
    if len(session.inputs) != 1:
        raise InputError(
            f"--dt is for models with one input, and this one takes {', '.join(session.inputs)}"
        )
    (info,) = (v for v in session.session.get_inputs() if v.name == session.inputs[0])
    sizes = shape_time_last(list(info.shape), session.layout)[1:-1]
    if not has_time(len(info.shape)) or not all(isinstance(size, int) for size in sizes):
        raise InputError(
            f"--dt: input {info.name} has shape {shape_text(info.shape)}, not known sizes"
        )
    shape = [int(size) for size in sizes]
    return [time_first(read_events(paths, shape, dt, count), session.layout)]


def _rate(values: Array) -> Array:
    return np.asarray(values.mean(axis=-1), dtype=np.float32)


def _first_spike(values: Array) -> Array:
    spikes = values != 0
    return np.where(spikes.any(axis=-1), spikes.argmax(axis=-1), -1)


def _last(values: Array) -> Array:
    return values[..., -1]


#: --decode -> what it makes of (N, C[, H, W], T)
_DECODED = {"rate": _rate, "first-spike": _first_spike, "last": _last}


def _decoded(array: Array, layout: str, decode: str) -> Array:
    if not has_time(array.ndim):
        raise InputError(
            f"--decode needs sequences, and an output has the shape {shape_text(array.shape)}"
        )
    return _DECODED[decode](time_last(array, layout))


@click.command(
    "run",
    epilog="""\b
Example:
  synapse-onnx run net.onnx --input spikes.npy -o out.npz
  synapse-onnx run net.onnx --input events.csv --dt 1000 --decode rate -o rates.npz
  synapse-onnx run net.onnx --input many.npy --batch 32 --quiet -o out.npz
  python -c "import numpy; print(numpy.load('out.npz')['output'].shape)" """,
)
@click.argument("model", metavar="MODEL.onnx")
@inputs_option(
    "Input (N, C[, H, W], T) as .npy or .npz, one for every input of the model, in its order "
    "(repeatable; a single .npz with the inputs' names as keys is taken by name).",
    required=True,
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    help="File to write: .npz with the outputs' names as keys, or .npy for a single output.",
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
    type=click.Choice(list(_DECODED)),
    help="Write no sequences but, of every neuron, its spikes a step, the step of its first spike "
    "(-1 without any) or its last value, a readout's membrane.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Run N samples at a time, which takes less memory; default: all at once. In a terminal, "
    "a bar shows rate and time left, of chunks too.",
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
    providers: tuple[str, ...],
    native: str,
    quiet: bool,
) -> None:
    """Run a model on arrays; needs ONNX Runtime, not torch."""
    from synapse_onnx.runtime import Session

    check_target(output, ".npz", ".npy")
    if batch is not None and not (restore is None and save is None):
        raise InputError(
            "--batch cuts the samples, and --restore and --save hold states of all of them; "
            "leave out --batch"
        )
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        session = Session(model, full_names(providers), NATIVE[native])
    if output.endswith(".npy") and len(session.outputs) != 1:
        raise InputError(
            f"{output} can hold one array and the model has {len(session.outputs)} outputs "
            f"({', '.join(session.outputs)}); give a name that ends in .npz"
        )
    if count and dt is None:
        raise InputError("--count is for events; give --dt, the length of a time step")
    given = (
        read_arrays(inputs, session.inputs) if dt is None else _events(session, inputs, dt, count)
    )
    if save is not None:
        check_target(save, ".npz")

    def call(part: Sequence[Array]) -> tuple[Array, ...]:
        if chunk is None and restore is None and save is None:
            results = session.run(*part)
        else:
            hidden = quiet or batch is not None  # one bar counts the samples already
            results = _streamed(session, part, chunk, restore, save, hidden)
        found = results if isinstance(results, tuple) else (results,)
        for name, array in zip(session.outputs, found, strict=True):
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
                raise ModelError(f"output {name} of {model} is no array of numbers")
        return found

    arrays = call(given) if batch is None else _in_batches(session, given, batch, call, quiet)
    if decode is not None:
        arrays = tuple(_decoded(array, session.layout, decode) for array in arrays)
    named = dict(zip(session.outputs, arrays, strict=True))
    write_atomically(output, npy_bytes(arrays[0]) if output.endswith(".npy") else npz_bytes(named))
    if not quiet:
        _print_written(named, output)


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
