"""Inputs of a model: their names and shapes, arrays from files, random spikes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.cli._group import reason
from synapse_onnx.errors import InputError, ModelError
from synapse_onnx.formatting import shape_text
from synapse_onnx.model.graph import dims_of
from synapse_onnx.model.layout import LAYOUTS, axes_of, time_first, time_last
from synapse_onnx.model.limits import check_file, load_arrays

if TYPE_CHECKING:
    import onnx

    from synapse_onnx.model.metadata import Metadata

__all__ = [
    "dtype_of",
    "generated_inputs",
    "in_layout",
    "inputs_of",
    "layout_of",
    "outputs_of",
    "random_spikes",
    "read_arrays",
    "read_events",
    "read_inputs",
    "read_metadata",
    "shape_time_last",
]

Array = NDArray[Any]


def read_metadata(model: onnx.ModelProto) -> Metadata | None:
    """Read the metadata of a model; None for a model of another tool."""
    from synapse_onnx.model.metadata import Metadata

    return Metadata.find(model)


def layout_of(model: onnx.ModelProto) -> str:
    """Return the layout of inputs and outputs; torch's for a model of another tool."""
    metadata = read_metadata(model)
    return metadata.layout if metadata else "NCT"


def inputs_of(model: onnx.ModelProto) -> dict[str, tuple[str, list[int | str]]]:
    """Return the inputs without states and initialisers, which old models list as inputs.

    Returns:
        Name -> (element type, shape); open axes are names.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    return _ends(model, [value for value in model.graph.input if value.name not in constants])


def outputs_of(model: onnx.ModelProto) -> dict[str, tuple[str, list[int | str]]]:
    """Return the outputs without states, as :func:`inputs_of` does."""
    return _ends(model, model.graph.output)


def _ends(
    model: onnx.ModelProto, values: Iterable[onnx.ValueInfoProto]
) -> dict[str, tuple[str, list[int | str]]]:
    import onnx

    metadata = read_metadata(model)
    entries: dict[str, tuple[str, list[int | str]]] = {}
    for value in values:
        if metadata and value.name in metadata.carried:
            continue
        kind = value.type.tensor_type.elem_type
        if kind not in onnx.TensorProto.DataType.values():
            raise ModelError(f"{value.name} is of an unknown type, {kind}")
        entries[value.name] = (onnx.TensorProto.DataType.Name(kind).lower(), dims_of(value))
    return entries


def dtype_of(kind: str) -> Any:
    """Return NumPy's type of an ONNX element type."""
    import onnx

    try:
        return onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(kind.upper()))
    except KeyError as error:
        raise ModelError(
            f"an input of the model is of type {kind}, no tensor of numbers"
        ) from error


def in_layout(array: Array, layout: str | None) -> Array:
    """Return a sequence (N, C[, H, W], T) in a layout; time stays last by default."""
    return np.ascontiguousarray(time_first(array, layout or LAYOUTS[0]))


def shape_time_last(shape: list[int | str], layout: str) -> list[int | str]:
    """Return the shape of an input in torch's layout."""
    time = axes_of(layout, len(shape))[1]
    return shape if time is None else [*shape[:time], *shape[time + 1 :], shape[time]]


def read_inputs(model: onnx.ModelProto, paths: Sequence[str]) -> list[Array]:
    """Read an array for every input, (N, C[, H, W], T)."""
    layout = layout_of(model)
    return [time_last(array, layout) for array in read_arrays(paths, inputs_of(model))]


def generated_inputs(
    model: onnx.ModelProto, *, samples: int, steps: int, rate: float, seed: int
) -> list[Array]:
    """Make random spikes for every input, (N, C[, H, W], T), in the types of the model."""
    layout = layout_of(model)
    ends = inputs_of(model)
    sizes = [
        _concrete_shape(name, shape_time_last(shape, layout), samples, steps)
        for name, (_, shape) in ends.items()
    ]
    kinds = [dtype_of(kind) for kind, _ in ends.values()]
    return random_spikes(sizes, rate=rate, seed=seed, dtypes=kinds)


def _concrete_shape(name: str, shape: Sequence[int | str], samples: int, steps: int) -> list[int]:
    """Choose sizes for the open axes: batch first, time last where there are three or more."""
    sizes: list[int] = []
    for axis, size in enumerate(shape):
        if isinstance(size, int):
            sizes.append(size)
        elif axis == 0:
            sizes.append(samples)
        elif axis == len(shape) - 1 >= 2:
            sizes.append(steps)
        else:
            raise InputError(
                f"input {name}: axis {axis} of {shape_text(shape)} is open, so spikes cannot be "
                f"generated; give them by --input"
            )
    return sizes


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


def read_arrays(paths: Sequence[str], names: Collection[str]) -> list[Array]:
    """Read .npy and .npz files, in the order of the model's inputs.

    A single .npz whose keys are the names of the inputs is read by name. Otherwise the arrays are
    assigned in the order of the files.
    """
    arrays: list[Array] = []
    for path in paths:
        contents = _read_file(path)
        if _events_in(contents):
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
        columns = _events_in(_read_file(path))
        if columns is None:
            raise InputError(f"{path} holds no events: columns p and t, and x and y for images")
        try:
            samples.append(bin_events(columns, shape, dt, count=count))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    steps = max(sample.shape[-1] for sample in samples)
    joined = np.zeros((len(samples), *shape, steps), np.float32)
    for whole, sample in zip(joined, samples, strict=True):
        whole[..., : sample.shape[-1]] = sample
    return joined


def _events_in(contents: dict[str, Array]) -> dict[str, Array] | None:
    """Return columns p, t and others: arrays, or fields of a structured one; None without them."""
    array = next(iter(contents.values()), None)
    if len(contents) == 1 and array is not None and array.dtype.names:
        contents = {name: array[name] for name in array.dtype.names}
    return contents if {"p", "t"} <= set(contents) else None


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
        what = "is no .npy or .npz file, or a damaged one; write one"
        if "Object arrays" in str(error):
            what = "holds Python objects; save an array of numbers"
        raise InputError(f"{path} {what} by numpy.save") from error
