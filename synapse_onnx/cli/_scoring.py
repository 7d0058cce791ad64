"""The computation of ``run``: arrays or files in, named arrays or files out."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.cli._inputs import read_arrays, read_events, shape_time_last
from synapse_onnx.cli._output import progress
from synapse_onnx.errors import InputError, ModelError, SynapseError
from synapse_onnx.files import write_atomically
from synapse_onnx.formatting import shape_text
from synapse_onnx.model.layout import axes_of, has_time, time_axis, time_first, time_last

__all__ = ["DECODED", "FileScorer", "Scorer", "Settings", "jobs_of", "write_outputs"]

Array = NDArray[Any]

#: --decode -> what it makes of (N, C[, H, W], T)
DECODED: dict[str, Callable[[Array], Array]] = {
    "rate": lambda values: np.asarray(values.mean(axis=-1), dtype=np.float32),
    "first-spike": lambda values: np.where(values.any(axis=-1), (values != 0).argmax(axis=-1), -1),
    "last": lambda values: values[..., -1],
}


@dataclass(frozen=True)
class Settings:
    """Options of ``run``; see its help."""

    providers: list[str] | None
    native: bool | None
    chunk: int | None
    restore: str | None
    save: str | None
    dt: float | None
    count: bool
    decode: str | None
    batch: int | None
    quiet: bool

    @property
    def keeps_states(self) -> bool:
        """Whether states come from a file, or go to one."""
        return self.restore is not None or self.save is not None


class Scorer:
    """A model with settings: reads inputs, runs them, and decodes outputs.

    Args:
        model: the model, or the path of an .onnx file.
        where: name of the model in errors.
        settings: the options of ``run``.
    """

    def __init__(self, model: Any, where: str, settings: Settings) -> None:
        from synapse_onnx.runtime.session import Session

        self.where, self.settings = where, settings
        with warnings.catch_warnings():
            if settings.quiet:
                warnings.simplefilter("ignore")
            self.session = Session(model, settings.providers, settings.native)
        inputs = {value.name: value.shape for value in self.session.session.get_inputs()}
        #: shapes of the inputs that a caller gives; open axes are names
        self.shapes: list[list[int | str]] = [list(inputs[name]) for name in self.session.inputs]

    def read(self, paths: Sequence[str]) -> list[Array]:
        """Read the inputs: arrays, or events where the settings have a time step."""
        session, dt = self.session, self.settings.dt
        if dt is None:
            return read_arrays(paths, session.inputs)
        if len(session.inputs) != 1:
            raise InputError(
                f"--dt is for models with one input, and this one takes {', '.join(session.inputs)}"
            )
        (shape,) = self.shapes
        sizes = shape_time_last(shape, session.layout)[1:-1]
        known = [size for size in sizes if isinstance(size, int)]
        if not has_time(len(shape)) or len(known) < len(sizes):
            raise InputError(
                f"--dt: input {session.inputs[0]} has shape {shape_text(shape)}, not known sizes"
            )
        return [time_first(read_events(paths, known, dt, self.settings.count), session.layout)]

    def __call__(self, arrays: Sequence[Array], batch: int | None = None) -> dict[str, Array]:
        """Run stacks of samples, in batches of this size or that of the settings."""
        batch = batch or self.settings.batch
        if batch is None:
            outputs = self._call(arrays, self.settings.quiet)
        else:
            outputs = self._in_batches(arrays, batch)
        if self.settings.decode is not None:
            for array in outputs:
                if not has_time(array.ndim):
                    raise InputError(
                        f"--decode needs sequences, and an output has the shape "
                        f"{shape_text(array.shape)}"
                    )
            decoded, layout = DECODED[self.settings.decode], self.session.layout
            outputs = tuple(decoded(time_last(array, layout)) for array in outputs)
        return dict(zip(self.session.outputs, outputs, strict=True))

    def _samples_axis(self, rank: int) -> int:
        return axes_of(self.session.layout, rank)[0]

    def _samples(self, array: Array, part: slice) -> Array:
        """View some samples of an array; a scalar belongs to all."""
        if not array.ndim:
            return array
        return array[:, part] if self._samples_axis(array.ndim) else array[part]

    def _call(self, part: Sequence[Array], quiet: bool) -> tuple[Array, ...]:
        if self.settings.chunk is None and not self.settings.keeps_states:
            results = self.session.run(*part)
            outputs = results if isinstance(results, tuple) else (results,)
        else:
            outputs = self._streamed(part, quiet)
        for name, array in zip(self.session.outputs, outputs, strict=True):
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
                raise ModelError(f"output {name} of {self.where} is no array of numbers")
        return outputs

    def _streamed(self, arrays: Sequence[Array], quiet: bool) -> tuple[Array, ...]:
        """Run a streaming model chunk by chunk, from saved states and to saved states."""
        session, settings = self.session, self.settings
        if not session.streaming:
            raise InputError(
                "the model was not exported for streaming; export it with --streaming, or leave "
                "out --chunk, --restore and --save"
            )
        views = [time_last(array, session.layout) for array in arrays]
        stream = session.stream(int(views[0].shape[0]) if views[0].ndim else 1)
        if settings.restore is not None:
            stream.restore(settings.restore)
        steps = max((view.shape[-1] for view in views if has_time(view.ndim)), default=1)
        size = settings.chunk or steps
        parts = []
        with progress(steps, "time steps", quiet=quiet) as advance:
            for begin in range(0, steps, size):
                end = min(begin + size, steps)
                cut = (view[..., begin:end] if has_time(view.ndim) else view for view in views)
                parts.append(stream.run(*(time_first(view, session.layout) for view in cut)))
                advance(end - begin)
        if settings.save is None:
            parts.append(stream.flush())
        else:
            stream.save(settings.save)
        axis = time_axis(session.layout, 3)
        groups = zip(*parts, strict=True) if len(session.outputs) > 1 else (parts,)
        return tuple(np.concatenate(group, axis=axis) for group in groups)

    def _in_batches(self, arrays: Sequence[Array], size: int) -> tuple[Array, ...]:
        """Run samples in batches of this size, and concatenate their outputs."""
        total, size = self._checked(arrays, size)
        parts = []
        with progress(total, "samples", quiet=self.settings.quiet) as advance:
            for begin in range(0, max(total, 1), size):
                number = min(size, total - begin)
                cut = slice(begin, begin + number)
                samples = [self._samples(array, cut) for array in arrays]
                part = self._call(samples, quiet=True)  # one bar counts the samples already
                for name, array in zip(self.session.outputs, part, strict=True):
                    if not array.ndim or array.shape[self._samples_axis(array.ndim)] != number:
                        raise InputError(
                            f"--batch: output {name} of shape {shape_text(array.shape)} does not "
                            f"hold {number} samples, one for each of a batch; leave out --batch"
                        )
                parts.append(part)
                advance(number)
        return tuple(
            np.concatenate(group, axis=self._samples_axis(group[0].ndim))
            for group in zip(*parts, strict=True)
        )

    def _checked(self, arrays: Sequence[Array], size: int) -> tuple[int, int]:
        """Return how many samples the inputs have, and how many of them go into a call."""
        numbers = [a.shape[self._samples_axis(a.ndim)] for a in arrays if a.ndim]
        if len(set(numbers)) != 1:
            text = " and ".join(map(str, numbers)) or "no"
            raise InputError(f"--batch needs equally many samples in every input, got {text}")
        total = int(numbers[0])
        size = max(min(size, total), 1)
        for shape in filter(None, self.shapes):
            fixed = shape[self._samples_axis(len(shape))]
            if isinstance(fixed, int) and (size != fixed or total % fixed):
                raise InputError(
                    f"--batch: the model was exported with a fixed batch of {fixed}; give --batch "
                    f"{fixed} and a multiple of {fixed} samples, got {total}"
                )
        return total, size


class FileScorer(Scorer):
    """Runs an .onnx file on files, each into its own; without a batch, it follows from memory."""

    def __init__(self, where: str, settings: Settings) -> None:
        from synapse_onnx.model.file import load_model

        self.model = load_model(where)
        super().__init__(self.model, where, settings)
        self.settings = replace(settings, quiet=True)  # the bar counts files

    def check(self, path: str) -> None:
        """Refuse an array of a wrong shape; its values are not read.

        Raises:
            InputError: the shape does not fit the model.
        """
        if not path.endswith(".npy") or self.settings.dt is not None:
            return
        try:
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except (OSError, ValueError, EOFError):
            return  # score() has a better error
        wanted = self.shapes[0]
        axis = self._samples_axis(len(wanted))
        one = [*wanted[:axis], *wanted[axis + 1 :]]
        sizes = one if len(shape) == len(wanted) - 1 else wanted
        fits = len(shape) == len(sizes) and all(
            not isinstance(want, int) or want == size
            for want, size in zip(sizes, shape, strict=True)
        )
        if len(self.shapes) == 1 and not fits:
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

        settings, layout = self.settings, self.session.layout
        try:
            self.check(source)
            arrays = self.read([source])
            ranks = [len(shape) for shape in self.shapes]
            bare = settings.dt is None and [array.ndim + 1 for array in arrays] == ranks
            if bare:
                arrays = [np.expand_dims(a, self._samples_axis(a.ndim + 1)) for a in arrays]
            batch = settings.batch
            if batch is None:
                axes = [axes_of(layout, array.ndim)[1] for array in arrays]
                lengths = [a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None]
                batch = batch_size(self.model, steps=max([1, *lengths]))
            named = self(arrays, batch)
            if bare or settings.dt is not None:
                for name, array in named.items():
                    # what is decoded has no time, and its samples first
                    axis = 0 if settings.decode is not None else self._samples_axis(array.ndim)
                    named[name] = array.squeeze(axis)
        except SynapseError as error:
            text = str(error)
            raise type(error)(text if source in text else f"{source}: {text}") from error
        write_outputs(target, named)


def write_outputs(path: str, named: Mapping[str, Array]) -> None:
    """Write outputs whole or not at all: the only one where the path ends in .npy, else by name.

    Equal arrays give equal bytes, and any name may be a key.
    """
    buffer = io.BytesIO()
    if path.endswith(".npy"):
        (array,) = named.values()
        np.lib.format.write_array(buffer, array, allow_pickle=False)
    else:
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, array in named.items():
                entry = zipfile.ZipInfo(f"{name}.npy")
                entry.compress_type = zipfile.ZIP_DEFLATED  # spikes are mostly zeros
                with archive.open(entry, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def jobs_of(folder: str, output: str, suffix: str) -> list[tuple[str, str]]:
    """Return the files of arrays or events in a folder by name, each with the file to write.

    Raises:
        InputError: no such file, two files with one output, or a folder that cannot be used.
    """
    if output.endswith((".npz", ".npy")):
        raise InputError(
            f"{output} is a file's name, and --input is a folder; give -o a folder as well"
        )
    source, target = Path(folder).absolute(), Path(output).absolute()
    try:
        names = sorted(path.name for path in source.iterdir() if path.is_file())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    endings = (".npy", ".npz", ".csv")
    names = [name for name in names if name.endswith(endings) and not name.startswith(".")]
    if not names:
        raise InputError(f"the folder {folder} is empty: it holds no .npy, .npz or .csv file")
    seen: dict[str, str] = {}
    for name in names:
        stem = Path(name).stem
        if stem in seen:
            raise InputError(
                f"{seen[stem]} and {name} of {folder} would both be written to {stem}{suffix}; "
                f"rename one of them"
            )
        seen[stem] = name
    if target.exists() and not target.is_dir():
        raise InputError(f"{output} cannot be written: it is a file, and --input is a folder")
    if target.resolve() == source.resolve():
        raise InputError(f"{output} is the folder of the inputs; give another for the outputs")
    if not target.parent.is_dir():
        raise InputError(f"{output} cannot be written: there is no folder {target.parent}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(f"{output} cannot be written: the folder is read-only")
    return [(str(source / name), str(target / f"{stem}{suffix}")) for stem, name in seen.items()]
