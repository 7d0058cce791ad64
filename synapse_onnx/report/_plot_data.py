"""Arguments of a plot: samples, traces, neurons and thresholds, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.errors import InputError

Array = NDArray[Any]
#: a neuron by its flat index, or by (channel,) or (channel, row, column)
Neuron = int | Sequence[int]


def array_of(value: Any, what: str) -> Array:
    """Return an array of real numbers; of a torch tensor on any device, without importing torch."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{what}: expected an array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what}: expected an array of real numbers, got {array.dtype}")
    return array


def finite(array: Array, what: str) -> Array:
    if not np.isfinite(array).all():
        raise InputError(f"{what}: there are NaN or infinite values")
    return array


def sequence(value: Any, what: str) -> Array:
    """Return one sample over time."""
    array = array_of(value, what)
    if array.ndim not in (2, 4):
        hint = "; take one sample of the batch" if array.ndim in (3, 5) else ""
        raise InputError(
            f"{what}: expected one sample, (C, T) or (C, H, W, T), got shape {array.shape}{hint}"
        )
    if not array.size:
        raise InputError(f"{what}: shape {array.shape} has no neurons or no time steps")
    return array


def named_traces(value: Any, what: str) -> dict[str, Array]:
    """Return the traces by name; one that is given alone has none."""
    if not isinstance(value, Mapping):
        return {"": sequence(value, what)}
    if not value:
        raise InputError(f"{what}: there is no trace to show")
    return {str(name): sequence(trace, f"{what} {name}") for name, trace in value.items()}


def check_shapes(arrays: Mapping[str, Array], what: str) -> None:
    (name, first), *others = arrays.items()
    for other, array in others:
        if array.shape != first.shape:
            raise InputError(
                f"{what}: {name or 'voltage'} has shape {first.shape}, {other} {array.shape}"
            )


def chosen_neurons(shape: tuple[int, ...], neurons: Sequence[Neuron] | None, what: str) -> Array:
    """Return the flat indices of the neurons to show."""
    if neurons is None:
        return np.arange(math.prod(shape))
    if not isinstance(neurons, Iterable):
        raise InputError(f"{what}: neurons= takes a list of neurons, got {neurons!r}")
    chosen = []
    for neuron in neurons:
        index: Sequence[Any] = neuron if isinstance(neuron, Sequence) else [neuron]
        sizes = shape if isinstance(neuron, Sequence) else (math.prod(shape),)
        if len(index) != len(sizes) or not all(
            isinstance(i, int | np.integer) and 0 <= i < size
            for i, size in zip(index, sizes, strict=True)
        ):
            raise InputError(f"{what}: there is no neuron {neuron!r} in a layer of shape {shape}")
        chosen.append(int(np.ravel_multi_index(tuple(index), sizes)))
    if not chosen:
        raise InputError(f"{what}: neurons= names no neuron")
    return np.asarray(chosen)


def threshold_levels(threshold: Any, shape: tuple[int, ...]) -> Array:
    """Return the threshold in the voltage's shape."""
    array = array_of(threshold, "threshold")
    if array.shape == shape[:1] and array.ndim:
        array = array.reshape(-1, *(1,) * (len(shape) - 1))
    elif array.shape not in ((), shape):
        raise InputError(
            f"threshold: expected one number, one a channel ({shape[0]},) or the voltage's shape "
            f"{shape}, got shape {array.shape}"
        )
    return np.broadcast_to(array, shape)


def time_axis(dt: float | None, what: str) -> tuple[float, str]:
    """Return the length of a step on the time axis, and what the axis is called."""
    if dt is None:
        return 1.0, "time step"
    if not (math.isfinite(dt) and dt > 0):
        raise InputError(f"{what}: dt must be a finite number of milliseconds > 0, got {dt}")
    return float(dt), "time in ms"


def is_graded(values: Array) -> bool:
    return values.dtype != bool and bool(((values != 0) & (values != 1)).any())


def neuron_name(flat: int, shape: tuple[int, ...]) -> str:
    """Name a neuron by channel, or by (channel, row, column)."""
    index = tuple(int(i) for i in np.unravel_index(flat, shape[:-1]))
    return f"neuron {index[0] if len(index) == 1 else index}"
