"""The computation of ``run``: arrays or files in, named arrays or a file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.cli._arrays import npy_bytes, npz_bytes, read_arrays, read_events
from synapse_onnx.cli._models import shape_time_last
from synapse_onnx.cli._output import progress
from synapse_onnx.errors import InputError, ModelError, SynapseError
from synapse_onnx.files import write_atomically
from synapse_onnx.formatting import shape_text
from synapse_onnx.model.layout import axes_of, has_time, time_first, time_last

__all__ = ["DECODED", "FileScorer", "Scorer", "Settings", "write_outputs"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Settings:
    """Options of ``run``; see its help."""

    chunk: int | None = None
    restore: str | None = None
    save: str | None = None
    dt: float | None = None
    count: bool = False
    decode: str | None = None
    batch: int | None = None
    quiet: bool = False


class Scorer:
    """A model with settings: reads inputs, runs them, and decodes outputs.

    Args:
        session: a :class:`synapse_onnx.Session`.
        where: name of the model in errors.
        settings: the options of ``run``.
    """

    def __init__(self, session: Any, where: str, settings: Settings) -> None:
        self.session, self.where, self.settings = session, where, settings

    def read(self, paths: Sequence[str]) -> list[Array]:
        """Read the inputs: arrays, or events where the settings have a time step."""
        dt = self.settings.dt
        if dt is None:
            return read_arrays(paths, self.session.inputs)
        return _events(self.session, paths, dt, self.settings.count)

    def __call__(self, arrays: Sequence[Array], batch: int | None = None) -> dict[str, Array]:
        """Run stacks of samples, in batches of this size or that of the settings."""
        batch = batch or self.settings.batch
        if batch is None:
            outputs = self._call(arrays, self.settings.quiet)
        else:
            outputs = self._in_batches(arrays, batch)
        if self.settings.decode is not None:
            layout, decode = self.session.layout, self.settings.decode
            outputs = tuple(_decoded(array, layout, decode) for array in outputs)
        return dict(zip(self.session.outputs, outputs, strict=True))

    def _call(self, part: Sequence[Array], quiet: bool) -> tuple[Array, ...]:
        chunk, restore, save = self.settings.chunk, self.settings.restore, self.settings.save
        if chunk is None and restore is None and save is None:
            results = self.session.run(*part)
        else:
            results = _streamed(self.session, part, chunk, restore, save, quiet)
        outputs = results if isinstance(results, tuple) else (results,)
        for name, array in zip(self.session.outputs, outputs, strict=True):
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
                raise ModelError(f"output {name} of {self.where} is no array of numbers")
        return outputs

    def _in_batches(self, arrays: Sequence[Array], size: int) -> tuple[Array, ...]:
        """Run samples in batches of this size, and concatenate their outputs."""
        session = self.session
        total, size = _checked(session, arrays, size)
        parts = []
        with progress(total, "samples", quiet=self.settings.quiet) as advance:
            for begin in range(0, max(total, 1), size):
                number = min(size, total - begin)
                cut = [_samples(array, session.layout, begin, number) for array in arrays]
                part = self._call(cut, quiet=True)  # one bar counts the samples already
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


class FileScorer:
    """Runs files, each into a file of its own.

    Args:
        model: bytes of an .onnx file.
        where: name of the model in errors.
        settings: the options of ``run``; without a batch, it follows from memory.
        providers: execution providers.
        native: native kernels.
    """

    def __init__(
        self,
        model: bytes,
        where: str,
        settings: Settings,
        providers: Sequence[str] | None,
        native: bool | None,
    ) -> None:
        from synapse_onnx.model.file import parse_model
        from synapse_onnx.runtime.session import Session

        self.model = parse_model(model, where)
        session = Session(self.model, providers, native)
        # the bar counts files
        self.scorer = Scorer(session, where, replace(settings, quiet=True))

    @property
    def suffix(self) -> str:
        """Suffix of the output files."""
        return ".npy" if len(self.scorer.session.outputs) == 1 else ".npz"

    def check(self, path: str) -> None:
        """Refuse an array of a wrong shape; its values are not read.

        Raises:
            InputError: the shape does not fit the model.
        """
        session = self.scorer.session
        if not path.endswith(".npy") or self.scorer.settings.dt is not None:
            return
        try:
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except (OSError, ValueError, EOFError):
            return  # score() has a better error
        wanted = _shapes(session)[session.inputs[0]]
        axis = axes_of(session.layout, len(wanted))[0]
        sizes = list(wanted)
        if len(shape) == len(wanted) - 1:
            del sizes[axis]
        fits = len(shape) == len(sizes) and all(
            not isinstance(want, int) or want == size
            for want, size in zip(sizes, shape, strict=True)
        )
        if len(session.inputs) == 1 and not fits:
            one = [*wanted[:axis], *wanted[axis + 1 :]]
            raise InputError(
                f"{path} holds an array of shape {shape_text(shape)}; the model takes a stack of "
                f"shape {shape_text(wanted)}, or one sample of shape {shape_text(one)}"
            )

    def score(self, source: str, target: str) -> None:
        """Run one file, and write its outputs whole or not at all.

        Args:
            source: one sample, whose outputs then have no batch axis either, or a stack.
            target: file to write, .npy or .npz.

        Raises:
            SynapseError: the file cannot be read, run or written; the message names it.
        """
        from synapse_onnx.runtime.cluster import batch_size

        session = self.scorer.session
        try:
            self.check(source)
            arrays = self.scorer.read([source])
            single = self.scorer.settings.dt is not None
            ranks = [len(shape) for shape in _shapes(session).values()]
            if not single and all(
                array.ndim == rank - 1 for array, rank in zip(arrays, ranks, strict=True)
            ):
                single = True
                arrays = [
                    np.expand_dims(array, axes_of(session.layout, rank)[0])
                    for array, rank in zip(arrays, ranks, strict=True)
                ]
            batch = self.scorer.settings.batch
            if batch is None:
                axes = [axes_of(session.layout, array.ndim)[1] for array in arrays]
                lengths = [a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None]
                batch = batch_size(self.model, steps=max([1, *lengths]))
            named = self.scorer(arrays, batch)
            if single:
                named = {name: self._without_samples(array) for name, array in named.items()}
        except SynapseError as error:
            text = str(error)
            raise type(error)(text if source in text else f"{source}: {text}") from error
        write_outputs(target, named)

    def _without_samples(self, array: Array) -> Array:
        # what is decoded has no time, and its samples first
        decoded = self.scorer.settings.decode is not None
        return (
            array[0]
            if decoded
            else array.squeeze(axes_of(self.scorer.session.layout, array.ndim)[0])
        )


def write_outputs(path: str, named: Mapping[str, Array]) -> None:
    """Write outputs whole or not at all: the only one where the path ends in .npy, else by name."""
    (first, *_) = named.values()
    write_atomically(path, npy_bytes(first) if path.endswith(".npy") else npz_bytes(named))


def _shapes(session: Any) -> dict[str, list[int | str]]:
    """Name -> shape of the inputs that a caller gives, in their order; open axes are names."""
    shapes = {value.name: list(value.shape) for value in session.session.get_inputs()}
    return {name: shapes[name] for name in session.inputs}


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
    for shape in _shapes(session).values():
        if not shape:
            continue
        fixed = shape[axes_of(session.layout, len(shape))[0]]
        if isinstance(fixed, int) and (size != fixed or total % fixed):
            raise InputError(
                f"--batch: the model was exported with a fixed batch of {fixed}; give --batch "
                f"{fixed} and a multiple of {fixed} samples, got {total}"
            )
    return total, size


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
    ((name, shape),) = _shapes(session).items()
    sizes = shape_time_last(shape, session.layout)[1:-1]
    if not has_time(len(shape)) or not all(isinstance(size, int) for size in sizes):
        raise InputError(f"--dt: input {name} has shape {shape_text(shape)}, not known sizes")
    known = [int(size) for size in sizes]
    return [time_first(read_events(paths, known, dt, count), session.layout)]


def _rate(values: Array) -> Array:
    return np.asarray(values.mean(axis=-1), dtype=np.float32)


def _first_spike(values: Array) -> Array:
    spikes = values != 0
    return np.where(spikes.any(axis=-1), spikes.argmax(axis=-1), -1)


def _last(values: Array) -> Array:
    return values[..., -1]


#: --decode -> what it makes of (N, C[, H, W], T)
DECODED = {"rate": _rate, "first-spike": _first_spike, "last": _last}


def _decoded(array: Array, layout: str, decode: str) -> Array:
    if not has_time(array.ndim):
        raise InputError(
            f"--decode needs sequences, and an output has the shape {shape_text(array.shape)}"
        )
    return DECODED[decode](time_last(array, layout))
