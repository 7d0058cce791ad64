"""Arrays: read from files, random, and packed for a file."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.cli._group import reason
from synapse_onnx.errors import InputError
from synapse_onnx.model.limits import check_file, load_arrays

__all__ = ["check_target", "npy_bytes", "npz_bytes", "random_spikes", "read_arrays", "read_events"]

Array = NDArray[Any]


def random_spikes(
    shapes: Sequence[Sequence[int]], *, rate: float, seed: int, dtypes: Sequence[Any] = ()
) -> list[Array]:
    """Return seeded random 0/1 arrays."""
    rng = np.random.default_rng(seed)
    arrays = []
    for i, shape in enumerate(shapes):
        try:
            spikes = rng.random(tuple(shape), dtype=np.float32) < rate
            arrays.append(spikes.astype(dtypes[i] if dtypes else np.float32))
        except (MemoryError, ValueError) as error:
            text = ", ".join(map(str, shape))
            raise InputError(f"an input of shape ({text}) does not fit into memory") from error
    return arrays


def read_arrays(paths: Sequence[str], names: Sequence[str]) -> list[Array]:
    """Read .npy and .npz files, in the order of the model's inputs.

    A single .npz whose keys are the names of the inputs is read by name. Otherwise the arrays are
    assigned in the order of the files.
    """
    arrays: list[Array] = []
    for path in paths:
        contents = _read_file(path)
        if _are_events(contents):
            raise InputError(f"{path} holds events; give --dt, the length of a time step")
        if len(paths) == 1 and len(names) > 1 and set(contents) == set(names):
            contents = {name: contents[name] for name in names}
        for key, array in contents.items():
            if array.dtype.kind not in "biuf":
                what = f"{path} ({key})" if key else path
                raise InputError(f"{what} holds {array.dtype} values; real numbers are needed")
        arrays += contents.values()
    if len(arrays) != len(names):
        raise InputError(
            f"the model takes {', '.join(names)} and --input gives {len(arrays)} arrays; give one "
            f"for each, in this order"
        )
    return arrays


def read_events(paths: Sequence[str], shape: Sequence[int], dt: float, count: bool) -> Array:
    """Read lists of events, one sample a file; shorter samples are padded with zeros.

    Returns:
        float32 array (N, C[, H, W], T).
    """
    from synapse_onnx.runtime.events import bin_events

    samples = []
    for path in paths:
        contents = _read_file(path)
        if not _are_events(contents):
            raise InputError(f"{path} holds no events: columns p and t, and x and y for images")
        try:
            samples.append(bin_events(_columns(contents), shape, dt, count=count))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    steps = max(sample.shape[-1] for sample in samples)
    joined = np.zeros((len(samples), *shape, steps), np.float32)
    for whole, sample in zip(joined, samples, strict=True):
        whole[..., : sample.shape[-1]] = sample
    return joined


def _columns(contents: dict[str, Array]) -> dict[str, Array]:
    """Return the columns of a file: its arrays, or the fields of a structured array."""
    for array in contents.values():
        if len(contents) == 1 and array.dtype.names:
            return {name: array[name] for name in array.dtype.names}
    return contents


def _are_events(contents: dict[str, Array]) -> bool:
    """Whether a file holds events: columns p and t."""
    return {"p", "t"} <= set(_columns(contents))


def _read_csv(path: str) -> dict[str, Array]:
    """Read columns of numbers; the first line names them."""
    check_file(path, grows=16)  # a number takes two bytes of text at least, and lines are copied
    try:
        with open(path, encoding="utf-8", newline="") as file:
            names = [name.strip() for name in file.readline().split(",")]
            lines = [line for line in file.read().splitlines() if line.strip()]
        values = np.loadtxt(lines, delimiter=",", ndmin=2) if lines else np.zeros((0, 0))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:  # text that is no number, bytes that are no text
        raise InputError(f"{path} is no table of numbers: {reason(error)}") from error
    if not values.size:
        return {name: np.zeros(0) for name in names}
    if values.shape[1] != len(names):
        raise InputError(
            f"{path} has {len(names)} names in its first line and {values.shape[1]} columns"
        )
    return dict(zip(names, values.T, strict=True))


def _read_file(path: str) -> dict[str, Array]:
    """Read the arrays of one file, never running code from it."""
    if path.endswith(".csv"):
        return _read_csv(path)
    try:
        return load_arrays(path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:
        if "Object arrays" in str(error):
            raise InputError(
                f"{path} holds Python objects; save an array of numbers by numpy.save"
            ) from error
        raise InputError(
            f"{path} is no .npy or .npz file, or a damaged one; write one by numpy.save"
        ) from error


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    """Pack arrays; equal arrays give equal bytes, and any name may be a key."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED  # spikes are mostly zeros
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getvalue()


def npy_bytes(array: Array) -> bytes:
    """Pack one array."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


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
